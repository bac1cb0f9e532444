"""Conversations of every other family, through the `renderers` library.

It knows some twenty families by hand: how they write, which ids an agent chose, and what comes between two turns. Which
one a tokenizer belongs to is found by comparing: a renderer is the right one if it gives the ids that the tokenizer's
own chat template gives. Where none does, the template itself is used (`template`), with whichever of the library's
parsers reads back a call that the template wrote, and with a bridge that is read off the template: what it writes
between a turn's end and the next turn.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families.base import INSTRUCTIONS, Encoded, instructions_of, leading, read_next, results_of_calls
from agentrl_resources.workflow import Message

TEMPLATE = "template"
_OPAQUE = "default"
"""The library's name for a renderer that only asks the tokenizer's template."""
_ASKED: list[Message] = [{"role": "system", "content": "Help."}, {"role": "user", "content": "Where is it?"}]


def described(
    tokenizer: Any, name: str | None, options: Mapping[str, Any], tools: Sequence[dict[str, Any]] | None
) -> dict[str, Any]:
    """See `families.recognise`."""
    place = getattr(tokenizer, "name_or_path", "") or "this tokenizer"
    if name is None and not getattr(tokenizer, "chat_template", None):
        raise AgentRLError(
            f"model `{place}` has no chat template, so nothing says how its conversations are written: name a family "
            "in `model.renderer`, or take a model that was trained to converse"
        )
    if name not in (None, TEMPLATE):
        found = {"name": name, **options}
        _renderer(tokenizer, found)
    else:
        found = (None if name == TEMPLATE else _known(tokenizer, options, tools)) or _by_template(
            tokenizer, options, tools, place
        )
    return {"family": "rendered", "renderer": found}


def _known(tokenizer: Any, options: Mapping[str, Any], tools: Sequence[dict[str, Any]] | None) -> dict[str, Any] | None:
    """The renderer by hand that writes what the tokenizer's own template writes, if there is one."""
    from renderers.base import RENDERER_REGISTRY, _populate_registry

    _populate_registry()
    conversations = _samples(tools)
    shown = list(tools) if tools else None
    try:
        expected = [_by_jinja(tokenizer, one, shown) for one in conversations]
    except Exception:  # whatever a template can raise of a conversation that it does not take
        return None
    # some families are one renderer whose thinking is on or off; with it off, the library keeps an answer in history as
    # it was sampled, which their templates do not
    unanswered = [number for number, one in enumerate(conversations) if one[-1]["role"] == "tool" or len(one) < 3]
    for more, compared in (({}, range(len(conversations))), ({"enable_thinking": False}, unanswered)):
        for name in RENDERER_REGISTRY:
            found = {"name": name, **more, **options}
            try:
                renderer = _renderer(tokenizer, found)
                same = all(
                    renderer.render_ids(one, tools=shown, add_generation_prompt=_asks(one)) == expected[number]
                    for number, one in enumerate(conversations)
                    if number in compared
                )
            except Exception:  # a family whose tokens the tokenizer lacks, or whose options these are not
                continue
            if same and name != _OPAQUE:
                return found
    return None


def _by_template(
    tokenizer: Any, options: Mapping[str, Any], tools: Sequence[dict[str, Any]] | None, place: str
) -> dict[str, Any]:
    """The opaque renderer, with the parser that reads back a call which the template wrote."""
    plain = {"name": _OPAQUE, **options}
    if not tools:
        return plain
    from renderers.parsers import TOOL_PARSERS

    call = _call_of(tools)
    for parser in [options["tool_parser"]] if "tool_parser" in options else sorted(TOOL_PARSERS):
        found = {**plain, "tool_parser": parser}
        try:
            chat = Rendered(tokenizer, found, tools, None, None)
            prompt = chat.prompt(_ASKED)
            said = chat.read(prompt, chat.written([*_ASKED, call]))
        except Exception:  # a parser whose tokens the tokenizer lacks, or a template that cannot write a call
            continue
        if said is not None and said.get("tool_calls") == call["tool_calls"] and chat.shows_tools:
            return found
    raise AgentRLError(
        f"the chat template of model `{place}` cannot do tools: a call that it writes is not read back by any of "
        f"{', '.join(sorted(TOOL_PARSERS))}. Name the model's family in `model.renderer`, or give the folder a "
        "template that shows tools and writes calls"
    )


