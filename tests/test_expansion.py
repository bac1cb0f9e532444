"""Two gates that break in one ISO week stop expansion: whatever the order of telling, the time zone or the lateness."""

import multiprocessing
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from crashing import killed_at_every_step
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl_resources.errors import AgentRLError
from agentrl_resources.release import Expansion, ExpansionState, iso_week

RELEASE = "a" * 64
OPEN = ExpansionState()

# A few weeks around the turn of a year whose last ISO week is 53, in time zones of every sign.
MOMENTS = st.datetimes(
    datetime(2026, 12, 14),
    datetime(2027, 1, 18),
    timezones=st.integers(-14 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters))),
)
BREAKS = st.lists(st.tuples(st.sampled_from(["safety", "latency", "cost"]), MOMENTS), max_size=10)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def tell(expansion: Expansion, gate: str, when: str, release: str = RELEASE) -> ExpansionState:
    return expansion.record_break(gate=gate, at=at(when), release=release, said=f"{gate} broke")


def by_hand(breaks: Sequence[tuple[str, datetime]]) -> ExpansionState:
    """The rule once more: count the distinct gates of each Monday-to-Monday week, UTC."""
    weeks: dict[date, set[str]] = {}
    for gate, when in breaks:
        day = when.astimezone(UTC).date()
        weeks.setdefault(day - timedelta(days=day.weekday()), set()).add(gate)
    stops = [monday for monday, gates in weeks.items() if len(gates) > 1]
    if not stops:
        return OPEN
    return ExpansionState(max(stops).strftime("%G-W%V"), tuple(sorted(weeks[max(stops)])))


@pytest.fixture
def expansion(tmp_path: Path) -> Expansion:
    return Expansion(tmp_path / "expansion")


