"""Every field of a chat-completions request is honoured, taken as what only accompanies it, or refused by its name."""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import openai
import pytest
from fake_openai import Answer, Fake, Handler, call, fake_server, plain, says
from gateways import WORKFLOW, Running, client, context, running, settings_with, tasks
from openai.resources.chat.completions import Completions
from request_fields import CASES, IMAGE, LOOKUP, ORDER, allowed, named

from agentrl_resources.files import ArtifactStore
from agentrl_resources.gateway import backends
from agentrl_resources.workflow import EpisodeFactory

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
STRICT = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
LOGPROBS = {"content": [{"token": "x", "logprob": -0.1, "bytes": None, "top_logprobs": []}], "refusal": None}


NOT_FIELDS = {"self", "messages", "model", "extra_headers", "extra_query", "extra_body", "timeout"}


def obedient(handler: Handler, body: dict[str, Any]) -> None:
    """A model that does what reaches it: calls a tool when it must, writes JSON when it must, ..."""
    choice, tools = body.get("tool_choice"), body.get("tools") or []
    content = '{"a": 1}' if body.get("response_format") else "That is fine.###END of it"
    message: dict[str, Any] = {"content": content.partition("###")[0] if "###" in body.get("stop", ()) else content}
    if choice not in (None, "none"):
        name = choice["function"]["name"] if isinstance(choice, dict) else tools[-1]["function"]["name"]
        message = {"content": None, "tool_calls": [call(name, {})]}
    if body["stream"]:
        says(message)(handler, body)
        return
    whole = plain(message, "tool_calls" if "tool_calls" in message else "stop")
    whole["choices"][0]["logprobs"] = LOGPROBS if body.get("logprobs") else None
    handler.send(json.dumps(whole).encode(), content_type="application/json")


@dataclass
class Setup:
    served: Running
    server: Fake

    @cached_property
    def client(self) -> openai.OpenAI:
        return client(self.served)

    def ask(self, **fields: Any) -> Any:
        given = {"messages": [{"role": "user", "content": "hi"}], **fields}
        return self.client.chat.completions.create(model="order_desk", **given)

    def refused(self, **fields: Any) -> openai.BadRequestError:
        """The refusal of a request, which leaves no record."""
        before = len(self.served.records())
        with pytest.raises(openai.BadRequestError) as caught:
            self.ask(**fields)
        assert len(self.served.records()) == before
        return caught.value


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    home = tmp_path_factory.mktemp("gateway")
    with fake_server() as server:
        settings = settings_with(champion_url=server.url)
        champion = backends(settings, ArtifactStore(home), EpisodeFactory(WORKFLOW))("general", "0" * 64, {})
        with running(home, settings, champion) as served:
            yield Setup(served, server)


@pytest.fixture
def obeyed(setup: Setup) -> Setup:
    setup.server.answer = obedient
    setup.server.bodies.clear()
    return setup


MODES: dict[str, dict[str, Any]] = {
    "the client's tools": {"tools": [LOOKUP]},
    "plain chat": {},
    "an episode": {"extra_body": {"task": context(tasks(1)[0])}},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_field_that_the_server_does_not_take_is_the_clients_mistake(obeyed: Setup, mode: str) -> None:
    """Without such a field in an episode, which the gateway writes by itself, the server is at fault."""
    obeyed.server.answer = lambda handler, body: handler.send(b'{"error": {}}', status=400)
    obeyed.refused(
        extra_body={**MODES[mode].get("extra_body", {}), "top_k": 7}, tools=MODES[mode].get("tools", openai.omit)
    )
    if mode == "an episode":
        with pytest.raises(openai.InternalServerError, match="a person has to take over"):
            obeyed.ask(user="customer 7", **MODES[mode])


def test_the_table_has_every_field_of_the_official_client() -> None:
    assert set(CASES) == set(inspect.signature(Completions.create).parameters) - NOT_FIELDS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("position", range(3))
def test_everything_that_asks_for_nothing_at_once_changes_nothing(obeyed: Setup, mode: str, position: int) -> None:
    """As clients send it that write all their fields out."""
    answer = obeyed.ask(**MODES[mode])
    fields = {name: case.nothing[position] for name, case in CASES.items() if len(case.nothing) > position}
    for name in ("tools", "functions", "function_call"):  # which there are, a request says or does not
        fields.pop(name, None)
    assert obeyed.ask(**{**fields, **MODES[mode]}).choices[0].message == answer.choices[0].message
    first, second = obeyed.server.bodies
    for name in ("messages", "tools", "tool_choice", "max_tokens", "stop"):
        assert first.get(name) == second.get(name)


@pytest.mark.parametrize("name", CASES)
def test_each_value_that_asks_for_nothing_is_taken(obeyed: Setup, name: str) -> None:
    for value in CASES[name].nothing:
        assert obeyed.ask(**{name: value}).choices[0].message.content


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.fate == "sent"])
def test_what_changes_an_answer_reaches_the_policys_server(obeyed: Setup, name: str, mode: str) -> None:
    answer = obeyed.ask(**{name: CASES[name].meaningful}, **MODES[mode])
    assert answer.choices[0].message.content
    assert all(body[name] == CASES[name].meaningful for body in obeyed.server.bodies)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.fate == "accompanies"])
