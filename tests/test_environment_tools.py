"""Tools of one's own: as TRL reads and calls them, whatever they raise and however long they take."""

import asyncio
import dataclasses
import enum
import inspect
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any, Literal, NotRequired, Optional, TypedDict, Union

import pydantic
import pytest
from environments import calls, play, returning, seen, workflow_of
from transformers.utils import get_json_schema

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families.gpt_oss import Harmony, train_tokenizer
from agentrl_resources.workflow import EpisodeFactory, Outcome, Task, ToolRule


def answer(tool: Callable[..., Any], arguments: Any | None = None, **policy: Any) -> Any:
    """What the agent sees of one call."""
    return seen(play(workflow_of(returning(tool), **policy), calls((tool.__name__, arguments or {}))))[0]


def refused(content: Any) -> bool:
    return isinstance(content, dict) and content == {"error": "invalid arguments"}


# --- what the model is told, and what a tool is given -----------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Address:
    street: str
    number: int = 1


class Line(TypedDict):
    item: str
    count: NotRequired[int]


class Parcel(pydantic.BaseModel):
    weight: float
    to: Address


KNOWN_TO_TRL: list[tuple[Any, list[Any], list[Any]]] = [
    (int, [5, 5.0, -1], ["5", 5.5, True, None, [5]]),
    (float, [5, 5.5], ["5.5", None, True]),
    (str, ["5", ""], [5, None, ["a"]]),
    (bool, [True, False], [1, "true", None]),
    (Any, [1, "a", None, {"a": 1}], []),
    (list, [[], [1, "a"]], ["a", {}]),
    (dict, [{}, {"a": 1}], [[], "a"]),
    (Optional[int], [5, None], ["5", 5.5]),  # noqa: UP045
    (int | None, [5, None], ["5"]),
    (Union[int, str], [5, "5"], [None, 5.5, []]),  # noqa: UP007
    (int | float, [5, 5.5], ["5"]),
    (Literal["a", 2], ["a", 2], ["b", "2", None]),
    (Literal["a", None], ["a", None], ["b"]),
    (Colour, ["red", "blue"], ["RED", "green", None]),
    (Optional[Colour], ["red", None], ["green"]),  # noqa: UP045
    (list[int], [[1, 2.0], []], [["1"], [1.5], 1]),
    (list[Colour], [["red"]], [["green"]]),
    (list[dict], [[{"a": 1}]], [["a"]]),
    (list[int | None], [[1, None]], [["a"]]),
    (dict[str, int], [{"a": 1}], [{"a": "b"}]),
    (dict[str, list[str]], [{"a": ["b"]}], [{"a": "b"}, {"a": [1]}]),
    (tuple[int, str], [[1, "a"]], [[1], ["a", 1], [1, "a", 2]]),
]
OTHERS: list[tuple[Any, list[tuple[Any, Any]], list[Any]]] = [
    (Address, [({"street": "x"}, Address("x")), ({"street": "x", "number": 2.0}, Address("x", 2))],
     [{}, {"street": 1}, {"street": "x", "number": "2"}, None, "x"]),
    (list[Address], [([{"street": "x"}], [Address("x")])], [{"street": "x"}, [{}]]),
    (Line, [({"item": "a"}, {"item": "a"}), ({"item": "a", "count": 2}, {"item": "a", "count": 2})],
     [{}, {"item": "a", "count": "2"}]),
    (list[Line] | None, [(None, None), ([{"item": "a"}], [{"item": "a"}])], [[{}], "a"]),
    (Parcel, [({"weight": 1, "to": {"street": "x"}}, Parcel(weight=1.0, to=Address("x")))],
     [{"weight": "1", "to": {"street": "x"}}, {"weight": 1}]),
    (date, [("2026-01-02", date(2026, 1, 2))], ["soon", 5.5, None]),
    (Decimal, [("12.50", Decimal("12.50")), (3, Decimal(3))], ["a", None]),
    (tuple[int, ...], [([1, 2], (1, 2)), ([], ())], [["1"], 1]),
    (set[str], [(["a"], {"a"})], [[1], "a"]),
]  # fmt: skip


