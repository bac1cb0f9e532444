"""The warehouse: one DuckDB file that holds every run.

DuckDB lets one process write at a time and shuts out readers meanwhile, so a connection is opened for one unit of
work and closed. A file that another process holds is waited for, then refused with one clear error.

What a run reported (`reported_runs`) and what people said about it later (`run_labels`) are kept apart; the view
`agent_runs` puts the latest label on its run. A label may therefore arrive before its run, and reporting a run a
second time never undoes a label.
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
from agentrl_resources.files import canonical_json
from agentrl_resources.telemetry.importer import RejectedLine
from agentrl_resources.telemetry.run_records import COLUMNS, RunRecord, utc_iso

if TYPE_CHECKING:
    import duckdb

_REQUIRED = {"run_id", "workflow", "task_id", "started_at", "release_channel", "tool_calls_count", "tool_error_count"}
_QUARANTINE = {"source": "VARCHAR", "line": "BIGINT", "digest": "VARCHAR", "reason": "VARCHAR", "content": "VARCHAR"}

RAW_TABLES: dict[str, dict[str, str]] = {"agent_runs": COLUMNS, "import_quarantine": _QUARANTINE}
"""What SQL models may read besides each other: table -> column -> DuckDB type."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS reported_runs (
    {", ".join(f"{name} {kind}{' NOT NULL' * (name in _REQUIRED)}" for name, kind in COLUMNS.items())},
    PRIMARY KEY (run_id)
);
CREATE TABLE IF NOT EXISTS run_labels (
    run_id VARCHAR, field VARCHAR, value BOOLEAN, labelled_at TIMESTAMP, PRIMARY KEY (run_id, field, value, labelled_at)
);
CREATE TABLE IF NOT EXISTS import_quarantine (
    {", ".join(f"{name} {kind}" for name, kind in _QUARANTINE.items())}, PRIMARY KEY (source, line, digest)
);
CREATE VIEW IF NOT EXISTS agent_runs AS
SELECT reported_runs.* REPLACE (
    coalesce(labels.human_override, reported_runs.human_override) AS human_override,
    coalesce(labels.success, reported_runs.success) AS success
)
FROM reported_runs
LEFT JOIN (
    SELECT
        run_id,
        arg_max(value, (labelled_at, value)) FILTER (field = 'human_override') AS human_override,
        arg_max(value, (labelled_at, value)) FILTER (field = 'success') AS success
    FROM run_labels
    GROUP BY run_id
) AS labels USING (run_id);
"""

# A run's start is kept at its first value, so that a report repeated later never moves a run to another week.
_CORRECTABLE = [name for name in COLUMNS if name not in ("run_id", "started_at")]
_MERGE_RUNS = f"""
MERGE INTO reported_runs USING incoming USING (run_id)
WHEN MATCHED AND ({", ".join(f"reported_runs.{name}" for name in _CORRECTABLE)})
    IS DISTINCT FROM ({", ".join(f"incoming.{name}" for name in _CORRECTABLE)})
    THEN UPDATE SET {", ".join(f"{name} = incoming.{name}" for name in _CORRECTABLE)}
WHEN NOT MATCHED THEN INSERT BY NAME
RETURNING merge_action
"""


@dataclass(frozen=True)
class IngestReport:
    """Distinct runs by what became of them, and pieces of personal data redacted by kind."""

    inserted: int
    updated: int
    unchanged: int
    redacted: dict[str, int] = field(default_factory=dict)


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
                connection.execute(_SCHEMA)
            yield connection
        except duckdb.Error as error:
            raise AgentRLError(
                f"{self.path}: {_first_line(error)}. Nothing of this step was stored, nothing stored before is lost. "
                "Mend the cause and run the same command again."
            ) from error
        finally:
            connection.close()

    def ingest(self, records: Iterable[RunRecord], rejected: Iterable[RejectedLine] = ()) -> IngestReport:
        """Store runs, and the lines an import rejected, in one transaction: all of them or, after a crash, none.

        Idempotent on `run_id`. A run that is known is corrected by what it reports now, all but its `started_at`; of
        the same run twice in `records`, the last counts. Personal data is redacted before anything is written.
        """
        rows: dict[str, dict[str, Any]] = {}
        redacted: Counter[str] = Counter()
        for record in records:
            rows[record.run_id], found = record.redacted()
            redacted += found
        with self._transaction() as connection:
            connection.execute(
                f"CREATE TEMP TABLE incoming AS {_rows_as_table(COLUMNS)}", _parameters(rows.values(), COLUMNS)
            )
            actions = Counter(action for (action,) in connection.execute(_MERGE_RUNS).fetchall())
            connection.execute(
                f"INSERT OR IGNORE INTO import_quarantine {_rows_as_table(_QUARANTINE)}",
                _parameters((line.redacted() for line in rejected), _QUARANTINE),
            )
        return IngestReport(actions["INSERT"], actions["UPDATE"], len(rows) - actions.total(), dict(redacted))

    def label(
        self, run_id: str, *, labelled_at: str, human_override: bool | None = None, success: bool | None = None
    ) -> None:
        """Say afterwards what became of a run, which may be known already or not yet.

        Of several labels the one with the latest `labelled_at` counts; any label counts more than what the run
        reported.
        """
        said = {"human_override": human_override, "success": success}
        with self._transaction() as connection:
            for name, value in said.items():
                if value is not None:
                    connection.execute(
                        "INSERT OR IGNORE INTO run_labels VALUES (?, ?, ?, ?)",
                        [run_id, name, value, utc_iso(labelled_at)],
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
