"""The canary: the candidate on a share of the traffic, and what its runs decide."""

from dataclasses import asdict

import dagster as dg

from agentrl_assets.project import code_version, stage_code
from agentrl_assets.reporting import materialized, numbers, table
from agentrl_assets.verification import differences
from agentrl_resources.canary import CanaryRollout, Look, due, is_on_trial
from agentrl_resources.dagster_resources import Training, Workspace
from agentrl_resources.files import Artifact, write_json
from agentrl_resources.gateway import is_served

_AUTOMATED = {"dagster/sensor_name", "dagster/schedule_name"}
"""Tags of runs that no person asked for: they may have waited in a queue, and begin nothing a second time."""


@dg.asset(
    group_name="release",
    owners=["team:platform"],
    kinds={"json"},
    deps=["release_bundle", "sft_checkpoint", "ppo_policy", "rubric"],
    code_version=code_version(
        (*stage_code("canary_rollout"), f"{__name__}:canary_rollout"),
        *("release.canary_traffic_percent", "canary", "gateway"),
        workflow=True,
    ),
    pool="training",
)
def canary_rollout(context: dg.AssetExecutionContext, workspace: Workspace, training: Training) -> dg.MaterializeResult:
    """The candidate on a share of the traffic: promoted, failed back, or watched on.

    While a gateway serves this project, this is one look at its traffic; a canary of before the candidate is decided
    first. Without one, simulated customers ask until the canary is decided. A candidate with the champion's own policy
    is promoted at once.
    """
    registry, served = workspace.registry, is_served(workspace.root)
    release = (due(registry) if served else None) or registry.resolve("candidate")
    if not is_on_trial(registry, release):  # one that is goes on being watched, whatever became of its bundle
        for said in differences(release, workspace):
            raise dg.Failure(f"No canary: {said}", allow_retries=False)
    rollout = CanaryRollout(workspace.root, workspace.settings, workspace.workflow, release)
    if served or not rollout.needs_traffic:
        artifact = _kept(workspace, release, rollout.next_step(again=_AUTOMATED.isdisjoint(context.run.tags)))
    else:
        artifact = training.run(context, release=release, home=workspace.home)
    report = artifact.report
    decision = report["decision"]
    return materialized(
        artifact,
        **{**numbers(report), "answer": decision["answer"], "reason": decision["reason"]},
        in_short=f"{report['action']}: {decision['answer']}",
        metrics=table(decision["metrics"]),
        looks=table(report.get("looks", ())),
    )


@dg.asset_check(asset="canary_rollout", metadata={"owner": "team:platform"})
def canary_says_go(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """The canary is proven to be within its margins in every metric, so the candidate is the champion now."""
    decision = workspace.latest(context, "canary_rollout").report["decision"]
    return dg.AssetCheckResult(
        passed=decision["answer"] == "GO", description=f"{decision['answer']}: {decision['reason']}"
    )


@dg.asset_check(asset="canary_rollout", blocking=True, metadata={"owner": "team:platform"})
def a_broken_canary_is_failed_back(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """The candidate that was broken on purpose did not get through. Without simulated customers there was none."""
    broken = workspace.latest(context, "canary_rollout").report.get("broken_on_purpose")
    if broken is None:
        return dg.AssetCheckResult(passed=True, description="No simulated customers: nothing was broken on purpose.")
    said = (
        f"{broken['action']} after {broken['seconds']:.0f} s and {broken['runs']} runs. {broken['decision']['reason']}"
    )
    return dg.AssetCheckResult(passed=broken["action"] == "failed back", description=said)


def _kept(workspace: Workspace, release: str, look: Look) -> Artifact:
    with workspace.store.stage("canary_rollout") as folder:
        write_json(folder / "report.json", {"release": release, **asdict(look)})
        return workspace.store.commit("canary_rollout", folder)
