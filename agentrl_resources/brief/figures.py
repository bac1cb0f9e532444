"""Figures: numbers with the SQL that gives them.

Each file in `queries/` is one query about the release `$release`. The last word of a column's name is its unit
(`success_share`, `max_seconds`); `value` takes it from the row's column `unit`. A query with several rows names them
in `key`, and each row says whether it is `simulated`; what was set and not measured (`limit_...`) never is.

Units are `share` (0 to 1), `points` and `percent` (a change), `width` (percentage points without a sign), `count`,
`score`, `eur`, `ms`, `seconds`, `minutes`, `date` (ISO 8601), `week`, `digest`, `name`, `kind`, `gate`, `metric`,
`basis`, `answer`, `level`, `flag` (true, false or not known) and `list` (drawn, not written).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import Warehouse

QUERIES = Path(__file__).parent / "queries"

_ROW_UNITS = {
    "percent": "percent",
    "percentage points": "points",
    "minutes": "minutes",
    "seconds": "seconds",
    "ms": "ms",
    "EUR": "eur",
    "share": "share",
}
"""Units as gates and canary name them."""

_NOT_FIGURES = frozenset(("key", "simulated", "unit", "owner", "kind"))


@dataclass(frozen=True)
class Figure:
    """One number (or date, digest, name) of a brief. `sql` gives `value` when it is run on the warehouse.

    `query` names its file: figures of one query carry one mark. `key` names its row, when there are several.
    """

    name: str
    query: str
    key: str
    sql: str
    value: Any
    unit: str
    simulated: bool
    rule: bool
    """A limit that was set, not measured."""


@dataclass(frozen=True)
class Row:
    """One row of a query: its key (empty when the query has one row), its words, its figures' names by column."""

    key: str
    words: dict[str, str]
    columns: dict[str, str]


class Figures:
    """Every figure there is of one release: `figures["tests.capability.success_share"]`."""

    def __init__(self, warehouse: Warehouse, release: str) -> None:
        self._figures: dict[str, Figure] = {}
        self._rows: dict[str, list[Row]] = {}
        with warehouse.connect(read_only=True) as connection:
            tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            stored = "SELECT 1 FROM brief_releases WHERE release = ?"
            if ("brief_releases",) not in tables or not connection.execute(stored, [release]).fetchall():
                raise AgentRLError(f"{warehouse.path}: there is no evidence of release {release[:12]}. Store it first.")
            for path in sorted(QUERIES.glob("*.sql")):
                query = path.read_text().replace("$release", _literal(release))
                cursor = connection.execute(query)
                names = [column[0] for column in cursor.description or ()]
                found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
                self._rows[path.stem] = [self._read(path.stem, query, row) for row in found]

    def __getitem__(self, name: str) -> Figure:
        return self._figures[name]

    def value(self, name: str) -> Any:
        """A figure's raw value; None when there is no such figure, as when its query has no row."""
        figure = self._figures.get(name)
        return None if figure is None else figure.value

    def rows(self, query: str) -> list[Row]:
        """The rows of a query, in its order."""
        return self._rows[query]

    def _read(self, query_name: str, query: str, row: dict[str, Any]) -> Row:
        key = row.get("key", "")
        source = f"{query_name}.{key}" if key else query_name
        where = f" WHERE key = {_literal(key)}" if key else ""
        columns = {}
        for column, value in row.items():
            if column in _NOT_FIGURES:
                continue
            unit = column.rpartition("_")[2]
            if unit == "value":
                unit = _unit(row["unit"], source)
            columns[column] = f"{source}.{column}"
            rule = column.startswith("limit_")
            self._figures[columns[column]] = Figure(
                name=columns[column],
                query=query_name,
                key=key,
                sql=f'SELECT "{column}" FROM (\n{query.strip()}\n){where}',
                value=value,
                unit=unit,
                simulated=row["simulated"] and not rule and value is not None,
                rule=rule,
            )
        return Row(key, {name: row[name] for name in ("owner", "kind") if name in row}, columns)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _unit(name: str, source: str) -> str:
    if name not in _ROW_UNITS:
        raise AgentRLError(f"{source} is in '{name}', which the brief cannot show. Units: {', '.join(_ROW_UNITS)}.")
    return _ROW_UNITS[name]
