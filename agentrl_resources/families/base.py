"""What a family of models has of its own: how it writes conversations, and how its network is computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, Protocol

from agentrl_resources.workflow import Message


@dataclass(frozen=True)
class Encoded:
    """Token ids and, for each, whether the agent chose it (1) or it was context (0)."""

    ids: list[int]
    mask: list[int]


def standing(rows: Sequence[Encoded]) -> Encoded:
    """Of a conversation in several rows: it as it stands at the end, with all that the agent chose and that still
    stands where it stood. A turn's end may be another token in history."""
    *earlier, last = rows
    if not earlier:
        return last
    mask = list(last.mask)
    for row in earlier:
        place = 0
        for chosen, run in groupby(row.mask):
            start, place = place, place + len(list(run))
            if chosen and place <= len(last.ids) and row.ids[start : place - 1] == last.ids[start : place - 1]:
                mask[start:place] = [1] * (place - start)
    return Encoded(last.ids, mask)


class ChatFormat(Protocol):
    """Conversations with one set of tools as token ids, and back.

    Token in, token out: what an agent sampled is kept as it is and never written a second time. A conversation begins
    with `prompt`, goes on with what was sampled, and then with `bridge`.
    """

    tokenizer: Any
    turn_ends: tuple[int, ...]
    """The tokens that end a turn; the first is the one that ends an answer."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """What the agent reads before its next turn. Instructions that the messages do not begin with are added."""
        ...

    def bridge(self, prompt: Sequence[int], turn: Sequence[int], messages: Sequence[Message]) -> list[int] | None:
        """What the agent reads before its next turn, after a turn of its own that stays as it is.

        Args:
            prompt: all ids before the turn.
            turn: the ids that the agent chose.
            messages: what came since: results of tools, a user's next message.

        Returns:
            The new ids; None where the family writes its history anew at this place (it drops old thoughts, say), so
            that the conversation has to go on from `prompt` of all its messages.
        """
        ...

    def read(self, prompt: Sequence[int], turn: Sequence[int]) -> Message | None:
        """The message that the agent wrote after `prompt`, or None when it is malformed."""
        ...

    def rows(self, messages: Sequence[Message], first_chosen: int = 0) -> list[Encoded]:
        """A whole conversation exactly as an agent would have seen and written it, turn by turn.

        Args:
            messages: the conversation; system messages that it begins with take the place of the instructions.
            first_chosen: assistant messages before this position count as context.

        Returns:
            One row, or several where the history is written anew in between: then each is the conversation as it stood
            until that moment, and the last one is it as it stands at the end.
        """
        ...

    def begin(self, choice: str | None) -> list[int] | None:
        """How a turn begins that must call the tool `choice`, or, without one, must be an answer. None where nothing
        that is written first can see to that."""
        ...

    def answer(self, turn: Sequence[int]) -> str:
        """The text of the final answer in a turn as far as it is written; empty before it and where there is none."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What makes this format again, as JSON: see `load_format`."""
        ...


INSTRUCTIONS = ("system", "developer")
"""Roles that instruct the agent."""


def instructions_of(messages: Sequence[Message]) -> list[Message]:
    """The instructions that a conversation begins with."""
    return list(takewhile(lambda message: message["role"] in INSTRUCTIONS, messages))


def leading(messages: Sequence[Message]) -> str:
    """The system prompt that a conversation begins with."""
    return "\n".join(message["content"] for message in instructions_of(messages) if message["content"]).strip()


def results_of_calls(calls: Sequence[str], results: Sequence[str]) -> list[int | None]:
    """Which result answers which call: the first of its tool's that is left; None for a call without one."""
    left = dict(enumerate(results))
    found: list[int | None] = []
    for name in calls:
        number = next((number for number, tool in left.items() if tool == name), None)
        found.append(number)
        left.pop(number, None)  # type: ignore[arg-type]
    return found


def read_next(
    chat: ChatFormat, prompt: Sequence[int], turn: Sequence[int], messages: Sequence[Message], new: int
) -> list[int] | None:
    """What the agent reads before its next turn, or None where the conversation goes on in other ids.

    Args:
        chat: the format.
        prompt: all ids before the agent's last turn.
        turn: the ids that it chose.
        messages: the whole conversation.
        new: how many of its last messages came after the turn.
    """
    bridge = chat.bridge(prompt, turn, messages[len(messages) - new :])
    if bridge is not None:
        return bridge
    written, before = chat.prompt(messages), [*prompt, *turn]
    # a history that might have been written anew, and was not
    return written[len(before) :] if written[: len(before)] == before else None


class Network(Protocol):
    """What a family's module defines where its networks are not computed as transformers does it."""

    @staticmethod
    def attention() -> str:
        """Makes the family's attention known to transformers and returns its name, for `attn_implementation`."""
        ...

    @staticmethod
    def adopt(model: Any) -> Any:
        """The same network, with what is computed in a way of our own where that is quicker; in place."""
        ...