def test_what_accompanies_a_request_is_taken(obeyed: Setup, name: str, mode: str) -> None:
    """A server that the client talks to gets it as it stands; one that plays an episode has no use for it."""
    assert obeyed.ask(**{name: CASES[name].meaningful}, **MODES[mode]).choices[0].message.content
    told = None if mode == "an episode" else CASES[name].meaningful
    assert [body.get(name) for body in obeyed.server.bodies] == [told]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.fate == "refused"])
def test_what_nobody_here_can_do_is_refused_by_its_name(obeyed: Setup, name: str, mode: str) -> None:
    error = obeyed.refused(**{name: CASES[name].meaningful}, **MODES[mode])
    assert error.param == name
    assert name in error.message
    assert obeyed.server.bodies == []


# --- what the gateway does itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("mode", ["the client's tools", "plain chat"])
def test_a_conversation_that_the_client_leads_has_the_clients_limit(obeyed: Setup, field: str, mode: str) -> None:
    obeyed.ask(**{field: 5000}, **MODES[mode])
    obeyed.ask(**MODES[mode])
    obeyed.ask(max_tokens=7, max_completion_tokens=8, **MODES[mode])
    assert [body.get("max_tokens") for body in obeyed.server.bodies] == [5000, None, 7]


def test_an_episode_has_the_tool_policys_budget_and_says_when_it_is_spent(obeyed: Setup) -> None:
    obeyed.ask(max_tokens=5000, **MODES["an episode"])
    obeyed.ask(max_tokens=3, **MODES["an episode"])
    assert [body["max_tokens"] for body in obeyed.server.bodies] == [WORKFLOW.tool_policy.max_tokens, 3]
    obeyed.server.answer = says({"content": "and then"}, "length")
    assert obeyed.ask(max_tokens=5000, **MODES["an episode"]).choices[0].finish_reason == "length"


NO_TOOLS: dict[str, dict[str, Any]] = {
    "no tools": {"tools": []},
    "no choice": {"tool_choice": "none"},
    "no choice of tools": {"tool_choice": "none", "tools": [LOOKUP]},
    "no functions": {"extra_body": {"functions": []}},
    "no call of a function": {"extra_body": {"function_call": "none"}},
}


@pytest.mark.parametrize("how", NO_TOOLS)
@pytest.mark.parametrize("with_task", [False, True])
def test_whoever_says_no_tools_gets_none(obeyed: Setup, how: str, with_task: bool) -> None:
    """Nor the workflow's own: the client gets one message, and nothing acts."""
    fields = NO_TOOLS[how]
    task = {"task": context(tasks(1)[0])} if with_task else {}
    fields = {**fields, "extra_body": {**fields.get("extra_body", {}), **task}}
    assert obeyed.ask(**fields).choices[0].message.content == "That is fine.###END of it"
    (body,) = obeyed.server.bodies
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert not body.get("tools") or body["tool_choice"] == "none"
    record = obeyed.served.records()[-1]
    assert (record.tool_calls_count, record.trace["tool_calls"]) == (0, [])
    assert record.task_id == (tasks(1)[0].task_id if with_task else "traffic")
    obeyed.server.answer = says({"content": None, "tool_calls": [call("order", {})]}, "tool_calls")
    assert obeyed.refused(**fields).param in ("tools", "tool_choice")


@pytest.mark.parametrize(
    ("choice", "told", "offered"),
    [
        ("required", "required", [LOOKUP, ORDER]),
        (named("look-up"), named("look-up"), [LOOKUP, ORDER]),
        (allowed("auto", "order"), None, [ORDER]),
        (allowed("required", "order"), "required", [ORDER]),
        ("auto", None, [LOOKUP, ORDER]),
    ],
    ids=str,
)
def test_a_choice_of_tools_is_said_in_words_that_every_server_knows(
    obeyed: Setup, choice: Any, told: Any, offered: Any
) -> None:
    message = obeyed.ask(tools=[LOOKUP, ORDER], tool_choice=choice).choices[0].message
    (body,) = obeyed.server.bodies
    assert (body.get("tool_choice"), body["tools"]) == (told, offered)
    assert bool(message.tool_calls) == (told is not None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": named("order"), "tools": []}, "tool_choice"),
        ({"tool_choice": named("order"), "tools": [LOOKUP]}, "tool_choice"),
        ({"tool_choice": allowed("auto", "order"), "tools": [LOOKUP]}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}, "tools": [LOOKUP]}, "tool_choice.type"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "two words"}}]}, "tools[0].function.name"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "function", "name": "order", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "system", "content": "x"}], "extra_body": MODES["an episode"]["extra_body"]},
            "messages",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_its_place(obeyed: Setup, fields: dict[str, Any], param: str) -> None:
    error = obeyed.refused(**fields)
    assert error.param == param
    assert param in error.message


