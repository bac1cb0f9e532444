"""What tools return: text or JSON, once and for everybody, whatever Python value it is."""

import collections
import dataclasses
import enum
import io
import itertools
import json
import math
import sqlite3
import threading
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pydantic
import pytest
import torch
from environments import calls, play, result_of, returning, seen, workflow_of
from hypothesis import given, settings

from agentrl_resources.families.gpt_oss import Harmony, train_tokenizer
from agentrl_resources.files import canonical_json
from agentrl_resources.workflow import EpisodeFactory
from agentrl_resources.workflow.results import CUT, DONE, NoTextError, snapshot

LIMIT = 20_000


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 2


@dataclasses.dataclass
class Order:
    number: int
    due: Any


class Model(pydantic.BaseModel):
    when: date = date(2026, 1, 2)
    price: Decimal = Decimal("1.50")
    key: pydantic.SecretStr = pydantic.SecretStr("hidden")


Point = collections.namedtuple("Point", "x y")


class OnlyRepr:
    def __repr__(self) -> str:
        return "OnlyRepr(3)"


class Plain:
    def __init__(self) -> None:
        self.number = 3
        self._hidden = 4


class NoText:
    def __str__(self) -> str:
        raise ValueError("no text of it")

    __repr__ = __str__


itself: list[Any] = [1]
itself.append(itself)
rows = sqlite3.connect(":memory:", check_same_thread=False)
rows.row_factory = sqlite3.Row

VALUES: list[tuple[Any, Any]] = [
    (None, DONE),
    ("", ""),
    ([], []),
    (True, True),
    ({"a": None}, {"a": None}),
    (Decimal("12.50"), "12.50"),
    (Fraction(1, 3), "1/3"),
    (1 + 2j, "(1+2j)"),
    (date(2026, 11, 17), "2026-11-17"),
    (time(9, 30), "09:30:00"),
    (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
    (timedelta(days=1), "1 day, 0:00:00"),
    (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (PurePosixPath("/a/b"), "/a/b"),
    (ValueError("bad"), "ValueError: bad"),
    (Colour.RED, "red"),
    (Level.HIGH, 2),
    (Order(1, {2}), {"number": 1, "due": [2]}),
    (Model(), {"when": "2026-01-02", "price": "1.50", "key": "**********"}),
    (Point(1, "b"), {"x": 1, "y": "b"}),
    (SimpleNamespace(a=1), {"a": 1}),
    (("red", 7), ["red", 7]),
    ({"b", "a"}, ["a", "b"]),
    (frozenset({3, 10, 2}), [2, 3, 10]),
    (range(3), [0, 1, 2]),
    ((n * n for n in range(3)), [0, 1, 4]),
    (collections.deque([1]), [1]),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    ({"b": 1, "a": 2}.keys(), ["b", "a"]),
    ({1: "one", "two": 2, None: 3, (1, 2): 4}, {"1": "one", "two": 2, "null": 3, "[1, 2]": 4}),
    ({1: "number", "1": "text"}, {"1": "number", "1 (str)": "text"}),
    (b"red", "red"),
    (bytearray(b"\xff"), "\\xff"),
    ({"price": math.nan, "most": math.inf, "least": -math.inf},
     {"price": "NaN", "most": "Infinity", "least": "-Infinity"}),
    (2**63, str(2**63)),
    ("half \ud800 pair", "half ? pair"),
    (itself, [1, CUT]),
    (OnlyRepr(), "OnlyRepr(3)"),
    (Plain(), {"number": 3}),
    (rows.execute("select 1 as a, 'x' as b"), [{"a": 1, "b": "x"}]),
    (np.int64(3), 3),
    (np.float32(1.5), 1.5),
    (np.bool_(True), True),
    (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    (np.datetime64("2026-01-01"), "2026-01-01"),
    (torch.tensor([[1.0, 2.0]], requires_grad=True), [[1.0, 2.0]]),
    (torch.tensor(3), 3),
    (pd.DataFrame({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
    (pd.DataFrame({"a": [1]}, index=pd.Index(["k"], name="key")), [{"key": "k", "a": 1}]),
    (pd.Series([1, 2]), [1, 2]),
    (pd.Timestamp("2026-01-01"), "2026-01-01T00:00:00"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "wanted"), VALUES, ids=lambda one: type(one).__name__)
def test_what_a_tool_returns_is_text_or_json(value: Any, wanted: Any) -> None:
    found = snapshot(value, LIMIT)
    assert found == wanted
    assert type(found) is type(wanted)  # True == 1
    canonical_json(found)


@pytest.mark.parametrize("value", [object(), lambda: 1, threading.Lock(), io.StringIO("a"), NoText()])
def test_what_has_no_text_is_a_tool_error_that_the_agent_sees(value: Any) -> None:
    error = result_of(value)["error"]
    assert "no text of it" in error or "neither text nor JSON" in error
    assert " at 0x" not in error


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, list(range(10**6)), itertools.count(), {str(n): "y" * 50 for n in range(10**5)}, "é" * 10**6],
    ids=("text", "list", "without end", "object", "not ascii"),
)
def test_a_huge_result_is_cut_and_says_so(value: Any) -> None:
    text = json.dumps(result_of(value, max_result_characters=1000), ensure_ascii=False)
    assert 400 < len(text) < 1200
    assert CUT in text


def test_what_is_nested_too_deeply_is_cut_and_not_walked_for_ever() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep, deep]
    assert CUT in json.dumps(snapshot(deep, LIMIT))


def test_a_set_has_one_order_whatever_the_process_hashes_like() -> None:
    values = ["a", "b", (1, "x"), None, 3, 2.5, frozenset({1})]
    grown: set[Any] = set()
    for value in reversed(values):
        grown |= {value}
    assert snapshot(set(values), LIMIT) == snapshot(grown, LIMIT)


def test_a_result_is_a_copy() -> None:
    live: dict[str, Any] = {"stock": [3]}

    def look(self: Any) -> Any:
        """Looks."""
        return live

    def sell(self: Any) -> Any:
        """Sells."""
        live["stock"].append(live["stock"].pop() - 1)

    episode = play(workflow_of(returning(look, sell)), *(calls((name, {})) for name in ("look", "sell", "look")))
    assert seen(episode) == [{"stock": [3]}, DONE, {"stock": [2]}]
    assert [call.result for call in episode.transcript.tool_calls] == seen(episode)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)  # half surrogate pairs too
    | st.binary(max_size=8)
    | st.decimals()
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.complex_numbers()
    | st.fractions()
    | st.sampled_from([*Colour, *Level])
)
KEYS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.tuples(st.integers())
    | st.dates()
)
ODD = st.recursive(
    SCALARS,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(KEYS, inside, max_size=4)
        | st.tuples(inside, inside)
        | st.builds(Order, st.integers(), inside)
        | st.builds(Point, inside, inside)
        | st.builds(lambda one: SimpleNamespace(one=one), inside)
        | st.sets(KEYS, max_size=4)
    ),
    max_leaves=12,
)


