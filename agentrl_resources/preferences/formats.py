"""TRL's preference formats read into one: conversational or plain text, prompt explicit or implicit."""

import math
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from agentrl_resources.files import canonical_json, digest_json
from agentrl_resources.preferences.messages import CallCheck, call_problem, read_messages
from agentrl_resources.preferences.pairs import Message, Pair, RawRow, Reason, Refused
from agentrl_resources.redaction import Redactor

# hh-rlhf writes a dialogue as one text.
_DIALOGUE = re.compile(r"\s*(?:Human|Assistant):")
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SPLITS = {
    "train": "train",
    "holdout": "holdout",
    "test": "holdout",
    "val": "holdout",
    "dev": "holdout",
    "eval": "holdout",
}


def read_pair(raw: RawRow, holdout_percent: int, check: CallCheck, redactor: Redactor) -> Pair:
    """The pair that a raw row holds, redacted. Raises `Refused` when there is none.

    `redactor` is of this row alone (its scope is `raw.data`), so that prompt and sides name people alike.
    """
    if raw.problem:
        raise Refused(Reason.UNREADABLE, raw.problem)
    data = raw.data
    turns = _split_prompt(data)
    if problem := call_problem(turns[1], check):
        raise Refused(Reason.MALFORMED_TOOL_CALL, f"The chosen side's call is wrong: {problem}.")
    prompt, chosen, rejected = _redacted(turns, redactor)
    task_id = str(data["task_id"]) if _given(data.get("task_id")) else digest_json(prompt)
    return Pair(
        pair_id=digest_json([prompt, chosen, rejected]),
        task_id=task_id,
        task_type=_optional_text(data.get("task_type")),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        rubric_scores=_rubric_scores(data),
        annotator=_pseudonym(_optional_text(data.get("annotator")), redactor),
        rubric_version=_optional_text(data.get("rubric_version")),
        split=_split(data.get("split"), task_id, holdout_percent),
        source=raw.source,
        conversational=bool(data.get("conversational", not _is_plain(data))),
        metadata=redactor.redact(_object(data, "metadata") or {}),
    )


def _split_prompt(data: dict[str, Any]) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected turns. Without a prompt of its own, it is the beginning that both sides share."""
    for side in ("chosen", "rejected"):
        if not _given(data.get(side)):
            raise Refused(Reason.MISSING_SIDE, f"The row has no {side} side, only {', '.join(data) or 'nothing'}.")
    explicit = _given(data.get("prompt"))
    opening = _turns(data["prompt"], "user", "prompt") if explicit else []
    if not explicit and _is_plain(data):
        opening, chosen, rejected = _split_text(data["chosen"].strip(), data["rejected"].strip())
    else:
        chosen, rejected = (_turns(data[side], "assistant", side) for side in ("chosen", "rejected"))
    if opening and opening[-1] == {"role": "assistant", "content": ""}:
        opening = opening[:-1]  # "...\n\nAssistant:" only says whose turn it is
    whole_chosen = read_messages(_continue(opening, chosen), "chosen")
    whole_rejected = read_messages(_continue(opening, rejected), "rejected")
    length = len(opening) if opening and _answers(chosen, rejected) else _shared(whole_chosen, whole_rejected)
    sides = whole_chosen[length:], whole_rejected[length:]
    for name, turns in zip(("chosen", "rejected"), sides, strict=True):
        if not any(_is_answer(turn) for turn in turns):
            raise Refused(Reason.MISSING_SIDE, f"The {name} side holds no answer.")
    return whole_chosen[:length], *sides


def _turns(value: Any, role: str, name: str) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        raise Refused(Reason.UNREADABLE, f"{name} must be text or a list of messages, not {type(value).__name__}.")
    if not _DIALOGUE.match(value):
        return [{"role": role, "content": value.strip()}]
    _, *parts = _TURN.split(value)
    return [
        {"role": _ROLES[speaker], "content": text.strip()}
        for speaker, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def _is_plain(data: dict[str, Any]) -> bool:
    sides = (data["chosen"], data["rejected"])
    return all(isinstance(side, str) and not _DIALOGUE.match(side) for side in sides)


def _split_text(chosen: str, rejected: str) -> tuple[list[Message], list[Message], list[Message]]:
    """TRL's rule for plain text: the shared beginning, up to the last blank in it, is the prompt."""
    shared = chosen[: _common(chosen, rejected)]
    end = len(shared) - len(re.split(r"\s", shared)[-1])
    opening = [{"role": "user", "content": chosen[:end].strip()}] if end else []
    return opening, _turns(chosen[end:], "assistant", "chosen"), _turns(rejected[end:], "assistant", "rejected")


