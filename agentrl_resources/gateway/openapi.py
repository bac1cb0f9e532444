"""The description of the gateway's routes, made from the models that check the requests."""

from typing import Any

from pydantic.json_schema import models_json_schema

from agentrl_resources.gateway.protocol import ChatRequest, Feedback

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ERRORS = {
    400: "The request cannot be understood; the message says where.",
    401: "No valid API key.",
    404: "There is no such model.",
    405: "Not with this method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too many requests are waiting.",
    502: "The policy gave no answer; a person has to take over.",
    503: "No policy is loaded.",
    504: "The policy gave no answer in time.",
}


def openapi() -> dict[str, Any]:
    """The traffic routes as an OpenAPI 3.1 document."""
    _, definitions = models_json_schema(
        [(ChatRequest, "validation"), (Feedback, "validation")], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "AgentRL gateway", "version": "1"},
        "paths": {
            "/v1/chat/completions": {
                "post": _operation("chat", _CHAT, 200, "The answer.", "ChatRequest", streams=True)
            },
            "/v1/models": {"get": _operation("models", "The workflow, as the one model there is.", 200, "The list.")},
            "/v1/models/{name}": {
                "get": {
                    **_operation("model", "One model.", 200, "The model."),
                    "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
                }
            },
            "/v1/feedback": {"post": _operation("feedback", _FEEDBACK, 202, "Written down.", "Feedback")},
            "/health": {"get": _operation("health", "The process is there.", 200, "Yes.", open_to_all=True)},
            "/ready": {"get": _operation("ready", "A policy is loaded.", 200, "Yes.", open_to_all=True)},
        },
        "components": {
            "schemas": {**definitions["$defs"], "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


_CHAT = (
    "One run. Without `tools` the workflow's agent plays the whole episode; with `tools` the client leads the "
    "conversation. The header `x-agentrl-session`, or `user`, says whose session it is: a session always meets the "
    "same policy."
)
_FEEDBACK = "What became of a run, also days later. The latest label counts."


def _operation(
    name: str,
    summary: str,
    status: int,
    said: str,
    body: str | None = None,
    streams: bool = False,
    open_to_all: bool = False,
) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {str(status): {"description": said, "content": content}}
    responses |= {str(code): {"description": text, "content": error} for code, text in _ERRORS.items()}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if not open_to_all:
        operation["security"] = [{"key": []}]
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation
