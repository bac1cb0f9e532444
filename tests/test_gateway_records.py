"""Whatever goes wrong once a tool has acted, a run record says that it acted."""

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import openai
import pytest
from gateways import WORKFLOW, Running, client, running, settings_with
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl_resources.canary import ScriptedBackend
from agentrl_resources.gateway.records import write_down
from agentrl_resources.telemetry import RunRecord, Spool, read_new
from agentrl_resources.workflow import Outcome, Prices, ToolPolicy, ToolRule


class Unwritable:
    """What has no text."""

    def __repr__(self) -> str:
        raise ValueError("nothing to say")


def loop() -> list[Any]:
    found: list[Any] = []
    found += [found, found]
    return found


def ends(error: type[BaseException]) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end


RESULTS: dict[str, Callable[[], Any]] = {
    "text": lambda: "done",
    "a Decimal": lambda: Decimal("12.50"),
    "a date in an object": lambda: {"due": date(2026, 11, 17)},
    "keys that are no text": lambda: {1: "one", None: 2, ("a", "b"): 3, Unwritable(): 4},
    "not a number": lambda: math.nan,
    "half a surrogate pair": lambda: "\ud800",
    "bytes": lambda: b"\xff",
    "itself": loop,
    "an object without a text": Unwritable,
    "an error": ends(ValueError),
    "the end of the process": ends(SystemExit),
    "an interrupt": ends(KeyboardInterrupt),
    "a cancellation": ends(asyncio.CancelledError),
}


class Desk:
    """An environment whose one tool acts, and returns whatever Python has."""

    acted = 0

    def reset(self, prompt: str) -> None: ...

    def act(self, what: str) -> object:
        """Changes something.

        Args:
            what: What to return.
        """
        Desk.acted += 1
        return RESULTS[what]()


class Shop:
    """A workflow around it. What it says of an outcome, and what it charges, can be anything."""

    name = "order_desk"
    instructions = "You serve customers."
    tool_policy = ToolPolicy({"act": ToolRule("write")})
    rubric = WORKFLOW.rubric
    prices: Any = Prices()
    hand_over_tools: frozenset[str] = frozenset()
    clarifying_tools: frozenset[str] = frozenset()
    judges_traffic = True
    environment = Desk
    outcome: Any = Outcome(True, False, {}, 1.0)

    def verify(self, environment: Any, transcript: Any) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def acts_once() -> ScriptedBackend:
    """An agent that does what the customer says, and ends."""

    def choose(task: Any, seed: int) -> Any:
        def agent(messages: Any) -> dict[str, Any]:
            if messages[-1]["role"] == "tool":
                return {"role": "assistant", "content": "done"}
            function = {"name": "act", "arguments": {"what": task.payload["prompt"]}}
            return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}

        return agent

    return ScriptedBackend(choose)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("gateway"), settings_with(), acts_once(), Shop()) as found:  # type: ignore[arg-type]
        yield found


def asked(served: Running, words: str, **more: Any) -> tuple[str | None, RunRecord]:
    """The answer, if there is one, and the one record of it."""
    before, acted = len(served.records()), Desk.acted
    try:
        answer = client(served).chat.completions.create(
            model="order_desk", messages=[{"role": "user", "content": words}], **more
        )
        content = answer.choices[0].message.content
    except openai.APIStatusError:
        content = None
    assert Desk.acted == acted + 1
    (record,) = served.records()[before:]
    return content, record


@pytest.mark.parametrize("result", RESULTS)
def test_a_tool_that_acted_is_on_record_whatever_it_returned(desk: Running, result: str) -> None:
    content, record = asked(desk, result)
    assert content in ("done", None)
    assert (record.served_channel is None) == (content is None)
    if record.trace["tool_calls"]:
        assert [call["name"] for call in record.trace["tool_calls"]] == ["act"]
    else:
        assert record.trace["failure"]["side_effects"]
    assert asked(desk, "text")[0] == "done", "the gateway goes on"


@pytest.mark.parametrize(
    "outcome",
    [None, "good", Outcome(True, False, {}, math.nan), Outcome("yes", False, {}, 1.0), ValueError("broken")],  # type: ignore[arg-type]
    ids=str,
)
def test_an_outcome_that_is_none_does_not_cost_the_record(
    desk: Running, outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shop, "outcome", outcome)
    content, record = asked(desk, "text")
    assert content == "done"
    assert record.tool_calls_count == 1
    assert record.success is None


@pytest.mark.parametrize(
    "prices", [None, replace(Prices(), per_hand_over=-1.0), replace(Prices(), per_tool_call=math.nan)]
)
def test_prices_that_are_none_do_not_cost_the_record(
    desk: Running, prices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shop, "prices", prices)
    content, record = asked(desk, "text")
    assert content == "done"
    assert (record.tool_calls_count, record.cost) == (1, None)


@pytest.mark.parametrize(
    "fields", [{"response_format": {"type": "json_object"}}, {"logprobs": True}], ids=lambda fields: next(iter(fields))
)
def test_an_answer_that_passes_over_a_field_after_a_tool_acted_is_a_run(desk: Running, fields: dict[str, Any]) -> None:
    """Nobody may take a request that acted for one that was only refused."""
    with pytest.raises(openai.InternalServerError, match=f"keeps to `{next(iter(fields))}`; a person") as caught:
        client(desk).chat.completions.create(
            model="order_desk", messages=[{"role": "user", "content": "text"}], **fields
        )
    record = desk.records()[-1]
    assert record.run_id == caught.value.code
    assert record.tool_calls_count == 1
    assert record.trace["failure"] | {"said": ""} == {
        "kind": "error", "said": "", "side_effects": True, "param": next(iter(fields)),
    }  # fmt: skip


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
odd = st.sampled_from([math.nan, math.inf, "\udfff", b"x", Decimal(1), date(2026, 1, 1), {1, 2}, (1, 2), object()])


@settings(max_examples=30, deadline=None)
@given(value=json_values, stranger=odd)
def test_a_trace_with_something_odd_in_it_keeps_all_the_rest(
    value: Any, stranger: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder)
    record = RunRecord(
        run_id="run", workflow="w", task_id="t", release_channel="general", started_at="2026-01-01T00:00:00Z",
        trace={"odd": stranger, "plain": json.loads(json.dumps(value))},
    )  # fmt: skip
    without = replace(record, run_id="without", trace={"plain": record.trace["plain"]})
    write_down(record, spool)
    write_down(without, spool)
    spool.close()
    written, reference = read_new(folder, {}).runs
    assert written.trace["plain"] == reference.trace["plain"]
    assert "odd" in written.trace
