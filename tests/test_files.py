"""Files are whole or absent: digests, atomic writes, the artifact store, crashes, a full disk."""

import errno
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashing import killed_at_every_step
from hypothesis import given
from hypothesis import strategies as st

from agentrl_resources import files
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import ArtifactStore
from agentrl_resources.learning.checkpoints import load_latest_checkpoint, save_checkpoint

NAMES = st.lists(st.sampled_from(["a", "b", "a.txt", "é", "model-1"]), min_size=1, max_size=3).map("/".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé\n"💡'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé", max_size=3), inner, max_size=3),
)


def fill(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def commit(store: ArtifactStore, contents: dict[str, bytes], kind: str = "policy") -> files.Artifact:
    with store.stage(kind) as folder:
        fill(folder, contents)
        return store.commit(kind, folder)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@given(JSON)
def test_canonical_json_is_one_spelling(value: object) -> None:
    def reversed_keys(item: object) -> object:
        if isinstance(item, dict):
            return {key: reversed_keys(item[key]) for key in reversed(list(item))}
        return [reversed_keys(each) for each in item] if isinstance(item, list) else item

    assert files.canonical_json(value) == files.canonical_json(reversed_keys(value))


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"x": {1, 2}}, {"path": Path("x")}])
def test_values_without_a_json_spelling_are_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(AgentRLError, match="cannot be written as JSON"):
        files.digest_json(value)
    with pytest.raises(AgentRLError, match="cannot be written as JSON"):
        files.write_json(tmp_path / "x.json", value)
    assert list(tmp_path.iterdir()) == []


@given(st.dictionaries(NAMES, st.binary(max_size=20), max_size=5), st.randoms(use_true_random=False))
def test_tree_digest_depends_on_names_and_bytes_alone(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], chance: random.Random
) -> None:
    names = [name for name in contents if not any(other.startswith(f"{name}/") for other in contents)]
    expected = hashlib.sha256()
    for name in sorted(names):
        expected.update(f"{name}\0{hashlib.sha256(contents[name]).hexdigest()}\n".encode())
    folder = tmp_path_factory.mktemp("tree")
    chance.shuffle(names)
    fill(folder, {name: contents[name] for name in names})
    (folder / "an empty folder").mkdir()
    assert files.digest_tree(folder) == expected.hexdigest()