def test_a_function_of_old_is_refused_though_its_tools_are_given(obeyed: Setup) -> None:
    assert obeyed.refused(tools=[LOOKUP], functions=[LOOKUP["function"]]).param == "functions"


def test_dots_and_dashes_in_the_name_of_a_tool_are_taken(obeyed: Setup) -> None:
    tool = {"type": "function", "function": {"name": "files.read-all_2"}}
    answer = obeyed.ask(tools=[tool], tool_choice=named("files.read-all_2"))
    assert answer.choices[0].message.tool_calls[0].function.name == "files.read-all_2"


@pytest.mark.parametrize("stop", ["###", ["nowhere", "###"]])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_a_stop_sequence_ends_the_text_whatever_the_server_does(
    obeyed: Setup, mode: str, stream: bool, stop: Any
) -> None:
    obeyed.server.answer = says({"content": "That is fine.###END of it"})
    answer = obeyed.ask(stop=stop, stream=stream, **MODES[mode])
    if stream:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        finish = chunks[-1].choices[0].finish_reason
    else:
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, finish) == ("That is fine.", "stop")
    asked = [stop] if isinstance(stop, str) else stop
    assert obeyed.server.bodies[0].get("stop") == (None if mode == "an episode" else asked)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_come_back(obeyed: Setup, mode: str, stream: bool) -> None:
    answer = obeyed.ask(logprobs=True, top_logprobs=2, stream=stream, **MODES[mode])
    choices = [choice for one in (answer if stream else [answer]) for choice in one.choices]
    assert [choice.logprobs.content[0].token for choice in choices if choice.logprobs] == ["x"]
    assert obeyed.server.bodies[0]["top_logprobs"] == 2


