"""OpenAI's chat-completions protocol: what a request may hold, and what it asks of a policy.

A field is honoured or refused by its name. Values that ask for nothing (null, `n: 1`, `tool_choice: "auto"`, ...) are
always taken, and so is what merely accompanies a request.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.backends import Sampling
from agentrl_resources.gateway.messages import READABLE_PARTS, text_of
from agentrl_resources.strict_json import parse_json

Model = TypeVar("Model", bound=BaseModel)


class RequestError(AgentRLError):
    """A request that cannot be served: the status, OpenAI's error type and code, and what is wrong in one sentence.

    `param` is the field that is at fault, as `messages[0].content`.
    """

    def __init__(
        self,
        status: int,
        said: str,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(said)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param

    def to_dict(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class _Open(BaseModel):
    """Fields that are not named are left to the backend, as the protocol grows by them."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _only_text(modalities: list[str]) -> list[str]:
    if modalities != ["text"]:
        raise ValueError('answers are text: `["text"]`')
    return modalities


def _no_functions(functions: list[Any]) -> list[Any]:
    if functions:
        raise ValueError("is what `tools` was called before; say it with `tools`")
    return functions


NoFunctions = Annotated[list[Any], AfterValidator(_no_functions), Field(json_schema_extra={"maxItems": 0})]
Text = Annotated[str, Field(max_length=200_000)]
Key = Annotated[str, Field(min_length=1, max_length=512)]
Who = Annotated[str, Field(max_length=512)]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
Limit = Annotated[int, Field(ge=1)] | Literal[-1]
"""A number of tokens; -1 is what some clients say for none."""
Penalty = Annotated[float, Field(ge=-2, le=2)]


class TextPart(_Open):
    type: Literal["text"]
    text: Text


class RefusalPart(_Open):
    type: Literal["refusal"]
    refusal: Text


class OtherPart(_Open):
    """What only some models take; a policy that reads text refuses it."""

    type: Literal["image_url", "input_audio", "audio_url", "video_url", "file"]


Part = Annotated[TextPart | RefusalPart | OtherPart, Field(discriminator="type")]


class FunctionCall(_Open):
    name: Annotated[str, Field(max_length=128)]
    arguments: Text


class ToolCallEntry(_Open):
    id: Key
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(_Open):
    """One message of a conversation. `name` and a vendor's own fields go to the policy's server as they stand."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None
    tool_calls: Annotated[list[ToolCallEntry], Field(max_length=128)] | None = None
    tool_call_id: Key | None = None
    function_call: None = None
    audio: None = None


class FunctionDefinition(_Open):
    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(_Open):
    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(_Open):
    name: ToolName


class NamedTool(_Open):
    type: Literal["function"]
    function: FunctionName


class AllowedTools(_Open):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedToolChoice(_Open):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class TextFormat(_Open):
    type: Literal["text"]


class JsonFormat(_Open):
    type: Literal["json_object"]


class JsonSchema(_Open):
    name: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class JsonSchemaFormat(_Open):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class TaskContext(_Closed):
    """What the workflow's environment needs to know of the case besides the customer's words.

    It comes from the application that holds the API key (which knows who is asking), never from the customer.
    """

    task_id: Key | None = None
    task_type: Key | None = None
    payload: dict[str, Any] | None = None
    """Arguments of the environment's `reset`. The user's message is its `prompt`, where it has that parameter and the
    payload does not give it."""


class ChatRequest(_Open):
    """A chat-completions request.

    The gateway plays the whole episode with one user message: with `task`, or without where the workflow can begin with
    the message alone. The workflow's own tools are used behind its tool policy, whose token budget holds too
    (`finish_reason` is `length` where it ended the episode), and the final answer goes out.

    In all other cases the client leads the conversation, and one message comes back. So it is whenever the request says
    which tools there are, if only that there are none (`tools: []`, `tool_choice: "none"`); `task` then only names the
    case.
    """

    model: Key
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    task: TaskContext | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    # the tools
    tools: Annotated[list[ToolDefinition], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: NoFunctions | None = None
    function_call: Literal["none", "auto"] | None = None
    # how the policy samples
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Field(gt=-(2**63), lt=2**63)] | None = None
    # how far, and in what form
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    stop: Text | Annotated[list[Text], Field(max_length=64)] | None = None
    response_format: Annotated[TextFormat | JsonFormat | JsonSchemaFormat, Field(discriminator="type")] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    # what an answer has no room for
    n: Literal[1] | None = None
    modalities: Annotated[list[Literal["text", "audio"]], AfterValidator(_only_text)] | None = None
    audio: None = None
    moderation: None = None
    # whose session it is
    user: Who | None = None
    safety_identifier: Who | None = None

    @property
    def session(self) -> str | None:
        """Who is talking, as far as the body says."""
        return self.safety_identifier or self.user or None

    @property
    def token_limit(self) -> int | None:
        """The least of what the request says, where it says something."""
        return min(
            (limit for limit in (self.max_tokens, self.max_completion_tokens) if limit and limit > 0), default=None
        )

    @property
    def wants_usage(self) -> bool:
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def says_tools(self) -> bool:
        """Whether the request says which tools there are, if only that there are none."""
        none = "none" in (self.tool_choice, self.function_call)
        return none or self.tools is not None or self.functions is not None

    @property
    def words(self) -> str | None:
        """The text of the one user message that the request has; None when it has another conversation."""
        said = self.messages[0]
        content = said.content
        readable = isinstance(content, str) or all(part.type in READABLE_PARTS for part in content or [])
        if len(self.messages) > 1 or said.role != "user" or content is None or not readable:
            return None
        return content if isinstance(content, str) else text_of([part.model_dump() for part in content])


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
        # of the alternatives that were tried, the one that was followed furthest says most
        errors = error.errors(include_input=False, include_url=False)
        places = [_path(body, one["loc"], one["type"] == "missing") for one in errors]
        steps, one = max(zip(places, errors, strict=True), key=lambda pair: len(pair[0]))
        param = (
            "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".") or None
        )
        said = _SAID.get(one["type"]) or one["msg"].removeprefix("Value error, ")
        raise RequestError(400, f"{param or 'the body'}: {said}", param=param) from error


_SAID = {"none_required": "this is not supported here", "union_tag_invalid": "there is no such `type` here"}


def _path(body: Any, loc: Sequence[int | str], missing: bool) -> list[int | str]:
    """Where in the body a mistake is; pydantic also names the alternatives that it tried."""
    path: list[int | str] = []
    for position, step in enumerate(loc):
        if isinstance(step, int) and isinstance(body, list):
            path.append(step)
            body = body[step]
        elif isinstance(body, dict) and (step in body or (missing and position == len(loc) - 1)):
            path.append(step)
            body = body.get(step)
    return path


# --- what it asks of a policy -----------------------------------------------------------------------------------------

_READ_HERE = frozenset({
    "model", "messages", "task", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "functions",
    "function_call", "temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "stop", "response_format",
    "logprobs", "top_logprobs", "n", "modalities", "audio", "moderation",
})  # fmt: skip
"""Fields that a policy is told through `Sampling`'s own names, or not at all."""


