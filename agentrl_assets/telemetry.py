"""Telemetry: every run in the warehouse, and the SQL models over them, one asset for each file."""

from itertools import chain

import dagster as dg

from agentrl_assets.gates import read_records
from agentrl_assets.project import code_version
from agentrl_assets.reporting import table
from agentrl_resources.dagster_resources import PROJECT, Workspace
from agentrl_resources.files import digest_json
from agentrl_resources.telemetry import RAW_TABLES, RunRecord, SqlModel, build_model, check_model, load_models

MODELS = load_models(PROJECT / "dbt_like_sql")


@dg.asset(
    group_name="telemetry",
    owners=["team:platform"],
    kinds={"duckdb"},
    deps=["offline_eval_suite"],
    code_version=code_version(1),
    pool="warehouse",
)
def agent_runs(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """One row a run: the episodes of the evaluation, what waits in the spool, and what was imported before."""
    report = workspace.warehouse.ingest(_waiting(context, workspace))
    channels = workspace.warehouse.query(
        "SELECT workflow, release_channel, simulated, count(*) AS runs FROM agent_runs GROUP BY ALL ORDER BY ALL"
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(workspace.table_digest("agent_runs")),
        metadata={
            "source_digest": workspace.source_digest("agent_runs"),
            "dagster/row_count": sum(row["runs"] for row in channels),
            "inserted": report.inserted,
            "updated": report.updated,
            "unchanged": report.unchanged,
            "runs": table(channels),
        },
    )


@dg.asset_check(asset="agent_runs", blocking=True, metadata={"owner": "team:platform"}, pool="warehouse")
def no_run_is_lost(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """Every run of the evaluation and of the spool is in the warehouse, once."""
    reported = {record.run_id for record in _waiting(context, workspace)}
    found = workspace.warehouse.query("SELECT run_id FROM agent_runs")
    stored = [row["run_id"] for row in found if row["run_id"] in reported]
    return dg.AssetCheckResult(
        passed=sorted(stored) == sorted(reported),
        description=f"{len(reported)} runs were reported, {len(stored)} are in the warehouse.",
        metadata={"reported": len(reported), "stored": len(stored)},
    )


def _waiting(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, workspace: Workspace
) -> list[RunRecord]:
    """Runs of the latest evaluation, if there was one, and of the spool."""
    evaluation = workspace.find(context.instance, "offline_eval_suite")
    files = [evaluation.path / "episodes.jsonl.gz"] if evaluation else []
    return list(chain.from_iterable(read_records(file) for file in [*files, *workspace.spool]))


def _asset_of(source: str) -> str:
    return "agent_runs" if source in RAW_TABLES else source


def _model_asset(model: SqlModel) -> dg.AssetsDefinition:
    lineage = {
        column: [dg.TableColumnDep(_asset_of(source.table), source.column) for source in sources]
        for column, sources in model.columns.items()
    }

    @dg.asset(
        name=model.name,
        group_name="telemetry",
        owners=["team:product"],
        kinds={"duckdb", "sql"},
        deps=sorted({_asset_of(source) for source in model.depends_on}),
        description=f"{model.rules.description}\n\n```sql\n{model.sql}\n```",
        code_version=f"1-{digest_json(model.sql)[:12]}",
        metadata={"dagster/column_lineage": dg.TableColumnLineage(lineage), "layer": model.layer},
        pool="warehouse",
    )
    def build(workspace: Workspace) -> dg.MaterializeResult:
        with workspace.warehouse.connect() as connection:
            rows = build_model(connection, model)
        first = workspace.warehouse.query(f'SELECT * FROM "{model.name}" LIMIT 20')
        return dg.MaterializeResult(
            data_version=dg.DataVersion(workspace.table_digest(model.name)),
            metadata={"dagster/row_count": rows, "first_rows": table(first)},
        )

    return build


def _model_check(model: SqlModel) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name="grain_and_columns",
        asset=model.name,
        blocking=True,
        description="What models.yml says of the grain and the columns holds for every row.",
        metadata={"owner": "team:product"},
        pool="warehouse",  # a reader of another process would be shut out while somebody writes
    )
    def check(workspace: Workspace) -> dg.AssetCheckResult:
        with workspace.warehouse.connect(read_only=True) as connection:
            rules = check_model(connection, model)
        broken = [f"{rule.rule}: {rule.failures} rows" for rule in rules if not rule.passed]
        return dg.AssetCheckResult(
            passed=not broken,
            description="; ".join(broken) or f"{len(rules)} rules hold.",
            metadata={"rules": table({"rule": rule.rule, "failures": rule.failures} for rule in rules)},
        )

    return check


sql_models = [_model_asset(model) for model in MODELS]
sql_checks = [_model_check(model) for model in MODELS]