def taking(hint: Any, got: list[Any], **kind: Any) -> Callable[..., Any]:
    def take(self, value):  # type: ignore[no-untyped-def]
        """Takes a value.

        Args:
            value: What to take.
        """
        got.append(value)

    take.__annotations__ = {"value": hint}
    return take


@pytest.mark.parametrize(("hint", "valid", "invalid"), KNOWN_TO_TRL, ids=lambda one: str(one)[:40])
def test_what_trl_has_a_schema_for_is_described_as_there_and_passed_as_it_is(
    hint: Any, valid: list[Any], invalid: list[Any]
) -> None:
    got: list[Any] = []
    tool = taking(hint, got)
    parameters = EpisodeFactory(workflow_of(returning(tool))).tools[0]["function"]["parameters"]
    assert parameters == {**get_json_schema(tool)["function"]["parameters"], "additionalProperties": False}
    for value in valid:
        assert answer(tool, {"value": value}) == "done", value
        assert got[-1] == value
    if hint is int:
        assert [type(one) for one in got] == [int, int, int]  # 5.0 is a whole number in JSON, and no int in Python
    assert len(got) == len(valid)
    for value in invalid:
        assert refused(answer(tool, {"value": value})), value
    assert refused(answer(tool, {}))
    assert len(got) == len(valid)


@pytest.mark.parametrize(("hint", "valid", "invalid"), OTHERS, ids=lambda one: str(one)[:40])
def test_what_trl_has_no_schema_for_becomes_what_the_annotation_says(
    hint: Any, valid: list[tuple[Any, Any]], invalid: list[Any]
) -> None:
    got: list[Any] = []
    tool = taking(hint, got)
    parameters = EpisodeFactory(workflow_of(returning(tool))).tools[0]["function"]["parameters"]
    assert "$ref" not in json.dumps(parameters)
    assert parameters["properties"]["value"]["description"] == "What to take."
    for value, wanted in valid:
        assert answer(tool, {"value": value}) == "done", value
        assert got[-1] == wanted
        assert type(got[-1]) is type(wanted)
    for value in invalid:
        assert refused(answer(tool, {"value": value})), value
    assert len(got) == len(valid)


def test_every_kind_of_parameter_gets_what_is_meant_for_it() -> None:
    def take(self: Any, a: int, /, b: int = 2, *rest: int, key: str = "z", **more: float) -> str:
        """Takes.

        Args:
            a: A.
            b: B.
            rest: R.
            key: K.
        """
        return repr((a, b, rest, key, more))

    assert answer(take, {"a": 1}) == "(1, 2, (), 'z', {})"
    assert answer(take, {"a": 1.0, "rest": [3, 4], "x": 5}) == "(1, 2, (3, 4), 'z', {'x': 5})"
    assert answer(take, {"a": 1, "key": "k", "b": 9}) == "(1, 9, (), 'k', {})"
    for wrong in ({}, {"b": 1}, {"a": 1, "rest": ["x"]}, {"a": 1, "x": "y"}, {"a": 1, "rest": 3}, {"a": 1, "key": 1}):
        assert refused(answer(take, wrong)), wrong