def _continue(opening: list[Any], side: list[Any]) -> list[Any]:
    """Opening and side as one conversation; many data sets repeat the prompt in both sides."""
    repeats = side[: len(opening)] == opening and not _answers(side)
    return side if repeats else opening + side


def _answers(*sides: list[Any]) -> bool:
    return all(isinstance(side[0], dict) and side[0].get("role") == "assistant" for side in sides)


def _is_answer(turn: Message) -> bool:
    return turn["role"] == "assistant" and bool(turn.get("tool_calls") or turn["content"].strip())


def _shared(chosen: list[Message], rejected: list[Message]) -> int:
    """How many turns both begin with, so that an assistant's turn comes next in both."""
    most = min(_common(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    for length in range(most, -1, -1):
        if chosen[length]["role"] == rejected[length]["role"] == "assistant":
            return length
    raise Refused(Reason.UNREADABLE, "The two sides do not answer the same prompt.")


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The length of the beginning that both share."""
    return sum(1 for _ in takewhile(lambda items: items[0] == items[1], zip(one, other, strict=False)))


def _rubric_scores(data: dict[str, Any]) -> dict[str, dict[str, float]] | None:
    scores = _object(data, "rubric_scores") or {
        side: data[f"{side}_scores"] for side in ("chosen", "rejected") if _given(data.get(f"{side}_scores"))
    }
    if not scores:
        return None
    for side in ("chosen", "rejected"):
        if not isinstance(scores.get(side), dict):
            raise Refused(Reason.UNREADABLE, f"The rubric scores of the {side} side are not given by criterion.")
    return {side: {key: _score(key, scores[side][key]) for key in scores[side]} for side in ("chosen", "rejected")}


def _score(criterion: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused(Reason.UNREADABLE, f"The rubric score {criterion} is not a number: {value!r}")
    return float(value)


def _split(value: Any, task_id: str, holdout_percent: int) -> str:
    if not _given(value):
        return "holdout" if int(digest_json(task_id)[:8], 16) % 100 < holdout_percent else "train"
    name = re.sub(r"[\W_]", "", str(value).lower())
    for prefix, split in _SPLITS.items():
        if name.startswith(prefix):
            return split
    raise Refused(Reason.UNREADABLE, f"The split {value!r} is neither train nor holdout.")


def _redacted(turns: tuple[list[Message], list[Message], list[Message]], redactor: Redactor) -> list[list[Message]]:
    """Prompt, chosen and rejected. Numbers are given in an order that does not depend on which side was preferred.

    Else the preferred side would hold the lower number, which is a label to learn from, and the same two answers
    labelled both ways would look like one pair twice.
    """
    parts = dict(enumerate(turns))
    order = [0, *sorted((1, 2), key=lambda side: canonical_json(parts[side]))]
    redacted = {position: redactor.redact(parts[position]) for position in order}
    return [redacted[position] for position in parts]


def _pseudonym(annotator: str | None, redactor: Redactor) -> str | None:
    """An annotator known by an e-mail address stays one person in the counts, under a name that is not theirs."""
    return annotator if redactor.redact(annotator) == annotator else f"annotator-{digest_json(annotator)[:8]}"


def _object(data: dict[str, Any], key: str) -> dict[str, Any] | None:
    value = data.get(key)
    if value is not None and not isinstance(value, dict):
        raise Refused(Reason.UNREADABLE, f"{key} must be an object: {str(value)[:80]}")
    return value


def _optional_text(value: Any) -> str | None:
    return str(value) if _given(value) else None


def _given(value: Any) -> bool:
    return value is not None and value != "" and value != []