@given(ODD)
@settings(deadline=None, print_blob=True)
def test_any_result_is_json_and_stays_what_it_is(value: Any) -> None:
    found = snapshot(value, LIMIT)
    assert found is not None
    assert json.loads(canonical_json(found)) == found
    assert snapshot(found, LIMIT) == found
    if isinstance(value, dict):
        assert len(found) == len(value)
    if isinstance(value, list | set | tuple) and not hasattr(value, "_asdict"):
        assert len(found) == len(value)


TEXTS = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXTS,
    lambda inside: st.lists(inside) | st.dictionaries(TEXTS, inside),
)


@given(JSON)
@settings(deadline=None, print_blob=True)
def test_what_is_json_already_comes_back_unchanged(value: Any) -> None:
    assert snapshot(value, 10**6) == (DONE if value is None else value)


@pytest.fixture(scope="module")
def looking() -> Any:
    def look(self: Any) -> Any:
        """Looks."""
        return self.value

    workflow = workflow_of(returning(look))
    harmony = Harmony(train_tokenizer([], [], 300), EpisodeFactory(workflow).tools, workflow.instructions)
    return workflow, harmony


@given(value=ODD)
@settings(deadline=None, print_blob=True, max_examples=50)
def test_the_policy_reads_what_the_trace_holds(looking: Any, value: Any) -> None:
    workflow, harmony = looking
    workflow.environment.value = value
    episode = play(workflow, calls(("look", {})))
    (content,) = seen(episode)
    assert episode.transcript.tool_calls[0].result == content
    assert episode.transcript.tool_errors == 0
    text = harmony.tokenizer.decode(harmony.encode(episode.transcript.messages).ids)
    shown = text.rpartition("to=assistant<|channel|>commentary<|message|>")[2].partition("<|end|>")[0]
    assert json.loads(shown.replace("<| ", "<|")) == json.loads(canonical_json(content).replace(b"<| ", b"<|"))


def test_no_text_error_names_the_type() -> None:
    with pytest.raises(NoTextError, match="function"):
        snapshot({"a": [lambda: 1]}, LIMIT)
