"""The Reliability Brief: one page on the candidate, and its evidence, for the people who answer for it."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from agentrl_assets.project import code_version
from agentrl_assets.reporting import materialized, table
from agentrl_resources.brief import collect, phases, phases_text, store_evidence, write_brief
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.files import write_atomic, write_json


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
    code_version=code_version(f"{__name__}:reliability_brief", "release.programme_cost"),
    pool="warehouse",
)
def reliability_brief(workspace: Workspace) -> dg.MaterializeResult:
    """One page and its annex in en-US, en-GB and fr-FR, as HTML and PDF, every figure traceable to its stored query."""
    registry, warehouse = workspace.registry, workspace.warehouse
    release = registry.resolve("candidate")
    manifest = registry.manifest(release)
    decisions, expansion = registry.decisions(release), registry.expansion.state()
    parents = {champion: registry.manifest(champion)["parent"] for champion in registry.champions()}

    def report(part: str) -> dict[str, Any]:
        entry = manifest["artifacts"][part]
        return workspace.store.get(entry["kind"], entry["digest"]).report

    store_evidence(
        warehouse,
        release,
        manifest,
        made_at=datetime.now(UTC).isoformat(),
        comparison=report("eval_episodes")["comparison"],
        parent=registry.manifest(manifest["parent"]) if manifest["parent"] else None,
        decision=decisions[-1] if decisions else None,
        drill=report("rollback_drill"),
        promoted=release in registry.pointers().champions,
        expansion={"stopped": expansion.stopped, "gates": list(expansion.gates)},
        tool_policy=workspace.workflow.tool_policy,
        programme_cost=workspace.settings.release.programme_cost,
        lineage={champion: parent for champion, parent in parents.items() if parent is not None},
        same_policy={one: registry.first_with_its_policy(one) for one in (*parents, release)},
    )
    next_steps = phases(warehouse, release)
    brief = collect(warehouse, release)
    with workspace.store.stage("reliability_brief") as folder:
        write_brief(brief, folder)
        write_json(folder / "phases.json", next_steps)
        write_atomic(folder / "phases.txt", phases_text(brief))
        artifact = workspace.store.commit("reliability_brief", folder)
    pages = {path.name: dg.MetadataValue.path(path) for path in sorted(artifact.path.glob("brief.*"))}
    conditions = [
        {"phase": phase["phase"], "days": phase["days"], "condition": one["condition"], "holds": one["holds"]}
        for phase in next_steps
        for one in phase["conditions"]
    ]
    return materialized(artifact, release=release, conditions=table(conditions), **pages)
