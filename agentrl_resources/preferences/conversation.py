"""Prompt and sides as one conversation that parts into two answers, with the prompt in it exactly once.

Many data sets repeat the prompt in both sides, as messages or at the start of a text; others give the sides alone, and
the prompt is the beginning that they share (TRL's implicit prompt).
"""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from agentrl_resources.preferences.messages import read_messages, role_of
from agentrl_resources.preferences.pairs import Message, Reason, Refused

Parts = tuple[list[Message], list[Message], list[Message]]
"""Prompt, chosen and rejected turns."""

_ENDS_A_REQUEST = "?:=>\n"
_INSTRUCTIONS = ("system", "developer")


def join(opening: list[Any], chosen: list[Any], rejected: list[Any], two_runs: bool = False) -> Parts:
    """The three parts of two conversations. `opening` is the row's own prompt, empty where it has none.

    `two_runs`: the sides are runs of one task, which need not answer the same words (see `pairs.TWO_RUNS`).
    Raises `Refused` where the sides do not answer the same prompt, or one of them holds no answer.
    """
    before = read_messages(opening, "prompt")
    if before and before[-1] == {"role": "assistant", "content": ""}:
        before, opening = before[:-1], opening[:-1]  # "...\n\nAssistant:" only says whose turn it is
    if before and before[-1]["role"] == "assistant":
        opening = _without_answer(opening, before, chosen, rejected)
        before = before[: len(opening)]
    if two_runs:
        whole_chosen, whole_rejected = (_run(opening, before, side) for side in (chosen, rejected))
        length = _begun_alike(whole_chosen, whole_rejected)
    else:
        whole_chosen, repeats_chosen = _whole(opening, before, chosen, "chosen")
        whole_rejected, repeats_rejected = _whole(opening, before, rejected, "rejected")
        answers = not repeats_chosen and not repeats_rejected and _answer(chosen) and _answer(rejected)
        length = len(before) if before and answers else _shared(whole_chosen, whole_rejected)
    sides = whole_chosen[length:], whole_rejected[length:]
    for name, turns in zip(("chosen", "rejected"), sides, strict=True):
        if not any(_is_answer(turn) for turn in turns):
            raise Refused(Reason.MISSING_SIDE, f"The {name} side holds no answer.")
    return whole_chosen[:length], *_without_echo(whole_chosen[:length], *sides)


def _without_echo(
    prompt: list[Message], chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message]]:
    """Two sides whose answers both begin with the whole question, without it."""
    ends = prompt[-1:] + chosen[:1] + rejected[:1]
    if len(ends) < 3 or prompt[-1]["role"] != "user" or not all(isinstance(turn.get("content"), str) for turn in ends):
        return chosen, rejected
    asked, *answers = (turn["content"].strip() for turn in ends)
    if not asked or not all(_begins(answer, asked) for answer in answers):
        return chosen, rejected
    cut = without_prompt(asked, *answers)
    if not all(cut):
        return chosen, rejected
    return [{**chosen[0], "content": cut[0]}, *chosen[1:]], [{**rejected[0], "content": cut[1]}, *rejected[1:]]


def with_system(parts: Parts, system: str | None) -> Parts:
    """The parts with a system prompt from a column of its own, which the conversation may repeat but not contradict."""
    if system is None:
        return parts
    prompt, chosen, rejected = parts
    own = [_squeezed(turn["content"]) for turn in takewhile(lambda turn: turn["role"] in _INSTRUCTIONS, prompt)]
    if not own and prompt and prompt[0]["role"] == "user" and prompt[0]["content"].startswith(system):
        return parts  # the prompt says it already
    if not own:
        return [{"role": "system", "content": system}, *prompt], chosen, rejected
    if _squeezed(system) not in own and _squeezed(system) != " ".join(own):
        raise Refused(Reason.UNREADABLE, "The system prompt is not the one that the conversation begins with.")
    return parts


def without_prompt(asked: str, chosen: str, rejected: str) -> tuple[str, str]:
    """Two texts without the prompt that both begin with.

    A text that begins with a short greeting may greet back, so it must look like a request, or be long. Raises
    `Refused` where only one side repeats it: whether that was what the annotator read cannot be told.
    """
    asked, chosen, rejected = asked.strip(), chosen.strip(), rejected.strip()
    if len(asked.split()) < 3 and len(asked) < 12 and not asked.endswith(tuple(_ENDS_A_REQUEST)):
        return chosen, rejected
    repeats = [_begins(side, asked) for side in (chosen, rejected)]
    if not asked or not any(repeats):
        return chosen, rejected
    if not all(repeats):
        one = "chosen" if repeats[0] else "rejected"
        raise Refused(
            Reason.UNREADABLE, f"Only the {one} side repeats the prompt. Leave it out of both, or of neither."
        )
    cut = chosen[len(asked) :].strip(), rejected[len(asked) :].strip()
    return without_prompt(asked, *cut) if all(_begins(side, asked) for side in cut) else cut


def split_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """TRL's rule for plain text without a prompt: it is the shared beginning, up to the last blank in it."""
    shared = chosen[: _common(chosen, rejected)]
    end = len(shared) - len(re.split(r"\s", shared)[-1])
    return chosen[:end].strip(), chosen[end:], rejected[end:]


