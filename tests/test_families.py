"""Every family writes, reads and bridges conversations so that training sees what the agent saw, id by id."""

import re
import secrets
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import pytest
from family_samples import FAMILIES, network_of, tokenizer_of
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from small_models import small_factory, small_harmony

import agentrl_resources
from agentrl_resources.engines import LocalEngine
from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import BUILT_IN, ChatFormat, load_format, read_next, recognise
from agentrl_resources.learning import Sampler, chosen_logprobs, load_policy
from agentrl_resources.learning.batching import asked_where

FACTORY = small_factory(max_tokens=48)
TOOLS = FACTORY.tools
SEED = secrets.randbits(32)
ASKED = [{"role": "user", "content": "Where is my order 12?"}]


def chat_of(name: str, tools: Any = TOOLS, **options: Any) -> ChatFormat:
    if name == "built-in":
        return load_format(small_harmony(FACTORY).tokenizer, {"family": BUILT_IN}, tools, "Help people.")
    tokenizer = tokenizer_of(name)
    description = recognise(tokenizer, None, options, tools)
    return load_format(tokenizer, description, tools, "Help people.")


@pytest.fixture(scope="module", params=["built-in", *FAMILIES])
def chat(request: pytest.FixtureRequest) -> ChatFormat:
    return chat_of(request.param)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_recognised_by_what_its_template_writes(name: str) -> None:
    assert recognise(tokenizer_of(name), None, {}, TOOLS)["renderer"]["name"] == FAMILIES[name].renderer


def test_a_conversation_without_instructions_has_those_of_the_workflow(chat: ChatFormat) -> None:
    """Pairs come without a system message, and live episodes with one: both are read the same."""
    whole = [{"role": "system", "content": "Help people."}, *ASKED]
    answer = {"role": "assistant", "content": "On its way."}
    assert chat.prompt(ASKED) == chat.prompt(whole)
    assert "Help people." in chat.tokenizer.decode(chat.prompt(ASKED))
    (without,), (with_them,) = (chat.rows([*messages, answer], first_chosen=1) for messages in (ASKED, whole))
    assert without.ids == with_them.ids
    other = [{"role": "system", "content": "Be brief."}, *ASKED]
    assert chat.prompt(other) != chat.prompt(ASKED)


# --- conversations ----------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_characters="<[]|/"), min_size=1, max_size=20).map(
    lambda text: f"a{text}z"
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
PROPERTIES = {
    "order_id": ({"type": "string"}, texts),
    "flag": ({"type": "boolean"}, st.booleans()),
    "count": ({"type": "integer"}, st.integers(-(10**6), 10**6)),
    "detail": ({"type": "object"}, st.dictionaries(st.sampled_from("abc"), values, max_size=2)),
}
"""What the tools take. Formats without quotes read each argument by its type."""
PARAMETERS = {"type": "object", "properties": {name: schema for name, (schema, _) in PROPERTIES.items()}}
LOOK = [
    {"type": "function", "function": {"name": name, "description": "Looks.", "parameters": PARAMETERS}}
    for name in ("look", "look_again")
]
calls = st.builds(
    lambda name, arguments: {"type": "function", "function": {"name": name, "arguments": arguments}},
    st.sampled_from(["look", "look_again"]),
    st.fixed_dictionaries({}, optional={name: drawn for name, (_, drawn) in PROPERTIES.items()}),
)
results = values.filter(lambda value: value is not None)


@st.composite
def conversations(draw: st.DrawFn, at_once: int) -> list[dict[str, Any]]:
    """Asked, some turns with calls and their results, and an answer; now and then asked again."""
    messages: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 2))):
        messages.append({"role": "user", "content": draw(texts)})
        for _ in range(draw(st.integers(0, 2))):
            called = draw(st.lists(calls, min_size=1, max_size=at_once))
            messages.append({"role": "assistant", "tool_calls": called})
            messages += [
                {"role": "tool", "name": call["function"]["name"], "content": draw(results)} for call in called
            ]
        messages.append({"role": "assistant", "content": draw(texts)})
    return messages


def play(chat: ChatFormat, messages: list[dict[str, Any]]) -> tuple[list[list[int]], list[list[int]]]:
    """The conversation as a live agent goes through it: rows of ids, and the turns that it wrote."""
    rows: list[list[int]] = []
    turns: list[list[int]] = []
    ids: list[int] = []
    start = seen = 0
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        bridge = read_next(chat, ids[:start], ids[start:], messages[:position], position - seen) if ids else None
        if bridge is None:
            rows.append(ids)
            ids = chat.prompt(messages[:position])
        else:
            ids = ids + bridge
        # what an agent would sample to say this
        (*_, written) = chat.rows(messages[: position + 1], first_chosen=position)
        turns.append([token for token, chosen in zip(written.ids, written.mask, strict=True) if chosen])
        start, seen = len(ids), position + 1
        ids = ids + turns[-1]
    return [*rows[1:], ids], turns


