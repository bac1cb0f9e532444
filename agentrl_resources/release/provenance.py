"""A release in two standard formats, derived from its manifest and from nothing else, so they can be derived again.

`provenance`: an in-toto Statement v1 (https://in-toto.io/Statement/v1) with a SLSA provenance v1 predicate
(https://slsa.dev/spec/v1.1/provenance). `ml_bom`: a CycloneDX 1.6 bill of materials
(https://cyclonedx.org/docs/1.6/json/). Both name files as they lie below the state folder, with the SHA-256 that
`sha256sum` computes. Neither holds a time: the same manifest gives the same bytes.
"""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agentrl_resources.files import canonical_json

BUILD_TYPE = "urn:agentrl:release_bundle:1"
BUILDER = "urn:agentrl:run"


class Part(NamedTuple):
    """What an artifact of a bundle is."""

    produced: bool  # by the pipeline; else it was given to it
    component: str  # CycloneDX type of the component
    contents: str = ""  # of a data component: CycloneDX type of its content
    approach: str = ""  # of a model: how it learns
    made_from: tuple[str, ...] = ()


PARTS = {
    "lock_file": Part(False, "data", "configuration"),
    "rubric": Part(False, "data", "definition"),
    "preference_data": Part(False, "data", "dataset", made_from=("rubric",)),
    "eval_suite": Part(False, "data", "dataset"),
    "tokenizer": Part(True, "data", "configuration", made_from=("preference_data",)),
    "sft_checkpoint": Part(
        True, "machine-learning-model", approach="supervised", made_from=("preference_data", "tokenizer")
    ),
    "on_policy_preference_data": Part(True, "data", "dataset", made_from=("sft_checkpoint", "rubric")),
    "reward_model": Part(
        True,
        "machine-learning-model",
        approach="supervised",
        made_from=("preference_data", "on_policy_preference_data", "sft_checkpoint"),
    ),
    "policy": Part(
        True,
        "machine-learning-model",
        approach="reinforcement-learning",
        made_from=("sft_checkpoint", "reward_model", "tokenizer"),
    ),
    "eval_episodes": Part(True, "data", "dataset", made_from=("policy", "sft_checkpoint", "eval_suite")),
}


def documents(release: str, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that lie beside a release's manifest, by name."""
    return {
        f"{release}.provenance.json": canonical_json(provenance(release, manifest)),
        f"{release}.mlbom.json": canonical_json(ml_bom(release, manifest)),
    }


def provenance(release: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The in-toto statement: the manifest and every file that was made, and what all of it was made from."""
    subjects = {f"registry/releases/{release}.json": release}
    dependencies: dict[str, str] = {}
    for name, entry in manifest["artifacts"].items():
        (subjects if _part(name, entry).produced else dependencies).update(_files(entry))
    if manifest["parent"]:
        dependencies[f"registry/releases/{manifest['parent']}.json"] = manifest["parent"]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": list(_descriptors(subjects)),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"settings": manifest["settings"]},
                "resolvedDependencies": [*_source(manifest["code"]), *_descriptors(dependencies)],
            },
            "runDetails": {"builder": {"id": BUILDER}},
        },
    }


def ml_bom(release: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The CycloneDX bill: models with their model cards, the data behind them, and which was made from which."""
    artifacts = manifest["artifacts"]
    dependencies = [{"ref": release, "dependsOn": list(artifacts)}]
    for name, entry in artifacts.items():
        inputs = [source for source in _part(name, entry).made_from if source in artifacts]
        dependencies.append({"ref": name, "dependsOn": inputs})
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, release).urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": release,
                "name": manifest["workflow"],
                "version": release,
                "hashes": [_hash(release)],
            }
        },
        "components": [_component(name, entry, manifest) for name, entry in artifacts.items()],
        "dependencies": dependencies,
    }


def _component(name: str, entry: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    part = _part(name, entry)
    component: dict[str, Any] = {
        "type": part.component,
        "bom-ref": name,
        "name": entry["kind"],
        "version": entry["digest"],
        "components": [
            {"type": "file", "name": path, "hashes": [_hash(digest)]} for path, digest in _files(entry).items()
        ],
    }
    if part.contents:
        return {**component, "data": [{"type": part.contents, "name": entry["kind"]}]}
    card: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": part.approach},
            "architectureFamily": "transformer",
            "datasets": [
                {"ref": source}
                for source in part.made_from
                if source in manifest["artifacts"] and PARTS[source].contents == "dataset"
            ],
        }
    }
    if name == "policy":
        metrics = [_metric(gate, verdict) for gate, verdict in manifest["verdicts"].items()]
        card["modelParameters"]["task"] = manifest["workflow"]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return {**component, "modelCard": card}


def _metric(gate: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What a gate measured; CycloneDX has every number as text."""
    metric: dict[str, Any] = {"type": gate, "slice": f"{verdict['answer']}, n = {verdict.get('n', 0)}"}
    if verdict.get("estimate") is not None:
        metric["value"] = f"{verdict['estimate']} {verdict.get('unit', '')}".strip()
    if verdict.get("interval") and not gate.startswith("rollback"):  # whose pair is the shortest and the longest
        low, high = verdict["interval"]
        metric["confidenceInterval"] = {"lowerBound": str(low), "upperBound": str(high)}
    return metric


def _source(code: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if code["commit"]:
        yield {"name": "source", "digest": {"gitCommit": code["commit"]}, "annotations": {"dirty": code["dirty"]}}


def _files(entry: Mapping[str, Any]) -> dict[str, str]:
    folder = f"artifacts/{entry['kind']}/{entry['digest']}"
    return {f"{folder}/{name}": digest for name, digest in entry["files"].items()}


def _descriptors(files: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for name in sorted(files):
        yield {"name": name, "digest": {"sha256": files[name]}}


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _part(name: str, entry: Mapping[str, Any]) -> Part:
    """The policy of a baseline is an SFT checkpoint; what is not in the table is further evidence, such as a drill."""
    return PARTS.get(entry["kind"]) or PARTS.get(name) or Part(True, "data", "other")
