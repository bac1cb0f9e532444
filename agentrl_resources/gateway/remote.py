"""A server that speaks OpenAI's chat-completions protocol as a backend: vLLM, llama.cpp, Ollama, a hosted one, ..."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.backends import BackendError, OnText, Sampling, Turn
from agentrl_resources.gateway.completions import Completion, CompletionError, CompletionReader
from agentrl_resources.gateway.dialects import adapted, steps_after
from agentrl_resources.gateway.messages import from_openai, to_openai
from agentrl_resources.gateway.server_errors import ServerError, read_error
from agentrl_resources.workflow import Message, Task

if TYPE_CHECKING:
    import aiohttp

_ERROR_BYTES = 65_536
"""Of a longer error only the beginning is read."""
_LINGER_SECONDS = 0.1
"""How long a connection may take to end after `[DONE]` and still be used again."""


class RemoteBackend:
    """A model behind OpenAI's chat-completions protocol.

    `url` is what an OpenAI client would take as its base; `/v1` may be left out, and a query (`?api-version=...`)
    stays.
    AgentRLError when it is no address.
    """

    def __init__(self, url: str, model: str, key: str | None, tools: Sequence[dict[str, Any]]) -> None:
        import aiohttp  # takes a second: here, where a thread loads it, and not while the first client waits

        self._no_limit = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
        key = key.strip() if key else None  # a file's last line end is none of it
        self._places = _places(url, with_user=not key)
        self._model = model
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        if key and "api-version=" in url:  # Azure's
            self._headers["api-key"] = key
        self._tools = list(tools)
        self._learnt: frozenset[str] = frozenset()
        """What this server has been seen not to take."""
        self._session: aiohttp.ClientSession | None = None

    def converse(self, task: Task, sampling: Sampling) -> "RemoteConversation":
        return RemoteConversation(self, self._tools, sampling)

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        messages = [_known_role(message) for message in body["messages"]]
        try:
            return _turn(await self.ask({**body, "messages": messages, **_sampling_fields(sampling)}, on_text))
        except BackendError as failure:
            if failure.kind == "refused":  # what was sent is the client's
                because = f" because of `{failure.param}`" if failure.param else ""
                said = f"the model's server does not accept this request{because}"
                raise BackendError(said, "request", failure.param) from failure
            raise

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, body: Mapping[str, Any], on_text: OnText | None = None) -> Completion:
        """The server's answer to a chat-completions request. BackendError when it has none.

        A request that the server refuses for a field that the answer can do without is sent again without it.
        """
        streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if on_text else {}
        body = {**body, "model": self._model, "stream": False, **streamed}
        tried = self._learnt
        while True:
            sent = adapted(body, tried)
            try:
                completion = await self._post(sent, on_text)
            except _Refused as refused:
                steps = steps_after(refused.error, sent) - tried
                if not steps:
                    raise BackendError(str(refused), "refused", _field(refused.error, body)) from refused
                tried |= steps
            else:
                self._learnt |= tried
                return completion

    async def _post(self, body: Mapping[str, Any], on_text: OnText | None) -> Completion:
        import aiohttp

        if self._session is None:  # belongs to the event loop that uses it
            # uvicorn, and with it vLLM, closes idle connections after 5 s: what is sent just then would be lost
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._no_limit)
        *others, last = self._places
        for place in (*others, last):
            reader, answered = CompletionReader(on_text), False
            try:
                async with self._session.post(
                    place, json=body, headers=self._headers, allow_redirects=False
                ) as response:
                    answered = True
                    if response.status in (404, 405) and place != last:
                        continue
                    completion = await self._read(response, reader, _shown(place))
                    self._places = (place,)
                    return completion
            except (aiohttp.ClientError, OSError) as failure:
                what = "broke off its answer" if answered else "cannot be reached"
                raise BackendError(f"{_shown(place)} {what}: {type(failure).__name__}") from failure
            except CompletionError as failure:
                said = f"{_shown(place)} answered with "
                if failure.error is None:
                    raise BackendError(f"{said}something that is no chat completion: {failure}") from failure
                if failure.error.refuses and not reader.told:
                    raise _Refused(f"{said}{failure}", failure.error) from failure
                raise BackendError(f"{said}{failure}") from failure
        raise AssertionError  # there is always a last place

    async def _read(self, response: "aiohttp.ClientResponse", reader: CompletionReader, shown: str) -> Completion:
        import aiohttp

        if response.status // 100 != 2:
            error = read_error(response.status, await _beginning(response))
            said = f"{shown} answered {response.status}{f' ({error.code})' if error.code else ''}"
            if re.fullmatch(r"\d{1,6}", wait := response.headers.get("retry-after", "")):
                said += f"; it may be asked again in {wait} s"
            if error.refuses:
                raise _Refused(said, error)
            raise BackendError(said)
        try:
            async for data in response.content.iter_any():
                reader.feed(data)
                if reader.done:
                    break
        except (aiohttp.ClientError, OSError):
            if not reader.ended:
                raise
            return reader.end(broken=True)
        completion = reader.end()
        if reader.done:  # some servers keep a connection open and go on with pings
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    async for _ in response.content.iter_any():
                        pass
        return completion


class _Refused(BackendError):
    """The server does not accept what it was sent."""

    def __init__(self, said: str, error: ServerError) -> None:
        super().__init__(said, "refused")
        self.error = error


class RemoteConversation:
    """The whole conversation is sent each turn: the protocol has no memory.

    What the server said goes back to it as it said it: with its own ids, and with its thoughts under the name that it
    has for them, which some servers ask for. A server may write text beside a tool call, and which text is the final
    answer shows at the end of a turn.
    """

    def __init__(self, backend: RemoteBackend, tools: list[dict[str, Any]], sampling: Sampling) -> None:
        self._backend = backend
        self._tools = {"tools": tools} if tools else {}
        self._sampling = sampling
        self._messages: list[dict[str, Any]] = []

    async def turn(self, messages: Sequence[Message], on_text: OnText | None = None) -> Turn:
        self._add(messages)
        body = {"messages": self._messages, **self._tools, **_sampling_fields(self._sampling)}
        completion = await self._backend.ask(body)
        turn = _turn(completion)
        if self._sampling.max_tokens is not None:
            left = max(1, self._sampling.max_tokens - (turn.tokens_out or 0))
            self._sampling = replace(self._sampling, max_tokens=left)
        if turn.message is None:
            self._messages.append({"role": "assistant", "content": turn.text})
            return turn
        self._messages.append(_with_ids(completion.message, len(self._messages)))
        if on_text is not None and not turn.message.get("tool_calls") and turn.message["content"]:
            on_text(turn.message["content"])
        return turn

    def _add(self, messages: Sequence[Message]) -> None:
        """Results belong to the calls of the turn before, in their order. A call without one was never made."""
        calls = self._messages[-1].get("tool_calls", []) if self._messages else []
        results = [message for message in messages if message["role"] == "tool"]
        if calls and len(results) < len(calls):
            calls = calls[: len(results)]
            self._messages[-1] = {**self._messages[-1], "tool_calls": calls}
        ids = iter([call["id"] for call in calls])
        for message in messages:
            self._messages.append(to_openai(message, next(ids, None) if message["role"] == "tool" else None))

    def close(self) -> None: ...


def _with_ids(message: Mapping[str, Any], position: int) -> dict[str, Any]:
    """A server's message, each call with an id of its own. Where it gave none: nine characters, which all take."""
    if not (calls := message.get("tool_calls")):
        return dict(message)
    given: set[str] = set()
    named = []
    for number, call in enumerate(calls):
        own = call["id"] if call["id"] and call["id"] not in given else f"call{position:03d}{number:02d}"
        given.add(own)
        named.append({**call, "id": own})
    return {**message, "content": message["content"] or None, "tool_calls": named}