@pytest.mark.parametrize("name", ["built-in", *FAMILIES])
@seed(SEED)
@settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_training_sees_what_the_agent_saw_and_reads_what_it_wrote(name: str, data: st.DataObject) -> None:
    """Several calls in one turn too, but for the formats in which a call ends the turn."""
    print("seed", SEED)
    messages = data.draw(conversations(at_once=1 if name in ("built-in", "llama-3.2") else 2))
    chat = CHATS.setdefault(f"{name} looks", chat_of(name, LOOK))
    rows, turns = play(chat, messages)
    encoded = chat.rows(messages)
    assert [row.ids for row in encoded] == rows
    chosen = [[token for token, one in zip(row.ids, row.mask, strict=True) if one] for row in encoded]
    assert [*chain(*chosen)] == [*chain(*turns)] if len(rows) == 1 or name == "built-in" else all(chosen)
    said = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    for turn, place in zip(turns, said, strict=True):
        assert turn[-1] in chat.turn_ends
        read = chat.read(chat.prompt(messages[:place]), turn)
        assert read is not None, chat.tokenizer.decode(turn)
        assert read.get("tool_calls") == messages[place].get("tool_calls")
        assert read.get("content") == messages[place].get("content")


CHATS: dict[str, ChatFormat] = {}


@pytest.mark.parametrize("name", ["built-in", "llama-3.2"])
def test_where_a_call_ends_the_turn_calls_are_written_one_by_one(name: str) -> None:
    chat = CHATS.setdefault(f"{name} looks", chat_of(name, LOOK))
    called = [{"type": "function", "function": {"name": one, "arguments": {}}} for one in ("look", "look_again")]
    told = [{"role": "tool", "name": one, "content": one.upper()} for one in ("look", "look_again")]
    (at_once,) = chat.rows([*ASKED, {"role": "assistant", "tool_calls": called}, *reversed(told)], first_chosen=1)
    turns = [{"role": "assistant", "tool_calls": [call]} for call in called]
    (apart,) = chat.rows([*ASKED, turns[0], told[0], turns[1], told[1]], first_chosen=1)
    assert at_once == apart


def test_what_a_customer_writes_is_text(chat: ChatFormat) -> None:
    """No control token that stands in a message or in a tool's result is one to the model."""
    control = [token for token in chat.tokenizer.get_added_vocab() if token[0] in "<[]" and len(token) < 40]
    forged = "".join(control)
    call = {"type": "function", "function": {"name": "get_order", "arguments": {"order_id": "1"}}}
    told = {"role": "tool", "name": "get_order"}
    for messages, plain in (
        ([{"role": "user", "content": f"hi {forged}"}], [{"role": "user", "content": "hi "}]),
        ([*ASKED, {"role": "assistant", "tool_calls": [call]}, {**told, "content": text}] for text in (forged, "x")),
    ):
        ids, expected = chat.prompt(messages), chat.prompt(plain)
        special = {*chat.tokenizer.convert_tokens_to_ids(control)}
        assert [token for token in ids if token in special] == [token for token in expected if token in special]


def test_malformed_calls_are_none(chat: ChatFormat) -> None:
    call = {"type": "function", "function": {"name": "get_order", "arguments": {"order_id": "1"}}}
    (row,) = chat.rows([*ASKED, {"role": "assistant", "tool_calls": [call]}], first_chosen=1)
    turn = [token for token, chosen in zip(row.ids, row.mask, strict=True) if chosen]
    prompt = row.ids[: len(row.ids) - len(turn)]
    assert chat.read(prompt, turn) == {"role": "assistant", "tool_calls": [call]}
    middle = chat.tokenizer.decode(turn).index("order_id")
    cut = chat.tokenizer.encode(chat.tokenizer.decode(turn)[: middle + 4], add_special_tokens=False)
    read = chat.read(prompt, [*cut, turn[-1]])
    assert read is None or not read.get("tool_calls")


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_rollout_engine_and_trainer_agree_on_every_family(name: str, tmp_path: Any) -> None:
    """Saved and loaded as a user's base is, in double precision: the same tokens, the same log-probabilities."""
    import asyncio

    import torch

    chat = CHATS.setdefault(name, chat_of(name))
    network_of(name, chat.tokenizer).save_pretrained(tmp_path)
    model = load_policy(tmp_path).double().eval()
    tasks = FACTORY.workflow.tasks("train", 5, 3)
    sampled = Sampler(model, chat, FACTORY).play(tasks, range(5), 1.0, concurrency=5)
    rows = [row for episode in sampled for row in episode.rows]
    for row, expected in zip(rows, chosen_logprobs(model, rows, 1.0), strict=True):
        said = [one for one, chosen in zip(row.logprobs, row.mask, strict=True) if chosen]
        assert said == pytest.approx(expected, rel=1e-4, abs=1e-4)  # the norms of these families round to float32

    async def served() -> list[list[int]]:
        engine = LocalEngine(model, chat.turn_ends)
        first = []
        for number, task in enumerate(tasks):
            conversation = engine.open(number, 48)
            prompt = chat.prompt(FACTORY.start(task).transcript.messages)
            first.append((await engine.turn(conversation, prompt, 1.0, 48)).ids)
        engine.stop()
        return first

    firsts = asyncio.run(served())
    for episode, first in zip(sampled, firsts, strict=True):
        row = episode.rows[0]
        start = row.mask.index(1)
        assert row.ids[start : start + len(first)] == first
    assert torch.isfinite(torch.tensor(expected)).all()


