"""The Reliability Brief: one page on the candidate for the people who answer for it, in three languages."""

from datetime import UTC, datetime

import dagster as dg

from agentrl_assets.project import code_version
from agentrl_assets.reporting import materialized, table
from agentrl_resources.brief import collect, phases, store_evidence, write_brief
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.files import write_json


@dg.asset(
    group_name="release",
    owners=["team:product"],
    kinds={"pdf"},
    deps=[
        "release_bundle",
        "canary_rollout",
        "rollback_drill",
        "offline_eval_suite",
        "weekly_reliability",
        "cost_per_success",
    ],
    code_version=code_version(1, "release.programme_cost"),
    pool="warehouse",
)
def reliability_brief(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """One page in en-US, en-GB and fr-FR, as HTML and PDF, every figure traceable to its stored query."""
    registry, warehouse = workspace.registry, workspace.warehouse
    release = registry.resolve("candidate")
    manifest = registry.manifest(release)
    canary, expansion = workspace.latest(context, "canary_rollout").report, registry.expansion.state()
    store_evidence(
        warehouse,
        release,
        manifest,
        made_at=datetime.now(UTC).isoformat(),
        comparison=workspace.latest(context, "offline_eval_suite").report["comparison"],
        parent=registry.manifest(manifest["parent"]) if manifest["parent"] else None,
        decision=canary["decision"] if canary["release"] == release else None,
        drill=workspace.latest(context, "rollback_drill").report,
        promoted=release in registry.pointers().champions,
        expansion={"stopped": expansion.stopped, "gates": list(expansion.gates)},
        tool_policy=workspace.workflow.tool_policy,
        programme_cost=workspace.settings.release.programme_cost,
    )
    next_steps = phases(warehouse, release)
    with workspace.store.stage("reliability_brief") as folder:
        write_brief(collect(warehouse, release), folder)
        write_json(folder / "phases.json", next_steps)
        artifact = workspace.store.commit("reliability_brief", folder)
    pages = {path.name: dg.MetadataValue.path(path) for path in sorted(artifact.path.glob("brief.*"))}
    conditions = [
        {"phase": phase["phase"], "days": phase["days"], "condition": one["condition"], "holds": one["holds"]}
        for phase in next_steps
        for one in phase["conditions"]
    ]
    return materialized(artifact, release=release, conditions=table(conditions), **pages)
