"""The warehouse: one DuckDB file that holds every run.

DuckDB lets one process write at a time and shuts out readers meanwhile, so a connection is opened for one unit of
work and closed. A file that another process holds is waited for, then refused with one clear error.

What a run reported (`reported_runs`) and what people said about it later (`run_labels`) are kept apart; the view
`agent_runs` puts the latest label on its run. A label may therefore arrive before its run, and reporting a run a
second time never undoes a label. A label changes what the run cost, too, by the prices that the run brought along.

A run may be reported more than once, in reports that do not say the same. All of them are kept (`run_reports`), and the
row of the run is a function of their set, so that their order and repetition change nothing: each column has the value
of the newest report (`reported_at`; one without is the oldest) that knows it, and of several as new, of that with the
greatest digest. The trace and its counts come from one report. What gateway and evaluation saw themselves counts first.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json, digest_json
from agentrl_resources.telemetry.importer import RejectedLine
from agentrl_resources.telemetry.reports import Conflict, find_conflicts, merge_reports, reports_schema
from agentrl_resources.telemetry.run_records import COLUMNS, LABELS, RunRecord
from agentrl_resources.telemetry.spool import SpoolLines, read_new, segment_sizes
from agentrl_resources.telemetry.values import past_time

if TYPE_CHECKING:
    import duckdb

_REQUIRED = {"run_id", "workflow", "task_id", "started_at", "release_channel", "tool_calls_count"}
_QUARANTINE = {"source": "VARCHAR", "line": "BIGINT", "digest": "VARCHAR", "reason": "VARCHAR", "content": "VARCHAR"}

_RUN_LABELS = {"run_id": "VARCHAR", "field": "VARCHAR", "value": "BOOLEAN", "labelled_at": "TIMESTAMP"}
_EVENTS = {"event_id": "VARCHAR", "kind": "VARCHAR", "at": "TIMESTAMP", "document": "JSON"}
_OFFSETS = {"segment": "VARCHAR", "bytes": "BIGINT"}

RAW_TABLES: dict[str, dict[str, str]] = {
    "agent_runs": COLUMNS,
    "import_quarantine": _QUARANTINE,
    "gateway_events": _EVENTS,
}
"""What SQL models may read besides each other: table -> column -> DuckDB type."""


def _definitions(columns: Mapping[str, str], required: Iterable[str] = ()) -> str:
    return ", ".join(f'"{name}" {kind}{" NOT NULL" * (name in required)}' for name, kind in columns.items())


_LATEST = {name: f"coalesce(labels.{name}, reported_runs.{name})" for name in LABELS}


def _late_charge(label: str, charged: str, price: str) -> str:
    """A run was charged by what it reported; what its latest label says otherwise is charged, or given back."""
    changed = f"({_LATEST[label]} IS {charged})::INT - (reported_runs.{label} IS {charged})::INT"
    return f"coalesce(reported_runs.{price}, 0) * ({changed})"


_SHOWN = _LATEST | {
    "cost": f"reported_runs.cost + {_late_charge('human_override', 'TRUE', 'hand_over_price')}"
    f" + {_late_charge('success', 'FALSE', 'failure_price')}"
}

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS reported_runs ({_definitions(COLUMNS, _REQUIRED)}, PRIMARY KEY (run_id));
{reports_schema()}
CREATE TABLE IF NOT EXISTS run_labels ({_definitions(_RUN_LABELS)}, PRIMARY KEY (run_id, field, value, labelled_at));
CREATE TABLE IF NOT EXISTS import_quarantine ({_definitions(_QUARANTINE)}, PRIMARY KEY (source, line, digest));
CREATE TABLE IF NOT EXISTS gateway_events ({_definitions(_EVENTS)}, PRIMARY KEY (event_id));
CREATE TABLE IF NOT EXISTS spool_offsets ({_definitions(_OFFSETS)}, PRIMARY KEY (segment));
"""

_ADDED = {name: f'"{name}" {kind}' for name, kind in COLUMNS.items()} | {
    "start_known": "start_known BOOLEAN DEFAULT TRUE"
}
"""How a column comes into a table of an earlier version."""

_AGENT_RUNS = f"""agent_runs AS
SELECT {", ".join(f"{_SHOWN.get(name, f'reported_runs.{name}')} AS {name}" for name in COLUMNS)}
FROM reported_runs
LEFT JOIN (
    SELECT
        run_id,
        {", ".join(f"arg_max(value, (labelled_at, value)) FILTER (field = '{name}') AS {name}" for name in LABELS)}
    FROM run_labels
    GROUP BY run_id
) AS labels USING (run_id);
"""


