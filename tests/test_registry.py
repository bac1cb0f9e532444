"""The registry: immutable manifests and pointers that are swapped whole, also in races, crashes and on a full disk."""

import errno
import itertools
import json
import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from crashing import killed_at_every_step
from small_releases import GO, WHO, promote_through_canary, release_of

from agentrl_resources import files
from agentrl_resources.errors import AgentRLError
from agentrl_resources.release import Pointers, Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_a_release_is_named_by_the_digest_of_its_file(registry: Registry) -> None:
    release = release_of(registry, "one")
    assert release_of(registry, "one") == release
    assert registry.releases() == [release]
    assert files.digest_file(registry.root / "releases" / f"{release}.json") == release
    assert registry.manifest(release)["settings"]["workflow"]["baseline"] == "one"


def test_any_changed_byte_of_a_manifest_is_told(registry: Registry) -> None:
    release = registry.add({"name": "one", "answer": "HOLD"})
    path = registry.root / "releases" / f"{release}.json"
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(AgentRLError, match=rf"{release}\.json has changed"):
            registry.manifest(release)


def test_releases_are_found_by_pointer_and_by_the_first_characters(registry: Registry) -> None:
    releases = [registry.add({"number": number}) for number in range(30)]
    registry.propose(releases[3], **WHO, seen=registry.pointers())
    assert registry.resolve("candidate") == releases[3]
    assert all(registry.resolve(release[:12]) == release for release in releases)
    with pytest.raises(AgentRLError, match="there is no champion yet"):
        registry.resolve("champion")
    with pytest.raises(AgentRLError, match="no release is called 'xyz'"):
        registry.resolve("xyz")
    first = next(digit for digit in "0123456789abcdef" if sum(each[0] == digit for each in releases) > 1)
    with pytest.raises(AgentRLError, match="more than one release begins with"):
        registry.resolve(first)


def test_pointers_never_name_an_unknown_release(registry: Registry) -> None:
    with pytest.raises(AgentRLError, match="there is no release abcabcabcabc"):
        registry.propose("abc" * 20 + "abcd", **WHO, seen=registry.pointers())
    assert registry.pointers() == Pointers()


def test_the_history_says_who_when_and_why(registry: Registry) -> None:
    registry.promote(release_of(registry, "one"), who="ada", why="first", seen=registry.pointers())
    (state,) = registry.history()
    assert (state.action, state.who, state.why) == ("promote", "ada", "first")
    assert state.at.endswith("+00:00")


@pytest.mark.parametrize("who", ["", "ada"])
def test_nothing_moves_without_a_name_and_a_reason(registry: Registry, who: str) -> None:
    with pytest.raises(AgentRLError, match="say who wants it and why"):
        registry.promote(release_of(registry, "one"), who=who, why=" ", seen=registry.pointers())
    assert registry.pointers() == Pointers()


def test_pointers_that_were_stored_before_canaries_had_a_share_still_load(registry: Registry) -> None:
    before = promote_through_canary(registry, release_of(registry, "baseline"))
    for path in (registry.root / "pointers.json", registry.root / "history" / "00000001.json"):
        stored = json.loads(path.read_text())
        del stored["canary_percent"]
        path.write_text(json.dumps(stored))
    assert registry.pointers() == before
    assert promote_through_canary(registry, release_of(registry, "one", **GO)).previous == before.champion


def _promote_at_once(root: Path, name: str, canaries: list[str], barrier: Barrier, results: Any) -> None:
    registry = Registry(root)
    for number, release in enumerate(canaries):
        if name == "ada":
            registry.start_canary(release, 5, **WHO, seen=registry.pointers())
            registry.record_decision(release, {"answer": "GO"})
        barrier.wait()
        seen = registry.pointers()
        barrier.wait()
        try:
            registry.promote(release, who=name, why="race", seen=seen)
            results.put((number, name, "won"))
        except AgentRLError as told:
            results.put((number, name, str(told)))
        barrier.wait()


def test_of_two_that_promote_at_once_one_wins_and_the_other_is_told(registry: Registry) -> None:
    promote_through_canary(registry, release_of(registry, "baseline"))
    canaries = [release_of(registry, str(number), **GO) for number in range(15)]
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    racers = [
        context.Process(target=_promote_at_once, args=(registry.root, name, canaries, barrier, results))
        for name in ("ada", "bob")
    ]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=60) for _ in range(2 * len(canaries))]
    for racer in racers:
        racer.join()
    promotions = [state for state in registry.history() if state.action == "promote"][::-1][1:]
    assert [state.champion for state in promotions] == canaries
    for number, promotion in enumerate(promotions):
        (loser,) = [each for each in outcomes if each[0] == number and each[2] != "won"]
        (winner,) = [each for each in outcomes if each[0] == number and each[2] == "won"]
        assert f"pointers have changed since they were read: 'promote' by {winner[1]}" in loser[2]
        assert promotion.who == winner[1]


def test_a_promotion_killed_at_any_step_leaves_a_valid_pointer(registry: Registry) -> None:
    promote_through_canary(registry, release_of(registry, "first"))

    def try_another(number: int) -> Pointers:
        release = release_of(registry, f"release {number}", **GO)
        seen = registry.start_canary(release, 5, **WHO, seen=registry.pointers())
        registry.record_decision(release, {"answer": "GO"})
        return seen

    def promote(_: int) -> None:
        seen = registry.pointers()
        registry.promote(str(seen.canary), **WHO, seen=seen)

    before, promotions = try_another(0), 0
    for step in killed_at_every_step(promote):
        now = registry.pointers()
        assert next(registry.history()) == now
        if now != before:
            assert now.champions == (*before.champions, before.canary), f"killed at step {step}"
            assert registry.manifest(str(now.champion))
            before, promotions = try_another(step + 1), promotions + 1
    assert promotions
    assert registry.pointers().champions == (*before.champions, before.canary), "the last one ran through"


@pytest.mark.parametrize("flush", [0, 1, 2])
def test_a_full_disk_leaves_the_pointer(registry: Registry, monkeypatch: pytest.MonkeyPatch, flush: int) -> None:
    one, two = release_of(registry, "one"), release_of(registry, "two", **GO)
    promote_through_canary(registry, one)
    before = registry.start_canary(two, 5, **WHO, seen=registry.pointers())
    registry.record_decision(two, {"answer": "GO"})
    flushes = itertools.count()
    real = os.fsync

    def full_from_the_nth_on(descriptor: int) -> None:
        if next(flushes) >= flush:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_from_the_nth_on)
        with pytest.raises(AgentRLError, match="no room for this on the disk"):
            registry.promote(two, **WHO, seen=before)
    assert registry.pointers() == before
    assert next(registry.history()) == before
    after = registry.promote(two, **WHO, seen=before)
    assert list(registry.history())[:2] == [after, before]
