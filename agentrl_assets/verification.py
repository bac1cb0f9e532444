"""What `agentrl verify` computes again: every digest, and every verdict from the archived episodes."""

import json
from pathlib import Path

from agentrl_assets.gates import evidence_from, verdicts_on
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.release import Manifest, verify
from agentrl_resources.settings import Settings


def differences(release: str, workspace: Workspace) -> list[str]:
    """One sentence for each thing that is not as it was bundled; the first names the first file that differs.

    Verdicts are judged again, from the episodes and the drill in the bundle, only when no file differs.
    """
    registry, store = workspace.registry, workspace.store
    found = verify(release, registry, store)
    if found:
        return found
    manifest = registry.manifest(release)
    if not manifest["gates"]:
        return []
    return verify(release, registry, store, {"verdicts": _judged_again(manifest, workspace)})


def _judged_again(manifest: Manifest, workspace: Workspace) -> dict[str, dict[str, object]]:
    def folder(part: str) -> Path:
        entry = manifest["artifacts"][part]
        return workspace.store.get(entry["kind"], entry["digest"]).path

    settings = Settings.model_validate_json(json.dumps(manifest["settings"]))
    evidence = evidence_from(folder("eval_episodes"), folder("rollback_drill"), settings.evaluation.temperature)
    return {verdict.gate: verdict.to_dict() for verdict in verdicts_on(evidence, manifest["gates"])}
