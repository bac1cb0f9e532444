"""A release in standard formats: validated by the published schemas, derived again by `verify`, and true."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from small_releases import Bundle

from agentrl_resources.files import digest_file
from agentrl_resources.release import Manifest, differences_in_words, ml_bom, provenance

# What the text of https://slsa.dev/spec/v1.1/provenance requires beyond the types of its published protobuf messages.
DESCRIPTORS = {
    "type": "array",
    "items": {"type": "object", "anyOf": [{"required": [field]} for field in ("uri", "digest", "content")]},
}
TYPE_URI = {"type": "string", "pattern": "^[a-z][a-z0-9+.-]*:."}
SLSA = {
    "type": "object",
    "required": ["buildDefinition", "runDetails"],
    "properties": {
        "buildDefinition": {
            "type": "object",
            "required": ["buildType", "externalParameters"],
            "properties": {
                "buildType": TYPE_URI,
                "externalParameters": {"type": "object"},
                "resolvedDependencies": DESCRIPTORS,
            },
        },
        "runDetails": {
            "type": "object",
            "required": ["builder"],
            "properties": {
                "builder": {"type": "object", "required": ["id"], "properties": {"id": TYPE_URI}},
                "byproducts": DESCRIPTORS,
            },
        },
    },
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path)


def stored(bundle: Bundle, release: str, kind: str) -> Any:
    return json.loads((bundle.registry.folder / f"{release}.{kind}.json").read_bytes())


def problems(statement: Any, bom: Any) -> list[str]:
    """What the published schemas say against them."""
    said = []
    try:
        Statement.copy_from_pb(json_format.ParseDict(statement, statement_pb2.Statement())).validate()
        json_format.ParseDict(statement["predicate"], Provenance())
        jsonschema.validate(statement["predicate"], SLSA)
    except (ValueError, KeyError, json_format.ParseError, jsonschema.ValidationError) as error:
        said.append(str(error))
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom))
    return said + ([str(found)] if found else [])


def test_both_documents_of_every_release_are_valid(bundle: Bundle) -> None:
    for release in (bundle.baseline, bundle.release):
        assert problems(stored(bundle, release, "provenance"), stored(bundle, release, "mlbom")) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda statement, bom: statement.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda statement, bom: statement.update(subject=[]),
        lambda statement, bom: statement["subject"][0].pop("digest"),
        lambda statement, bom: statement["predicate"].update(surprise=1),
        lambda statement, bom: statement["predicate"]["buildDefinition"].pop("buildType"),
        lambda statement, bom: statement["predicate"]["runDetails"]["builder"].pop("id"),
        lambda statement, bom: statement["predicate"]["buildDefinition"]["resolvedDependencies"][0].pop("digest"),
        lambda statement, bom: bom.update(serialNumber="urn:uuid:1"),
        lambda statement, bom: bom["components"][0].update(type="model"),
        lambda statement, bom: bom["components"][0]["components"][0]["hashes"][0].update(content="0"),
        lambda statement, bom: bom["components"].append(bom["components"][0]),
    ],
)
def test_the_validators_notice_what_is_wrong(bundle: Bundle, spoil: Any) -> None:
    statement, bom = stored(bundle, bundle.release, "provenance"), stored(bundle, bundle.release, "mlbom")
    spoil(statement, bom)
    assert problems(statement, bom)


def test_every_file_is_named_where_it_lies_with_its_sha256(bundle: Bundle) -> None:
    home, statement = bundle.store.root, stored(bundle, bundle.release, "provenance")
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    named = {one["name"]: one["digest"]["sha256"] for one in [*statement["subject"], *dependencies]}
    assert len(named) == len(statement["subject"]) + len(dependencies)
    parts = bundle.registry.manifest(bundle.release)["artifacts"].values()
    folders = [home / "artifacts" / part["kind"] / part["digest"] for part in parts]
    there = {path.relative_to(home).as_posix() for folder in folders for path in folder.rglob("*") if path.is_file()}
    manifests = {f"registry/releases/{release}.json" for release in (bundle.release, bundle.baseline)}
    assert named.keys() == there | manifests
    for name, digest in named.items():
        assert digest_file(home / name) == digest
    given = {one["name"].split("/")[1] for one in dependencies}
    assert given == {"lock_file", "rubric", "preference_data", "eval_suite", "releases"}
    bom = stored(bundle, bundle.release, "mlbom")
    files = {file["name"]: file["hashes"][0]["content"] for one in bom["components"] for file in one["components"]}
    assert files == {name: digest for name, digest in named.items() if name not in manifests}


def test_the_source_is_a_dependency_when_it_is_known(bundle: Bundle) -> None:
    manifest = bundle.registry.manifest(bundle.release)

    def source(code: Any) -> list[Any]:
        statement = provenance(bundle.release, {**manifest, "code": code})
        assert problems(statement, ml_bom(bundle.release, manifest)) == []
        dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        return [one for one in dependencies if one["name"] == "source"]

    assert source({"commit": None, "dirty": None}) == []
    (known,) = source({"commit": "ab" * 20, "dirty": True})
    assert known == {"name": "source", "digest": {"gitCommit": "ab" * 20}, "annotations": {"dirty": True}}


def test_the_model_card_says_how_each_model_learned_and_what_the_gates_measured(bundle: Bundle) -> None:
    bom = stored(bundle, bundle.release, "mlbom")
    models = {one["bom-ref"]: one["modelCard"] for one in bom["components"] if "modelCard" in one}
    learned = {name: card["modelParameters"]["approach"]["type"] for name, card in models.items()}
    assert learned == {
        "sft_checkpoint": "supervised",
        "reward_model": "supervised",
        "policy": "reinforcement-learning",
    }
    assert models["reward_model"]["modelParameters"]["datasets"] == [
        {"ref": "preference_data"},
        {"ref": "on_policy_preference_data"},
    ]
    metrics = models["policy"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {metric["type"] for metric in metrics} == set(bundle.verdicts)
    assert metrics[0]["value"] == "0.5 percent"
    assert metrics[0]["confidenceInterval"] == {"lowerBound": "0.25", "upperBound": "0.75"}
    (policy,) = [one for one in stored(bundle, bundle.baseline, "mlbom")["components"] if one["bom-ref"] == "policy"]
    assert policy["modelCard"]["modelParameters"]["approach"]["type"] == "supervised"
    refs = {one["bom-ref"] for one in bom["components"]} | {bundle.release}
    assert {one["ref"] for one in bom["dependencies"]} == refs
    assert {ref for one in bom["dependencies"] for ref in one["dependsOn"]} <= refs


def test_thin_verdicts_make_valid_documents_too(bundle: Bundle) -> None:
    thin = {gate: {**said, "answer": "HOLD", "estimate": None, "interval": None} for gate, said in
            bundle.verdicts.items()}  # fmt: skip
    release = bundle.add(bundle.artifacts, thin)
    assert problems(stored(bundle, release, "provenance"), stored(bundle, release, "mlbom")) == []


def test_verify_tells_documents_that_are_not_what_the_manifest_gives(bundle: Bundle) -> None:
    for kind in ("provenance", "mlbom"):
        path = bundle.registry.folder / f"{bundle.release}.{kind}.json"
        content = path.read_bytes()
        path.write_bytes(content.replace(b"artifacts/policy", b"artifacts/Policy", 1))
        (difference,) = bundle.verify()
        assert difference.startswith(f"{path} has changed: its SHA-256 should be ")
        path.unlink()
        assert bundle.verify() == [f"{path} is missing"]
        assert bundle.registry.add(bundle.registry.manifest(bundle.release)) == bundle.release, "mends it"
        assert path.read_bytes() == content
        assert bundle.verify() == []


def test_a_release_of_another_format_is_told(bundle: Bundle) -> None:
    manifest = bundle.registry.manifest(bundle.release)
    bundle.release = bundle.registry.add({**manifest, "schema": "agentrl.release/1"})
    (difference,) = bundle.verify()
    assert "has the format agentrl.release/1" in difference
    assert len(bundle.registry.releases()) == 3


def test_the_routing_salt_is_another_one_for_each_release(bundle: Bundle) -> None:
    routings = [bundle.registry.manifest(release)["routing"] for release in (bundle.baseline, bundle.release)]
    assert len({routing["salt"] for routing in routings}) == 2
    assert all(len(bytes.fromhex(routing["salt"])) == 32 and routing["buckets"] == 10_000 for routing in routings)
    manifest = bundle.registry.manifest(bundle.release)
    bundle.release = bundle.registry.add({**manifest, "routing": {"salt": "00" * 32, "buckets": 10_000}})
    (difference,) = bundle.verify()
    assert difference.startswith("routing.salt is '0000")


def changed(manifest: Manifest, *path: str, to: Any) -> Manifest:
    other = copy.deepcopy(manifest)
    place: Any = other
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return other


def leaves(value: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every place in a manifest, with another value of the same type."""
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], *path, key)
    elif isinstance(value, list):
        yield path, [*value[1:], *value[:1]] if len(set(value)) > 1 else [*value, *value, "more"]
    else:
        yield path, not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else "0" * 64


