"""The registry: immutable manifests and pointers that are swapped whole, also in races, crashes and on a full disk."""

import errno
import itertools
import multiprocessing
import os
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from crashing import killed_at_every_step
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl_resources import files
from agentrl_resources.errors import AgentRLError
from agentrl_resources.release import Pointers, Registry

WHO = {"who": "test", "why": "because"}


def bare(registry: Registry, name: str, **verdicts: str) -> str:
    """A release of nothing but a name and what its gates said."""
    answers = {gate: {"answer": answer} for gate, answer in verdicts.items()}
    return registry.add({"name": name, "gates": list(verdicts), "verdicts": answers})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_a_release_is_named_by_the_digest_of_its_file(registry: Registry) -> None:
    release = bare(registry, "one")
    assert bare(registry, "one") == release
    assert registry.releases() == [release]
    assert files.digest_file(registry.root / "releases" / f"{release}.json") == release
    assert registry.manifest(release)["name"] == "one"


def test_any_changed_byte_of_a_manifest_is_told(registry: Registry) -> None:
    release = bare(registry, "one", safety="HOLD")
    path = registry.root / "releases" / f"{release}.json"
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(AgentRLError, match=rf"{release}\.json has changed"):
            registry.manifest(release)


def test_releases_are_found_by_pointer_and_by_the_first_characters(registry: Registry) -> None:
    releases = [bare(registry, str(number)) for number in range(30)]
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


@pytest.mark.parametrize("answer", ["NO-GO", "HOLD", "go", ""])
def test_only_go_on_every_gate_promotes(registry: Registry, answer: str) -> None:
    release = bare(registry, "bad", safety="GO", latency=answer)
    with pytest.raises(AgentRLError, match=f"latency says {answer}"):
        registry.promote(release, **WHO, seen=registry.pointers())
    assert registry.pointers() == Pointers()


def test_a_gate_without_a_verdict_holds(registry: Registry) -> None:
    release = registry.add({"gates": ["safety", "cost"], "verdicts": {"safety": {"answer": "GO"}}})
    with pytest.raises(AgentRLError, match="cost says HOLD"):
        registry.promote(release, **WHO, seen=registry.pointers())


def test_only_the_first_champion_needs_no_gates(registry: Registry) -> None:
    first, second = bare(registry, "baseline"), bare(registry, "another")
    pointers = registry.promote(first, **WHO, seen=registry.pointers())
    with pytest.raises(AgentRLError, match="no gate has judged it"):
        registry.promote(second, **WHO, seen=pointers)


def test_pointers_never_name_an_unknown_release(registry: Registry) -> None:
    with pytest.raises(AgentRLError, match="there is no release abcabcabcabc"):
        registry.propose("abc" * 20 + "abcd", **WHO, seen=registry.pointers())
    assert registry.pointers() == Pointers()


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.sampled_from(["a", "b", "c", "rollback"]), max_size=8))
def test_promotions_and_rollbacks_are_a_stack_with_a_full_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    releases = {name: bare(registry, name, safety="GO") for name in "abc"}
    stack: list[str] = []
    states = []
    for step in steps:
        seen = Registry(registry.root).pointers()
        if step == "rollback" and len(stack) < 2:
            with pytest.raises(AgentRLError, match="no previous release"):
                registry.rollback(**WHO, seen=seen)
        elif step == "rollback":
            stack.pop()
            states.append(registry.rollback(**WHO, seen=seen))
        elif stack[-1:] == [releases[step]]:
            assert registry.promote(releases[step], **WHO, seen=seen) == seen
        else:
            stack.append(releases[step])
            states.append(registry.promote(releases[step], **WHO, seen=seen))
        now = registry.pointers()
        assert now.champion == (stack[-1] if stack else None)
        assert now.previous == (stack[-2] if len(stack) > 1 else None)
    assert list(registry.history()) == states[::-1]
    assert [state.revision for state in states] == list(range(1, len(states) + 1))


def test_the_history_says_who_when_and_why(registry: Registry) -> None:
    registry.promote(bare(registry, "one"), who="ada", why="first", seen=registry.pointers())
    (state,) = registry.history()
    assert (state.action, state.who, state.why) == ("promote", "ada", "first")
    assert state.at.endswith("+00:00")


def test_promoting_the_canary_ends_it_and_so_does_a_rollback(registry: Registry) -> None:
    good, better = bare(registry, "good", safety="GO"), bare(registry, "better", safety="GO")
    registry.promote(good, **WHO, seen=registry.pointers())
    registry.swap("start canary", **WHO, seen=registry.pointers(), canary=better)
    pointers = registry.promote(better, **WHO, seen=registry.pointers())
    assert (pointers.champion, pointers.canary) == (better, None)
    pointers = registry.swap("start canary", **WHO, seen=pointers, canary=good)
    pointers = registry.rollback(**WHO, seen=pointers)
    assert (pointers.champion, pointers.canary) == (good, None)


def _promote_at_once(
    root: Path, name: str, rounds: int, barrier: Barrier, results: "Queue[tuple[int, str, str]]"
) -> None:
    registry = Registry(root)
    for number in range(rounds):
        release = bare(registry, f"{name} {number}", safety="GO")
        seen = registry.pointers()
        barrier.wait()
        try:
            registry.promote(release, who=name, why="race", seen=seen)
            results.put((number, release, "won"))
        except AgentRLError as told:
            results.put((number, release, str(told)))
        barrier.wait()


def test_of_two_that_promote_at_once_one_wins_and_the_other_is_told(registry: Registry) -> None:
    rounds = 15
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    racers = [
        context.Process(target=_promote_at_once, args=(registry.root, name, rounds, barrier, results))
        for name in ("ada", "bob")
    ]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=60) for _ in range(2 * rounds)]
    for racer in racers:
        racer.join()
    champions = [state.champion for state in registry.history()][::-1]
    for number in range(rounds):
        (loser,) = [each for each in outcomes if each[0] == number and each[2] != "won"]
        (winner,) = [each for each in outcomes if each[0] == number and each[2] == "won"]
        assert "pointers have changed since they were read: 'promote' by" in loser[2]
        assert champions[number] == winner[1]
    assert len(champions) == rounds


def test_a_promotion_killed_at_any_step_leaves_a_valid_pointer(registry: Registry) -> None:
    before = registry.promote(bare(registry, "first", safety="GO"), **WHO, seen=registry.pointers())

    def promote(number: int) -> None:
        registry.promote(bare(registry, f"{number} " * 5000, safety="GO"), **WHO, seen=registry.pointers())

    promotions = 0
    for step in killed_at_every_step(promote):
        now = registry.pointers()
        if now != before:
            assert now.champions[:-1] == before.champions, f"killed at step {step}"
            assert registry.manifest(now.champions[-1])["name"] == f"{step} " * 5000
            promotions += 1
        assert next(registry.history()) == now
        before = now
    assert promotions
    for release in registry.releases():
        registry.manifest(release)
    assert len(list(registry.history())) == promotions + 2


@pytest.mark.parametrize("flush", [0, 1, 2])
def test_a_full_disk_leaves_the_pointer(registry: Registry, monkeypatch: pytest.MonkeyPatch, flush: int) -> None:
    one, two = bare(registry, "one", safety="GO"), bare(registry, "two", safety="GO")
    before = registry.promote(one, **WHO, seen=registry.pointers())
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
    assert list(registry.history()) == [before]
    after = registry.promote(two, **WHO, seen=before)
    assert list(registry.history()) == [after, before]
