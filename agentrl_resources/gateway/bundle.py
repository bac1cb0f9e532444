"""The policy of a local bundle as a backend: the engine of this process, token by token."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.backends import BackendError, OnText, Sampling, Turn
from agentrl_resources.gateway.messages import one_call_a_turn
from agentrl_resources.workflow import EpisodeFactory, Message, Task

if TYPE_CHECKING:
    from agentrl_resources.learning import Engine, Harmony


class BundleBackend:
    """The policy of a bundle, in this process. Loading takes seconds; do it in a thread."""

    def __init__(self, folder: Path, factory: EpisodeFactory, rows: int) -> None:
        from agentrl_resources.learning import Engine, Harmony, load_policy, load_tokenizer

        tokenizer = load_tokenizer(folder)
        self._harmony = Harmony(tokenizer, factory.tools, factory.workflow.instructions)
        self._engine = Engine(load_policy(folder).eval(), self._harmony.turn_ends, rows)

        @lru_cache(maxsize=64)
        def format_of(tools: str, instructions: str | None) -> Harmony:
            return Harmony(tokenizer, json.loads(tools), instructions)

        self._format_of = format_of

    def converse(self, task: Task, sampling: Sampling) -> "BundleConversation":
        return BundleConversation(self._engine, self._harmony, sampling)

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        try:
            messages = one_call_a_turn(body["messages"])
        except ValueError as error:
            raise BackendError(str(error), "request") from error
        instructions = [str(message["content"]) for message in messages if message["role"] == "system"]
        # in the client's order: the template writes a schema as it stands
        harmony = self._format_of(json.dumps(body.get("tools") or []), "\n".join(instructions) or None)
        conversation = BundleConversation(self._engine, harmony, sampling)
        try:
            return await conversation.turn(messages, on_text)
        finally:
            conversation.close()

    async def close(self) -> None:
        self._engine.stop()


class BundleConversation:
    """Token in, token out: what was read and written stays in the engine's cache."""

    def __init__(self, engine: "Engine", harmony: "Harmony", sampling: Sampling) -> None:
        self._engine = engine
        self._harmony = harmony
        self._sampling = sampling
        self._conversation = engine.open(sampling.seed, sampling.max_tokens)
        self._begun = False

    async def turn(self, messages: Sequence[Message], on_text: OnText | None = None) -> Turn:
        if self._begun:
            (observation,) = messages
            ids = self._harmony.observation(observation)
        else:
            ids = self._harmony.prompt(messages)
            self._begun = True
            longest = self._engine.model.config.max_position_embeddings
            if len(ids) > longest:
                raise BackendError(f"the conversation has {len(ids)} tokens; the policy reads {longest}", "request")
        on_token = None if on_text is None else _FinalText(self._harmony, on_text)
        try:
            sampled = await self._engine.turn(
                self._conversation, ids, self._sampling.temperature, self._sampling.max_tokens, on_token
            )
        except AgentRLError as failure:
            raise BackendError(str(failure)) from failure
        text = self._harmony.tokenizer.decode(sampled)
        if not sampled or sampled[-1] not in self._harmony.turn_ends:
            return Turn(None, text, len(ids), len(sampled), ended=False)
        return Turn(self._harmony.parse(sampled), text, len(ids), len(sampled))

    def close(self) -> None:
        self._engine.close(self._conversation)


class _FinalText:
    """Passes on the text of a final answer as its tokens come."""

    _HEAD = "<|channel|>final<|message|>"

    def __init__(self, harmony: "Harmony", on_text: OnText) -> None:
        self._harmony = harmony
        self._on_text = on_text
        self._ids: list[int] = []
        self._sent = 0

    def __call__(self, token: int) -> None:
        if token in self._harmony.turn_ends:
            return
        self._ids.append(token)
        _, found, text = self._harmony.tokenizer.decode(self._ids).partition(self._HEAD)
        if found and not text.endswith("�"):  # half a character waits for its other half
            self._on_text(text[self._sent :])
            self._sent = len(text)
