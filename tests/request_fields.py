"""The fields of a chat-completions request, what each may hold, and what the gateway does about it."""

from dataclasses import dataclass
from typing import Any

LOOKUP = {"type": "function", "function": {"name": "look-up", "parameters": {"type": "object", "properties": {}}}}
ORDER = {"type": "function", "function": {"name": "order", "parameters": {"type": "object", "properties": {}}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


@dataclass(frozen=True)
class Case:
    """A field: values that ask for nothing, and one that asks for something with what the gateway does about it.

    `sent`: a server is told; `here`: the gateway does it, another test of this file or of the gateway says how;
    `accompanies`: it changes no answer; `refused`: by its name.
    """

    nothing: list[Any]
    meaningful: Any
    fate: str


CASES = {
    "audio": Case([None], {"voice": "ash", "format": "mp3"}, "refused"),
    "frequency_penalty": Case([None, 0], 0.5, "sent"),
    "function_call": Case([None, "auto", "none"], {"name": "order"}, "refused"),
    "functions": Case([None, []], [LOOKUP["function"]], "refused"),
    "logit_bias": Case([None, {}], {"50256": -100}, "sent"),
    "logprobs": Case([None, False], True, "sent"),
    "max_completion_tokens": Case([None, -1], 9, "here"),
    "max_tokens": Case([None, -1], 9, "here"),
    "metadata": Case([None, {}], {"ticket": "7"}, "accompanies"),
    "modalities": Case([None, ["text"]], ["text", "audio"], "refused"),
    "moderation": Case([None], {"model": "omni-moderation-latest"}, "refused"),
    "n": Case([None, 1], 2, "refused"),
    "parallel_tool_calls": Case([None, True], False, "here"),
    "prediction": Case([None], {"type": "content", "content": "x"}, "accompanies"),
    "presence_penalty": Case([None, 0], -0.5, "sent"),
    "prompt_cache_key": Case([None, ""], "a key", "accompanies"),
    "prompt_cache_options": Case([None, {}], {"mode": "explicit"}, "accompanies"),
    "prompt_cache_retention": Case([None, "in_memory"], "24h", "accompanies"),
    "reasoning_effort": Case([None, "medium"], "high", "sent"),
    "response_format": Case([None, {"type": "text"}], {"type": "json_object"}, "sent"),
    "safety_identifier": Case([None, ""], "customer 7", "accompanies"),
    "seed": Case([None], -5, "sent"),
    "service_tier": Case([None, "auto", "default"], "flex", "accompanies"),
    "stop": Case([None, [], ""], ["###", "END"], "here"),
    "store": Case([None, False], True, "accompanies"),
    "stream": Case([None, False], True, "here"),
    "stream_options": Case([None, {}, {"include_usage": False}], {"include_usage": True}, "here"),
    "temperature": Case([None, 1], 0.3, "sent"),
    "tool_choice": Case([None, "auto"], "none", "here"),
    "tools": Case([None], [LOOKUP], "here"),
    "top_logprobs": Case([None, 0], 3, "here"),
    "top_p": Case([None, 1], 0.5, "sent"),
    "user": Case([None, ""], "customer 7", "accompanies"),
    "verbosity": Case([None, "medium"], "low", "sent"),
    "web_search_options": Case([None], {"search_context_size": "low"}, "sent"),
}
