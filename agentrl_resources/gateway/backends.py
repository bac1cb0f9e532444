"""Where a channel's answers come from: what every backend offers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import Message, Task

OnText = Callable[[str], None]
"""Is given each new piece of a final answer."""


class BackendError(AgentRLError):
    """A backend gave no usable answer.

    `kind`: `error`; `refused` by a server that does not accept what it was sent; `request` when that is the client's
    own mistake, which no arm answers for. `param` is the field of the request that is at fault, where that is known.
    """

    def __init__(self, said: str, kind: str = "error", param: str | None = None) -> None:
        super().__init__(said)
        self.kind = kind
        self.param = param


@dataclass(frozen=True)
class TurnTokens:
    """A turn in token ids: what the policy read since its last turn, what it wrote, and each written token's
    log-probability at the turn's temperature (nats). `anew`: what it read is the whole conversation once more."""

    read: Sequence[int]
    wrote: Sequence[int]
    logprobs: Sequence[float]
    anew: bool = False


@dataclass(frozen=True)
class Turn:
    """One turn of a policy. `message` is None when it cannot be read; `text` is what was written then.

    `ended` is False when the token limit cut it off, or a filter (`filtered`). `logprobs` is the choice's, as the
    protocol has it, if they were asked for. Tokens that nobody counted are None. `tokens`, where the backend has them.
    """

    message: Message | None
    text: str
    tokens_in: int | None
    tokens_out: int | None
    ended: bool = True
    filtered: bool = False
    logprobs: Mapping[str, Any] | None = None
    tokens: TurnTokens | None = None


@dataclass(frozen=True)
class Sampling:
    """What a request asks of every turn of a conversation. What is None, False or empty is not asked for.

    The same seed samples the same again. `max_tokens` is for the whole conversation; None is as many as the policy can
    write. What stands in the protocol's form has its names: `response_format` (`json_object` or `json_schema`),
    `tool_choice` (all but `auto`), and `extra`, fields that the gateway itself knows nothing to do with and that a
    server is sent as they stand (penalties, `reasoning_effort`, `metadata`, a vendor's own).
    """

    seed: int
    temperature: float
    max_tokens: int | None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


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

        `body` holds `messages` and, if there are any, `tools` of a valid chat-completions request; all else that it
        asks for is in `sampling`. BackendError when there is no answer.
        """
        ...

    async def close(self) -> None: ...