@dataclass(frozen=True)
class IngestReport:
    """Distinct runs by what became of them, pieces of personal data redacted by kind, and what reports disagree on."""

    inserted: int
    updated: int
    unchanged: int
    redacted: dict[str, int] = field(default_factory=dict)
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True)
class SpoolReport:
    """What `ingest_spool` read: distinct runs by what became of them, other lines by what they were.

    `torn`: half lines whose writer is gone, which are among the `rejected`.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    labels: int = 0
    events: int = 0
    rejected: int = 0
    torn: int = 0


@dataclass(frozen=True)
class Warehouse:
    """The DuckDB file at `path`; made on the first write.

    `wait_seconds`: how long to wait for a file that another process holds.
    """

    path: Path
    wait_seconds: float = 10.0

    @contextmanager
    def connect(
        self, read_only: bool = False, wait_seconds: float | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one unit of work.

        Raises `AgentRLError` when the file is held for longer than `wait_seconds`, is missing (`read_only`), is not a
        DuckDB file, or when the work done on it fails in DuckDB. What was not committed is not in the file.
        """
        import duckdb

        connection = self._open(read_only, self.wait_seconds if wait_seconds is None else wait_seconds)
        try:
            if not read_only:
                _bring_up_to_date(connection)
            yield connection
        except duckdb.Error as error:
            raise AgentRLError(
                f"{self.path}: {_first_line(error)}. Nothing of this step was stored, nothing stored before is lost. "
                "Mend the cause and run the same command again."
            ) from error
        finally:
            connection.close()

    def ingest(
        self,
        records: Iterable[RunRecord],
        rejected: Iterable[RejectedLine] = (),
        labels: Iterable[Mapping[str, Any]] = (),
    ) -> IngestReport:
        """Store what an import found (runs, rejected lines, labels) in one transaction: all or, after a crash, none.

        Idempotent, and independent of the order: a run that is reported more than once has the row that its reports
        add up to (see above). `labels`: run_id, field, value, labelled_at. Personal data is redacted before anything
        is written.
        """
        redacted: Counter[str] = Counter()
        labels = list(labels)
        with self._transaction() as connection:
            _insert(connection, "run_labels", _RUN_LABELS, labels)
            actions = _merge_runs(connection, records, redacted)
            _insert(connection, "import_quarantine", _QUARANTINE, (line.redacted() for line in rejected))
            conflicts = find_conflicts(connection, {label["run_id"] for label in labels})
        return IngestReport(actions["inserted"], actions["updated"], actions["unchanged"], dict(redacted), conflicts)

    def ingest_spool(self, folder: Path) -> SpoolReport:
        """Store what a spool holds beyond what was read before: runs, labels, events, and what cannot be understood.

        How far it was read is stored in the same transaction, so that a crash at any moment neither loses a line nor
        counts one twice. Reading again, or segments in another order, changes nothing; a label may come before its
        run. A run that is reported twice is treated as by `ingest`.
        """
        total: Counter[str] = Counter()
        waiting = segment_sizes(folder)  # a writer that is faster than this must not keep it for ever
        with self.connect() as connection:
            while True:
                connection.execute("BEGIN")
                offsets = dict(connection.execute("SELECT segment, bytes FROM spool_offsets").fetchall())
                new = read_new(folder, offsets)
                if new.offsets == offsets:
                    return SpoolReport(**total)
                total += _store_lines(connection, new)
                read = [{"segment": name, "bytes": size} for name, size in new.offsets.items() - offsets.items()]
                _insert(connection, "spool_offsets", _OFFSETS, read, "OR REPLACE")
                connection.execute("COMMIT")
                if all(new.offsets.get(name, 0) >= size for name, size in waiting.items()):
                    return SpoolReport(**total)

    def spool_offsets(self) -> dict[str, int]:
        """Bytes that were read of each segment of the spool; of none before the first `ingest_spool`."""
        if not self.path.exists():
            return {}
        with self.connect(read_only=True) as connection:
            tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            if ("spool_offsets",) not in tables:  # an earlier version wrote last
                return {}
            return dict(connection.execute("SELECT segment, bytes FROM spool_offsets").fetchall())

    def label(
        self,
        run_id: str,
        *,
        labelled_at: str,
        human_override: bool | None = None,
        success: bool | None = None,
        safety_violation: bool | None = None,
    ) -> None:
        """Say afterwards what became of a run, which may be known already or not yet.

        Of several labels the one with the latest `labelled_at` counts; any label counts more than what the run
        reported. AgentRLError when `labelled_at` lies in the future: that label would count for ever.
        """
        at = past_time("labelled_at", labelled_at)
        said = {"human_override": human_override, "success": success, "safety_violation": safety_violation}
        with self._transaction() as connection:
            for name, value in said.items():
                if value is not None:
                    connection.execute(
                        "INSERT OR IGNORE INTO run_labels VALUES (?, ?, ?, ?)",
                        [run_id, name, value, at],
                    )

    def store_rows(
        self, table: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str] | None = None
    ) -> int:
        """Replace `table` with `rows`, in one transaction; returns their number.

        `columns` maps names to DuckDB types. Without it they are read off the rows (dicts and lists become JSON),
        which needs at least one row. Nothing is redacted here.
        """
        rows = list(rows)
        columns = columns or _types(rows)
        if not columns:
            raise AgentRLError(f"Table {table} has no rows to read its columns from; name them with `columns`.")
        with self._transaction() as connection:
            connection.execute(
                f'CREATE OR REPLACE TABLE "{table}" AS {_rows_as_table(columns)}', _parameters(rows, columns)
            )
        return len(rows)

    def query(self, sql: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a SELECT, read-only."""
        with self.connect(read_only=True) as connection:
            cursor = connection.execute(sql, list(parameters))
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        # Closing a connection rolls back what it has not committed.
        with self.connect() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    def _open(self, read_only: bool, wait_seconds: float) -> duckdb.DuckDBPyConnection:
        import duckdb

        if read_only and not self.path.exists():
            raise AgentRLError(f"{self.path}: there is no warehouse yet. `agentrl run` or `agentrl import` makes it.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                return duckdb.connect(str(self.path), read_only=read_only)
            except duckdb.Error as error:
                holder = _holder(error)
                if holder is None:
                    raise AgentRLError(f"{self.path} cannot be opened: {_first_line(error)}.") from error
                if time.monotonic() >= deadline:
                    raise AgentRLError(
                        f"{self.path} is held by {holder}; waited {wait_seconds:g} s. Nothing was written, nothing is "
                        "lost. Close that process (or wait for it), then run the same command again."
                    ) from error
            time.sleep(0.05)


def _bring_up_to_date(connection: duckdb.DuckDBPyConnection) -> None:
    """Make what is not there: all of it in a new file, columns and the view in one of an earlier version."""
    connection.execute(_SCHEMA)
    comment = connection.execute("SELECT comment FROM duckdb_views() WHERE view_name = 'agent_runs'").fetchone()
    version = digest_json([_AGENT_RUNS, sorted(_REQUIRED)])
    if comment == (version,):
        return
    new = []
    for table in ("reported_runs", "run_reports"):
        present = {row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()}
        new += [f"ALTER TABLE {table} ADD COLUMN {added};" for name, added in _ADDED.items() if name not in present]
    required = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = 'reported_runs' AND NOT is_nullable"
    ).fetchall()
    new += [f"ALTER TABLE reported_runs ALTER {name} DROP NOT NULL;" for (name,) in required if name not in _REQUIRED]
    view = f"CREATE OR REPLACE VIEW {_AGENT_RUNS} COMMENT ON VIEW agent_runs IS '{version}';"
    connection.execute(f"BEGIN; {''.join(new)} {view} COMMIT;")


def _merge_runs(
    connection: duckdb.DuckDBPyConnection, records: Iterable[RunRecord], redacted: Counter[str]
) -> Counter[str]:
    rows = []
    for record in records:
        row, found = record.redacted()
        rows.append(row)
        redacted += found
    incoming = f"CREATE OR REPLACE TEMP TABLE incoming AS {_rows_as_table(COLUMNS)}"
    connection.execute(incoming, _parameters(rows, COLUMNS))
    actions = merge_reports(connection)
    unchanged = len({row["run_id"] for row in rows}) - actions.total()
    return Counter(inserted=actions["INSERT"], updated=actions["UPDATE"], unchanged=unchanged)


def _store_lines(connection: duckdb.DuckDBPyConnection, lines: SpoolLines) -> Counter[str]:
    _insert(connection, "run_labels", _RUN_LABELS, lines.labels)
    _insert(connection, "gateway_events", _EVENTS, lines.events)
    _insert(connection, "import_quarantine", _QUARANTINE, (line.redacted() for line in lines.rejected))
    others = Counter(labels=len(lines.labels), events=len(lines.events), rejected=len(lines.rejected), torn=lines.torn)
    return others + _merge_runs(connection, lines.runs, Counter())


def _insert(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[Mapping[str, Any]],
    known: str = "OR IGNORE",
) -> None:
    connection.execute(f"INSERT {known} INTO {table} {_rows_as_table(columns)}", _parameters(rows, columns))


def _holder(error: duckdb.Error) -> str | None:
    """Who holds the file, in words; None when the error is another one."""
    text = str(error)
    if "different configuration" in text:
        return "this process (a connection with another access mode is open)"
    if "Could not set lock" not in text:
        return None
    process = re.search(r"held in (.*) \(PID (\d+)\)", text)
    return f"process {process[2]} ({process[1]})" if process else "another process"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _rows_as_table(columns: Mapping[str, str]) -> str:
    """A SELECT over two parameters: the rows as one JSON text, and their structure."""
    # The fastest way in without a data-frame library: 3,000 runs with traces take 0.2 s.
    names = ", ".join(f'item."{name}"' for name in columns)
    return f"SELECT {names} FROM (SELECT unnest(from_json(?::JSON, ?)) AS item)"


def _parameters(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    return [canonical_json(list(rows)).decode(), json.dumps([dict(columns)])]


def _types(rows: list[Mapping[str, Any]]) -> dict[str, str]:
    names = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}
    seen: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            seen.setdefault(name, set()).update(() if value is None else (names.get(type(value), "JSON"),))
    types = {}
    for name, kinds in seen.items():
        types[name] = "DOUBLE" if kinds == {"BIGINT", "DOUBLE"} else kinds.pop() if len(kinds) == 1 else "JSON"
    return types