@pytest.mark.parametrize(
    ("network", "more"),
    [
        ("Llama", {}),
        ("Gemma2", {"final_logit_softcapping": 0.5, "head_dim": 16}),
        ("Cohere", {"logit_scale": 0.25}),
        ("Granite", {"logits_scaling": 8.0}),
    ],
)
def test_what_a_family_does_behind_its_head_is_done_in_training_too(network: str, more: dict[str, Any]) -> None:
    import torch
    import transformers

    config = getattr(transformers, f"{network}Config")(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.3, pad_token_id=0, **more,
    )  # fmt: skip
    torch.manual_seed(1)
    model = getattr(transformers, f"{network}ForCausalLM")(config).eval()
    ids = torch.arange(1, 31).reshape(3, 10)
    where = torch.rand(3, 10) < 0.5
    where[:, -1] = False
    expected = model(input_ids=ids, use_cache=False).logits[where]
    # the head of some rows beside the head of all: a product of another size, in float32
    said = asked_where(model, ids, where, ids[where], lambda logits, _: logits)
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().max() > 0.01


def test_layers_that_keep_no_keys_are_refused_by_their_kind(tmp_path: Any) -> None:
    chat = CHATS.setdefault("qwen3", chat_of("qwen3"))
    model = network_of("qwen3", chat.tokenizer)
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(AgentRLError, match="linear_attention"):
        LocalEngine(model, chat.turn_ends)


# --- the room ---------------------------------------------------------------------------------------------------------


def test_nobody_else_knows_a_family_by_its_name_or_its_control_tokens() -> None:
    """But for those who read other tools' *data*, which came with such tokens in their texts."""
    root = Path(agentrl_resources.__file__).parent
    told = re.compile(r"gpt_?oss|harmony|<\|\w+\|>|\bqwen|\bllama\b(?![.-])", re.IGNORECASE)
    # the settings give an example, the fork server loads ahead what the default run needs, and `learning` hands on the
    # built-in format under the name that users have it from
    readers = {
        "preferences/turns.py", "preferences/layouts.py", "settings.py", "forkserver.py", "learning/__init__.py",
    }  # fmt: skip
    found = {
        str(file.relative_to(root)): line.strip()
        for file in root.rglob("*.py")
        for line in file.read_text().splitlines()
        if told.search(line) and not file.is_relative_to(root / "families")
    }
    assert {file: line for file, line in found.items() if file not in readers} == {}


# --- what is no base --------------------------------------------------------------------------------------------------


def changed(name: str, template: str | None) -> Any:
    import copy

    tokenizer = copy.copy(tokenizer_of(name))
    tokenizer.chat_template = template
    return tokenizer


WITHOUT_TOOLS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "renderer", "said"),
    [
        (None, None, "has no chat template"),
        (WITHOUT_TOOLS, None, "cannot do tools"),
        (WITHOUT_TOOLS, "template", "cannot do tools"),
        (WITHOUT_TOOLS, "llama-3", "does not fit the tokenizer"),
        (WITHOUT_TOOLS, "qwen9", "renderer `qwen9`"),
    ],
)
def test_a_base_that_cannot_converse_with_tools_is_one_clear_error(
    template: str | None, renderer: str | None, said: str
) -> None:
    with pytest.raises(AgentRLError, match=said) as caught:
        recognise(changed("qwen3", template), renderer, {}, TOOLS)
    assert "model.renderer" in str(caught.value)


def test_a_template_without_tools_is_enough_for_dialogue() -> None:
    tokenizer = changed("qwen3", WITHOUT_TOOLS)
    chat = load_format(tokenizer, recognise(tokenizer, None, {}, None), None, None)
    random = Random(SEED)
    messages: list[dict[str, Any]] = []
    for number in range(6):
        role = "user" if number % 2 == 0 else "assistant"
        messages.append({"role": role, "content": "".join(random.choices("abc ü", k=9)) + "z"})
    rows, _ = play(chat, messages)
    assert [row.ids for row in chat.rows(messages)] == rows
    assert len(rows) == 1
