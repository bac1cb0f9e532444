"""Real releases of small artifacts, and the way of a release to the champion."""

import json
from pathlib import Path
from typing import Any

from agentrl_resources.files import Artifact, ArtifactStore, digest_json, write_atomic
from agentrl_resources.release import BUCKETS, BUNDLE_ARTIFACTS, Pointers, Registry, build_manifest, verify
from agentrl_resources.settings import Settings, load_settings

SETTINGS = load_settings(Path(__file__).parent.parent / "workflow.yaml")
WHO = {"who": "test", "why": "because"}
GATES = ("no_safety_regression", "cost_per_success_not_worse")
GO = dict.fromkeys(GATES, "GO")
"""What `release_of` takes for a release that every gate lets through."""


def verdict(gate: str, answer: str) -> dict[str, Any]:
    """What a gate says, with numbers."""
    numbers = {"estimate": 0.5, "interval": [0.25, 0.75], "unit": "percent", "threshold": 5.0, "n": 450}
    return {"gate": gate, "answer": answer, "owner": "ml", "reason": f"{answer}, as it happens", **numbers}


class Bundle:
    """A real release on disk: small artifacts, a baseline to roll back to, and every gate answered with GO."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(folder)
        self.registry = Registry(folder / "registry")
        self.settings: Settings = SETTINGS
        self.lock_file = folder / "constraints.txt"
        self.lock_file.write_text("torch==2.13.0\n")
        self.verdicts = {gate: verdict(gate, "GO") for gate in self.settings.release.gates}
        self.artifacts = {name: self.artifact(name, f"{name} 1") for name in BUNDLE_ARTIFACTS}
        baseline = {"tokenizer": self.artifacts["tokenizer"], "policy": self.artifact("sft_checkpoint", "baseline")}
        self.baseline = self.add(baseline, None)
        self.release = self.add(self.artifacts, self.verdicts, parent=self.baseline, rollback_target=self.baseline)

    def artifact(self, kind: str, content: str) -> Artifact:
        with self.store.stage(kind) as folder:
            (folder / "weights").mkdir()
            (folder / "weights" / "part-1").write_text(content)
            (folder / "report.json").write_text(json.dumps({"kind": kind}))
            return self.store.commit(kind, folder)

    def add(self, artifacts: dict[str, Artifact], verdicts: Any, **related: str) -> str:
        links = {"parent": None, "rollback_target": None, **related}
        manifest = build_manifest(self.settings, self.store, artifacts, verdicts, lock_file=self.lock_file, **links)
        return self.registry.add(manifest)

    def verify(self, **recomputed: Any) -> list[str]:
        return verify(self.release, self.registry, self.store, recomputed)


def release_of(registry: Registry, name: str, **answers: str) -> str:
    """A whole release of its own by its name, as cheap as can be: one artifact plays every part.

    `answers` is what its gates said; without any it is a baseline.
    """
    store = ArtifactStore(registry.root.parent)
    with store.stage("part") as folder:
        write_atomic(folder / "weights", name)
        part = store.commit("part", folder)
    lock_file = registry.root.parent / "constraints.txt"
    lock_file.write_text("torch==2.13.0\n")
    release = SETTINGS.release.model_copy(update={"gates": tuple(answers)})
    workflow = SETTINGS.workflow.model_copy(update={"baseline": name})
    settings = SETTINGS.model_copy(update={"release": release, "workflow": workflow})
    verdicts = {gate: verdict(gate, answer) for gate, answer in answers.items()} or None
    parts = dict.fromkeys(BUNDLE_ARTIFACTS, part)
    links = {"parent": None, "rollback_target": None}
    return registry.add(build_manifest(settings, store, parts, verdicts, lock_file=lock_file, **links))


def promote_through_canary(registry: Registry, release: str) -> Pointers:
    """The first champion at once, any other release after a canary that went well."""
    if registry.pointers().champion is not None:
        registry.start_canary(release, 5, **WHO, seen=registry.pointers())
        registry.record_decision(release, {"answer": "GO", "reason": "it went well"})
    return registry.promote(release, **WHO, seen=registry.pointers())


def add_changed(registry: Registry, manifest: dict[str, Any]) -> str:
    """A release of a manifest that was changed: its routing is derived from the rest again."""
    content = {field: value for field, value in manifest.items() if field != "routing"}
    return registry.add({**content, "routing": {"salt": digest_json(content), "buckets": BUCKETS}})