def test_the_words_say_nothing_only_when_nothing_changed(bundle: Bundle) -> None:
    manifest = bundle.registry.manifest(bundle.release)
    assert differences_in_words(manifest, copy.deepcopy(manifest)) == ["nothing"]
    for path, other in leaves(manifest):
        lines = differences_in_words(manifest, changed(manifest, *path, to=other))
        assert len(lines) == 1, path
        assert lines != ["nothing"], path


def test_the_words_name_what_changed_with_old_and_new_value(bundle: Bundle) -> None:
    old = bundle.registry.manifest(bundle.release)
    new = changed(old, "settings", "ppo", "kl_target", to=0.4)
    new = changed(new, "settings", "ppo", "iterations", to=12)
    new = changed(new, "settings", "seed", to=18)
    new = changed(new, "seeds", "seed", to=18)
    new = changed(new, "routing", "salt", to="0" * 64)
    new = changed(new, "code", to={"commit": "0123456789abcdef" * 2, "dirty": True})
    new = changed(new, "artifacts", "rubric", "files", "report.json", to="0" * 64)
    new = changed(new, "artifacts", "policy", "files", "picture.png", to="0" * 64)
    new["verdicts"]["no_safety_regression"] |= {"answer": "HOLD", "estimate": 1.25, "interval": [-1, 3.5]}
    new["verdicts"]["cost_per_success_not_worse"] |= {"reason": "in other words"}
    del new["artifacts"]["reward_model"]
    new["artifacts"]["rollback_drill"] = {"kind": "rollback_drill", "digest": "0" * 64, "files": {}}
    before = old["settings"]["ppo"]
    assert differences_in_words(old, new) == [
        "code: no commit -> commit 0123456789ab with uncommitted changes",
        f"settings ppo: iterations {before['iterations']} -> 12, kl_target {before['kl_target']} -> 0.4",
        "settings seed: 17 -> 18",
        "rubric: rubric changed (report.json)",
        "models: reward_model is gone; policy changed",
        "also: rollback_drill is new",
        "gate cost_per_success_not_worse: GO (0.5 percent, 0.25 to 0.75, n = 450), measured again",
        "gate no_safety_regression: GO (0.5 percent, 0.25 to 0.75, n = 450) -> HOLD (1.25 percent, -1 to 3.5, n = 450)",
    ]