DISOBEYS: dict[str, tuple[dict[str, Any], Answer, str]] = {
    "prose for JSON": ({"response_format": {"type": "json_object"}}, says({"content": "Sure!"}), "response_format"),
    "a list for an object": ({"response_format": {"type": "json_object"}}, says({"content": "[1]"}), "response_format"),
    "nothing for JSON": ({"response_format": {"type": "json_object"}}, says({"content": ""}), "response_format"),
    "what cannot be read": (
        {"response_format": {"type": "json_object"}, "tools": [ORDER]},
        says({"content": None, "tool_calls": [{**call("order", {}), "function": {"name": "order", "arguments": "{"}}]}),
        "response_format",
    ),
    "prose for a schema": ({"response_format": STRICT}, says({"content": "Sure!"}), "response_format"),
    "another shape": ({"response_format": STRICT}, says({"content": '{"a": "1"}'}), "response_format"),
    "no log-probabilities": ({"logprobs": True}, says({"content": "x"}), "logprobs"),
    "no call": ({"tools": [LOOKUP], "tool_choice": "required"}, says({"content": "x"}), "tool_choice"),
    "another call": (
        {"tools": [LOOKUP, ORDER], "tool_choice": named("look-up")},
        says({"content": None, "tool_calls": [call("order", {})]}, "tool_calls"),
        "tool_choice",
    ),
    "a call that is not allowed": (
        {"tools": [LOOKUP, ORDER], "tool_choice": allowed("auto", "look-up")},
        says({"content": None, "tool_calls": [call("order", {})]}, "tool_calls"),
        "tool_choice",
    ),
    "several calls": (
        {"tools": [LOOKUP, ORDER], "parallel_tool_calls": False},
        says({"content": None, "tool_calls": [call("order", {}), call("look-up", {}, "2")]}, "tool_calls"),
        "parallel_tool_calls",
    ),
    "arguments that are not strict": (
        {"tools": [{"type": "function", "function": {"name": "order", "strict": True, "parameters": SCHEMA}}]},
        says({"content": None, "tool_calls": [call("order", {"a": "1"})]}, "tool_calls"),
        "tools",
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", DISOBEYS)
def test_an_answer_that_passes_over_a_field_is_no_answer(obeyed: Setup, how: str, stream: bool) -> None:
    fields, answer, param = DISOBEYS[how]
    obeyed.server.answer = answer
    error = obeyed.refused(**fields, stream=stream)
    assert error.param == param
    assert param in error.message


def test_what_keeps_to_a_format_is_handed_on(obeyed: Setup) -> None:
    assert obeyed.ask(response_format=STRICT).choices[0].message.content == '{"a": 1}'
    obeyed.server.answer = says({"content": '{"a": '}, "length")
    assert obeyed.ask(response_format=STRICT).choices[0].finish_reason == "length"
    obeyed.server.answer = says({"content": None, "refusal": "I will not."})
    assert obeyed.ask(response_format=STRICT).choices[0].message.refusal == "I will not."
    elsewhere = {**STRICT, "json_schema": {"strict": True, "schema": {"$ref": "http://127.0.0.1:9/schema"}}}
    obeyed.server.answer = says({"content": '{"a": 1}'})
    assert obeyed.ask(response_format=elsewhere).choices[0].message.content


def test_several_calls_of_one_turn_all_reach_the_client_and_the_record(obeyed: Setup) -> None:
    calls = [call("order", {"n": 1}), call("look-up", {}, "2"), call("order", {"n": 2}, "3")]
    obeyed.server.answer = says({"content": None, "tool_calls": calls}, "tool_calls")
    made = obeyed.ask(tools=[LOOKUP, ORDER]).choices[0].message.tool_calls
    assert [(one.function.name, json.loads(one.function.arguments)) for one in made] == [
        ("order", {"n": 1}),
        ("look-up", {}),
        ("order", {"n": 2}),
    ]
    assert obeyed.served.records()[-1].tool_calls_count == 3


# --- messages ---------------------------------------------------------------------------------------------------------

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a system message": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    "a developer message": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    "a conversation": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "again"},
    ],
    "names": [{"role": "user", "content": "hi", "name": "Ada"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}],
    "a picture": [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]}],
    "calls of before": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call("order", {})]},
        {"role": "tool", "tool_call_id": "theirs", "content": [{"type": "text", "text": "done"}]},
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_plain_chat_is_one_message_of_the_policy_to_what_the_client_wrote(obeyed: Setup, name: str) -> None:
    """Without `task`, where the workflow cannot begin with the message alone, as the order desk cannot."""
    answer = obeyed.ask(messages=CONVERSATIONS[name])
    assert answer.choices[0].finish_reason == "stop"
    (body,) = obeyed.server.bodies
    roles = {"developer": "system"}  # which every server knows
    assert body["messages"] == [{**one, "role": roles.get(one["role"], one["role"])} for one in CONVERSATIONS[name]]
    assert "tools" not in body
    record = obeyed.served.records()[-1]
    assert record.run_id == answer.id
    assert "base64" not in str(record.trace)


def test_an_answer_can_be_sent_back_as_the_client_got_it(obeyed: Setup) -> None:
    """With all its nulls and empty lists."""
    made = obeyed.ask(tools=[ORDER], tool_choice="required").choices[0].message.model_dump()
    said = {"role": "assistant", "content": "x", "refusal": None, "audio": None, "function_call": None,
            "tool_calls": [], "annotations": []}  # fmt: skip
    result = {"role": "tool", "tool_call_id": made["tool_calls"][0]["id"], "content": "done"}
    obeyed.ask(messages=[{"role": "user", "content": "hi"}, made, result, said], tools=[ORDER])
    sent = obeyed.server.bodies[-1]["messages"]
    assert sent[3] == {"role": "assistant", "content": "x"}
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]


def test_parts_of_text_are_one_text_in_an_episode_and_pictures_are_refused(obeyed: Setup) -> None:
    parts: dict[str, Any] = {"messages": CONVERSATIONS["parts"], **MODES["an episode"]}
    assert obeyed.ask(**parts).choices[0].message.content
    assert obeyed.refused(**{**parts, "messages": CONVERSATIONS["a picture"]}).param == "messages"


UNKNOWN: Mapping[str, Any] = {
    "top_k": 20, "min_p": 0.1, "guided_json": SCHEMA, "chat_template_kwargs": {"enable_thinking": False},
    "x-trace": "7", "extra": {"a": 1}, "tags": ["a"],
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_a_vendors_own_fields_reach_the_vendors_server(obeyed: Setup, mode: str) -> None:
    given = {**MODES[mode], "extra_body": {**MODES[mode].get("extra_body", {}), **UNKNOWN}}
    assert obeyed.ask(**given).choices[0].message.content
    (body,) = obeyed.server.bodies
    assert {name: body[name] for name in UNKNOWN} == UNKNOWN
    assert "task" not in body