def _renderer(tokenizer: Any, config: Mapping[str, Any]) -> Any:
    """The library's renderer by its name and options. AgentRLError when it does not fit the tokenizer."""
    from renderers import config_from_name, create_renderer

    options = {name: value for name, value in config.items() if name != "name"}
    template = getattr(tokenizer, "chat_template", None)
    if config["name"] == _OPAQUE and isinstance(template, str):
        options = {"chat_template": _without_today(template), **options}
    try:
        return create_renderer(tokenizer, type(config_from_name(str(config["name"])))(**options))
    except Exception as error:  # pydantic's, assertions about the vocabulary, and what else a family checks
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AgentRLError(
            f"renderer `{config['name']}` with {options or 'no options'} does not fit the tokenizer: {said}. Name "
            "another one in `model.renderer`, or leave it out, so that it is recognised"
        ) from error


def _call_of(tools: Sequence[Mapping[str, Any]]) -> Message:
    """A call of the first tool that takes arguments, as its schema wants them."""
    examples = {"string": 'a "b" c', "integer": 12, "number": 1.5, "boolean": True}
    functions = [tool["function"] for tool in tools]
    properties = [(one["name"], (one.get("parameters") or {}).get("properties") or {}) for one in functions]
    name, taken = next(((name, taken) for name, taken in properties if taken), properties[0])
    arguments = {key: examples[schema["type"]] for key, schema in taken.items() if schema.get("type") in examples}
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def _samples(tools: Sequence[Mapping[str, Any]] | None) -> list[list[Message]]:
    """Conversations in the library's form that tell families apart: with and without instructions, answered, asked
    again, and with a tool's result."""
    answered = [*_ASKED, {"role": "assistant", "content": "There."}]
    plain = [_ASKED, _ASKED[1:], answered, [*answered, {"role": "user", "content": "Where exactly?"}]]
    if not tools:
        return plain
    call = _for_library(_call_of(tools), 0)
    name = call["tool_calls"][0]["function"]["name"]
    told = {"role": "tool", "name": name, "tool_call_id": "call_0_0", "content": "1"}
    return [*plain, [*_ASKED, call, told]]


def _asks(messages: Sequence[Message]) -> bool:
    return messages[-1]["role"] != "assistant"


_DATE = "26 Jul 2024"
"""The date that Llama's renderer and template begin with where none is given."""


def _by_jinja(tokenizer: Any, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> list[int]:
    from renderers.default import _decode_tool_call_arguments

    return list(
        tokenizer.apply_chat_template(
            _decode_tool_call_arguments(list(messages)),
            tools=tools,
            add_generation_prompt=_asks(messages),
            return_dict=False,
            date_string=_DATE,
        )
    )


def _without_today(template: str) -> str:
    """A template that says the same every day: printed as today's, a date changes each prompt at midnight."""
    return re.sub(r"strftime_now\([^)]*\)", f"'{_DATE}'", template)


_LOOK = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks.",
            "parameters": {"type": "object", "properties": {"flag": {"type": "boolean", "description": "Or not."}}},
        },
    }
]


def _look(flag: Any) -> dict[str, Any]:
    function = {"name": "look", "arguments": {"flag": flag}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "a", "function": function}]}


