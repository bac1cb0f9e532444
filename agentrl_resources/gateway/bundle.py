"""The policy of a local bundle as a backend: the engine of this process, token by token."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import Talk
from agentrl_resources.gateway.backends import BackendError, OnText, Sampling, Turn, TurnTokens
from agentrl_resources.gateway.fields import changes
from agentrl_resources.gateway.messages import READABLE_PARTS, one_call_a_turn
from agentrl_resources.workflow import EpisodeFactory, Message, Task

if TYPE_CHECKING:
    from agentrl_resources.engines import Engine, Written
    from agentrl_resources.families import ChatFormat


class BundleBackend:
    """The policy of a bundle, in this process. Loading takes seconds; do it in a thread.

    It honours seed, temperature, token limit, stop sequences, `logprobs` and, as far as beginning a turn for the policy
    goes, `tool_choice`. Fields that it could only ignore are refused by name.
    """

    def __init__(self, folder: Path, factory: EpisodeFactory, rows: int) -> None:
        from agentrl_resources.engines import LocalEngine
        from agentrl_resources.families import format_of, load_format
        from agentrl_resources.learning import load_policy, load_tokenizer

        tokenizer, description = load_tokenizer(folder), format_of(folder)
        self._chat = load_format(tokenizer, description, factory.tools, factory.workflow.instructions)
        self._engine: Engine = LocalEngine(load_policy(folder).eval(), self._chat.turn_ends, rows)

        @lru_cache(maxsize=64)
        def chat_with(tools: str, instructions: str | None) -> "ChatFormat":
            return load_format(tokenizer, description, json.loads(tools), instructions)

        self._chat_with = chat_with

    def converse(self, task: Task, sampling: Sampling) -> "BundleConversation":
        _refuse_what_it_cannot(sampling)
        return BundleConversation(self._engine, self._chat, sampling)

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        _refuse_what_it_cannot(sampling)
        tools = body.get("tools") or []
        _refuse_what_it_cannot_read(body["messages"], tools)
        try:
            messages = one_call_a_turn(body["messages"])
        except ValueError as error:
            raise BackendError(str(error), "request", "messages") from error
        instructions = [str(message["content"]) for message in messages if message["role"] == "system"]
        try:  # in the client's order: the template writes a schema as it stands
            chat = self._chat_with(json.dumps([_described(tool) for tool in tools]), "\n".join(instructions) or None)
        except Exception as error:  # it takes fewer schemas than there are, and fails in its own ways
            said = f"tools: they cannot be shown to the policy of a bundle ({type(error).__name__})"
            raise BackendError(said, "request", "tools") from error
        conversation = BundleConversation(self._engine, chat, sampling, _beginning(chat, tools, sampling.tool_choice))
        try:
            return await conversation.turn(messages, on_text)
        finally:
            conversation.close()

    async def close(self) -> None:
        await self._engine.leave()


class BundleConversation:
    """Token in, token out: what was read and written stays in the engine's cache.

    `beginning` is what the policy finds already written of its first turn.
    """

    def __init__(self, engine: "Engine", chat: "ChatFormat", sampling: Sampling, beginning: Sequence[int] = ()) -> None:
        self._engine = engine
        self._chat = chat
        self._sampling = sampling
        self._limit = min(sampling.max_tokens or engine.context, engine.context)
        self._conversation = engine.open(abs(sampling.seed), self._limit)
        self._beginning = list(beginning)
        self._messages: list[Message] = []
        """All that was said, for the day that a history is written anew."""
        self._talk = Talk(chat)

    async def turn(self, messages: Sequence[Message], on_text: OnText | None = None) -> Turn:
        read_before = bool(self._talk.ids)
        beginning = [] if read_before else self._beginning
        self._messages += messages
        ids = [*self._talk.next(self._messages, len(messages)), *beginning]
        if self._talk.anew:
            sampled = self._conversation.sampled
            self._engine.close(self._conversation)
            self._conversation = self._engine.open(abs(self._sampling.seed), self._limit, sampled)
        room = self._engine.context - len(self._talk.ids) - len(beginning)
        if room < 1:
            said = f"messages: {len(ids)} tokens are more than the policy can still read"
            raise BackendError(said, "error" if read_before else "request", "messages")
        on_token = None if on_text is None else _AnswerText(self._chat, beginning, on_text)
        try:
            written = await self._engine.turn(
                self._conversation, ids, self._sampling.temperature, min(self._limit, room), on_token
            )
        except AgentRLError as failure:
            raise BackendError(str(failure)) from failure
        tokens = TurnTokens(ids, written.ids, written.logprobs, self._talk.anew)
        turn = replace(self._turn(beginning, written.ids, len(ids)), tokens=tokens)
        return replace(turn, logprobs=self._told(written)) if self._sampling.logprobs else turn

    def _told(self, written: "Written") -> dict[str, Any]:
        """Every token that was sampled, control tokens too, as the protocol tells of log-probabilities."""
        texts = [self._chat.tokenizer.decode([token]) for token in written.ids]
        return {
            "content": [
                {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []}
                for text, logprob in zip(texts, written.logprobs, strict=True)
            ],
            "refusal": None,
        }

    def _turn(self, beginning: Sequence[int], sampled: Sequence[int], tokens_in: int) -> Turn:
        written = [*beginning, *sampled]
        message = self._talk.wrote(written)
        answer = self._chat.answer(written)
        if not sampled or sampled[-1] not in self._chat.turn_ends:
            return Turn(None, answer, tokens_in, len(sampled), ended=False)
        text = self._chat.tokenizer.decode(written)
        if beginning and beginning == self._chat.begin(None):
            # it may end its text as it would end a call: there is no call in it
            message = {"role": "assistant", "content": answer}
        if message is not None:
            self._messages.append(message)
        else:
            self._messages.append({"role": "assistant", "content": text, "malformed": True})
        return Turn(message, text, tokens_in, len(sampled))

    def close(self) -> None:
        self._engine.close(self._conversation)


def _beginning(
    chat: "ChatFormat", tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any] | None
) -> list[int]:
    """What a turn begins with so that it is what `tool_choice` says: an answer, or a call of one tool."""
    if choice == "none" or not tools:
        begun = chat.begin(None)
    elif choice is None:
        return []
    else:
        names = [choice["function"]["name"]] if isinstance(choice, Mapping) else _names(tools)
        if len(names) > 1:
            said = "tool_choice: the policy of a bundle can be made to call one tool, not one of several"
            raise BackendError(said, "request", "tool_choice")
        begun = chat.begin(names[0])
    if begun is None:
        said = "tool_choice: how this policy writes leaves what it does to itself"
        raise BackendError(said, "request", "tool_choice")
    return begun


def _described(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool with the description that the template needs and the protocol does not."""
    function = tool["function"]
    return {"type": "function", "function": {**function, "description": function.get("description") or ""}}


