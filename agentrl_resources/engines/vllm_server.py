"""A vLLM server, started for this or one of the user's, and the policies that are published to it.

Weights go to it as a folder that both see, under a name that says what is in it: a digest. No name is given twice, and
no folder written twice, since vLLM keeps what it has read of an adapter by its name, and the keys and values of a
prompt by what answered it.
"""

import http.client
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agentrl_resources.engines.protocol import Publication
from agentrl_resources.engines.vllm import VllmEngine, said_by
from agentrl_resources.errors import AgentRLError

OLDEST = (0, 11)
"""Version of vLLM from which token ids come back (`return_token_ids`)."""
KEPT = 4
"""Adapters that a server keeps: the two of an evaluation, and those before them for answers that are under way."""
_ADMIN_SECONDS = 300.0
"""Time for loading weights."""
_PAUSE_SECONDS = 0.5
"""Between two attempts to reach a server that is away."""


@dataclass(frozen=True)
class Capabilities:
    """What a server said of itself. `context`: tokens of a conversation, prompt and answer together."""

    version: str
    model: str
    context: int


class _Answered(AgentRLError):
    """A server answered with an error. `unknown`: it has no such route."""

    def __init__(self, place: str, status: int, said: str) -> None:
        super().__init__(f"{place} answered with HTTP {status}: {said}")
        self.status = status
        self.unknown = status == 404 and "Not Found" in said


