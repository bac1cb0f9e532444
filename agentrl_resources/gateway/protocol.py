"""OpenAI's chat-completions protocol: what answers look like, whole and in pieces."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl_resources.gateway.backends import Turn
from agentrl_resources.gateway.messages import to_openai


def completion(run_id: str, model: str, fingerprint: str, turn: Turn) -> dict[str, Any]:
    """The answer to a request."""
    message, finish = _reply(turn, run_id)
    choice = {"index": 0, "message": message, "logprobs": turn.logprobs, "finish_reason": finish}
    return {
        **_envelope(run_id, "chat.completion", model, fingerprint),
        "choices": [choice],
        "usage": usage(turn),
    }


def usage(turn: Turn) -> dict[str, int] | None:
    """None where the policy's server did not count."""
    if turn.tokens_in is None or turn.tokens_out is None:
        return None
    return {
        "prompt_tokens": turn.tokens_in,
        "completion_tokens": turn.tokens_out,
        "total_tokens": turn.tokens_in + turn.tokens_out,
    }


def chunk(
    run_id: str,
    model: str,
    fingerprint: str,
    delta: Mapping[str, Any],
    finish: str | None = None,
    logprobs: Mapping[str, Any] | None = None,
) -> bytes:
    """A piece of a streamed answer, as a server-sent event."""
    envelope = _envelope(run_id, "chat.completion.chunk", model, fingerprint)
    choice = {"index": 0, "delta": dict(delta), "logprobs": logprobs, "finish_reason": finish}
    return event({**envelope, "choices": [choice]})


def last_chunks(run_id: str, model: str, fingerprint: str, turn: Turn, sent: bool, wants_usage: bool) -> bytes:
    """The end of a streamed answer: what was not `sent` as text on the way, why it ended, and the usage if wanted."""
    data = b""
    reply, finish = _reply(turn, run_id)
    delta = {"refusal": reply["refusal"]} if reply["refusal"] else {}
    if calls := reply.get("tool_calls"):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    if not sent and reply.get("content") is not None:
        delta["content"] = reply["content"]
    if delta:
        data += chunk(run_id, model, fingerprint, delta)
    data += chunk(run_id, model, fingerprint, {}, finish, turn.logprobs)
    if wants_usage and (counted := usage(turn)) is not None:
        envelope = _envelope(run_id, "chat.completion.chunk", model, fingerprint)
        data += event({**envelope, "choices": [], "usage": counted})
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


def _reply(turn: Turn, run_id: str) -> tuple[dict[str, Any], str]:
    """The message of an answer, and why it ended."""
    message = turn.message or {"role": "assistant", "content": turn.text}
    reply = {"refusal": None, **to_openai(message, f"call_{run_id[-16:]}")}
    if not turn.ended:
        return reply, "content_filter" if turn.filtered else "length"
    return reply, "tool_calls" if reply.get("tool_calls") else "stop"
