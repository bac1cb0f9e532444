"""Releases: proof of every byte, and rollbacks that are real."""

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small_releases import Bundle

from agentrl_resources import files
from agentrl_resources.errors import AgentRLError
from agentrl_resources.release import BUNDLE_ARTIFACTS


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path)


def test_verify_passes_and_names_the_file_of_any_changed_byte(bundle: Bundle) -> None:
    assert bundle.verify(verdicts=bundle.verdicts) == []
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    stored = [path for path in bundle.store.root.glob("artifacts/**/*") if path.is_file()]
    stored += bundle.registry.root.glob("releases/*.json")
    stored.remove(bundle.registry.folder / f"{bundle.baseline}.provenance.json")  # the baseline's own verification
    stored.remove(bundle.registry.folder / f"{bundle.baseline}.mlbom.json")
    assert len(stored) == 2 * (len(BUNDLE_ARTIFACTS) + 1) + 1 + 4  # with the baseline's policy, lock file, manifests
    for path in stored:
        content = path.read_bytes()
        position = chance.randrange(len(content))
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1 << chance.randrange(8)]) + content[position + 1 :]
        )
        (difference,) = bundle.verify()
        assert difference.startswith(f"{path} has changed")
        path.unlink()
        (difference,) = bundle.verify()
        assert difference.startswith(str(path))
        path.write_bytes(content)
    assert bundle.verify() == []


def test_verify_tells_an_artifact_that_is_gone_and_a_file_too_many(bundle: Bundle) -> None:
    policy = bundle.artifacts["policy"]
    (policy.path / "surprise").write_text("x")
    assert bundle.verify() == [f"{policy.path}/surprise does not belong to this policy"]
    (policy.path / "surprise").unlink()
    policy.path.rename(policy.path.with_name("elsewhere"))
    (difference,) = bundle.verify()
    assert f"policy {policy.digest[:12]} is not in the artifact store" in difference


def test_verify_compares_what_was_computed_again(bundle: Bundle) -> None:
    again = {**bundle.verdicts, "no_safety_regression": {**bundle.verdicts["no_safety_regression"], "answer": "HOLD"}}
    assert bundle.verify(verdicts=again) == [
        "verdicts.no_safety_regression.answer is 'GO' in the manifest and 'HOLD' when it is computed again"
    ]


def test_verify_tells_a_manifest_that_contradicts_itself(bundle: Bundle) -> None:
    manifest = bundle.registry.manifest(bundle.release)
    manifest["artifacts"]["policy"]["digest"] = bundle.artifacts["reward_model"].digest
    manifest["settings"]["release"]["gates"] = ["no_safety_regression"]
    bundle.release = bundle.registry.add(manifest)
    files_differ, gates_differ, salt_differs = bundle.verify()
    assert "contradicts itself: the files that it lists for policy" in files_differ
    assert gates_differ.startswith("gate_configuration is ")
    assert salt_differs.startswith("routing.salt is ")


def test_a_manifest_versions_everything(bundle: Bundle) -> None:
    manifest = bundle.registry.manifest(bundle.release)
    assert set(manifest["artifacts"]) == {*BUNDLE_ARTIFACTS, "lock_file"}
    for name, artifact in bundle.artifacts.items():
        assert manifest["artifacts"][name]["digest"] == artifact.digest
    assert manifest["artifacts"]["lock_file"]["files"] == {"constraints.txt": files.digest_file(bundle.lock_file)}
    assert manifest["seeds"] == {"seed": bundle.settings.seed}
    assert manifest["verdicts"] == bundle.verdicts
    assert manifest["gates"] == list(bundle.settings.release.gates)
    assert manifest["rollback_target"] == manifest["parent"] == bundle.baseline
    assert manifest["code"] == {"commit": None, "dirty": None}
    assert bundle.add(bundle.artifacts, bundle.verdicts, parent=bundle.baseline, rollback_target=bundle.baseline) == (
        bundle.release
    )


def test_a_manifest_knows_its_commit_and_whether_it_is_clean(bundle: Bundle, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.check_output(["git", *identity, *arguments], cwd=tmp_path, text=True).strip()

    def code() -> Any:
        return bundle.registry.manifest(bundle.add(bundle.artifacts, bundle.verdicts))["code"]

    git("init", "--quiet")
    assert code() == {"commit": None, "dirty": None}, "a repository around it that does not hold it"
    (tmp_path / ".gitignore").write_text("artifacts\nregistry\nwork\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    assert code() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    bundle.lock_file.write_text("torch==2.13.1\n")
    assert code()["dirty"]


def test_a_bundle_lacks_nothing(bundle: Bundle) -> None:
    for name in BUNDLE_ARTIFACTS:
        others = {other: artifact for other, artifact in bundle.artifacts.items() if other != name}
        with pytest.raises(AgentRLError, match=f"cannot be bundled without {name}"):
            bundle.add(others, bundle.verdicts)