class Rendered:
    """The conversations of one family with one set of tools; see `ChatFormat`."""

    def __init__(
        self,
        tokenizer: Any,
        renderer: Mapping[str, Any],
        tools: Sequence[dict[str, Any]] | None,
        instructions: str | None,
        implied: str | None,
    ) -> None:
        self.tokenizer = tokenizer
        self._config = dict(renderer)
        self._renderer = _renderer(tokenizer, renderer)
        self._tools = list(tools) if tools else None
        self._instructions = (instructions or "").strip()
        self._implied = (implied or "").strip()
        self.turn_ends: tuple[int, ...] = tuple(self._renderer.get_stop_token_ids())
        control = sorted({*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}, key=len, reverse=True)
        self._control = re.compile("|".join(re.escape(token) for token in control if len(token.strip()) > 1) or r"(?!)")

    @cached_property
    def _one_at_a_time(self) -> bool:
        """Whether the family writes no more than one call in a turn."""
        call = _look(False)["tool_calls"]
        try:
            self._renderer.render_ids(
                [*_ASKED, {"role": "assistant", "content": "", "tool_calls": call * 2}], tools=_LOOK
            )
        except Exception:  # the library's, or whatever a template raises
            return True
        return False

    @cached_property
    def _as_json(self) -> bool:
        """Whether true, false and null have to be handed over as JSON text: some templates print a call's arguments as
        Python does, which no parser reads back."""

        def comes_back(value: Any) -> bool:
            try:
                before = self._renderer.render_ids(_ASKED, tools=_LOOK, add_generation_prompt=True)
                turn = self._renderer.render_ids([*_ASKED, _look(value)], tools=_LOOK)[len(before) :]
                said = self._renderer.parse_response(turn, tools=_LOOK, prompt_ids=before)
            except Exception:
                return False
            return [one.arguments for one in said.tool_calls] == [{"flag": False}]

        return not comes_back(False) and comes_back("false")

    def describe(self) -> Mapping[str, Any]:
        return {"family": "rendered", "renderer": self._config}

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return list(
            self._renderer.render_ids(self._as_library(messages), tools=self._tools, add_generation_prompt=True)
        )

    def bridge(self, prompt: Sequence[int], turn: Sequence[int], messages: Sequence[Message]) -> list[int] | None:
        if self._config["name"] == _OPAQUE:
            return self._read_off(turn, messages)
        new = [_for_library(self._broken(message), number) for number, message in enumerate(messages)]
        found = self._renderer.bridge_to_next_turn(list(prompt), list(turn), new, tools=self._tools)
        before = [*prompt, *turn]
        if found is None or found.token_ids[: len(before)] != before:
            return None
        return list(found.token_ids[len(before) :])

    def _read_off(self, turn: Sequence[int], messages: Sequence[Message]) -> list[int] | None:
        """What an opaque template writes between a turn and the next, if that does not change what stands before."""
        if not turn or turn[-1] not in self.turn_ends:
            return None
        name = next((message["name"] for message in messages if message["role"] == "tool"), None)
        said: Message = {"role": "assistant", "content": "There."}
        if name is not None:
            function = {"name": name, "arguments": {}}
            calls = [{"type": "function", "function": function} for one in messages if one["role"] == "tool"]
            said = {"role": "assistant", "content": "", "tool_calls": calls}
        asked = [*_ASKED, said]
        before = _until_end(self._whole(asked), self.turn_ends)
        after = self.prompt([*asked, *messages])
        return None if before is None or after[: len(before)] != before else after[len(before) :]

    def read(self, prompt: Sequence[int], turn: Sequence[int]) -> Message | None:
        said = self._renderer.parse_response(list(turn), tools=self._tools, prompt_ids=list(prompt))
        if said.reasoning_complete is False or any(
            call.status != "ok" or not isinstance(call.arguments, dict) for call in said.tool_calls
        ):
            return None
        message: Message = {"role": "assistant"}
        if said.reasoning_content and said.reasoning_content.strip():
            message["thinking"] = said.reasoning_content.strip("\n")
        if said.tool_calls:
            if said.content.strip():
                message["content"] = said.content.strip()
            functions = [{"name": call.name, "arguments": call.arguments} for call in said.tool_calls]
            return {**message, "tool_calls": [{"type": "function", "function": one} for one in functions]}
        return {**message, "content": said.content.strip("\n")}

    def rows(self, messages: Sequence[Message], first_chosen: int = 0) -> list[Encoded]:
        if self._one_at_a_time:
            messages, first_chosen = _calls_apart(messages, first_chosen)
        finished: list[Encoded] = []
        ids: list[int] = []
        mask: list[int] = []
        turn_start = seen = 0
        for position, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, turn = ids[:turn_start], ids[turn_start:]
            new = read_next(self, before, turn, messages[:position], position - seen) if ids else None
            if new is None:
                if any(mask):
                    finished.append(Encoded(ids, mask))
                ids, mask, new = [], [], self.prompt(messages[:position])
            turn = self.written(messages[: position + 1])
            turn_start, seen = len(ids) + len(new), position + 1
            ids = [*ids, *new, *turn]
            mask = [*mask, *[0] * len(new), *[int(position >= first_chosen)] * len(turn)]
        return [*finished, Encoded(ids, mask)]

    def written(self, messages: Sequence[Message]) -> list[int]:
        """The last message as an agent would have written it, its end included."""
        if messages[-1].get("malformed"):
            return [*self.tokenizer.encode(messages[-1]["content"], add_special_tokens=False)]
        before, whole = self.prompt(messages[:-1]), self._whole(messages)
        if whole[: len(before)] == before:
            turn = _until_end(whole[len(before) :], self.turn_ends)
            return [*whole[len(before) :], self.turn_ends[0]] if turn is None else turn
        # a generation prompt that the finished turn does not begin with (an opened thought, say)
        found = self._renderer.render(self._as_library(messages), tools=self._tools)
        last = len(found.message_roles) - 1
        if not found.sampled_mask:
            raise AgentRLError(
                "the chat template writes a finished turn otherwise than its generation prompt begins it, so nothing "
                "tells what the agent chose: name the model's family in `model.renderer`"
            )
        written = zip(found.token_ids, found.message_indices, found.sampled_mask, strict=True)
        turn = [token for token, owner, sampled in written if owner == last and sampled]
        return turn if turn and turn[-1] in self.turn_ends else [*turn, self.turn_ends[0]]

    def begin(self, choice: str | None) -> list[int] | None:
        return [] if choice is None and not self._tools else None

    def answer(self, turn: Sequence[int]) -> str:
        said = self._renderer.parse_response(list(turn), tools=self._tools, prompt_ids=None)
        return "" if said.tool_calls or said.reasoning_complete is False else str(said.content.lstrip("\n"))

    @cached_property
    def shows_tools(self) -> bool:
        """Whether a prompt with tools is another one than without."""
        without = self._renderer.render_ids(self._as_library(_ASKED), tools=None, add_generation_prompt=True)
        return self.prompt(_ASKED) != list(without)

    def _whole(self, messages: Sequence[Message]) -> list[int]:
        return list(self._renderer.render_ids(self._as_library(messages), tools=self._tools))

    def _as_library(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """A conversation in the library's form, its instructions first."""
        if self._one_at_a_time:
            messages, _ = _calls_apart(messages, 0)
        own = leading(messages)
        said = "" if own and own == self._implied else own or self._instructions
        system = [{"role": "system", "content": self._unforged(said)}] if said else []
        rest = [self._broken(message) for message in messages[len(instructions_of(messages)) :]]
        return [*system, *(_for_library(message, number) for number, message in enumerate(rest))]

    def _broken(self, message: Message) -> Message:
        """What looks like a control token is broken up: who writes one must not end a message or begin a tool's."""
        whole = {name: value if name == "role" else self._unforged(value) for name, value in message.items()}
        if self._as_json:
            for call in whole.get("tool_calls") or ():
                arguments = call["function"]["arguments"]
                for name, value in arguments.items():
                    arguments[name] = json.dumps(value) if value is None or isinstance(value, bool) else value
        return whole

    def _unforged(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", value)
        if isinstance(value, dict):
            # keys sorted, so that stored rows and a live tool read the same
            return {self._unforged(key): self._unforged(value[key]) for key in sorted(value)}
        return [self._unforged(entry) for entry in value] if isinstance(value, list) else value


def _calls_apart(messages: Sequence[Message], first_chosen: int) -> tuple[list[Message], int]:
    """The conversation with each call in a turn of its own, its result behind it; and where `first_chosen` is then."""
    found: list[Message] = []
    first, taken = None, set()
    for position, message in enumerate(messages):
        if position == first_chosen:
            first = len(found)
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            found += [] if position in taken else [message]
            continue
        behind = list(takewhile(lambda one: messages[one]["role"] == "tool", range(position + 1, len(messages))))
        own = results_of_calls([call["function"]["name"] for call in calls], [messages[one]["name"] for one in behind])
        for number, call in enumerate(calls):
            found.append({**(message if number == 0 else {"role": "assistant"}), "tool_calls": [call]})
            if (result := own[number]) is not None:
                found.append(messages[behind[result]])
                taken.add(behind[result])
    return found, len(found) if first is None else first


def _for_library(message: Message, number: int) -> dict[str, Any]:
    """One message in the library's form. `number` makes the ids of its calls differ from those of others."""
    content = message.get("content") or ""
    found: dict[str, Any] = {
        "role": "system" if message["role"] in INSTRUCTIONS else message["role"],
        "content": content if isinstance(content, str) else json.dumps(content, ensure_ascii=False),
    }
    if message["role"] == "tool":
        found |= {"name": message["name"], "tool_call_id": message.get("tool_call_id") or f"call_{number}_0"}
    if message.get("thinking"):
        found["reasoning_content"] = message["thinking"]
    if calls := message.get("tool_calls"):
        found["tool_calls"] = [
            {"type": "function", "id": call.get("id") or f"call_{number}_{place}",
             "function": {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}}
            for place, call in enumerate(calls)
        ]  # fmt: skip
    return found


def _until_end(ids: Sequence[int], ends: Sequence[int]) -> list[int] | None:
    """The ids up to the last one that ends a turn."""
    places = [place for place, token in enumerate(ids) if token in ends]
    return list(ids[: places[-1] + 1]) if places else None
