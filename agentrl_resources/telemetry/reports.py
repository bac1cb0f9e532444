"""One row for each run out of all that was reported of it, whatever the order.

`reported_runs` holds the row of each run. Of a run with several reports `run_reports` holds every one; of any other the
row is the report. What is new waits in the temporary table `incoming`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl_resources.telemetry.run_records import COLUMNS, LABELS

if TYPE_CHECKING:
    import duckdb

_OF_ONE_REPORT = ("trace", "tool_calls_count", "tool_error_count")
"""Columns that describe the same trace and are taken together."""

_OWN = "(hand_over_price IS NOT NULL OR arm IS NOT NULL)"
"""What gateway and evaluation saw themselves counts more than what a file says of the same run."""
_NEWNESS = "coalesce(reported_at, '-infinity'::TIMESTAMP)"


@dataclass(frozen=True)
class Conflict:
    """Reports of a run that disagree on a field, and none is newer. `counted` is what counts."""

    run_id: str
    field: str
    values: tuple[str, ...]
    counted: str | None

    def __str__(self) -> str:
        said = ", ".join(self.values)
        what = "its trace" if self.field == "trace" else f"{self.field} ({said}; what counts is {self.counted})"
        return f"run {self.run_id}: reports disagree on {what}"


def reports_schema() -> str:
    """The table of all reports of runs that have several."""
    columns = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
    return f"CREATE TABLE IF NOT EXISTS run_reports ({columns}, digest VARCHAR, PRIMARY KEY (run_id, digest));"


def merge_reports(connection: duckdb.DuckDBPyConnection) -> Counter[str]:
    """Bring `reported_runs` up to date with `incoming`; returns how many rows of it were INSERTed and UPDATEd."""
    connection.execute(_STATED)
    connection.execute(_KEEP)
    return Counter(action for (action,) in connection.execute(_MERGE).fetchall())


def find_conflicts(connection: duckdb.DuckDBPyConnection, labelled: Iterable[str] = ()) -> tuple[Conflict, ...]:
    """What reports of the runs that were merged last disagree on, and labels of one moment, also of `labelled` runs."""
    several = connection.execute("SELECT count(*) > count(DISTINCT run_id) FROM stated").fetchone()
    found = connection.execute(_CONFLICTS if several == (True,) else _LABEL_CONFLICTS, [[*labelled]]).fetchall()
    return tuple(Conflict(run_id, field, tuple(values), counted) for run_id, field, values, counted in found)


def _digest() -> str:
    """Of all that a report says. When it was said, or imported, is not part of it."""
    said = [name for name in COLUMNS if name != "reported_at"]
    values = {name: name for name in said} | {"started_at": "CASE WHEN start_known THEN started_at END"}
    pairs = ", ".join(f"'{name}': {value}" for name, value in values.items())
    return f"sha256(CAST(to_json({{{pairs}}}) AS VARCHAR))"


_NAMES = ", ".join(COLUMNS)
_STATED = f"""
CREATE OR REPLACE TEMP TABLE stated AS
WITH known AS (
    SELECT {_NAMES}, digest FROM run_reports SEMI JOIN incoming USING (run_id)
    UNION ALL
    SELECT {_NAMES}, {_digest()} AS digest
    FROM reported_runs SEMI JOIN incoming USING (run_id) ANTI JOIN run_reports USING (run_id)
    UNION ALL
    SELECT {_NAMES}, {_digest()} AS digest FROM incoming
)
SELECT * REPLACE (min(started_at) OVER same AS started_at, max(reported_at) OVER same AS reported_at)
FROM known
WINDOW same AS (PARTITION BY run_id, digest)
QUALIFY row_number() OVER (PARTITION BY run_id, digest) = 1
"""

_KEEP = f"""
INSERT OR REPLACE INTO run_reports BY NAME
SELECT {_NAMES}, digest FROM stated
SEMI JOIN (SELECT run_id FROM stated GROUP BY run_id HAVING count(*) > 1) AS several USING (run_id)
"""


def _merged(name: str) -> str:
    newest = f"({_OWN}, {_NEWNESS}, digest)"
    match name:
        case "run_id":
            return "run_id"
        case "reported_at":
            return "max(reported_at) AS reported_at"
        case "start_known":
            return "bool_or(start_known) AS start_known"
        case "started_at":  # of imports that nobody dated, the first
            known = f"arg_max(started_at, {newest}) FILTER (start_known)"
            return f"coalesce({known}, min(started_at)) AS started_at"
        case "task_id":  # a run of which no task is known has its own id there
            return f"coalesce(arg_max(task_id, {newest}) FILTER (task_id <> run_id), run_id) AS task_id"
        case _:  # arg_max passes over what is NULL
            chosen = "arg_max_null" if name in _OF_ONE_REPORT else "arg_max"
            return f"{chosen}({name}, {newest}) AS {name}"


_VALUES = [name for name in COLUMNS if name != "run_id"]
_MERGE = f"""
MERGE INTO reported_runs
USING (SELECT {", ".join(_merged(name) for name in COLUMNS)} FROM stated GROUP BY run_id) AS merged USING (run_id)
WHEN MATCHED AND ({", ".join(f"reported_runs.{name}" for name in _VALUES)})
    IS DISTINCT FROM ({", ".join(f"merged.{name}" for name in _VALUES)})
    THEN UPDATE SET {", ".join(f"{name} = merged.{name}" for name in _VALUES)}
WHEN NOT MATCHED THEN INSERT BY NAME
RETURNING merge_action
"""


def _conflict(name: str) -> str:
    value = f"left(sha256({name}::VARCHAR), 12)" if name == "trace" else f"CAST({name} AS VARCHAR)"
    counted = "NULL" if name == "trace" else f"CAST(agent_runs.{name} AS VARCHAR)"
    settled = f"ANTI JOIN (FROM run_labels WHERE field = '{name}') AS said USING (run_id)" if name in LABELS else ""
    given = {"started_at": "AND start_known", "task_id": "AND task_id <> run_id"}.get(name, "")
    return f"""
SELECT run_id, '{name}' AS field, "values", {counted} AS counted
FROM (
    SELECT run_id, list_sort(list(DISTINCT value)) AS "values"
    FROM (
        SELECT run_id, {value} AS value FROM stated {settled}
        WHERE {name} IS NOT NULL {given}
        QUALIFY {_NEWNESS} = max({_NEWNESS}) OVER (PARTITION BY run_id, {_OWN})
    )
    GROUP BY run_id HAVING count(DISTINCT value) > 1
)
JOIN agent_runs USING (run_id)
"""


_LABEL_CONFLICTS = """
SELECT run_id, field, ['false', 'true'] AS "values", 'true' AS counted
FROM (
    SELECT run_id, field, value FROM run_labels
    WHERE run_id IN (SELECT run_id FROM stated) OR run_id IN (SELECT unnest(?::VARCHAR[]))
    QUALIFY labelled_at = max(labelled_at) OVER (PARTITION BY run_id, field)
)
GROUP BY run_id, field HAVING count(DISTINCT value) > 1
"""

_NO_CONFLICT = ("run_id", "reported_at", "start_known", "tool_calls_count", "tool_error_count")
_CONFLICTS = (
    "\nUNION ALL\n".join([*(_conflict(name) for name in COLUMNS if name not in _NO_CONFLICT), _LABEL_CONFLICTS])
    + "ORDER BY run_id, field"
)
