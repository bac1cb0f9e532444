"""SQL models: each file in `dbt_like_sql/` is one SELECT that becomes one table of the same name.

There is no template language. A file names the tables it reads, and sqlglot reads dependencies and column lineage out
of it; `models.yml` beside the files says what a row is and what must hold for its columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentrl_resources.errors import AgentRLError
from agentrl_resources.strict_yaml import StrictModel, load_model, nearest
from agentrl_resources.telemetry.warehouse import RAW_TABLES

if TYPE_CHECKING:
    import duckdb
    from sqlglot import exp


class ColumnRules(StrictModel):
    name: str
    not_null: bool = False
    unique: bool = False
    accepted_values: tuple[str, ...] = ()


class ModelRules(StrictModel):
    """One entry of models.yml."""

    name: str
    description: str
    grain: tuple[str, ...]
    columns: tuple[ColumnRules, ...] = ()


class _ModelsFile(StrictModel):
    models: tuple[ModelRules, ...]


class ColumnSource(NamedTuple):
    """A column of a table that a model reads."""

    table: str
    column: str


@dataclass(frozen=True)
class SqlModel:
    """One file.

    `depends_on`: the tables it reads, models and raw tables alike. `columns`: its columns in order, each with the
    columns it is computed from.
    """

    name: str
    layer: str
    path: Path
    sql: str
    depends_on: tuple[str, ...]
    columns: Mapping[str, tuple[ColumnSource, ...]]
    rules: ModelRules


class ModelCheck(NamedTuple):
    """What one rule of models.yml found on a built table; `failures` is the number of rows that break it."""

    model: str
    rule: str
    failures: int

    @property
    def passed(self) -> bool:
        return self.failures == 0


def load_models(folder: Path, raw_tables: Mapping[str, Iterable[str]] = RAW_TABLES) -> list[SqlModel]:
    """The models of a folder in the order they can be built.

    Raises `AgentRLError` naming the file: not one SELECT, an unknown table or column, a circle of models, or a file
    and models.yml that do not agree.
    """
    rules = {entry.name: entry for entry in load_model(folder / "models.yml", _ModelsFile).models}
    files = {path.stem: path for path in sorted(folder.glob("*/*.sql"))}
    if unmatched := rules.keys() ^ files.keys():
        raise AgentRLError(
            f"{folder / 'models.yml'} and the .sql files do not agree on {', '.join(sorted(unmatched))}: "
            "each file needs one entry of the same name."
        )
    queries = {name: _parse(path) for name, path in files.items()}
    reads = {name: _tables(query) for name, query in queries.items()}
    for name, tables in reads.items():
        for table in sorted(tables - files.keys() - raw_tables.keys()):
            raise AgentRLError(
                f"{files[name]} reads an unknown table '{table}'; {nearest(table, [*files, *raw_tables])}"
            )
    try:
        needs = {name: sorted(tables & files.keys()) for name, tables in reads.items()}
        ordered = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise AgentRLError(
            f"{folder}: these models read each other in a circle: {' -> '.join(error.args[1])}."
        ) from error

    schema = {table: dict.fromkeys(columns, "unknown") for table, columns in raw_tables.items()}
    models = []
    for name in ordered:
        columns = _lineage(files[name], queries[name], schema)
        schema[name] = dict.fromkeys(columns, "unknown")
        for column in sorted({*rules[name].grain, *(column.name for column in rules[name].columns)} - columns.keys()):
            raise AgentRLError(
                f"{folder / 'models.yml'}: {name} has no column '{column}'; {nearest(column, list(columns))}"
            )
        path = files[name]
        depends_on = tuple(sorted(reads[name]))
        models.append(SqlModel(name, path.parent.name, path, path.read_text(), depends_on, columns, rules[name]))
    return models


def build_model(connection: duckdb.DuckDBPyConnection, model: SqlModel) -> int:
    """Build one model's table anew from the tables it reads; returns its number of rows."""
    connection.execute(f'CREATE OR REPLACE TABLE "{model.name}" AS\n{model.sql}')
    return _count(connection, f'"{model.name}"')


def build_models(connection: duckdb.DuckDBPyConnection, models: Iterable[SqlModel]) -> dict[str, int]:
    """Build models in the order given (that of `load_models`), all or none; returns rows by model."""
    connection.execute("BEGIN")
    rows = {model.name: build_model(connection, model) for model in models}
    connection.execute("COMMIT")
    return rows


def check_model(connection: duckdb.DuckDBPyConnection, model: SqlModel) -> list[ModelCheck]:
    """Run the tests of models.yml on a built model: its grain, then its columns."""
    grain = ", ".join(model.rules.grain)
    null = " OR ".join(f"{column} IS NULL" for column in model.rules.grain)
    broken = {f"grain ({grain})": _repeated(model.name, grain), f"grain ({grain}) not null": _where(model.name, null)}
    for column in model.rules.columns:
        if column.not_null:
            broken[f"{column.name} not null"] = _where(model.name, f"{column.name} IS NULL")
        if column.unique:
            broken[f"{column.name} unique"] = _repeated(model.name, column.name)
        if column.accepted_values:
            values = ", ".join(f"'{value}'" for value in column.accepted_values)
            broken[f"{column.name} in ({values})"] = _where(model.name, f"{column.name} NOT IN ({values})")
    return [ModelCheck(model.name, rule, _count(connection, rows)) for rule, rows in broken.items()]


def _where(table: str, condition: str) -> str:
    return f'(SELECT 1 FROM "{table}" WHERE {condition})'


def _repeated(table: str, columns: str) -> str:
    return f'(SELECT 1 FROM "{table}" GROUP BY {columns} HAVING count(*) > 1)'


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    (found,) = connection.execute(f"SELECT count(*) FROM {rows}").fetchall()
    return int(found[0])


def _parse(path: Path) -> exp.Query:
    import sqlglot
    from sqlglot import exp

    try:
        statements = sqlglot.parse(path.read_text(encoding="utf-8"), dialect="duckdb")
    except (sqlglot.errors.SqlglotError, UnicodeDecodeError) as error:
        raise AgentRLError(f"{path} cannot be read as SQL: {str(error).splitlines()[0]}") from error
    if len(statements) != 1 or not isinstance(query := statements[0], exp.Query):
        raise AgentRLError(f"{path} must hold one SELECT and nothing else.")
    return query


def _tables(query: exp.Query) -> set[str]:
    """Tables that the query reads, its own CTEs left out."""
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    return {
        source.name
        for scope in traverse_scope(query)
        for source in scope.sources.values()
        if isinstance(source, exp.Table)
    }


def _lineage(path: Path, query: exp.Query, schema: dict[str, dict[str, str]]) -> dict[str, tuple[ColumnSource, ...]]:
    import sqlglot
    from sqlglot import exp
    from sqlglot.lineage import lineage

    try:
        # Neither option changes the leaves; left on, they copy the query for every node, which makes loading 4x slower.
        columns = lineage(None, query, schema=schema, dialect="duckdb", trim_selects=False, copy=False)
    except sqlglot.errors.SqlglotError as error:
        raise AgentRLError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(columns, dict)
    return {
        column: tuple(
            sorted(
                {
                    ColumnSource(leaf.source.name, leaf.name.rpartition(".")[2].strip('"'))
                    for leaf in node.walk()
                    if isinstance(leaf.expression, exp.Table)
                }
            )
        )
        for column, node in columns.items()
    }