def _names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    return [tool["function"]["name"] for tool in tools]


def _refuse_what_it_cannot(sampling: Sampling) -> None:
    """BackendError (request) that names the first field which the policy of a bundle could only ignore."""
    fields = {
        "response_format": sampling.response_format,
        "top_logprobs": sampling.top_logprobs,
        "top_p": sampling.top_p,
        **sampling.extra,
    }
    for name, value in fields.items():
        if changes(name, value):
            raise BackendError(f"{name}: the policy of a bundle does not know this field", "request", name)


def _refuse_what_it_cannot_read(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> None:
    for position, message in enumerate(messages):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part["type"] not in READABLE_PARTS:
                where = f"messages[{position}].content"
                raise BackendError(f"{where}: the policy of a bundle reads text, no {part['type']}", "request", where)
    for position, name in enumerate(_names(tools)):
        if not re.fullmatch(r"[\w-]+", name):
            where = f"tools[{position}].function.name"
            raise BackendError(f"{where}: the policy of a bundle writes letters, digits, _ and -", "request", where)


class _AnswerText:
    """Passes on the text of a final answer as its tokens come. `beginning` is what stands before the first of them."""

    def __init__(self, chat: "ChatFormat", beginning: Sequence[int], on_text: OnText) -> None:
        self._chat = chat
        self._on_text = on_text
        self._ids = list(beginning)
        self._sent = 0

    def __call__(self, token: int) -> None:
        if token in self._chat.turn_ends:
            return
        self._ids.append(token)
        text = self._chat.answer(self._ids)
        if len(text) > self._sent and not text.endswith("\ufffd"):  # half a character waits for its other half
            self._on_text(text[self._sent :])
            self._sent = len(text)