def sampling_of(asked: ChatRequest, body: Mapping[str, Any], seed: int, temperature: float) -> Sampling:
    """What a request asks of a policy. `seed` and `temperature` are used where the request says nothing.

    RequestError (400) where fields contradict each other.
    """
    if asked.top_logprobs and not asked.logprobs:
        raise RequestError(400, "top_logprobs: needs `logprobs: true`", param="top_logprobs")
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping) and choice["type"] == "allowed_tools":
        choice = choice["allowed_tools"]["mode"]
    formatted = body.get("response_format")
    return Sampling(
        seed=seed if asked.seed is None else asked.seed,
        temperature=temperature if asked.temperature is None else asked.temperature,
        max_tokens=asked.token_limit,
        top_p=asked.top_p,
        stop=tuple(stop for stop in ([asked.stop] if isinstance(asked.stop, str) else asked.stop or ()) if stop),
        response_format=formatted if formatted and formatted["type"] != "text" else None,
        tool_choice=choice if body.get("tools") and choice != "auto" else None,
        parallel_tool_calls=body.get("parallel_tool_calls") if body.get("tools") else None,
        logprobs=bool(asked.logprobs),
        top_logprobs=asked.top_logprobs if asked.logprobs else None,
        extra={name: value for name, value in body.items() if name not in _READ_HERE and value is not None},
    )


def conversation_of(body: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The messages and tools that a policy is shown, and the names of tools that the request has but does not allow.

    RequestError (400) when `tool_choice` names a tool that there is not.
    """
    tools, choice = body.get("tools") or [], body.get("tool_choice")
    names = [tool["function"]["name"] for tool in tools]
    if choice not in (None, "auto", "none") and not tools:
        raise RequestError(400, "tool_choice: needs `tools` to choose from", param="tool_choice")
    allowed = set(names)
    if isinstance(choice, Mapping):
        only = [choice] if choice["type"] == "function" else choice["allowed_tools"]["tools"]
        wanted = {tool["function"]["name"] for tool in only}
        if not wanted <= allowed:
            raise RequestError(400, "tool_choice: names a tool that is not among `tools`", param="tool_choice")
        allowed = wanted if choice["type"] == "allowed_tools" else allowed
    shown: dict[str, Any] = {"messages": [_said(message) for message in body["messages"]]}
    if offered := [tool for tool in tools if tool["function"]["name"] in allowed]:
        shown["tools"] = offered
    return shown, frozenset(names) - allowed


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without what says nothing, as clients write it that send back what they got."""
    nothing: dict[str, Any] = {"tool_calls": [], "annotations": []}
    return {
        name: value
        for name, value in message.items()
        if name == "content" or (value is not None and value != nothing.get(name, ...))
    }