def test_a_default_of_none_may_be_said() -> None:
    def take(self: Any, limit: int = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
        """Takes.

        Args:
            limit: How many.
        """
        return repr(limit)

    assert [answer(take, given) for given in ({}, {"limit": None}, {"limit": 3})] == ["None", "None", "3"]


def test_a_tool_that_changes_its_arguments_does_not_change_the_trace() -> None:
    def take(self: Any, items: list[int]) -> list[int]:
        """Takes.

        Args:
            items: Which.
        """
        items.append(9)
        return items

    turn = calls(("take", {"items": [1]}))
    episode = play(workflow_of(returning(take)), turn)
    assert seen(episode) == [[1, 9]]
    assert turn == calls(("take", {"items": [1]}))
    assert episode.transcript.tool_calls[0].arguments == {"items": [1]}


@pytest.mark.parametrize(
    ("value", "passes"), [(5, True), ("5", True), (None, True), (11, False), ("11", False), ("x", False), ([1], False)]
)
def test_a_limit_holds_whatever_type_the_number_comes_in(value: Any, passes: bool) -> None:
    def take(self: Any, amount: Any) -> str:
        """Takes.

        Args:
            amount: How much.
        """
        return "taken"

    workflow = workflow_of(returning(take), {"take": ToolRule("write", limits={"amount": 10})})
    episode = play(workflow, calls(("take", {"amount": value})))
    assert seen(episode) == ["taken" if passes else {"error": "amount above the limit"}]
    assert episode.side_effects_begun == passes


# --- which methods are tools ------------------------------------------------------------------------------------------


class Base:
    def inherited(self, number: int) -> int:
        """One of the base.

        Args:
            number: Any.
        """
        return number


class Shop(Base):
    """Everything that a class can have."""

    attribute = 3
    made = 0

    def __init__(self) -> None:
        Shop.made += 1
        self.on_the_instance = lambda: 1

    def reset(self, **payload: Any) -> None: ...

    def get_reward(self) -> float:
        """No tool."""
        return 1.0

    def close(self): ...  # type: ignore[no-untyped-def]

    def _private(self) -> int:
        """No tool."""
        return 1

    @property
    def a_property(self) -> int:
        raise AssertionError("reading it does something")

    @classmethod
    def of_the_class(cls) -> int:
        """No tool in TRL."""
        return 1

    @staticmethod
    def static(number: int) -> int:
        """Without self.

        Args:
            number: Any.
        """
        return number + 1


def test_tools_are_those_of_trl_that_the_policy_names() -> None:
    """TRL lists functions on the class, and calls them on the instance."""
    of_trl = {name for name, _ in inspect.getmembers(Shop, predicate=inspect.isfunction) if name[0] != "_"}
    assert of_trl == {"reset", "get_reward", "close", "inherited", "static"}
    workflow = workflow_of(Shop, {name: ToolRule("read") for name in ("static", "inherited")})
    before = Shop.made
    factory = EpisodeFactory(workflow)
    assert Shop.made == before
    assert [tool["function"]["name"] for tool in factory.tools] == ["inherited", "static"]
    episode = play(workflow, calls(("inherited", {"number": 3}), ("static", {"number": 3}), ("close", {})))
    assert seen(episode) == [3, 4, {"error": "unknown tool close"}]


@pytest.mark.parametrize(
    "name", ["missing", "reset", "get_reward", "_private", "a_property", "of_the_class", "attribute", "on_the_instance"]
)
def test_a_rule_for_what_is_no_tool_is_refused(name: str) -> None:
    with pytest.raises(AgentRLError, match=f"`{name}` is no tool of Shop.*inherited, static"):
        EpisodeFactory(workflow_of(Shop, {name: ToolRule("read")}))


def test_a_function_that_makes_environments_will_do() -> None:
    workflow = workflow_of(lambda: Shop(), {"static": ToolRule("read")})
    assert seen(play(workflow, calls(("static", {"number": 3})))) == [4]


class Unclear:
    def reset(self, **payload: Any) -> None: ...

    def no_docstring(self, item: str) -> None: ...

    def no_hint(self, item) -> None:  # type: ignore[no-untyped-def]
        """Looks.

        Args:
            item: Which.
        """

    def no_description(self, item: str) -> None:
        """Looks."""

    def no_schema(self, item: threading.Thread) -> None:
        """Looks.

        Args:
            item: Which.
        """

    def unreadable(self, item: "Nowhere") -> None:  # type: ignore[name-defined] # noqa: F821
        """Looks.

        Args:
            item: Which.
        """


def test_a_tool_that_no_model_could_use_is_refused_with_what_to_add() -> None:
    """TRL cannot use these either: transformers ends in an error of its own."""
    said = {
        "no_docstring": "tool `no_docstring`: it has no docstring",
        "no_hint": "tool `no_hint`: argument `item` has no type hint",
        "no_description": "tool `no_description`: argument `item` has no description",
        "no_schema": "tool `no_schema`: argument `item`: no schema can be made of",
        "unreadable": "tool `unreadable`: its type hints cannot be read",
    }
    for name, what in said.items():
        with pytest.raises(AgentRLError, match=what):
            EpisodeFactory(workflow_of(Unclear, {name: ToolRule("read")}))
        with pytest.raises(Exception):  # noqa: B017, PT011
            get_json_schema(getattr(Unclear, name))
    with pytest.raises(AgentRLError) as refused_at_once:
        EpisodeFactory(workflow_of(Unclear, dict.fromkeys(("no_docstring", "no_hint"), ToolRule("read"))))
    assert all(said[name] in str(refused_at_once.value) for name in ("no_docstring", "no_hint"))


# --- several calls in a turn ------------------------------------------------------------------------------------------


def test_all_calls_of_a_turn_are_run_in_their_order_and_each_is_answered() -> None:
    def add(self: Any, number: int) -> list[int]:
        """Adds.

        Args:
            number: What.
        """
        self.numbers = [*getattr(self, "numbers", []), number]
        return self.numbers

    turn = calls(("add", {"number": 1}), ("missing", {}), ("add", {"number": 2}), ids=True)
    episode = play(workflow_of(returning(add)), turn)
    answers = [message for message in episode.transcript.messages if message["role"] == "tool"]
    assert [message["content"] for message in answers] == [[1], {"error": "unknown tool missing"}, [1, 2]]
    assert [message["tool_call_id"] for message in answers] == ["call_0", "call_1", "call_2"]
    assert len(episode.transcript.tool_calls) == 3


def test_calls_beyond_the_budget_are_answered_and_not_run() -> None:
    ran = []

    def act(self: Any) -> None:
        """Acts."""
        ran.append(1)

    workflow = workflow_of(returning(act), max_calls=2)
    factory = EpisodeFactory(workflow)
    episode = factory.start(Task("task", "any", "train", {"prompt": "please"}))
    found = episode.step(calls(*[("act", {})] * 4))
    assert [one["content"] for one in found] == ["done", "done", *[{"error": "call budget spent"}] * 2]
    assert len(ran) == 2
    assert episode.done


def test_a_policy_reads_several_observations_and_then_takes_its_turn() -> None:
    def look(self: Any) -> str:
        """Looks."""
        return "seen"

    workflow = workflow_of(returning(look))
    harmony = Harmony(train_tokenizer([], [], 300), EpisodeFactory(workflow).tools, workflow.instructions)
    episode = EpisodeFactory(workflow).start(Task("task", "any", "train", {"prompt": "please"}))
    observations = episode.step(calls(("look", {}), ("look", {})))
    text = harmony.tokenizer.decode(harmony.observation(*observations))
    assert text.count("<|start|>functions.look") == 2
    assert text.count("<|start|>assistant") == 1
    assert text.endswith("<|start|>assistant")


# --- whatever they raise ----------------------------------------------------------------------------------------------


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such order"), "no such order"),
        (KeyError("a"), "'a'"),
        (ValueError(), "ValueError"),
        (Speechless(), "Speechless"),
        (ValueError("half \ud800 pair"), "half ? pair"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (StopIteration("x"), "StopIteration"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (asyncio.CancelledError(), "CancelledError"),
        (RecursionError("too deep"), "too deep"),
        (MemoryError(), "MemoryError"),
        (TimeoutError(), "TimeoutError"),
        (ExceptionGroup("two", [ValueError("a")]), "two"),
        (type("Own", (BaseException,), {})("mine"), "mine"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_whatever_a_tool_raises_the_agent_sees_it_and_the_episode_goes_on(
    error: BaseException, said: str, is_async: bool
) -> None:
    def fails(self: Any) -> None:
        """Fails."""
        raise error

    async def fails_later(self: Any) -> None:
        """Fails."""
        await asyncio.sleep(0)
        raise error

    def works(self: Any) -> int:
        """Works."""
        return 3

    tool = fails_later if is_async else fails
    episode = play(workflow_of(returning(tool, works)), calls((tool.__name__, {})), calls(("works", {})))
    failed, worked = seen(episode)
    assert said in failed["error"]
    assert worked == 3
    assert episode.transcript.tool_errors == 1
    assert episode.transcript.final_answer == "done"


def test_an_endless_recursion_is_a_tool_error() -> None:
    def again(self: Any) -> Any:
        """Again."""
        return again(self)

    assert "recursion" in answer(again)["error"]


# --- async ------------------------------------------------------------------------------------------------------------


class Slowly:
    """Everything that TRL may await, and a task that goes on between two calls."""

    async def reset(self, **payload: Any) -> str:
        self.ticks = 0
        self.loop = asyncio.get_running_loop()
        self.task = asyncio.create_task(self._tick())
        return " Slowly."

    async def _tick(self) -> None:
        while self.ticks < 10_000:
            self.ticks += 1
            await asyncio.sleep(0.001)

    async def stock(self, item: str) -> dict[str, Any]:
        """Looks.

        Args:
            item: What.
        """
        await asyncio.sleep(0.001)
        assert asyncio.get_running_loop() is self.loop
        return {"left": 3, "ticks": self.ticks}

    async def several(self) -> Any:
        """Gives one after the other."""
        for number in range(3):
            yield number

    def inside(self) -> int:
        """A sync tool that runs a loop of its own."""

        async def three() -> int:
            return 3

        return asyncio.run(three())

    async def get_reward(self) -> float:
        self.task.cancel()
        return 0.25


async def verify(environment: Any, transcript: Any) -> Outcome:
    reward = await environment.get_reward()
    return Outcome(True, False, {"outcome": reward}, reward)


def played_slowly() -> Any:
    workflow = workflow_of(Slowly)
    workflow.verify = verify  # type: ignore[assignment, method-assign]
    stock = calls(("stock", {"item": "lamp"}))

    def agent_waits(messages: list[Any]) -> Any:
        time.sleep(0.05)
        turns = [stock, calls(("several", {}), ("inside", {})), stock, {"role": "assistant", "content": "done"}]
        return turns[sum(message["role"] == "assistant" for message in messages)]

    episode = EpisodeFactory(workflow).play(Task("task", "any", "train", {"prompt": "Go."}), agent_waits)
    return episode, episode.outcome


def judged_slowly(episode: Any, outcome: Any) -> None:
    first, several, inside, last = seen(episode)
    assert (first["left"], several, inside, last["left"]) == (3, [0, 1, 2], 3, 3)
    assert last["ticks"] > first["ticks"] > 0  # its task went on while the agent thought
    assert episode.transcript.messages[1]["content"] == "Go. Slowly."
    assert outcome.quality == 0.25


def test_what_is_async_is_awaited() -> None:
    judged_slowly(*played_slowly())


def test_what_is_async_is_awaited_inside_a_running_loop_too() -> None:
    async def inside() -> Any:
        return played_slowly(), await asyncio.gather(*(asyncio.to_thread(played_slowly) for _ in range(4)))

    here, beside = asyncio.run(inside())
    for one in (here, *beside):
        judged_slowly(*one)


# --- threads and time -------------------------------------------------------------------------------------------------


class Database:
    """SQLite refuses what was opened in another thread."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")

    def reset(self, **payload: Any) -> None:
        self.connection.execute("create table orders (number integer)")

    def add(self) -> None:
        """Adds."""
        self.connection.execute("insert into orders values (1)")

    def get_reward(self) -> float:
        return float(self.connection.execute("select count(*) from orders").fetchone()[0])


def test_an_environment_sees_one_thread_only_whoever_asks() -> None:
    workflow = workflow_of(Database)
    workflow.verify = lambda environment, transcript: Outcome(True, False, {}, environment.get_reward())  # type: ignore
    episode = EpisodeFactory(workflow).start(Task("task", "any", "train", {"prompt": "please"}))

    async def elsewhere() -> Any:
        for _ in range(3):
            found = await asyncio.to_thread(episode.step, calls(("add", {})))
        return found

    assert asyncio.run(elsewhere())[0]["content"] == "done"
    assert episode.outcome.quality == 3.0


class Depot:
    """Some of its tools never come back."""

    def reset(self, **payload: Any) -> None:
        self.ended: list[str] = []

    def hang(self) -> None:
        """Waits."""
        time.sleep(3600)

    async def wait(self) -> None:
        """Waits."""
        try:
            await asyncio.sleep(3600)
        finally:
            self.ended.append("wait")

    async def block(self) -> None:
        """Waits and lets nobody else."""
        time.sleep(3600)

    def numbers(self) -> Any:
        """Never ends to give."""
        while True:
            time.sleep(0.01)
            yield 1

    async def price(self) -> list[str]:
        """Looks."""
        return self.ended


DEPOT = {
    name: ToolRule("write" if name == "hang" else "read") for name in ("hang", "wait", "block", "numbers", "price")
}


@pytest.mark.parametrize("name", ["hang", "wait", "block", "numbers"])
def test_a_call_that_does_not_come_back_is_cut_and_the_episode_goes_on(name: str) -> None:
    workflow = workflow_of(Depot, DEPOT, max_call_seconds=0.2)
    episode = play(workflow, calls((name, {})), calls(("price", {})))
    cut, after = seen(episode)
    assert cut == {"error": "no answer within 0.2 s"}
    assert after == (["wait"] if name == "wait" else [])  # what can be cancelled is
    assert episode.transcript.tool_errors == 1
    assert episode.transcript.final_answer == "done"
    assert episode.side_effects_begun == (name == "hang")  # it may have happened
    assert not episode.acted


class Plain:
    def reset(self, prompt: str) -> str:
        self.where = [threading.get_ident()]
        return "Welcome."

    def look(self) -> list[int]:
        """Looks."""
        self.where.append(threading.get_ident())
        return [1, 2]

    def leave(self) -> None:
        """Would end whoever plays."""
        raise SystemExit("closed")

    async def ask(self) -> str:
        """Is awaited."""
        await asyncio.sleep(0)
        return "yes"


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_tools_that_are_never_cut_run_where_the_agent_is_played_and_do_the_same(seconds: float | None) -> None:
    workflow = workflow_of(
        Plain, {name: ToolRule("read") for name in ("look", "leave", "ask")}, max_call_seconds=seconds
    )
    episode = play(workflow, calls(("look", {})), calls(("leave", {})), calls(("ask", {})))
    assert seen(episode) == [[1, 2], {"error": "SystemExit: closed"}, "yes"]
    where = set(episode._environment.where)
    assert len(where) == 1
    assert (where == {threading.get_ident()}) == (seconds is None)


def test_a_call_gets_at_most_what_is_left_of_the_episode() -> None:
    workflow = workflow_of(Depot, DEPOT, max_seconds=0.3)
    cut, refused_then = seen(play(workflow, calls(("hang", {})), calls(("price", {}))))
    assert cut["error"].startswith("no answer within 0.")
    assert refused_then == {"error": "time budget spent"}


def test_what_one_episode_loses_is_not_of_the_time_of_those_beside_it() -> None:
    """In a rollout all wait while one tool hangs."""
    from agentrl_resources.workflow import ToolThread

    factory = EpisodeFactory(workflow_of(Depot, DEPOT, max_seconds=1.0, max_call_seconds=0.6))
    thread, task = ToolThread(), Task("task", "any", "train", {"prompt": "please"})
    episodes = [factory.start(task, thread) for _ in range(4)]
    for episode in episodes[:3]:
        (cut,) = episode.step(calls(("hang", {})))
        assert cut["content"]["error"].startswith("no answer within")
    (found,) = episodes[3].step(calls(("price", {})))
    assert found["content"] == []


def test_a_reset_that_hangs_is_an_error_and_no_lost_night() -> None:
    class Stuck:
        def reset(self, **payload: Any) -> None:
            time.sleep(3600)

    with pytest.raises(AgentRLError, match=r"Stuck.reset\(\) was not done after 0.2 s"):
        play(workflow_of(Stuck, {}, max_seconds=0.2))


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), StopIteration(), asyncio.CancelledError()])
def test_a_reset_cannot_end_who_plays(error: BaseException) -> None:
    class Ends:
        def reset(self, **payload: Any) -> None:
            raise error

    with pytest.raises(RuntimeError, match=type(error).__name__):
        play(workflow_of(Ends, {}))


def test_threads_end_with_their_episodes_and_hanging_ones_do_not_keep_the_process() -> None:
    program = """
import threading, time, sys
sys.path.insert(0, "tests")
from environments import calls, play, workflow_of
from test_environment_tools import DEPOT, Depot
from agentrl_resources.workflow import EpisodeFactory, Task
factory = EpisodeFactory(workflow_of(Depot, DEPOT, max_call_seconds=0.1))
task = Task("task", "any", "train", {"prompt": "please"})
for _ in range(20):
    factory.start(task)
deadline = time.monotonic() + 20
while threading.active_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
print(threading.active_count())
for name in ("hang", "block"):
    factory.start(task).step(calls((name, {})))
print("end")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "end"], done.stderr
    assert done.returncode == 0