@settings(max_examples=60, deadline=None, print_blob=True)
@given(breaks=BREAKS, data=st.data())
def test_the_order_and_the_repetition_of_telling_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, breaks: list[tuple[str, datetime]], data: st.DataObject
) -> None:
    again = data.draw(st.permutations([*breaks, *breaks[: len(breaks) // 2]]))
    elsewhere = [(gate, when.astimezone(timezone(timedelta(hours=5)))) for gate, when in again]
    for told in (breaks, again, elsewhere):
        expansion = Expansion(tmp_path_factory.mktemp("expansion"))
        for number, (gate, when) in enumerate(told, start=1):
            state = expansion.record_break(gate=gate, at=when, release=RELEASE, said="broke")
            assert state == expansion.state() == by_hand(told[:number])
        assert expansion.state() == by_hand(breaks)
        assert len(expansion.breaks()) == len({(gate, when.astimezone(UTC)) for gate, when in breaks})


@settings(max_examples=40, deadline=None, print_blob=True)
@given(before=BREAKS, late=BREAKS)
def test_after_a_clearing_only_what_was_not_known_counts(
    tmp_path_factory: pytest.TempPathFactory, before: list[tuple[str, datetime]], late: list[tuple[str, datetime]]
) -> None:
    expansion = Expansion(tmp_path_factory.mktemp("expansion"))
    for gate, when in before:
        expansion.record_break(gate=gate, at=when, release=RELEASE, said="broke")
    if not expansion.state().stopped:
        with pytest.raises(AgentRLError, match="not stopped"):
            expansion.clear(who="ada", reason="mended")
        assert expansion.clearings() == []
        return
    weeks = []
    while (stopped := expansion.state()).stopped:
        expansion.clear(who="ada", reason="mended")
        clearing = expansion.clearings()[-1]
        assert (clearing.who, clearing.reason, clearing.week, clearing.gates) == (
            "ada", "mended", stopped.week, stopped.gates,
        )  # fmt: skip
        weeks.append(stopped.week)
    assert weeks == sorted(set(weeks), reverse=True), "each week by itself, the latest first"
    settled = {(gate, when.astimezone(UTC)) for gate, when in before if iso_week(when) in weeks}
    for gate, when in late:
        expansion.record_break(gate=gate, at=when, release=RELEASE, said="told late")
    left = [(gate, when) for gate, when in (*before, *late) if (gate, when.astimezone(UTC)) not in settled]
    assert expansion.state() == by_hand(left)


def test_one_gate_may_break_as_often_as_it_likes(expansion: Expansion) -> None:
    for hour in range(24):
        assert tell(expansion, "latency", f"2026-11-18T{hour:02d}:00:00Z") == OPEN
    assert tell(expansion, "latency", "2026-11-18T00:00:00Z", release="b" * 64) == OPEN
    assert tell(expansion, "cost", "2026-11-20T00:00:00Z") == ExpansionState("2026-W47", ("cost", "latency"))


@pytest.mark.parametrize(
    ("first", "second", "week"),
    [
        ("2026-11-22T23:59:59.999999Z", "2026-11-23T00:00:00Z", None),  # Sunday and Monday
        ("2026-11-16T00:00:00Z", "2026-11-22T23:59:59.999999Z", "2026-W47"),  # the first and the last moment of a week
        ("2026-11-23T00:30:00+02:00", "2026-11-22T12:00:00Z", "2026-W47"),  # Monday in Paris, Sunday in UTC
        ("2026-11-23T00:30:00+02:00", "2026-11-23T12:00:00Z", None),
        ("2026-11-22T23:30:00-05:00", "2026-11-23T12:00:00Z", "2026-W48"),  # Sunday in New York, Monday in UTC
        ("2026-12-28T00:00:00Z", "2027-01-03T23:59:59Z", "2026-W53"),  # a week of two years
        ("2027-01-03T23:59:59Z", "2027-01-04T00:00:00Z", None),
        ("2027-01-04T00:00:00Z", "2027-01-10T00:00:00Z", "2027-W01"),
        ("2025-12-29T00:00:00Z", "2026-01-01T00:00:00Z", "2026-W01"),  # a first week that begins in December
        ("2025-11-19T00:00:00Z", "2026-11-18T00:00:00Z", None),  # the same week of two years
    ],
)
def test_a_week_is_an_iso_week_in_utc(expansion: Expansion, first: str, second: str, week: str | None) -> None:
    assert tell(expansion, "latency", first) == OPEN
    assert tell(expansion, "cost", second).week == week
    assert week is None or iso_week(at(first)) == iso_week(at(second)) == week


def test_a_late_label_counts_in_the_week_in_which_it_happened(expansion: Expansion) -> None:
    tell(expansion, "latency", "2026-11-11T12:00:00Z")
    assert tell(expansion, "latency", "2026-11-18T12:00:00Z") == OPEN
    assert tell(expansion, "cost", "2026-11-12T09:00:00Z") == ExpansionState("2026-W46", ("cost", "latency"))
    assert tell(expansion, "safety", "2026-11-19T09:00:00Z") == ExpansionState("2026-W47", ("latency", "safety"))
    cleared = expansion.clear(who="ada", reason="this one understood")
    assert cleared == ExpansionState("2026-W46", ("cost", "latency")), "each week by itself"
    assert expansion.clear(who="ada", reason="the other one too") == OPEN
    assert [(clearing.week, clearing.reason) for clearing in expansion.clearings()] == [
        ("2026-W47", "this one understood"),
        ("2026-W46", "the other one too"),
    ]
    assert tell(expansion, "safety", "2026-11-13T09:00:00Z") == OPEN, "one more gate in a week that was settled"
    assert tell(expansion, "cost", "2026-11-12T09:00:00Z") == OPEN, "told again"
    assert tell(expansion, "cost", "2026-11-12T10:00:00Z").week == "2026-W46", "two that nobody knew of"


def test_clearing_a_week_does_not_settle_what_broke_in_the_next_one(expansion: Expansion) -> None:
    tell(expansion, "safety", "2026-11-18T12:00:00Z")
    tell(expansion, "cost", "2026-11-19T12:00:00Z")
    tell(expansion, "latency", "2026-11-23T12:00:00Z")
    assert expansion.clear(who="ada", reason="last week is mended") == OPEN
    assert tell(expansion, "cost", "2026-11-25T12:00:00Z") == ExpansionState("2026-W48", ("cost", "latency"))


def test_what_was_said_first_is_kept_and_every_break_is_there(expansion: Expansion) -> None:
    tell(expansion, "cost", "2026-11-19T00:00:00+01:00")
    expansion.record_break(gate="cost", at=at("2026-11-18T23:00:00Z"), release=RELEASE, said="otherwise")
    tell(expansion, "latency", "2026-11-17T00:00:00Z")
    latency, cost = expansion.breaks()
    assert (latency.gate, cost.gate, cost.said, cost.week) == ("latency", "cost", "cost broke", "2026-W47")
    assert cost.at == "2026-11-18T23:00:00+00:00"


def test_a_moment_without_a_time_zone_is_refused(expansion: Expansion) -> None:
    with pytest.raises(AgentRLError, match="no time zone"):
        tell(expansion, "cost", "2026-11-19T00:00:00")
    assert expansion.breaks() == []


@pytest.mark.parametrize(("who", "reason"), [("ada", ""), ("ada", " \n"), ("", "mended")])
def test_a_stop_is_cleared_by_somebody_for_a_reason(expansion: Expansion, who: str, reason: str) -> None:
    tell(expansion, "cost", "2026-11-19T00:00:00Z")
    tell(expansion, "latency", "2026-11-19T00:00:00Z")
    with pytest.raises(AgentRLError, match="for a reason"):
        expansion.clear(who=who, reason=reason)
    assert expansion.state().stopped


ROUNDS = 20


def _tell_and_clear(folder: Path, name: str, barrier: Barrier, results: Any) -> None:
    expansion = Expansion(folder)
    for number in range(ROUNDS):
        tell(expansion, name, f"2026-11-18T00:00:{number:02d}Z")
        barrier.wait()
        try:
            expansion.clear(who=name, reason=f"stop {number}")
            results.put((number, "cleared"))
        except AgentRLError as told:
            results.put((number, str(told)))
        barrier.wait()


def test_of_two_that_clear_at_once_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    racers = [
        context.Process(target=_tell_and_clear, args=(tmp_path, name, barrier, results)) for name in ("latency", "cost")
    ]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=60) for _ in range(2 * ROUNDS)]
    for racer in racers:
        racer.join()
    for number in range(ROUNDS):
        (loser,) = [said for which, said in outcomes if which == number and said != "cleared"]
        assert "expansion is not stopped" in loser
    expansion = Expansion(tmp_path)
    assert [clearing.reason for clearing in expansion.clearings()] == [f"stop {number}" for number in range(ROUNDS)]
    assert len(expansion.breaks()) == 2 * ROUNDS


def test_a_break_or_a_clearing_killed_at_any_step_is_whole_or_absent(tmp_path: Path) -> None:
    expansion = Expansion(tmp_path)
    tell(expansion, "cost", "2026-11-18T00:00:00Z")
    stopped = ExpansionState("2026-W47", ("cost", "latency"))
    seen = []
    for _ in killed_at_every_step(lambda _: tell(expansion, "latency", "2026-11-18T00:00:00Z")):
        seen.append(expansion.state())
        assert seen[-1] in (OPEN, stopped)
    assert seen[0] == OPEN
    assert seen[-1] == stopped
    for _ in killed_at_every_step(lambda _: expansion.clear(who="ada", reason="mended")):
        if expansion.clearings():  # after which there is nothing left to clear
            break
        assert expansion.state() == stopped
    assert expansion.state() == OPEN
    assert len(expansion.clearings()) == 1
