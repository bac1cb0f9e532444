"""Splits raw preference data into pairs that may train and a quarantine that says for every other row why not.

Two kinds of reasons: what a row shows by itself, and what only shows beside the other rows. Rows are compared in the
order of their content, so the same rows in another order give the same clean pairs. Cleaning clean pairs again changes
nothing.

Rows are compared as they would train: redacted. Two that differ only in whose data they hold teach the same, so one of
them is a duplicate; two answers of one row that name two different customers are two answers.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.files import canonical_json, digest_json
from agentrl_resources.preferences.duplicates import near_duplicates
from agentrl_resources.preferences.formats import OVERALL, read_pair
from agentrl_resources.preferences.layouts import offered_tools, unused_columns
from agentrl_resources.preferences.messages import CallCheck, schema_check
from agentrl_resources.preferences.pairs import Message, Pair, Quarantined, RawRow, Reason, Refused
from agentrl_resources.preferences.values import storable, storable_text
from agentrl_resources.redaction import Kept, Redactor

CLEAR_MARGIN = 0.05
"""How much better the rejected side must score before its label counts as wrong, in the rubric's units (0 to 1)."""


@dataclass(frozen=True)
class CleaningRules:
    """What may train.

    `rubric_weights` weigh the criteria of rubric scores (none given: all alike). `tool_schemas` are the JSON schemas of
    each tool's arguments by tool name; without them only calls that cannot be parsed are refused. `holdout_percent` of
    the tasks are held out where rows name no split. `max_characters` bounds the prompt with either side.
    `near_duplicate_similarity` (0 to 1) is the share of word triples that makes two pairs one. `redact` is False for
    pairs that an environment played: a policy that never saw its numbers in training cannot copy them when it is live.
    """

    rubric_weights: Mapping[str, float] = field(default_factory=dict)
    tool_schemas: Mapping[str, Mapping[str, Any]] | None = None
    holdout_percent: int = 10
    max_characters: int = 6000
    near_duplicate_similarity: float = 0.95
    redact: bool = True


@dataclass(frozen=True)
class CleanResult:
    """Every row once: `clean` in the order of `pair_id`, `quarantine` in the order of the file.

    `redactions` counts the personal data taken out of the clean pairs by kind, `unused_columns` the clean rows in which
    a column says something that nothing here reads.
    """

    clean: list[Pair]
    quarantine: list[Quarantined]
    redactions: Counter[str]
    unused_columns: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Candidate:
    raw: RawRow
    pair: Pair
    redactions: Counter[str]
    by_content: tuple[str, bytes, str, int]


_Findings = Iterator[tuple[int, str]]
"""Positions of the candidates that go, each with the sentence that says why."""


def clean(rows: Iterable[RawRow], rules: CleaningRules) -> CleanResult:
    """Sorts every row into clean or quarantine; personal data is redacted in both, in clean pairs as the rules say."""
    check = schema_check(rules.tool_schemas) if rules.tool_schemas is not None else lambda name, arguments: None
    candidates: list[_Candidate] = []
    quarantine: list[Quarantined] = []
    for raw in rows:
        try:
            candidates.append(_admit(raw, rules, check))
        except Refused as refused:
            quarantine.append(_quarantined(raw, refused.reason, refused.detail))
        except Exception as error:  # whatever a row holds, it is this row that cannot be read
            detail = f"The row cannot be read ({type(error).__name__}: {str(error)[:200]})."
            quarantine.append(_quarantined(raw, Reason.UNREADABLE, detail))

    candidates.sort(key=lambda one: one.by_content)
    screens: list[tuple[Reason, Callable[[Sequence[_Candidate]], _Findings]]] = [
        (Reason.CONTRADICTORY_LABEL, _contradictory),
        (Reason.EXACT_DUPLICATE, _exact_duplicates),
        (Reason.SPLIT_LEAK, _split_leaks),
        (Reason.NEAR_DUPLICATE, lambda rest: _near_duplicates(rest, rules.near_duplicate_similarity)),
    ]
    for reason, screen in screens:
        found = dict(screen(candidates))
        quarantine += [_quarantined(candidates[position].raw, reason, detail) for position, detail in found.items()]
        candidates = [one for position, one in enumerate(candidates) if position not in found]

    return CleanResult(
        clean=[one.pair for one in candidates],
        quarantine=sorted(quarantine, key=lambda one: (one.source, one.row)),
        redactions=sum((one.redactions for one in candidates), Counter()),
        unused_columns=Counter(name for one in candidates for name in unused_columns(one.raw.data)),
    )