class VllmServer:
    """What all policies on one server share: where it is, what it holds, and how it is brought back; see `Server`.

    Args:
        url: such as `http://host:8000`; a `/v1` at its end is left out.
        key: its API key, if it wants one.
        patience: seconds in which an answer must come, and in which a server that went away must be back.
        restart: starts it again if it is one of ours and has ended; does nothing while it lives.
    """

    def __init__(
        self, url: str, key: str | None = None, patience: float = 300.0, restart: Callable[[], None] = lambda: None
    ) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise AgentRLError(f"engine.url: `{url}` is no address of a server, which begins with http:// or https://")
        self.url = url.rstrip("/").removesuffix("/v1").rstrip("/")
        self.headers: Mapping[str, str] = {"authorization": f"Bearer {key}"} if key else {}
        self.patience = patience
        self._restart = restart
        self._held: dict[str, Publication] = {}
        """What was published, the newest last."""
        self._whole: Publication | None = None
        """What the server's own weights are, where we have set them."""
        self._bringing_back = threading.Lock()
        self._gone: AgentRLError | None = None
        """Why it is given up."""
        self.lives = 0
        """How often it has been brought back."""

    def capabilities(self) -> Capabilities:
        """AgentRLError when it cannot be used: it is away, no vLLM, too old, or has another key."""
        try:
            version = str(self._ask("/version")["version"])
        except KeyError as error:
            raise AgentRLError(f"engine.url: {self.url} is no vLLM server") from error
        except _Answered as error:
            if error.status == 404:
                raise AgentRLError(f"engine.url: {self.url} is no vLLM server") from error
            raise
        digits = [int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:2]]
        if tuple(digits) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise AgentRLError(f"engine.url: {self.url} runs vLLM {version}; {oldest} or newer gives token ids back")
        models = self._ask("/v1/models").get("data") or []
        if not models:
            raise AgentRLError(f"engine.url: {self.url} serves no model")
        base = models[0]
        return Capabilities(version, str(base["id"]), int(base.get("max_model_len") or 2**31))

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{self.url}/health", headers=self.headers), timeout=5):
                return True
        except (OSError, ValueError, http.client.HTTPException):
            return False

    @cached_property
    def context(self) -> int:
        return self.capabilities().context

    def engine(self, model: str, turn_ends: Collection[int]) -> VllmEngine:
        return VllmEngine(self, model, turn_ends, self.context)

    def publish(self, publication: Publication) -> str:
        """See `Server`; the error says which option the server lacks."""
        if not self.healthy():
            self.bring_back(self.lives)
        if publication.how == "weights":
            self._load_weights(publication)
            self._whole = publication
            return self.capabilities().model
        if publication.name not in self._held:
            self._load_adapter(publication)
            self._held[publication.name] = publication
            for name in list(self._held)[:-KEPT]:
                del self._held[name]
                self._ask("/v1/unload_lora_adapter", {"lora_name": name})
        return publication.name

    def holds(self, publication: Publication) -> bool:
        return publication == self._whole or publication.name in self._held

    def tokens_of(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int] | None:
        body = {"messages": list(messages), "add_generation_prompt": True, **({"tools": list(tools)} if tools else {})}
        try:
            return [int(token) for token in self._ask("/tokenize", body)["tokens"]]
        except KeyError:
            return None
        except _Answered as error:
            if error.status == 404:
                return None
            raise

    def bring_back(self, seen: int) -> None:
        """Waits until a server that went away answers again, and publishes once more what it held.

        Args:
            seen: `lives` when the server was last seen. Who comes later than another finds it done.

        AgentRLError when it stays away.
        """
        with self._bringing_back:
            if self._gone is not None:
                raise self._gone
            if seen == self.lives:
                try:
                    self._bring_back()
                except AgentRLError as error:
                    self._gone = error
                    raise
                self.lives += 1

    def _bring_back(self) -> None:
        deadline = time.monotonic() + self.patience
        while not self.healthy():
            if time.monotonic() > deadline:
                raise AgentRLError(f"{self.url} went away and was not back within {self.patience:g} s")
            self._restart()
            time.sleep(_PAUSE_SECONDS)
        if self._whole is not None:
            self._load_weights(self._whole)
        for publication in self._held.values():
            if publication.folder.exists():  # those before the present one are gone from here too
                self._load_adapter(publication)

    def _load_adapter(self, publication: Publication) -> None:
        body = {"lora_name": publication.name, "lora_path": str(publication.folder)}
        try:
            self._ask("/v1/load_lora_adapter", body)
        except _Answered as error:
            if "already been loaded" in str(error):  # by a stage before this one; what is in it is the same
                self._ask("/v1/unload_lora_adapter", {"lora_name": publication.name})
                self._ask("/v1/load_lora_adapter", body)
                return
            if error.unknown:  # a folder that is not there is a 404 of another kind
                raise AgentRLError(
                    f"{self.url} takes no adapters: start it with --enable-lora and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or set engine.publish: weights"
                ) from error
            raise

    def leave(self) -> None:
        """Takes back the adapters that were published, as far as the server still answers."""
        for name in self._held:
            with suppress(AgentRLError):
                self._ask("/v1/unload_lora_adapter", {"lora_name": name})
        self._held.clear()

    def _load_weights(self, publication: Publication) -> None:
        try:
            self._ask("/pause?mode=wait", {})
        except _Answered as error:
            if error.status == 404:
                raise AgentRLError(
                    f"{self.url} takes no weights: start it with VLLM_SERVER_DEV_MODE=1, or set engine.publish: adapter"
                ) from error
            raise
        try:
            told = {"method": "reload_weights", "kwargs": {"weights_path": str(publication.folder)}}
            self._ask("/collective_rpc", told)
            self._forget_prompts()
        finally:
            self._ask("/resume", {})

    def _forget_prompts(self) -> None:
        """Keys and values of the weights before would answer otherwise, without a word."""
        self._ask("/reset_prefix_cache", {})

    def _ask(self, place: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An answer to a GET, or to a POST of `body`. AgentRLError when there is none."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "content-type": "application/json"}
        try:
            request = urllib.request.Request(self.url + place, data, headers)
            with urllib.request.urlopen(request, timeout=min(self.patience, _ADMIN_SECONDS)) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            raise _Answered(self.url + place, error.code, said_by(error.read())) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise AgentRLError(
                f"engine.url: {self.url} cannot be reached ({reason}). Is the server running?"
            ) from error
        try:
            answered = json.loads(said) if said.strip() else {}
        except ValueError:
            return {}  # some of these answer with a sentence
        return answered if isinstance(answered, dict) else {"answer": answered}
