"""Harmony, token by token: renders a conversation through TRL's chat template turn by turn, and reads sampled turns.

A whole transcript rendered at once is not what the agent saw (the template drops earlier analysis once a final answer
follows), so every turn is rendered by itself and its ids are kept.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentrl_resources.learning.tokenizer import harmony_template
from agentrl_resources.strict_json import parse_json
from agentrl_resources.workflow import Message

_TURN = re.compile(
    r"(?:<\|channel\|>analysis<\|message\|>(?P<thinking>.*?)<\|end\|><\|start\|>assistant)?"
    r"(?: to=functions\.(?P<tool>[\w-]+)<\|channel\|>commentary json<\|message\|>(?P<arguments>.*)<\|call\|>"
    r"|<\|channel\|>final<\|message\|>(?P<content>.*)<\|return\|>)",
    re.DOTALL,
)
_SPECIAL = re.compile(r"<\|\w+\|>")
_FORGED = re.compile(r"<\|(?=\w+\|>)")
_ASSISTANT = "<|start|>assistant"
_EMPTY_USER: Message = {"role": "user", "content": ""}


@dataclass(frozen=True)
class Encoded:
    """Token ids and, for each, whether the agent chose it (1) or it was context (0)."""

    ids: list[int]
    mask: list[int]


class Harmony:
    """Renders and reads the conversations of one workflow with one tokenizer."""

    def __init__(self, tokenizer: Any, tools: Sequence[dict[str, Any]] | None, instructions: str | None) -> None:
        self.tokenizer = tokenizer
        self._template = harmony_template()
        self._tools = list(tools) if tools else None
        self._instructions: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
        self._call_heads: dict[str, str] = {}
        self._plain = self._render([_EMPTY_USER])
        self.opening = self._render([*self._instructions, _EMPTY_USER], self._tools).removesuffix(_user_text(""))
        self.turn_ends: tuple[int, ...] = tuple(tokenizer.convert_tokens_to_ids(["<|call|>", "<|return|>"]))

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """What the agent reads before its next turn, `<|start|>assistant` included."""
        encoded = [self.ids(text) for text, _ in self._segments(messages)]
        return [token for ids in encoded for token in ids] + self.ids(_ASSISTANT)

    def observation(self, *messages: Message) -> list[int]:
        """What the agent reads after its tool calls, `<|start|>assistant` included."""
        return self.ids("".join(map(self._observation_text, messages)) + _ASSISTANT)

    def encode(self, messages: Sequence[Message], first_chosen: int = 0) -> Encoded:
        """A whole conversation exactly as an agent would have seen and written it.

        Args:
            messages: the conversation; a leading system message is replaced by the workflow's instructions.
            first_chosen: assistant messages before this position count as context.
        """
        ids: list[int] = []
        mask: list[int] = []
        texts, positions = zip(*self._segments(messages), strict=True)
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for segment, position in zip(encoded, positions, strict=True):
            ids += segment
            mask += [int(position is not None and position >= first_chosen)] * len(segment)
        return Encoded(ids, mask)

    def texts(self, messages: Sequence[Message]) -> list[str]:
        """The conversation's texts without its constant opening, to train a tokenizer on."""
        segments = [text for text, _ in self._segments(messages)[1:]]
        return [text for segment in segments for text in _SPECIAL.split(segment) if text]

    def constant_texts(self) -> list[str]:
        """The texts between special tokens of the opening that every conversation shares."""
        return [text for text in _SPECIAL.split(self.opening) if text]

    def _segments(self, messages: Sequence[Message]) -> list[tuple[str, int | None]]:
        """The conversation as texts; those that an assistant wrote carry their message's position, others None."""
        segments: list[tuple[str, int | None]] = [(self.opening, None)]
        for position, message in enumerate(messages):
            if message["role"] == "assistant":
                segments.append((_ASSISTANT, None))
                segments.append((self._turn_text(message, last=position + 1 == len(messages)), position))
            elif message["role"] == "tool":
                segments.append((self._observation_text(message), None))
            elif message["role"] == "user":
                segments.append((_user_text(_as_content(message["content"])), None))
        return segments

    def _turn_text(self, message: Message, last: bool) -> str:
        """From after `<|start|>assistant` to `<|call|>`, `<|return|>`, or in history `<|end|>`."""
        if message.get("malformed"):
            return message["content"]
        text = self._render([_EMPTY_USER, _as_content(message)]).removeprefix(self._plain).removeprefix(_ASSISTANT)
        return text if last or message.get("tool_calls") else text.removesuffix("<|return|>") + "<|end|>"

    def _observation_text(self, message: Message) -> str:
        name = message["name"]
        call = {"type": "function", "function": {"name": name, "arguments": {}}}
        head = [_EMPTY_USER, {"role": "assistant", "tool_calls": [call]}]
        if name not in self._call_heads:
            self._call_heads[name] = self._render(head)
        return self._render([*head, _as_content(message)]).removeprefix(self._call_heads[name])

    def _render(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None = None) -> str:
        return self.tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, chat_template=self._template
        )

    def parse(self, ids: Sequence[int]) -> Message | None:
        """The message that the agent wrote, or None when it is malformed."""
        match = _TURN.fullmatch(self.tokenizer.decode(ids))
        if match is None:
            return None
        message: Message = {"role": "assistant"}
        if match["thinking"] is not None:
            message["thinking"] = match["thinking"]
        if match["tool"] is None:
            return {**message, "content": match["content"]}
        try:
            arguments = parse_json(match["arguments"])
        except ValueError:
            return None
        if not isinstance(arguments, dict):
            return None
        function = {"name": match["tool"], "arguments": arguments}
        return {**message, "tool_calls": [{"type": "function", "function": function}]}


def _as_content(value: Any) -> Any:
    """The same value as content and nothing else.

    The keys of every object are sorted, so that stored rows and a live tool read the same. What looks like a control
    token in a text is broken up (`<| end|>`): a customer who writes one must not end the message or begin a tool's.
    """
    if isinstance(value, str):
        return _FORGED.sub("<| ", value)
    if isinstance(value, dict):
        return {_as_content(key): _as_content(value[key]) for key in sorted(value)}
    return [_as_content(entry) for entry in value] if isinstance(value, list) else value


def _user_text(content: str) -> str:
    return f"<|start|>user<|message|>{content}<|end|>"