def profile(result: CleanResult) -> dict[str, Any]:
    """Counts for tables: rows, and clean pairs by split, task type and annotator, quarantined rows by reason."""

    def count(values: Iterable[str | None]) -> dict[str, int]:
        return dict(Counter(value or "unknown" for value in values).most_common())

    return {
        "raw": len(result.clean) + len(result.quarantine),
        "clean": len(result.clean),
        "demonstrations": sum(pair.is_demonstration for pair in result.clean),
        "quarantined": len(result.quarantine),
        "tasks": len({pair.task_id for pair in result.clean}),
        "by_reason": count(row.reason.value for row in result.quarantine),
        "by_split": count(pair.split for pair in result.clean),
        "by_task_type": count(pair.task_type for pair in result.clean),
        "by_annotator": count(pair.annotator for pair in result.clean),
        "redactions": dict(result.redactions.most_common()),
        "unused_columns": dict(result.unused_columns.most_common()),
    }


# --- what a row shows by itself ---------------------------------------------------------------------------------------


def _admit(raw: RawRow, rules: CleaningRules, check: CallCheck) -> _Candidate:
    redactor = (Redactor if rules.redact else Kept)(raw.data)
    pair = read_pair(raw, rules.holdout_percent, check, redactor)
    longest = length_of(pair.prompt, pair.chosen, pair.rejected)
    if longest > rules.max_characters:
        raise Refused(Reason.TOO_LONG, f"{longest} characters, {rules.max_characters} are allowed.")
    if pair.chosen == pair.rejected:
        raise Refused(Reason.TIE, "Both sides are the same.")
    if rules.tool_schemas is not None and (unknown := offered_tools(raw.data) - rules.tool_schemas.keys()):
        raise Refused(
            Reason.UNREADABLE,
            f"The row offers tools that the workflow has not ({', '.join(sorted(unknown))[:200]}). Leave tools out.",
        )
    if (gap := _scores_against_label(pair, rules.rubric_weights)) > CLEAR_MARGIN:
        raise Refused(Reason.LABEL_DISAGREES_WITH_SCORES, f"The rejected side scores {gap:.2f} more under the rubric.")
    about = pair.to_dict() | {"prompt": None, "chosen": None, "rejected": None}  # these are what pair_id stands for
    return _Candidate(raw, pair, redactor.found, (pair.pair_id, canonical_json(about), raw.source, raw.row))


def length_of(prompt: list[Message], *sides: list[Message]) -> int:
    """Characters of the prompt with the longest side: what `max_characters` bounds."""
    return _characters(prompt) + max(map(_characters, sides))


def _characters(turns: list[Message]) -> int:
    return sum(
        len(str(part))
        for turn in turns
        for part in (turn.get("thinking", ""), turn.get("content", ""), turn.get("tool_calls", ""))
    )


def _scores_against_label(pair: Pair, weights: Mapping[str, float]) -> float:
    """Weighted mean by which the rejected side scores above the chosen one, over the criteria that both have."""
    if pair.rubric_scores is None:
        return 0.0
    chosen, rejected = pair.rubric_scores["chosen"], pair.rubric_scores["rejected"]
    weight = {
        key: weights.get(key, float(key == OVERALL)) if weights else 1.0 for key in chosen.keys() & rejected.keys()
    }
    total = sum(weight.values())
    return sum(weight[key] * (rejected[key] - chosen[key]) for key in weight) / total if total else 0.0


# --- what shows beside the other rows ---------------------------------------------------------------------------------


def _contradictory(candidates: Sequence[_Candidate]) -> _Findings:
    labelled = defaultdict(list)
    for position, one in enumerate(candidates):
        sides = digest_json(one.pair.chosen), digest_json(one.pair.rejected)
        labelled[digest_json(one.pair.prompt), *sorted(sides)].append((position, sides))
    for group in labelled.values():
        if len({sides for _, sides in group}) > 1:
            places = ", ".join(sorted(_place(candidates[position]) for position, _ in group))
            for position, _ in group:
                yield position, f"The same two answers are labelled both ways: {places}."


def _exact_duplicates(candidates: Sequence[_Candidate]) -> _Findings:
    kept: dict[str, _Candidate] = {}
    for position, one in enumerate(candidates):
        if kept.setdefault(one.pair.pair_id, one) is not one:
            yield position, f"The same as {_place(kept[one.pair.pair_id])}."


def _split_leaks(candidates: Sequence[_Candidate]) -> _Findings:
    held_out = {one.pair.task_id: one for one in candidates if one.pair.split == "holdout"}
    for position, one in enumerate(candidates):
        if one.pair.split == "train" and one.pair.task_id in held_out:
            yield position, f"Its task {one.pair.task_id} is held out in {_place(held_out[one.pair.task_id])}."


def _near_duplicates(candidates: Sequence[_Candidate], similarity: float) -> _Findings:
    found = near_duplicates([one.pair for one in candidates], similarity)
    for position, (kept, alike) in found.items():
        yield position, f"{100 * alike:.0f} % the same as {_place(candidates[kept])}."


def _place(one: _Candidate) -> str:
    return f"row {one.raw.row} of {one.raw.source}"


def _quarantined(raw: RawRow, reason: Reason, detail: str) -> Quarantined:
    told, data = storable_text(detail), storable(raw.data)
    redactor = Redactor([data, told])
    kept = redactor.redact(data)
    return Quarantined(raw.row, raw.source, reason, redactor.redact(told), kept)
