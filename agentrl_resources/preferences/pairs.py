"""The words of preference data: a raw row, a pair that may train, a row that may not, and why."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Message = dict[str, Any]
"""One chat turn, OpenAI style with TRL's extensions: `role`, `content`, and for assistants `thinking`, `tool_calls`."""

ON_POLICY = "agentrl/on_policy"
"""Source of the pairs that were sampled from our own checkpoint; their metadata hold each side's tokens. Other sources
are names of files or folders, which have no slash."""

TWO_RUNS = "runs"
"""What a row's `compares` says where its sides are two whole runs of one task, named by its `task_id`: the prompt is
what both begin with, perhaps the instructions alone or nothing, and each side holds its own customer's turns. Without
this word two sides that answer different requests are refused: more often than not somebody mixed up two rows."""
DEMONSTRATION = "nothing"
"""The same where a row holds one run, `chosen`, to imitate."""


class Reason(StrEnum):
    """Why a row is in quarantine."""

    UNREADABLE = "unreadable"
    MISSING_SIDE = "missing_side"
    MALFORMED_TOOL_CALL = "malformed_tool_call"
    TOO_LONG = "too_long"
    TIE = "tie"
    LABEL_DISAGREES_WITH_SCORES = "label_disagrees_with_scores"
    CONTRADICTORY_LABEL = "contradictory_label"
    EXACT_DUPLICATE = "exact_duplicate"
    SPLIT_LEAK = "split_leak"
    NEAR_DUPLICATE = "near_duplicate"


class Refused(Exception):
    """A row that must not train, with its reason and one sentence that helps to mend it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class RawRow:
    """One row as it came.

    `row` counts from 1 (the line of a JSONL file). `data` is the row's object; where no object could be read, `problem`
    says why and `data` holds what there was under `line`.
    """

    row: int
    source: str
    data: dict[str, Any]
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "RawRow":
        return cls(**value)


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which `chosen` is the better one.

    `pair_id` is the digest of prompt, chosen and rejected. `conversational` is false where plain text was wrapped into
    one user and one assistant turn. `rubric_scores` is {"chosen": {criterion: score}, "rejected": {...}}.
    A demonstration has no rejected turns. `metadata["runs"]` names the runs that the sides come from, where they do.
    """

    pair_id: str
    task_id: str
    task_type: str | None
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    rubric_scores: dict[str, dict[str, float]] | None
    annotator: str | None
    rubric_version: str | None
    split: str
    source: str
    conversational: bool
    metadata: dict[str, Any] = field(default_factory=dict)
    compares: str | None = None
    """`TWO_RUNS`, `DEMONSTRATION`, or two answers to one prompt (None)."""

    @property
    def is_demonstration(self) -> bool:
        return self.compares == DEMONSTRATION

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Pair":
        return cls(**value)


@dataclass(frozen=True)
class Quarantined:
    """A raw row that must not train. `data` is the row with personal data redacted."""

    row: int
    source: str
    reason: Reason
    detail: str
    data: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"reason": self.reason.value}