def _known_role(message: Mapping[str, Any]) -> dict[str, Any]:
    """`developer` is the newer word for `system`. Those that know it take both; templates drop or refuse it."""
    return {**message, "role": "system"} if message["role"] == "developer" else dict(message)


def _sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """A server's fields; those that are not asked for are left out, since not every server knows each of them."""
    fields = {
        "max_tokens": sampling.max_tokens,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop) or None,
        "response_format": sampling.response_format,
        "tool_choice": sampling.tool_choice,
        "parallel_tool_calls": sampling.parallel_tool_calls,
        "logprobs": sampling.logprobs or None,
        "top_logprobs": sampling.top_logprobs,
    }
    asked = {name: value for name, value in fields.items() if value is not None}
    return {**sampling.extra, "seed": sampling.seed, "temperature": sampling.temperature, **asked}


def _turn(completion: Completion) -> Turn:
    tokens = completion.tokens_in, completion.tokens_out
    said = completion.message
    if completion.cut_off:
        filtered, logprobs = completion.filtered, completion.logprobs
        return Turn(None, said["content"], *tokens, ended=False, filtered=filtered, logprobs=logprobs)
    thinking = {"reasoning_content": completion.thinking} if completion.thinking else {}
    message = from_openai({**said, **thinking})
    return Turn(message, json.dumps(said, ensure_ascii=False), *tokens, logprobs=completion.logprobs)


async def _beginning(response: "aiohttp.ClientResponse") -> bytes:
    import aiohttp

    data = b""
    with suppress(aiohttp.ClientError, OSError):  # its status says enough
        async for piece in response.content.iter_any():
            data += piece
            if len(data) >= _ERROR_BYTES:
                break
    return data


def _field(error: ServerError, body: Mapping[str, Any]) -> str | None:
    """The field of the request that the server says is at fault."""
    field = re.split(r"\W", error.param or "")[0]
    return field if field in body else None


def _places(url: str, with_user: bool) -> tuple[str, ...]:
    """Where the server may answer chat completions, the likeliest place first."""
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise AgentRLError(f"{_shown(url)}: this is no server's address. Write it as http://host:8000/v1")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    prefixes = [path]
    if not path:
        prefixes = ["/v1", ""]
    elif path == parts.path.rstrip("/") and not re.search(r"/(v\d|deployments/)", path):
        prefixes = [path, f"{path}/v1"]
    where = parts._replace(fragment="", netloc=parts.netloc if with_user else parts.netloc.rpartition("@")[2])
    return tuple(where._replace(path=f"{prefix}/chat/completions").geturl() for prefix in prefixes)


def _shown(place: str) -> str:
    """An address without what may be secret in it."""
    return re.sub(r"//[^/@]*@", "//", place.partition("?")[0])
