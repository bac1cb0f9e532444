"""Where a channel's answers come from: the policy of a local bundle, or a server that speaks OpenAI's protocol."""

import json
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.messages import from_openai, one_call_a_turn, text_of, to_openai
from agentrl_resources.strict_json import parse_json
from agentrl_resources.workflow import EpisodeFactory, Message, Task

if TYPE_CHECKING:
    from agentrl_resources.learning import Engine, Harmony

OnText = Callable[[str], None]
"""Is given each new piece of a final answer."""


class BackendError(AgentRLError):
    """A backend gave no usable answer.

    `kind`: `error`; `refused` by a server that does not accept what it was sent; `request` when that is the client's
    own mistake, which no arm answers for.
    """

    def __init__(self, said: str, kind: str = "error") -> None:
        super().__init__(said)
        self.kind = kind


@dataclass(frozen=True)
class Turn:
    """One turn of a policy. `message` is None when it cannot be read; `text` is what was written then.

    `ended` is False when the token limit cut it off.
    """

    message: Message | None
    text: str
    tokens_in: int
    tokens_out: int
    ended: bool = True


@dataclass(frozen=True)
class Sampling:
    """How a policy samples; `max_tokens` is for the whole conversation. The same seed samples the same again."""

    seed: int
    temperature: float
    max_tokens: int


class Conversation(Protocol):
    """One episode's conversation with a policy, turn by turn."""

    async def turn(self, messages: Sequence[Message], on_text: OnText | None = None) -> Turn:
        """Reads the messages that are new and writes the next one. BackendError when there is none."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A policy that can be talked to."""

    def converse(self, task: Task, sampling: Sampling) -> Conversation:
        """A conversation with the workflow's own instructions and tools."""
        ...

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        """The next message of a conversation that the client leads, with the client's instructions and tools.

        `body` is a valid chat-completions request. BackendError when there is no answer.
        """
        ...

    async def close(self) -> None: ...


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
            ids = self._harmony.observation(*messages)
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


class RemoteBackend:
    """A model behind OpenAI's chat-completions protocol (vLLM, llama.cpp, a hosted one, ...)."""

    def __init__(self, url: str, model: str, key: str | None, tools: Sequence[dict[str, Any]]) -> None:
        import aiohttp  # takes a second: here, where a thread loads it, and not while the first client waits

        self._no_limit = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
        self._url = url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._tools = list(tools)
        self._session: aiohttp.ClientSession | None = None

    def converse(self, task: Task, sampling: Sampling) -> "RemoteConversation":
        return RemoteConversation(self, self._tools, sampling)

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        sent = {name: value for name, value in body.items() if name not in _OURS}
        try:
            return await self.ask({**sent, **_sampling_fields(sampling)}, on_text)
        except BackendError as failure:
            if failure.kind == "refused":  # what was sent is the client's
                raise BackendError("the model's server does not accept this request", "request") from failure
            raise

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, body: Mapping[str, Any], on_text: OnText | None = None) -> Turn:
        """The server's answer to a chat-completions request. BackendError when it has none."""
        import aiohttp

        streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if on_text else {}
        body = {**body, "model": self._model, "stream": False, **streamed}
        if self._session is None:  # belongs to the event loop that uses it
            # uvicorn, and with it vLLM, closes idle connections after 5 s: what is sent just then would be lost
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._no_limit)
        try:
            async with self._session.post(
                self._url, json=body, headers=self._headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    kind = "refused" if response.status in (400, 413, 422) else "error"
                    raise BackendError(f"{self._url} answered {response.status}", kind)
                if on_text is not None:
                    return _turn(await _put_together(response.content, on_text))
                return _turn(parse_json((await response.read()).decode()))
        except (aiohttp.ClientError, ConnectionError) as failure:
            raise BackendError(f"{self._url} cannot be reached: {type(failure).__name__}") from failure
        except (ValueError, LookupError, TypeError, AttributeError) as failure:
            raise BackendError(f"{self._url} answered with something that is no chat completion") from failure


_OURS = ("task", "max_completion_tokens", "stream_options")
"""Fields of a request that are the gateway's own, or that it says in another way."""


class RemoteConversation:
    """The whole conversation is sent each turn: the protocol has no memory.

    A server may write text beside a tool call, and which text is the final answer shows at the end of a turn.
    """

    def __init__(self, backend: RemoteBackend, tools: list[dict[str, Any]], sampling: Sampling) -> None:
        self._backend = backend
        self._tools = tools
        self._sampling = sampling
        self._messages: list[dict[str, Any]] = []

    async def turn(self, messages: Sequence[Message], on_text: OnText | None = None) -> Turn:
        self._messages += [to_openai(message, self._call_id) for message in messages]
        body = {"messages": self._messages, "tools": self._tools, **_sampling_fields(self._sampling)}
        turn = await self._backend.ask(body)
        left = max(1, self._sampling.max_tokens - turn.tokens_out)
        self._sampling = replace(self._sampling, max_tokens=left)
        said = turn.message or {"role": "assistant", "content": turn.text}
        if calls := said.get("tool_calls"):
            said = {**said, "tool_calls": calls[:1]}  # an episode takes one call a turn
        elif turn.message and on_text is not None:
            on_text(turn.message["content"])
        self._messages.append(to_openai(said, f"call_{len(self._messages)}"))
        return turn

    @property
    def _call_id(self) -> str | None:
        """The id of the call that a tool's result answers, if the last message was one."""
        calls = self._messages[-1].get("tool_calls") if self._messages else None
        return calls[0]["id"] if calls else None

    def close(self) -> None: ...


def _sampling_fields(sampling: Sampling) -> dict[str, Any]:
    return {"seed": sampling.seed, "temperature": sampling.temperature, "max_tokens": sampling.max_tokens}


def _turn(answer: Mapping[str, Any]) -> Turn:
    """A chat completion as a turn. Raises what Python raises when it is none."""
    choice = answer["choices"][0]
    reply = choice["message"]
    usage = answer.get("usage") or {}
    tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    if min(tokens) < 0 or max(tokens) >= 2**31:
        raise ValueError("these are no counts of tokens")
    text = text_of(reply.get("content"))
    if choice.get("finish_reason") == "length":
        return Turn(None, text, *tokens, ended=False)
    return Turn(from_openai({**reply, "role": "assistant"}), text or json.dumps(reply), *tokens)


async def _put_together(lines: AsyncIterable[bytes], on_text: OnText) -> dict[str, Any]:
    """A streamed chat completion as a whole one; `on_text` gets its text as it comes."""
    content: list[str] = []
    thinking: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    finish, usage = None, None
    async for line in lines:
        if not line.startswith(b"data:") or (data := line[5:].strip()) == b"[DONE]":
            continue
        chunk = parse_json(data.decode())
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            finish = choice.get("finish_reason") or finish
            delta = choice["delta"]
            if text := delta.get("content"):
                content.append(text)
                on_text(text)
            thinking.append(delta.get("reasoning_content") or delta.get("reasoning") or "")
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(part["index"], {"name": "", "arguments": ""})
                for name in call:
                    call[name] += part["function"].get(name) or ""
    if finish is None:
        raise ValueError("the stream ended early")
    reply: dict[str, Any] = {"content": "".join(content), "reasoning_content": "".join(thinking)}
    if calls:
        reply["tool_calls"] = [{"type": "function", "function": calls[index]} for index in sorted(calls)]
    return {"choices": [{"message": reply, "finish_reason": finish}], "usage": usage}
