"""One raw row read into one pair, whatever known layout it has."""

import re
from typing import Any

from agentrl_resources.files import canonical_json, digest_json
from agentrl_resources.preferences import layouts
from agentrl_resources.preferences.conversation import (
    Parts,
    demonstration,
    join,
    split_text,
    with_system,
    without_prompt,
)
from agentrl_resources.preferences.messages import CallCheck, call_problem, control_token, role_of
from agentrl_resources.preferences.pairs import DEMONSTRATION, TWO_RUNS, Message, Pair, RawRow, Reason, Refused
from agentrl_resources.preferences.turns import is_plain, to_turns
from agentrl_resources.preferences.values import flag, given, json_object, number
from agentrl_resources.redaction import Redactor, pseudonym

OVERALL = "overall"
"""The criterion of a score that was given to an answer as a whole (`score_chosen`, `chosen_rating`, ...)."""
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
    row = layouts.columns_of(raw.data)
    turns, conversational = _split_prompt(row)
    if problem := call_problem(turns[1], check):
        raise Refused(Reason.MALFORMED_TOOL_CALL, f"The chosen side's call is wrong: {problem}.")
    prompt, chosen, rejected = _redacted(turns, redactor)
    task_id = str(row["task_id"]) if given(row.get("task_id")) else digest_json(prompt)
    return Pair(
        pair_id=digest_json([prompt, chosen, rejected]),
        task_id=task_id,
        task_type=_optional_text(row.get("task_type")),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        rubric_scores=_rubric_scores(row),
        annotator=_pseudonym(_optional_text(row.get("annotator")), redactor),
        rubric_version=_optional_text(row.get("rubric_version")),
        split=_split(row.get("split"), task_id, holdout_percent),
        source=raw.source,
        conversational=flag(row.get("conversational", conversational)),
        metadata=redactor.redact(json_object(row.get("metadata"), "metadata") or {}) | _runs(row),
        compares=layouts.compares(row),
    )


def _runs(row: layouts.Columns) -> dict[str, Any]:
    """Which runs the sides come from, where the row says it."""
    named = {side: row.get(f"{side}_run") for side in ("chosen", "rejected")}
    runs = {side: pseudonym(str(name)) for side, name in named.items() if given(name)}
    return {"runs": runs} if runs else {}


def _split_prompt(row: layouts.Columns) -> tuple[Parts, bool]:
    """Prompt, chosen and rejected turns, and whether the row named speakers."""
    kind = layouts.compares(row)
    if kind == TWO_RUNS and not given(row.get("task_id")):
        raise Refused(Reason.UNREADABLE, "Two runs are compared, and no `task_id` says that they are of one task.")
    if kind == DEMONSTRATION:
        return _demonstration(row), True
    chosen, rejected = layouts.sides(row)
    if "rejected_message" in row.used and "messages" in row.used:  # OpenPipe: the chosen answer ends the conversation
        conversation = to_turns(chosen, "user", "messages")
        before, asked, chosen = conversation[:-1], None, conversation[-1:]
    else:
        before, asked = layouts.asked(row)
    texts = is_plain(chosen) and is_plain(rejected)
    opening = [*before, *(to_turns(asked, "user", "prompt") if asked is not None else [])]
    if texts and opening:
        chosen, rejected = without_prompt(_last_text(opening), chosen, rejected)
    elif texts:
        text, chosen, rejected = split_text(chosen.strip(), rejected.strip())
        opening = to_turns(text, "user", "prompt") if text else []
    better, worse = to_turns(chosen, "assistant", "chosen"), to_turns(rejected, "assistant", "rejected")
    parts = with_system(join(opening, better, worse, two_runs=kind == TWO_RUNS), layouts.system_text(row))
    _complete(row, parts)
    return parts, not texts


def _demonstration(row: layouts.Columns) -> Parts:
    """One conversation to imitate. Raises `Refused` where the row has another side too."""
    if "chosen" not in row or "rejected" in row:
        raise Refused(Reason.MISSING_SIDE, "A demonstration has a `chosen` side and no `rejected` one.")
    chosen = to_turns(row["chosen"], "assistant", "chosen")
    before, asked = layouts.asked(row)
    opening = [*before, *(to_turns(asked, "user", "prompt") if asked is not None else [])]
    parts = with_system(demonstration(opening, chosen), layouts.system_text(row))
    _complete(row, parts)
    return parts


def _complete(row: layouts.Columns, parts: Parts) -> None:
    """Raises `Refused` where a part of the row is in none of the parts, or one holds what a model must not write."""
    if column := layouts.left_out(row, parts[0], parts[1:]):
        raise Refused(
            Reason.UNREADABLE,
            f"What the column {column} holds does not stand in the conversation; how it belongs there is not known. "
            f"Write all that the model reads into prompt, or leave {column} out.",
        )
    for name, turns in zip(("chosen", "rejected"), parts[1:], strict=True):
        if token := control_token(turns):
            raise Refused(Reason.UNREADABLE, f"The {name} side's text holds {token}, which a model must not write.")


def _last_text(opening: list[Any]) -> str:
    """What the user says last in the prompt, where it is text."""
    said = (turn.get("content") for turn in reversed(opening) if role_of(turn) == "user")
    content = next(said, "")
    return content if isinstance(content, str) else ""


def _rubric_scores(row: layouts.Columns) -> dict[str, dict[str, float]] | None:
    """Scores by side and criterion, and under `overall` what each answer was given as a whole."""
    given_scores = json_object(row["rubric_scores"], "rubric_scores") if "rubric_scores" in row else None
    scores = given_scores or {side: row[f"{side}_scores"] for side in ("chosen", "rejected") if f"{side}_scores" in row}
    better, worse = (layouts.overall_score(row, side) for side in ("chosen", "rejected"))
    found: dict[str, dict[str, float]] = {"chosen": {}, "rejected": {}}
    for side in found if scores else ():
        criteria = scores.get(side)
        criteria = json_object(criteria, f"{side}_scores") if isinstance(criteria, str) else criteria
        if not isinstance(criteria, dict):
            raise Refused(Reason.UNREADABLE, f"The rubric scores of the {side} side are not given by criterion.")
        read = {key: number(criteria[key], f"rubric score {key}") for key in criteria}
        found[side] = {key: value for key, value in read.items() if value is not None}
    if better is not None and worse is not None:
        found["chosen"].setdefault(OVERALL, better)
        found["rejected"].setdefault(OVERALL, worse)
    return found if scores or found["chosen"] else None


def _split(value: Any, task_id: str, holdout_percent: int) -> str:
    if not given(value):
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


def _optional_text(value: Any) -> str | None:
    return str(value) if given(value) else None
