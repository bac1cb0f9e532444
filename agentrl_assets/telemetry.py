"""Telemetry: every run in the warehouse, and the SQL models over them, one asset for each file."""

from dataclasses import replace
from datetime import timedelta

import dagster as dg

from agentrl_assets.gates import read_records
from agentrl_assets.project import code_version
from agentrl_assets.reporting import table
from agentrl_resources.dagster_history import latest_build
from agentrl_resources.dagster_resources import PROJECT, Workspace
from agentrl_resources.files import digest_json
from agentrl_resources.telemetry import (
    RAW_TABLES,
    RunRecord,
    SqlModel,
    build_model,
    check_model,
    load_models,
    missing_runs,
    prune,
    segment_sizes,
)

MODELS = load_models(PROJECT / "dbt_like_sql")

KEEP_READ_SEGMENTS = timedelta(days=30)
"""How long a segment of the spool is kept after all of it is in the warehouse."""


@dg.asset(
    group_name="telemetry",
    owners=["team:platform"],
    kinds={"duckdb"},
    deps=["offline_eval_suite"],
    code_version=code_version(f"{__name__}:agent_runs"),
    pool="warehouse",
)
def agent_runs(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """One row a run: the episodes of the evaluation, what is new in the spool, and what was stored before."""
    warehouse = workspace.warehouse
    evaluated = warehouse.ingest(_evaluated(context, workspace))
    waiting = segment_sizes(workspace.spool)
    spooled = warehouse.ingest_spool(workspace.spool)
    pruned = prune(workspace.spool, warehouse.spool_offsets(), KEEP_READ_SEGMENTS)
    channels = warehouse.query(
        "SELECT workflow, release_channel, simulated, count(*) AS runs FROM agent_runs GROUP BY ALL ORDER BY ALL"
    )
    runs = workspace.table_digest("agent_runs")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(runs),
        metadata={
            # What arrives in the spool from here on is a change of the source.
            "source_digest": workspace.runs_digest(runs, unread={}),
            "dagster/row_count": sum(row["runs"] for row in channels),
            "inserted": evaluated.inserted + spooled.inserted,
            "updated": evaluated.updated + spooled.updated,
            "unchanged": evaluated.unchanged + spooled.unchanged,
            "late_labels": spooled.labels,
            "gateway_events": spooled.events,
            "lines_in_quarantine": spooled.rejected,
            "segments_deleted": len(pruned),
            "spool": waiting,
            "runs": table(channels),
        },
    )


@dg.asset_check(asset="agent_runs", blocking=True, metadata={"owner": "team:platform"}, pool="warehouse")
def no_run_is_lost(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """Every run of the evaluation, and of what the spool held when it was read, is in the warehouse, once."""
    built = latest_build(context.instance, "agent_runs")
    spool = built.metadata.get("spool", {}) if built else {}
    found = workspace.warehouse.query("SELECT run_id FROM agent_runs")
    stored = {row["run_id"] for row in found}
    evaluated = {record.run_id for record in _evaluated(context, workspace)}
    missing = sorted((evaluated - stored) | missing_runs(workspace.spool, spool, stored))
    return dg.AssetCheckResult(
        passed=not missing and len(found) == len(stored),
        description=f"{len(found)} runs are stored, {len(stored)} of them distinct; {len(missing)} are missing.",
        metadata={"stored": len(stored), "missing": len(missing), "first_missing": missing[:10]},
    )


def _evaluated(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, workspace: Workspace
) -> list[RunRecord]:
    """Runs of the latest evaluation, if there was one. A policy that is evaluated again has the same run ids."""
    evaluation = workspace.find(context.instance, "offline_eval_suite")
    records = read_records(evaluation.path / "episodes.jsonl.gz") if evaluation else []
    return [replace(record, reported_at=record.started_at) for record in records]


def hand_over_tools(workspace: Workspace, name: str) -> frozenset[str] | None:
    """The hand-over tools of a workflow by its name, or by its place; None when there is none to load."""
    from agentrl_resources.errors import AgentRLError
    from agentrl_resources.workflow import load_workflow

    try:
        workflow = workspace.workflow
        if name in (workflow.name, workspace.settings.workflow.target):
            return workflow.hand_over_tools
    except AgentRLError:
        pass  # traces can be imported where the project's own workflow cannot be loaded
    try:
        return load_workflow(name).hand_over_tools
    except AgentRLError:
        return None


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
        code_version=f"{code_version('agentrl_resources.telemetry:build_model')}-{digest_json(model.sql)[:12]}",
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
