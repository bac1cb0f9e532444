"""OpenAI's chat-completions protocol: what a request may hold, and what answers and errors look like."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.backends import Turn
from agentrl_resources.gateway.messages import to_openai
from agentrl_resources.strict_json import parse_json

Model = TypeVar("Model", bound=BaseModel)


class RequestError(AgentRLError):
    """A request that cannot be served: the status, OpenAI's error type and code, and what is wrong in one sentence."""

    def __init__(self, status: int, said: str, kind: str = "invalid_request_error", code: str | None = None) -> None:
        super().__init__(said)
        self.status = status
        self.kind = kind
        self.code = code

    def to_dict(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.code}}


class _Open(BaseModel):
    """Fields that are not named are left to the backend, as the protocol grows by them."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Text = Annotated[str, Field(max_length=200_000)]
Key = Annotated[str, Field(min_length=1, max_length=512)]


class TextPart(_Open):
    type: Literal["text"]
    text: Text


class FunctionCall(_Open):
    name: Annotated[str, Field(max_length=128)]
    arguments: Text


class ToolCallEntry(_Open):
    id: Annotated[str, Field(max_length=128)]
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(_Open):
    """One message of a conversation. `content` is text; pictures and sound are not read."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    tool_calls: Annotated[list[ToolCallEntry], Field(max_length=64)] | None = None
    tool_call_id: Annotated[str, Field(max_length=128)] | None = None


class FunctionDefinition(_Open):
    name: Annotated[str, Field(pattern=r"^[\w-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class ToolDefinition(_Open):
    type: Literal["function"]
    function: FunctionDefinition


class TaskContext(_Closed):
    """What the workflow's environment needs to know of the case besides the customer's words.

    It comes from the application that holds the API key (which knows who is asking), never from the customer.
    """

    task_id: Key | None = None
    task_type: Key | None = None
    payload: dict[str, Any]
    """Arguments of the environment's `reset`."""


class ChatRequest(_Open):
    """A chat-completions request.

    Without `tools` the gateway plays the whole episode: one user message comes in, the workflow's own tools are used
    behind its tool policy, and the final answer goes out. With `tools` the client leads the conversation, and one
    message comes back.
    """

    model: Key
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    tools: Annotated[list[ToolDefinition], Field(max_length=128)] | None = None
    task: TaskContext | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(gt=-(2**63), lt=2**63)] | None = None
    n: Literal[1] | None = None
    user: Key | None = None
    safety_identifier: Key | None = None

    @property
    def session(self) -> str | None:
        """Who is talking, as far as the body says."""
        return self.safety_identifier or self.user

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_usage(self) -> bool:
        return bool((self.stream_options or {}).get("include_usage"))


class Feedback(_Closed):
    """What became of a run, said afterwards: by the person who took over, or by whoever knows the outcome."""

    run_id: Annotated[str, Field(pattern=r"^chatcmpl-[0-9a-f]{32}$")]
    human_override: bool | None = None
    success: bool | None = None
    safety_violation: bool | None = None
    labelled_at: Annotated[str, Field(max_length=64)] | None = None
    """ISO 8601; now when it is left out. The latest label counts."""


def read_body(model: type[Model], data: bytes) -> tuple[Model, dict[str, Any]]:
    """A request's body as its model and as the object it is. RequestError (400) says what is wrong, without content."""
    try:
        body = parse_json(data.decode())
    except ValueError as error:
        raise RequestError(400, "the body is not valid JSON in UTF-8") from error
    try:
        return model.model_validate(body), body
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise RequestError(400, f"{place}: {first['msg']}") from error


def completion(run_id: str, model: str, fingerprint: str, turn: Turn) -> dict[str, Any]:
    """The answer to a request."""
    return {
        **_envelope(run_id, "chat.completion", model, fingerprint),
        "choices": [
            {"index": 0, "message": _reply(turn, run_id), "logprobs": None, "finish_reason": _finish_reason(turn)},
        ],
        "usage": usage(turn),
    }


def usage(turn: Turn) -> dict[str, int]:
    return {
        "prompt_tokens": turn.tokens_in,
        "completion_tokens": turn.tokens_out,
        "total_tokens": turn.tokens_in + turn.tokens_out,
    }


def chunk(run_id: str, model: str, fingerprint: str, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    """A piece of a streamed answer, as a server-sent event."""
    envelope = _envelope(run_id, "chat.completion.chunk", model, fingerprint)
    choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
    return event({**envelope, "choices": [choice]})


def last_chunks(run_id: str, model: str, fingerprint: str, turn: Turn, sent: bool, wants_usage: bool) -> bytes:
    """The end of a streamed answer: what was not `sent` as text on the way, why it ended, and the usage if wanted."""
    data = b""
    reply = _reply(turn, run_id)
    if calls := reply.get("tool_calls"):
        delta = {"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]}
        data += chunk(run_id, model, fingerprint, delta)
    elif not sent:
        data += chunk(run_id, model, fingerprint, {"content": reply["content"]})
    data += chunk(run_id, model, fingerprint, {}, _finish_reason(turn))
    if wants_usage:
        envelope = _envelope(run_id, "chat.completion.chunk", model, fingerprint)
        data += event({**envelope, "choices": [], "usage": usage(turn)})
    return data + b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def models(names: Sequence[str], created: int) -> dict[str, Any]:
    """What `/v1/models` lists."""
    listed = [{"id": name, "object": "model", "created": created, "owned_by": "agentrl"} for name in names]
    return {"object": "list", "data": listed}


def _envelope(run_id: str, kind: str, model: str, fingerprint: str) -> dict[str, Any]:
    return {
        "id": run_id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
    }


def _reply(turn: Turn, run_id: str) -> dict[str, Any]:
    message = turn.message or {"role": "assistant", "content": turn.text}
    return {"refusal": None, **to_openai(message, f"call_{run_id[-16:]}")}


def _finish_reason(turn: Turn) -> str:
    if not turn.ended:
        return "length"
    return "tool_calls" if turn.message and turn.message.get("tool_calls") else "stop"
