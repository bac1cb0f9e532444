"""Writing to a spool, and what may be deleted of it."""

import errno
import json
import os
import subprocess
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from spools import AT, is_locked, open_segment, some_lines
from telemetry_samples import random_record, random_records, random_seed

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import Spool, prune, read_new, segment_sizes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_line_is_in_the_file_when_append_returns_without_its_personal_data(folder: Path) -> None:
    address, spool = "maria.keller@example.org", Spool(folder, sync_seconds=60)
    messages = [{"role": "user", "content": f"I am {address}, order 4711"}]
    spool.append_run(random_record(random_seed(), run_id="run-1", trace={"messages": messages, "tool_calls": []}))
    spool.append("event", {"event": "failback", "at": AT, "said": f"asked by {address}", address: [address]})
    (path,) = folder.iterdir()
    run, event = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert address.encode() not in path.read_bytes()
    assert run["record"]["trace"]["messages"][0]["content"] == "I am [email 1], order 4711"
    assert (event["event"], event["at"], event["said"]) == ("failback", AT, "asked by [email 1]")
    assert path.stat().st_mode & 0o777 == 0o600
    spool.close()


def test_segments_rotate_by_size_and_a_closed_one_is_never_written_again(folder: Path) -> None:
    rng = random_seed()
    spool = Spool(folder, max_bytes=5_000)
    closed: dict[str, bytes] = {}
    records = random_records(rng, 60)
    for record in records:
        spool.append_run(record)
        spool.flush()
        *full, last = sorted(folder.iterdir())
        assert is_locked(last)
        assert not any(map(is_locked, full))
        closed |= {path.name: path.read_bytes() for path in full if path.name not in closed}
    spool.close()
    assert len(closed) > 3
    assert all((folder / name).read_bytes() == data for name, data in closed.items())
    assert all(5_000 <= len(data) < 10_000 for data in closed.values())
    assert [run.run_id for run in read_new(folder, {}).runs] == [record.run_id for record in records]
    with pytest.raises(AgentRLError, match="closed"):
        spool.append_run(records[0])


def test_threads_and_spools_that_write_at_once_keep_each_line_whole(folder: Path) -> None:
    rng = random_seed()
    spools = [Spool(folder, max_bytes=20_000, sync_seconds=0.001) for _ in range(2)]
    parts = [random_records(rng, 50) for _ in range(6)]

    def write(number: int) -> None:
        for record in parts[number]:
            spools[number % 2].append_run(record)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for spool in spools:
        spool.close()
    found = read_new(folder, {})
    assert Counter(run.run_id for run in found.runs) == Counter(record.run_id for part in parts for record in part)
    assert not found.rejected


def test_append_leaves_fsync_to_another_thread_that_does_it_in_time(folder: Path, monkeypatch) -> None:
    synced: list[tuple[int, int]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append((threading.get_ident(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    spool = Spool(folder, sync_seconds=0.05)
    spool.append("label", {"run_id": "run-1", "labelled_at": AT, "success": True})
    (size,) = segment_sizes(folder).values()
    deadline = time.monotonic() + 30
    while not any(length == size for _, length in synced):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert threading.get_ident() not in {thread for thread, _ in synced}
    spool.append("label", {"run_id": "run-2", "labelled_at": AT, "success": True})
    spool.flush()
    assert 2 * size in {length for _, length in synced}
    spool.close()


def test_a_disk_that_refuses_to_sync_is_told_once_and_its_segment_given_up(folder: Path, monkeypatch) -> None:
    spool = Spool(folder, sync_seconds=60)
    label = {"run_id": "run-1", "labelled_at": AT, "success": True}
    spool.append("label", label)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(AgentRLError, match="the disk refused run records"):
            spool.flush()
    spool.append("label", label)
    spool.close()
    assert [size > 0 for size in segment_sizes(folder).values()] == [True, True]


def test_a_full_disk_is_told_and_leaves_neither_half_a_line_nor_a_loss(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        (disk / "other").write_bytes(b"x" * 16_384)
        spool, kept = Spool(disk / "spool"), []

        def fill() -> None:
            for record in random_records(random_seed(), 1000):
                spool.append_run(record)
                kept.append(record.run_id)

        for _ in range(2):
            with pytest.raises(AgentRLError, match="no room"):
                fill()
            found = read_new(disk / "spool", {})
            assert [run.run_id for run in found.runs] == kept
            assert found.offsets == segment_sizes(disk / "spool")
            (disk / "other").unlink(missing_ok=True)  # and it goes on where it was
        spool.close()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_what_is_no_json_is_refused_and_half_a_character_is_not(folder: Path) -> None:
    spool = Spool(folder)
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises(AgentRLError, match="cannot be a line"):
            spool.append("event", {"event": "odd", "at": AT, "value": value})
    spool.append("event", {"event": "odd", "at": AT, "value": "\ud800"})
    spool.close()
    assert [event["document"]["value"] for event in read_new(folder, {}).events] == ["?"]


# --- retention --------------------------------------------------------------------------------------------------------


def test_only_what_is_old_closed_and_read_to_its_end_is_pruned(folder: Path) -> None:
    rng = random_seed()
    folder.mkdir()
    old = time.time() - 31 * 86_400
    expected, held, offsets = [], [], {}
    for number in range(32):
        name = f"{number:02}.jsonl"
        is_old, is_closed, is_read = rng.random() < 0.7, rng.random() < 0.7, rng.random() < 0.7
        data = b"".join(some_lines(rng, 2))
        if is_closed:
            (folder / name).write_bytes(data)
        else:
            held.append(open_segment(folder, name))
            os.write(held[-1], data)
        if is_old:
            os.utime(folder / name, (old, old))
        if is_read or rng.random() < 0.5:
            offsets[name] = len(data) if is_read else rng.randrange(len(data))
        if is_old and is_closed and is_read:
            expected.append(name)
    everything = set(segment_sizes(folder))
    assert prune(folder, offsets, timedelta(days=30)) == expected
    assert set(segment_sizes(folder)) == everything - set(expected)
    for descriptor in held:
        os.close(descriptor)
