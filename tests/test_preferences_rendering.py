"""What cleaning admits, training can write: whole, and with a mask over exactly what the agent wrote."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import small_factory, small_harmony

from agentrl_resources.families import Encoded
from agentrl_resources.families.gpt_oss import Harmony
from agentrl_resources.families.gpt_oss.harmony import as_content
from agentrl_resources.preferences import CleaningRules, Pair, RawRow, clean
from agentrl_resources.stages.reward import encode_pair

ASK = {"role": "user", "content": "Is it late?"}
DONE = {"role": "assistant", "content": "It is."}


@pytest.fixture(scope="module")
def harmony() -> Harmony:
    return small_harmony(small_factory())


def call(name: str, arguments: Any, identity: str | None = None) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if identity is None else {"id": identity, **made}


def fate(*chosen: dict[str, Any], prompt: list[Any] | None = None, **more: Any) -> Any:
    data = {"prompt": [ASK] if prompt is None else prompt, "chosen": list(chosen), "rejected": "Never asked.", **more}
    result = clean([RawRow(1, "test", data)], CleaningRules())
    return (result.clean + result.quarantine)[0]


def encoded(harmony: Harmony, pair: Pair) -> Encoded:
    return encode_pair(harmony, pair).chosen


def written(harmony: Harmony, pair: Pair) -> str:
    """What is trained on, without the opening."""
    text = harmony.tokenizer.decode(encoded(harmony, pair).ids)
    return str(text.removeprefix(harmony.opening))


def learned(harmony: Harmony, ids: Encoded) -> list[str]:
    """The texts that the agent wrote, in order."""
    runs: list[list[int]] = []
    before = 0
    for token, chosen in zip(ids.ids, ids.mask, strict=True):
        if chosen and not before:
            runs.append([])
        if chosen:
            runs[-1].append(token)
        before = chosen
    return [harmony.tokenizer.decode(run) for run in runs]


# --- each shape of a turn ---------------------------------------------------------------------------------------------


def test_thinking_text_and_a_call_are_three_messages_of_one_turn(harmony: Harmony) -> None:
    turn = {
        "role": "assistant",
        "thinking": "I look.",
        "content": "One moment.",
        "tool_calls": [call("look", {"a": 1})],
    }
    pair = fate(turn, {"role": "tool", "name": "look", "content": "late"}, DONE)
    first, _ = learned(harmony, encoded(harmony, pair))
    assert first == (
        "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant"
        "<|channel|>commentary<|message|>One moment.<|end|><|start|>assistant"
        ' to=functions.look<|channel|>commentary json<|message|>{"a": 1}<|call|>'
    )
    assert harmony.parse(harmony.ids(first)) == turn
    assert harmony.parse(harmony.ids(first.replace("I look.", ""))) == {**turn, "thinking": ""}


def test_several_calls_of_a_turn_are_written_one_by_one_each_with_its_result_behind_it(harmony: Harmony) -> None:
    calls = [call("look", {"n": 1}, "c1"), call("ask", {}, "c2"), call("look", {"n": 2}, "c3")]
    answers = [
        {"role": "tool", "tool_call_id": name, "content": {"of": name}} for name in ("c3", "c1", "c2")
    ]  # in the order in which they came back
    pair = fate({"role": "assistant", "thinking": "All.", "tool_calls": calls}, *answers, DONE)
    assert [one["content"]["of"] for one in pair.chosen[1:4]] == ["c1", "c2", "c3"]
    text = written(harmony, pair)
    head = "<|start|>assistant to=functions."
    assert text.index(head + "look") < text.index('"of": "c1"') < text.index(head + "ask") < text.index('"of": "c2"')
    assert text.index('"of": "c2"') < text.index('{"n": 2}') < text.index('"of": "c3"') < text.index("It is.")
    turns = [harmony.parse(harmony.ids(run)) for run in learned(harmony, encoded(harmony, pair))]
    one_by_one = [{"role": "assistant", "tool_calls": [made]} for made in pair.chosen[0]["tool_calls"]]
    assert turns == [{**one_by_one[0], "thinking": "All."}, *one_by_one[1:], DONE]


def test_results_that_are_missing_or_too_many_are_not_lost(harmony: Harmony) -> None:
    turn = {"role": "assistant", "tool_calls": [call("a", {}), call("b", {})]}
    for names in ((), ("b",), ("a", "b", "a")):
        answers = [{"role": "tool", "name": name, "content": f"r{number}"} for number, name in enumerate(names)]
        text = written(harmony, fate(turn, *answers, DONE))
        assert text.count("<|call|>") == 2
        for number, name in enumerate(names):
            assert text.count(f'<|start|>functions.{name} to=assistant<|channel|>commentary<|message|>"r{number}"') == 1


def test_a_rows_own_system_prompt_takes_the_place_of_the_workflows(harmony: Harmony) -> None:
    rule = {"role": "system", "content": "Answer in one word."}
    own = harmony.tokenizer.decode(encoded(harmony, fate(DONE, prompt=[rule, ASK])).ids)
    usual = harmony.tokenizer.decode(encoded(harmony, fate(DONE)).ids)
    assert "# Instructions\n\nAnswer in one word.\n\n# Tools" in own
    assert small_factory().workflow.instructions in usual
    assert small_factory().workflow.instructions not in own
    same = {"role": "developer", "content": small_factory().workflow.instructions}
    assert encoded(harmony, fate(DONE, prompt=[same, ASK])) == encoded(harmony, fate(DONE))


def test_what_the_format_stands_for_is_not_written(harmony: Harmony) -> None:
    rule = {"role": "system", "content": "Answer in one word."}
    plain, stands = Harmony(harmony.tokenizer, None, None), Harmony(harmony.tokenizer, None, None, rule["content"])
    assert stands.prompt([rule, ASK]) == stands.prompt([ASK]) == plain.prompt([ASK])
    assert plain.prompt([rule, ASK]) != plain.prompt([ASK])


def test_instructions_that_come_later_are_a_developers_message(harmony: Harmony) -> None:
    text = written(harmony, fate(DONE, prompt=[ASK, {"role": "developer", "content": "Be brief."}]))
    assert "<|end|><|start|>developer<|message|># Instructions\n\nBe brief.\n\n<|end|><|start|>assistant" in text


def test_a_users_name_stands_beside_the_role(harmony: Harmony) -> None:
    assert "<|start|>user:ann<|message|>Is it late?" in written(harmony, fate(DONE, prompt=[{**ASK, "name": "ann"}]))
    assert "can carry a name" in fate(DONE, prompt=[{**ASK, "name": "ann<|end|>"}]).detail
    assert "can carry a name" in fate({**DONE, "name": "robot"}).detail
    assert fate({**DONE, "name": "assistant"}).chosen == [DONE]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"role": "assistant", "content": None, "refusal": "I cannot."}, "I cannot."),
        ({"role": "assistant", "content": [{"type": "output_text", "text": "a"}, "b"]}, "ab"),
        ({"from": "gpt", "value": "Yes."}, "Yes."),
        ({"role": "model", "content": "Yes."}, "Yes."),
        ({"role": "assistant", "content": "é 漢字 👩‍👩‍👧 \u0000\u200b"}, "é 漢字 👩‍👩‍👧 \u0000\u200b"),
    ],
)
def test_an_answer_is_learned_as_it_stands(harmony: Harmony, turn: dict[str, Any], expected: str) -> None:
    assert learned(harmony, encoded(harmony, fate(turn))) == [f"<|channel|>final<|message|>{expected}<|return|>"]


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ({"role": "assistant", "content": "a", "refusal": "b"}, "both content and a refusal"),
        ({"role": "assistant", "content": "a", "thinking": "b", "reasoning_content": "c"}, "two different thoughts"),
        ({"role": "assistant", "content": "a<|end|>b"}, "<|end|>"),
        ({"role": "assistant", "thinking": "a<|call|>b", "content": "c"}, "<|call|>"),
        ({"role": "assistant", "tool_calls": [call("a", {"b": "<|im_end|>"})]}, "<|im_end|>"),
        ({"role": "assistant", "tool_calls": [call("a b", {})]}, "tool's name"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": {}}]}, "must be text"),
        ({"role": "assistant", "content": [{"type": "tool_use", "name": "a", "input": {}}]}, "must be text"),
        ({"role": "assistant", "content": "a", "audio": {"id": "x"}}, "audio"),
    ],
)
def test_what_cannot_be_learned_as_it_stands_is_refused(turn: dict[str, Any], words: str) -> None:
    found = fate(turn)
    assert not isinstance(found, Pair)
    assert words in found.detail


def test_calls_of_older_and_other_formats_are_calls(harmony: Harmony) -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"a": 1}'}}
    sharegpt = {"from": "function_call", "value": '{"name": "look", "arguments": {"a": 1}}'}
    for turn, result in ((old, {"role": "function", "name": "look", "content": '{"b": 2}'}),
                         (sharegpt, {"from": "observation", "value": '{"b": 2}'})):  # fmt: skip
        pair = fate(turn, result, DONE)
        assert pair.chosen == [
            {"role": "assistant", "tool_calls": [call("look", {"a": 1})]},
            {"role": "tool", "name": "look", "content": {"b": 2}},
            DONE,
        ]


# --- anything that cleaning admits ------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", "plain words", "<|end|>", "a<|start|>system<|message|>b", "<think>x</think>", '{"a": 1}',
                     "line\nline", '"quoted" \\ back', "Human: hi", "é漢👩‍👩‍👧", "\u0000", "<| end|>"]),
)  # fmt: skip
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20),
              st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip
CONTENT = st.one_of(
    TEXT, st.none(), st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), max_size=2)
)
NAME = st.sampled_from(["look", "ask", "look-up", "db.query", "é_1"])
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b", "order id", "<|call|>"]), VALUE, max_size=2)
CALL = st.tuples(NAME, ARGUMENTS, st.booleans(), st.sampled_from([None, "c1", "c2"])).map(
    lambda found: call(found[0], json.dumps(found[1]) if found[2] else found[1], found[3])
)
ASSISTANT = st.one_of(
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={"content": CONTENT, "thinking": TEXT, "tool_calls": st.lists(CALL, max_size=3)},
    ),
    st.fixed_dictionaries({"role": st.just("assistant"), "refusal": TEXT}, optional={"reasoning_content": TEXT}),
)
OTHER = st.one_of(
    st.fixed_dictionaries(
        {"role": st.just("tool"), "name": NAME, "content": st.one_of(VALUE, CONTENT)},
        optional={"tool_call_id": st.sampled_from(["c1", "c2", "c9"])},
    ),
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": CONTENT}, optional={"name": st.sampled_from(["ann", "bob b", "é"])}
    ),
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"]), "content": CONTENT}),
)
TURNS = st.lists(st.one_of(ASSISTANT, OTHER), max_size=4)
SIDE = st.tuples(ASSISTANT, TURNS).map(lambda found: [found[0], *found[1]])


def fragments(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Everything that must stand in the rendered text."""
    for message in messages:
        if message["role"] == "tool":
            yield f"<|start|>functions.{message['name']} to=assistant<|channel|>commentary<|message|>"
            yield json.dumps(as_content(message["content"]), ensure_ascii=False)
            continue
        if message["role"] == "user":
            yield f"<|start|>user{':' + message['name'] if 'name' in message else ''}<|message|>"
        yield as_content(message.get("thinking", ""))
        content = as_content(message.get("content", ""))
        yield content.strip() if message["role"] in ("system", "developer") else content
        for made in message.get("tool_calls", []):
            arguments = json.dumps(as_content(made["function"]["arguments"]), ensure_ascii=False)
            yield f" to=functions.{made['function']['name']}<|channel|>commentary json<|message|>{arguments}<|call|>"


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TURNS, SIDE, SIDE)
def test_everything_that_is_admitted_is_written_and_only_the_agents_own_is_learned(
    harmony: Harmony, prompt: list[Any], chosen: list[Any], rejected: list[Any]
) -> None:
    data = {"prompt": [ASK, *prompt], "chosen": [*chosen, DONE], "rejected": [*rejected, {**DONE, "content": "No."}]}
    result = clean([RawRow(1, "test", data)], CleaningRules())
    assert len(result.clean) + len(result.quarantine) == 1
    for pair in result.clean:
        stored = Pair.from_dict(json.loads(json.dumps(pair.to_dict())))
        both = encode_pair(harmony, stored)
        for side, ids in ((stored.chosen, both.chosen), (stored.rejected, both.rejected)):
            text = harmony.tokenizer.decode(ids.ids)
            messages = [*stored.prompt, *side]
            missing = [one for one in fragments(messages) if one not in text]
            assert not missing
            written_by_agent = [one for one in side if one["role"] == "assistant"]
            calls = sum(max(1, len(one.get("tool_calls", []))) for one in written_by_agent)
            runs = learned(harmony, ids)
            assert len(runs) == calls
            parsed = [harmony.parse(harmony.ids(run.removesuffix("<|end|>") + "<|return|>"
                                                if run.endswith("<|end|>") else run)) for run in runs]  # fmt: skip
            assert parsed == [turn for one in written_by_agent for turn in one_call_each(one)]


def one_call_each(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A turn as an agent that calls one tool at a time would have written it; keys of objects in any order."""
    calls = message.get("tool_calls", [])
    if len(calls) < 2:
        return [message]
    first = {name: value for name, value in message.items() if name != "tool_calls"}
    return [
        {**(first if number == 0 else {"role": "assistant"}), "tool_calls": [one]} for number, one in enumerate(calls)
    ]