def _begins(text: str, asked: str) -> bool:
    rest = text.removeprefix(asked)
    return rest != text and (not rest or rest[0].isspace() or not asked[-1].isalnum())


def _without_answer(opening: list[Any], before: list[Message], *sides: list[Any]) -> list[Any]:
    """A prompt that is a finished conversation may end in one of the answers, or hold a whole side: that part goes."""
    for side in sides:
        if side and role_of(side[0]) != "tool":
            own = [_loosely(turn) for turn in read_messages(side, "side")]
            if [_loosely(turn) for turn in before[-len(own) :]] == own:
                return opening[: -len(own)]
    return opening


def _whole(opening: list[Any], before: list[Message], side: list[Any], name: str) -> tuple[list[Message], bool]:
    """A side as a whole conversation, and whether it repeats the prompt."""
    starts = role_of(side[0]) if side else None
    if before and starts != "tool" and (starts != "assistant" or before[0]["role"] == "assistant"):
        alone = read_messages(side, name)
        if _repeats(before, alone):
            return alone, True
        asks = any(turn["role"] == "user" for turn in before)
        begins = starts in ("user", *_INSTRUCTIONS) and (starts != "user" or asks)
        if begins and (before[-1]["role"] != "assistant" or _loosely(alone[0]) in map(_loosely, before)):
            raise Refused(Reason.UNREADABLE, f"The {name} side begins with another prompt than the row's own.")
    if starts == "tool" or any("tool_calls" in turn for turn in before):
        return read_messages([*opening, *side], name), False  # a result may answer a call of the prompt
    return before + read_messages(side, name), False


def _repeats(before: list[Message], whole: list[Message]) -> bool:
    """Whether a conversation holds the prompt: from its beginning on, or (a prompt that leaves out what was said first)
    behind a user's or system's first words. An answer that the prompt begins may go on in the conversation."""
    own, there = [_loosely(turn) for turn in before], [_loosely(turn) for turn in whole]
    begun = before[-1]["content"].strip() if set(before[-1]) == {"role", "content"} else None
    last = before[-1]["role"] == "assistant" and begun
    most = len(there) - len(own) + bool(last)
    for start in range(most if there and whole[0]["role"] != "assistant" else min(most, 1)):
        if there[start : start + len(own)] == own and start + len(own) < len(there):
            return True
        end = start + len(own) - 1
        if last and there[start:end] == own[:-1] and end < len(there) and _goes_on(whole[end], str(begun)):
            return True
    return False


def _goes_on(turn: Message, begun: str) -> bool:
    return turn["role"] == "assistant" and str(turn.get("content", "")).strip().startswith(begun)


def _key(turn: Message) -> Any:
    """What makes two turns the same: all that they hold, without the blanks around a text."""
    return {name: value.strip() if isinstance(value, str) else value for name, value in turn.items()}


def _loosely(turn: Message) -> Any:
    """What makes two turns the same request: all that they hold, whatever its blanks are."""
    return {name: _squeezed(value) if isinstance(value, str) else value for name, value in turn.items()}


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _answer(side: list[Any]) -> bool:
    return bool(side) and role_of(side[0]) == "assistant"


def _is_answer(turn: Message) -> bool:
    return turn["role"] == "assistant" and bool(turn.get("tool_calls") or turn["content"].strip())


def _shared(chosen: list[Message], rejected: list[Message]) -> int:
    """How many turns both begin with, so that an assistant's turn comes next in both."""
    common = _common([_key(turn) for turn in chosen], [_key(turn) for turn in rejected])
    parted = {turns[common]["role"] for turns in (chosen, rejected) if common < len(turns)}
    most = min(common, len(chosen) - 1, len(rejected) - 1)
    for length in range(most, -1, -1) if not parted - {"assistant", "tool"} or common > most else ():
        if chosen[length]["role"] == rejected[length]["role"] == "assistant":
            return length
    raise Refused(Reason.UNREADABLE, "The two sides do not answer the same prompt.")


def _run(opening: list[Any], before: list[Message], side: list[Any]) -> list[Message]:
    """A side as a whole run, whose prompt it may repeat."""
    if before and role_of(side[0] if side else None) not in ("tool", "assistant"):
        alone = read_messages(side, "side")
        if _repeats(before, alone):
            return alone
    return read_messages([*opening, *side], "side")


def _begun_alike(chosen: list[Message], rejected: list[Message]) -> int:
    """How many turns two runs have in common before the agent's first in either: what it wrote stays in its side."""
    openings = [list(takewhile(lambda turn: turn["role"] != "assistant", side)) for side in (chosen, rejected)]
    return _common(*([_key(turn) for turn in side] for side in openings))


def demonstration(opening: list[Any], chosen: list[Any]) -> Parts:
    """A conversation that is to be imitated, from the agent's first turn behind the row's own prompt; no other side."""
    whole = read_messages([*opening, *chosen], "chosen")
    length = next((place for place, turn in enumerate(whole) if place >= len(opening) and _is_answer(turn)), None)
    if length is None:
        raise Refused(Reason.MISSING_SIDE, "The chosen side holds no answer.")
    return whole[:length], whole[length:], []


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The length of the beginning that both share."""
    return sum(1 for _ in takewhile(lambda items: items[0] == items[1], zip(one, other, strict=False)))