def test_json_lines_come_back_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows: list[dict[str, object]] = [{"text": "one\ntwo\u2028"}, {"n": 1.5}]
    files.write_jsonl(path, rows)
    assert list(files.read_jsonl(path)) == rows
    with path.open("ab") as file:
        file.write(b'{"half": ')
    with pytest.raises(AgentRLError, match=r"rows\.jsonl, line 3"):
        list(files.read_jsonl(path))
    with pytest.raises(AgentRLError, match=r"nothing\.jsonl: there is no such file"):
        list(files.read_jsonl(tmp_path / "nothing.jsonl"))


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"old": 1}])
    with pytest.raises(AgentRLError):
        files.write_jsonl(path, [{"new": 1}, {"new": float("nan")}])
    assert list(files.read_jsonl(path)) == [{"old": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_committing_twice_gives_one_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    first = commit(store, {"a": b"1", "deep/b": b"2", "report.json": b'{"loss": 0.5}'})
    second = commit(store, {"report.json": b'{"loss": 0.5}', "deep/b": b"2", "a": b"1"})
    assert first == second == store.get("policy", first.digest)
    assert first.report == {"loss": 0.5}
    assert first.digest == files.digest_tree(first.path)
    assert list((tmp_path / "work").iterdir()) == []


def test_committing_the_true_content_heals_a_damaged_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    artifact = commit(store, {"a": b"1", "b": b"2"})
    (artifact.path / "a").write_bytes(b"x")
    assert commit(store, {"a": b"1", "b": b"2"}) == artifact
    assert files.digest_tree(artifact.path) == artifact.digest
    assert list((tmp_path / "work").iterdir()) == []


def test_what_is_not_committed_is_gone(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.stage("policy") as folder:
        fill(folder, {"a": b"1"})
    with pytest.raises(AgentRLError, match="training failed"), store.stage("policy") as folder:
        raise AgentRLError(f"training failed in {folder}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentRLError, match=r"reward_model abcabcabcabc is not in the artifact store.*AGENTRL_HOME"):
        ArtifactStore(tmp_path).get("reward_model", "abc" * 20 + "abcd")


def test_differences_name_every_file_and_nothing_else(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    artifact = commit(store, {"a": b"1", "b": b"2", "c": b"3"})
    expected = files.file_digests(artifact.path)
    assert list(store.differences(artifact, expected)) == []
    (artifact.path / "a").unlink()
    (artifact.path / "b").write_bytes(b"x")
    (artifact.path / "d").write_bytes(b"4")
    missing, changed, extra = store.differences(artifact, expected)
    assert missing == f"{artifact.path}/a is missing"
    assert changed.startswith(f"{artifact.path}/b has changed")
    assert extra == f"{artifact.path}/d does not belong to this policy"


def test_a_full_disk_keeps_what_was_stored(tiny_disk: Path) -> None:
    store = ArtifactStore(tiny_disk)
    artifact = commit(store, {"weights": bytes(100_000)})
    pointer = tiny_disk / "pointer.json"
    files.write_json(pointer, {"release": 1})

    with pytest.raises(AgentRLError, match=rf"{tiny_disk}/work/policy-.*no room.*MiB free"):
        commit(store, {"small": b"1", "weights": bytes(400_000)})
    with pytest.raises(AgentRLError, match=r"pointer\.json.*no room"):
        files.write_json(pointer, {"release": "x" * 400_000})

    assert files.read_json(pointer) == {"release": 1}
    assert files.digest_tree(store.get("policy", artifact.digest).path) == artifact.digest
    assert sorted(path.name for path in tiny_disk.rglob("*") if path.is_file()) == ["pointer.json", "weights"]


def test_a_full_disk_keeps_the_last_training_checkpoint(tiny_disk: Path) -> None:
    import torch

    folder = tiny_disk / "checkpoints"
    save_checkpoint(folder, 0, {"w": torch.ones(10_000)})
    with pytest.raises(AgentRLError, match=r"iteration-00001.*no room for this on the disk"):
        save_checkpoint(folder, 1, {"w": torch.zeros(200_000)})
    assert torch.equal(load_latest_checkpoint(folder)["w"], torch.ones(10_000))
    assert [path.name for path in folder.iterdir()] == ["iteration-00000"]


def test_libraries_that_meet_a_full_disk_are_understood(tiny_disk: Path) -> None:
    import safetensors.torch
    import torch

    weights = {"w": torch.zeros(200_000)}
    for save in (safetensors.torch.save_file, torch.save):
        with (
            pytest.raises(AgentRLError, match="no room for this on the disk"),
            ArtifactStore(tiny_disk).stage("checkpoint") as folder,
        ):
            save(weights, folder / "weights")
    assert list((tiny_disk / "work").iterdir()) == []


def test_a_disk_that_fills_up_while_flushing_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pointer.json"
    files.write_json(path, {"release": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(AgentRLError, match=r"pointer\.json.*no room"):
            files.write_json(path, {"release": 2})
    assert files.read_json(path) == {"release": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_killed_at_any_step_leaves_only_whole_artifacts(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    stored = tmp_path / "artifacts" / "policy"
    seen: set[Path] = set()

    def write(number: int) -> None:
        commit(store, {name: f"{number} {name} ".encode() * 2000 for name in ("a", "b/c")})

    for step in killed_at_every_step(write):
        found = set(stored.iterdir()) if stored.exists() else set()
        for path in found - seen:
            assert files.digest_tree(path) == path.name, f"killed at step {step}"
            assert sorted(files.file_digests(path)) == ["a", "b/c"], f"killed at step {step}"
        seen = found
    assert len(seen) > 1


def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"

    def rows(number: int) -> list[dict[str, object]]:
        return [{"number": number, "text": "longer than half a buffer " * 200}] * 5

    latest = -1
    files.write_jsonl(path, rows(latest))
    for step in killed_at_every_step(lambda number: files.write_jsonl(path, rows(number))):
        found = list(files.read_jsonl(path))
        assert found in (rows(latest), rows(step)), f"killed at step {step}"
        latest = int(str(found[0]["number"]))
    assert latest >= 0


HOLD_LOCK = """
import sys, time
from pathlib import Path
from agentrl_resources.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_waited_for_with_a_bound_and_dies_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    with pytest.raises(AgentRLError, match="another process has held this lock"), files.locked(lock, wait_seconds=0.1):
        pytest.fail("two processes hold one lock")
    holder.kill()
    holder.communicate()
    with files.locked(lock, wait_seconds=1):
        pass
