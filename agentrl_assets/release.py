"""The release bundle: one manifest that versions model, reward model, data, evidence and verdicts together."""

from typing import Any

import dagster as dg

from agentrl_assets.gates import stored_evidence, verdicts_on
from agentrl_assets.project import code_version
from agentrl_assets.reporting import table
from agentrl_resources.dagster_history import check_answer, out_of_date
from agentrl_resources.dagster_resources import PROJECT, Workspace
from agentrl_resources.files import Artifact, digest_json
from agentrl_resources.release import Manifest, build_manifest
from agentrl_resources.workflow import EpisodeFactory

PARTS = {
    "rubric": "rubric",
    "preference_data": "cleaned_preference_data",
    "on_policy_preference_data": "on_policy_preference_data",
    "tokenizer": "tokenizer",
    "sft_checkpoint": "sft_checkpoint",
    "reward_model": "reward_model",
    "policy": "ppo_policy",
    "eval_suite": "eval_suite",
    "eval_episodes": "offline_eval_suite",
    "rollback_drill": "rollback_drill",
    "gate_evidence": "gate_evidence",
}
"""The parts of a bundle, and the asset that each is the latest artifact of."""

LOCK_FILE = PROJECT / "constraints.txt"
_ANCESTRY = ("parent", "rollback_target", "routing")
"""What a manifest says of the releases before it; the routing's salt is derived from the rest."""


@dg.asset(
    group_name="release",
    owners=["team:platform"],
    kinds={"json"},
    deps=sorted(PARTS.values()),
    code_version=code_version(f"{__name__}:release_bundle", "release", "workflow"),
)
def release_bundle(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """The candidate release, once every gate has said GO to exactly what is bundled."""
    refuse_unless_gates_pass(context.instance, workspace)
    settings, store, registry = workspace.settings, workspace.store, workspace.registry
    artifacts = {part: workspace.latest(context, asset) for part, asset in PARTS.items()}
    champion = registry.pointers().champion or _first_champion(context, workspace)
    verdicts = verdicts_on(stored_evidence(artifacts["gate_evidence"].path), settings.release.gates)
    for verdict in verdicts:
        if verdict.answer != "GO":  # the check's answer is stored; what judges may have changed since
            raise dg.Failure(
                f"No release: gate {verdict.gate} says {verdict.answer} now. {verdict.reason}", allow_retries=False
            )

    def bundled(parent: str | None, rollback_target: str | None) -> Manifest:
        return build_manifest(
            settings,
            store,
            artifacts,
            {verdict.gate: verdict.to_dict() for verdict in verdicts},
            parent=parent,
            rollback_target=rollback_target,
            lock_file=LOCK_FILE,
            conversations=_conversations(workspace, artifacts["policy"]),
        )

    manifest = bundled(champion, champion)
    way_back = registry.way_back(manifest, registry.pointers())
    if way_back != champion:
        manifest = bundled(champion, way_back)
    present = registry.manifest(champion)
    # Once promoted, the same content would be its own parent: it is the release that there is.
    if digest_json(manifest) == digest_json({**present, **{name: manifest[name] for name in _ANCESTRY}}):
        manifest = present
    release = registry.add(manifest)
    registry.propose(release, who="release_bundle", why="every gate said GO", seen=registry.pointers())
    parts = table({"part": part, **entry} for part, entry in manifest["artifacts"].items())
    return dg.MaterializeResult(
        data_version=dg.DataVersion(release),
        metadata={
            "release": release,
            "rollback_target": manifest["rollback_target"],
            "parts": parts,
            "manifest": manifest,
        },
    )


def refuse_unless_gates_pass(instance: dg.DagsterInstance, workspace: Workspace) -> None:
    """A blocking check holds only inside its own run, so whoever needs the gates asks for their verdicts again.

    Raises `dg.Failure` with one sentence: a gate was never evaluated, did not say GO, or judged something earlier; or
    what the gates judged was not made from what would be released.
    """
    outdated = next(out_of_date(instance, "gate_evidence"), None)
    if outdated:
        raise dg.Failure(f"No release: {outdated}. Run: agentrl run --select gate_evidence", allow_retries=False)
    for gate in workspace.settings.release.gates:
        checked = check_answer(instance, "gate_evidence", gate)
        if checked.answer == "passed":
            continue
        reasons = {
            "missing": "was never evaluated",
            "outdated": "was evaluated before the latest gate_evidence was built",
            "failed": f"does not say GO. {checked.said}",
        }
        raise dg.Failure(f"No release: gate {gate} {reasons[checked.answer]}", allow_retries=False)


def _conversations(workspace: Workspace, policy: Artifact) -> dict[str, Any]:
    """How the policy of a release reads and writes, which training, evaluation and traffic have in common."""
    from agentrl_resources.families import digest_of_template, format_of

    factory = EpisodeFactory(workspace.workflow)
    return {
        **format_of(policy.path),
        "template_sha256": digest_of_template(policy.path),
        "instructions": factory.workflow.instructions,
        "tools": factory.tools,
    }


def _first_champion(context: dg.AssetExecutionContext, workspace: Workspace) -> str:
    """Where there is no champion yet, the SFT baseline becomes the first one: what a rollback goes back to."""
    registry = workspace.registry
    parts = {"tokenizer": "tokenizer", "policy": "sft_checkpoint"}
    artifacts = {part: workspace.latest(context, asset) for part, asset in parts.items()}
    manifest = build_manifest(
        workspace.settings,
        workspace.store,
        artifacts,
        None,
        parent=None,
        rollback_target=None,
        lock_file=LOCK_FILE,
        conversations=_conversations(workspace, artifacts["policy"]),
    )
    baseline = registry.add(manifest)
    registry.promote(baseline, who="release_bundle", why="the baseline is the first champion", seen=registry.pointers())
    return baseline
