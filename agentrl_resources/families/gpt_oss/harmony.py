"""Harmony, token by token: renders a conversation through TRL's chat template turn by turn, and reads sampled turns.

A whole transcript rendered at once is not what the agent saw (the template drops earlier analysis once a final answer
follows), so every turn is rendered by itself and its ids are kept. What the template cannot write is written here as
OpenAI's Harmony has it: text beside a call is a preamble on the commentary channel, a user's name stands beside the
role (`user:ann`), and each call is a message of its own that ends in `<|call|>`. An agent stops there and reads the
result before it calls again, so the calls of one turn are written one after the other, each with its result behind it.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from agentrl_resources.families.base import Encoded, instructions_of, leading, results_of_calls
from agentrl_resources.families.gpt_oss.tokenizer import harmony_template
from agentrl_resources.strict_json import parse_json
from agentrl_resources.workflow import Message

_TURN = re.compile(
    r"(?:<\|channel\|>analysis<\|message\|>(?P<thinking>.*?)<\|end\|><\|start\|>assistant)?"
    r"(?:(?:<\|channel\|>commentary<\|message\|>(?P<preamble>.*?)<\|end\|><\|start\|>assistant)?"
    r" to=functions\.(?P<tool>[\w.-]+)<\|channel\|>commentary json<\|message\|>(?P<arguments>.*)<\|call\|>"
    r"|<\|channel\|>final<\|message\|>(?P<content>.*)<\|return\|>)",
    re.DOTALL,
)
_SPECIAL = re.compile(r"<\|\w+\|>")
_FORGED = re.compile(r"<\|(?=\w+\|>)")
_ASSISTANT = "<|start|>assistant"
_FINAL = "<|channel|>final<|message|>"
_CALL = " to=functions.{}<|channel|>commentary json<|message|>"
_EMPTY_USER: Message = {"role": "user", "content": ""}
_KEPT_OPENINGS = 256


class Harmony:
    """Renders and reads the conversations of one workflow with one tokenizer.

    `instructions` open every conversation that has no system message of its own. A system message that says
    `implied` is not written: it is what the format stands for.
    """

    def __init__(
        self,
        tokenizer: Any,
        tools: Sequence[dict[str, Any]] | None,
        instructions: str | None,
        implied: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._template = harmony_template()
        self._tools = list(tools) if tools else None
        self._call_heads: dict[str, str] = {}
        self._plain = self._render([_EMPTY_USER])
        self.opening = self._opening(instructions)
        self._openings = {(text or "").strip(): self.opening for text in (None, instructions, implied)}
        self.turn_ends: tuple[int, ...] = tuple(tokenizer.convert_tokens_to_ids(["<|return|>", "<|call|>"]))

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
            messages: the conversation; system messages that it begins with take the place of the instructions.
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

    def rows(self, messages: Sequence[Message], first_chosen: int = 0) -> list[Encoded]:
        """See `ChatFormat`. An answer that something follows ends with another token in history than as it was chosen:
        it is the last turn of a row of its own."""
        answers = [
            position + 1
            for position, message in enumerate(messages[:-1])
            if position >= first_chosen
            and message["role"] == "assistant"
            and not (message.get("tool_calls") or message.get("malformed"))
        ]
        starts, ends = [first_chosen, *answers], [*answers, len(messages)]
        return [self.encode(messages[:end], start) for start, end in zip(starts, ends, strict=True)]

    def bridge(self, prompt: Sequence[int], turn: Sequence[int], messages: Sequence[Message]) -> list[int] | None:
        """See `ChatFormat`. A user's next message follows an answer, whose end is another token in history."""
        return self.observation(*messages) if all(message["role"] == "tool" for message in messages) else None

    def read(self, prompt: Sequence[int], turn: Sequence[int]) -> Message | None:
        return self.parse(turn)

    def begin(self, choice: str | None) -> list[int] | None:
        return self.ids(_FINAL if choice is None else _CALL.format(choice))

    def answer(self, turn: Sequence[int]) -> str:
        return self.tokenizer.decode([token for token in turn if token not in self.turn_ends]).partition(_FINAL)[2]

    def describe(self) -> Mapping[str, Any]:
        return {"family": "gpt_oss"}

    def texts(self, messages: Sequence[Message]) -> list[str]:
        """The conversation's texts without its constant opening, to train a tokenizer on."""
        segments = [text for text, _ in self._segments(messages)[1:]]
        if self._opening_of(messages) != self.opening:
            segments.append(leading(messages))
        return [text for segment in segments for text in _SPECIAL.split(segment) if text]

    def constant_texts(self) -> list[str]:
        """The texts between special tokens of the opening that every conversation shares."""
        return [text for text in _SPECIAL.split(self.opening) if text]

    def _segments(self, messages: Sequence[Message]) -> list[tuple[str, int | None]]:
        """The conversation as texts; those that an assistant wrote carry their message's position, others None."""
        segments: list[tuple[str, int | None]] = [(self._opening_of(messages), None)]
        written = set(range(len(instructions_of(messages))))
        for position, message in enumerate(messages):
            if position in written:
                continue
            role = message["role"]
            if role == "assistant":
                behind = _results(messages, position)
                last = position + 1 == len(messages)
                for text, result in self._turn_texts(message, [messages[one] for one in behind], last):
                    segments += [(_ASSISTANT, None), (text, position)]
                    if result is not None:
                        segments.append((self._observation_text(messages[behind[result]]), None))
                        written.add(behind[result])
            elif role == "tool":
                segments.append((self._observation_text(message), None))
            elif role == "user":
                segments.append((_user_text(as_content(message["content"]), as_content(message.get("name"))), None))
            elif message["content"]:
                segments.append((_developer_text(as_content(message["content"])), None))
        return segments

    def _turn_texts(self, message: Message, results: Sequence[Message], last: bool) -> list[tuple[str, int | None]]:
        """A turn from after `<|start|>assistant` to `<|return|>` (in history `<|end|>`), or cut behind each `<|call|>`;
        and with each part, which of the results follows it."""
        if message.get("malformed"):
            return [(message["content"], None)]
        calls = message.get("tool_calls")
        if not calls:
            said = self._assistant_text({"role": "assistant", "content": "", **message})
            return [(said if last else said.removesuffix("<|return|>") + "<|end|>", None)]
        head = ""
        for channel, text in (("analysis", message.get("thinking")), ("commentary", message.get("content"))):
            if text:
                head += f"<|channel|>{channel}<|message|>{as_content(text)}<|end|>{_ASSISTANT}"
        texts = [self._assistant_text({"role": "assistant", "tool_calls": [call]}) for call in calls]
        own = results_of_calls([call["function"]["name"] for call in calls], [one["name"] for one in results])
        return [(head + text if number == 0 else text, own[number]) for number, text in enumerate(texts)]

    def _assistant_text(self, message: Message) -> str:
        return self._render([_EMPTY_USER, as_content(message)]).removeprefix(self._plain).removeprefix(_ASSISTANT)

    def _opening_of(self, messages: Sequence[Message]) -> str:
        text = leading(messages)
        if text in self._openings:
            return self._openings[text]
        opening = self._opening(as_content(text))
        if len(self._openings) < _KEPT_OPENINGS:
            self._openings[text] = opening
        return opening

    def _opening(self, instructions: str | None) -> str:
        system: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
        return self._render([*system, _EMPTY_USER], self._tools).removesuffix(_user_text(""))

    def _observation_text(self, message: Message) -> str:
        name = message["name"]
        call = {"type": "function", "function": {"name": name, "arguments": {}}}
        head = [_EMPTY_USER, {"role": "assistant", "tool_calls": [call]}]
        if name not in self._call_heads:
            self._call_heads[name] = self._render(head)
        return self._render([*head, as_content(message)]).removeprefix(self._call_heads[name])

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
        if match["preamble"]:
            message["content"] = match["preamble"]
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


def as_content(value: Any) -> Any:
    """The same value as content and nothing else.

    The keys of every object are sorted, so that stored rows and a live tool read the same. What looks like a control
    token in a text is broken up (`<| end|>`): a customer who writes one must not end the message or begin a tool's.
    """
    if isinstance(value, str):
        return _FORGED.sub("<| ", value)
    if isinstance(value, dict):
        return {as_content(key): as_content(value[key]) for key in sorted(value)}
    return [as_content(entry) for entry in value] if isinstance(value, list) else value


def _results(messages: Sequence[Message], position: int) -> list[int]:
    """Where the results of a turn with several calls stand. A single call's stands behind it anyway."""
    if len(messages[position].get("tool_calls") or ()) < 2:
        return []
    behind = range(position + 1, len(messages))
    return list(takewhile(lambda one: messages[one]["role"] == "tool", behind))


def _user_text(content: str, name: str | None = None) -> str:
    return f"<|start|>user{':' + name if name else ''}<|message|>{content}<|end|>"


def _developer_text(content: str) -> str:
    """Instructions that come later in a conversation, as the template writes those of the beginning."""
    return f"<|start|>developer<|message|># Instructions\n\n{content}\n\n<|end|>"
