"""vLLM as an engine: token ids in, token ids and their log-probabilities out."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from agentrl_resources.engines.protocol import Written
from agentrl_resources.errors import AgentRLError

if TYPE_CHECKING:
    import aiohttp

_ATTEMPTS = 5
"""How often a turn is asked for before it is given up."""


@dataclass(eq=False)
class _Conversation:
    seed: int
    budget: int
    sampled: int
    ids: list[int] = field(default_factory=list)
    seconds: float = 0.0
    closed: bool = False


class Host(Protocol):
    """Where a policy is served."""

    url: str
    headers: Mapping[str, str]
    patience: float
    """Seconds in which an answer must come."""
    lives: int
    """How often it has been brought back."""

    def bring_back(self, seen: int) -> None:
        """Waits until it answers again and has its policies; `seen` is `lives` as it was. AgentRLError when not."""
        ...


class VllmEngine:
    """One policy on a server; see `Engine`.

    A turn is one request that has the whole conversation, of which the server keeps what it has read. A request that
    fails because the server went away is sent again when it is back: nothing has happened in the episode meanwhile.

    Args:
        server: where it is.
        model: the name under which the server has the policy.
        turn_ends: the tokens that end a turn.
        context: tokens of a conversation at most.
    """

    def __init__(self, server: Host, model: str, turn_ends: Collection[int], context: int) -> None:
        self._server = server
        self._model = model
        self._turn_ends = sorted(turn_ends)
        self.context = context
        self._http: aiohttp.ClientSession | None = None

    def open(self, seed: int, budget: int, sampled: int = 0) -> _Conversation:
        return _Conversation(seed, budget, sampled)

    async def turn(
        self,
        conversation: _Conversation,
        ids: Sequence[int],
        temperature: float,
        limit: int,
        on_token: Callable[[int], None] | None = None,
    ) -> Written:
        if conversation.closed:
            raise AgentRLError("this conversation is closed")
        conversation.ids += ids
        room = self.context - len(conversation.ids)
        limit = min(limit, conversation.budget - conversation.sampled, room)
        if room < 1 and conversation.sampled == 0:
            raise AgentRLError(
                f"a conversation of {len(conversation.ids)} tokens leaves no room for an answer within the "
                f"{self.context} that the server takes: start it with a larger --max-model-len"
            )
        if limit < 1:
            return Written([], [])
        began = time.perf_counter()
        answer = await self._answer(
            {
                "model": self._model,
                "prompt": conversation.ids,
                "max_tokens": limit,
                "temperature": temperature,
                "top_p": 1.0,
                "top_k": -1,
                # what the model's own generation settings might say instead, and tokens that end a turn there
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
                "ignore_eos": True,
                "seed": (conversation.seed + 1_000_003 * conversation.sampled) % 2**63,
                "stop_token_ids": self._turn_ends,
                "logprobs": 0,
                "return_token_ids": True,
                "skip_special_tokens": False,
            }
        )
        written = _written(answer, self._server.url)
        conversation.seconds += time.perf_counter() - began
        conversation.ids += written.ids
        conversation.sampled += len(written.ids)
        for token in written.ids if on_token is not None else ():
            on_token(token)  # type: ignore[misc]  # there is one
        return written

    def spent(self, conversation: _Conversation) -> float:
        return conversation.seconds

    def close(self, conversation: _Conversation) -> None:
        conversation.closed = True

    async def leave(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _answer(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        import aiohttp

        if self._http is None:
            limits = aiohttp.ClientTimeout(total=self._server.patience, sock_connect=5.0)
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)  # uvicorn ends idle ones after 5 s
            self._http = aiohttp.ClientSession(connector=connector, timeout=limits, headers=self._server.headers)
        tried = 0
        while True:
            lives = self._server.lives
            try:
                async with self._http.post(f"{self._server.url}/v1/completions", json=body) as response:
                    said = await response.read()
                if response.status < 400:
                    return _object(said, self._server.url)
                if response.status < 500 and not (response.status == 404 and tried == 0):
                    raise AgentRLError(f"{self._server.url} answered with HTTP {response.status}: {said_by(said)}")
                failure: Exception = AgentRLError(f"HTTP {response.status}: {said_by(said)}")
            except aiohttp.ConnectionTimeoutError as error:  # away, or this process was busy
                failure = error
            except TimeoutError as error:
                raise AgentRLError(
                    f"{self._server.url} did not answer within {self._server.patience:g} s (engine.patience_seconds)"
                ) from error
            except (aiohttp.ClientError, OSError) as error:
                failure = error
            tried += 1
            if tried >= _ATTEMPTS:
                raise AgentRLError(f"{self._server.url} gave no answer in {tried} attempts: {failure}") from failure
            await asyncio.to_thread(self._server.bring_back, lives)


def _object(said: bytes, url: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise AgentRLError(f"{url} answered with something that is no JSON: {said[:80]!r}") from error
    return answer if isinstance(answer, dict) else {}


def _written(answer: Mapping[str, Any], url: str) -> Written:
    """AgentRLError when ids or log-probabilities are missing: without them nothing can be learned from a turn."""
    choice = (answer.get("choices") or [{}])[0]
    ids, told = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
    missing = "token ids" if not isinstance(ids, list) else "" if isinstance(told, list) else "log-probabilities"
    if not ids or not told or len(ids) != len(told) or None in told:
        raise AgentRLError(
            f"{url} gives no {missing or 'log-probability for each token'} with its answer, and nothing can be learned "
            "from it without them: an AgentRL engine is a vLLM server that has not turned them off"
        )
    return Written([int(token) for token in ids], [float(logprob) for logprob in told])


def said_by(answer: bytes) -> str:
    """The message of an error, whatever its form."""
    text = answer.decode(errors="replace").strip()
    try:
        found = json.loads(text)
        error = found.get("error", found.get("detail", text))
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        pass
    return text[:300] or "nothing"
