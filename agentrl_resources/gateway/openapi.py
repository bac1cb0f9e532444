"""The description of the gateway's routes, made from the models that check the requests."""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from agentrl_resources.gateway.requests import ChatRequest, Feedback


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}

_ERROR = _object({"error": _object({"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL})})
_MODEL = _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT})
_MODELS = _object({"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}})
_CALL = _object({"id": _TEXT, "type": {"const": "function"}, "function": _object({"name": _TEXT, "arguments": _TEXT})})
_MESSAGE = _object(
    {"role": {"const": "assistant"}, "content": _TEXT_OR_NULL, "refusal": _TEXT_OR_NULL},
    {
        "tool_calls": {"type": "array", "minItems": 1, "items": _CALL},
        "reasoning_content": _TEXT,
    },
)
_CHOICE = _object(
    {
        "index": {"const": 0},
        "message": _MESSAGE,
        "logprobs": {"type": ["object", "null"]},
        "finish_reason": {"enum": ["stop", "length", "tool_calls", "content_filter"]},
    }
)
_COMPLETION = _object(
    {
        "id": {"type": "string", "pattern": "^chatcmpl-[0-9a-f]{32}$"},
        "object": {"const": "chat.completion"},
        "created": _COUNT,
        "model": _TEXT,
        "system_fingerprint": _TEXT,
        "choices": {"type": "array", "minItems": 1, "maxItems": 1, "items": _CHOICE},
        "usage": {
            "anyOf": [
                _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT}),
                {"type": "null", "description": "The policy's server did not count."},
            ]
        },
    }
)
_LABELLED = _object({"run_id": _TEXT, "labelled_at": _TEXT})

_WITH_KEY = {401: "No valid API key.", 405: "Not with this method."}
_WITH_BODY = {
    **_WITH_KEY,
    400: "The request cannot be understood, or a field of it not be honoured; `param` says which.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    500: "The run or label could not be written down.",
}
_OF_A_RUN = {
    **_WITH_BODY,
    404: "There is no such model.",
    429: "Too many requests are waiting.",
    502: "The policy gave no answer; a person has to take over.",
    503: "No policy is loaded.",
    504: "The policy gave no answer in time.",
}


def openapi(model: str) -> dict[str, Any]:
    """The traffic routes as an OpenAPI 3.1 document; `model` is the name of the one model there is."""
    _, definitions = models_json_schema(
        [(ChatRequest, "validation"), (Feedback, "validation")], ref_template="#/components/schemas/{model}"
    )
    schemas = definitions["$defs"]
    schemas["ChatRequest"]["properties"]["model"] = {"const": model}
    ready = _object({"ready": {"type": "boolean"}})
    name = {"name": "name", "in": "path", "required": True, "schema": {"const": model}}
    one_model = _operation("model", "One model.", 200, "The model.", _MODEL, {**_WITH_KEY, 404: _OF_A_RUN[404]})
    not_ready = {"503": {"description": "No.", "content": {"application/json": {"schema": ready}}}}
    is_ready = _operation("ready", "A policy is loaded.", 200, "Yes.", ready)
    is_ready["responses"] |= not_ready
    return {
        "openapi": "3.1.0",
        "info": {"title": "AgentRL gateway", "version": "1"},
        "paths": {
            "/v1/chat/completions": {
                "post": _operation("chat", _CHAT, 200, "The answer.", _COMPLETION, _OF_A_RUN, "ChatRequest", True)
            },
            "/v1/models": {
                "get": _operation("models", "The workflow, as the one model.", 200, "The list.", _MODELS, _WITH_KEY)
            },
            "/v1/models/{name}": {"get": {**one_model, "parameters": [name]}},
            "/v1/feedback": {
                "post": _operation("feedback", _FEEDBACK, 202, "Written down.", _LABELLED, _WITH_BODY, "Feedback")
            },
            "/health": {
                "get": _operation("health", "The process is there.", 200, "Yes.", _object({"status": {"const": "ok"}}))
            },
            "/ready": {"get": is_ready},
        },
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


_CHAT = (
    "One run. With one user message the workflow's agent plays the whole episode, if `task` is given or the workflow "
    "can begin with the message alone. Otherwise, and always when the request says what tools there are, the client "
    "leads the conversation. Every field is honoured or refused by its name. The header `x-agentrl-session`, or "
    "`user`, says whose session it is: a session always meets the same policy."
)
_FEEDBACK = "What became of a run, also days later. The latest label counts."


def _operation(
    name: str,
    summary: str,
    status: int,
    said: str,
    answer: dict[str, Any],
    errors: Mapping[int, str] | None = None,
    body: str | None = None,
    streams: bool = False,
) -> dict[str, Any]:
    """One route; without `errors` it is open to all."""
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if streams:
        content["text/event-stream"] = {"schema": _object({"data": _TEXT})}  # of each event
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {str(status): {"description": said, "content": content}}
    told = errors or {405: _WITH_KEY[405]}
    responses |= {str(code): {"description": text, "content": error} for code, text in sorted(told.items())}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if errors is not None:
        operation["security"] = [{"key": []}]
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation
