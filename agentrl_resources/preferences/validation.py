"""Great Expectations over raw rows and clean pairs: what must hold (critical), should hold (warning), is good to know.

The suites are Python, so that a changed expectation shows in a diff. Every run has its own ephemeral context, which
writes no files and reports no usage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_json
from agentrl_resources.preferences.layouts import KNOWN, has_sides, label_of
from agentrl_resources.preferences.pairs import TWO_RUNS, Message, Pair, RawRow
from agentrl_resources.redaction import redact

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations import Expectation

Severity = Literal["critical", "warning", "info"]

NO_PERSONAL_DATA = "personal_data_absent"


@dataclass(frozen=True)
class ValidationResult:
    """One expectation's answer.

    `observed` is the number of rows that do not comply, the missing values, or the measured number; `detail` says what
    was expected and what was found.
    """

    name: str
    passed: bool
    severity: Severity
    observed: Any
    detail: str


def validate(
    rows: Sequence[RawRow] | Sequence[Pair], suite: Literal["raw", "clean"], redacted: bool = True
) -> list[ValidationResult]:
    """Every expectation of the suite on these rows: raw rows for `raw`, pairs for `clean`. Of pairs that were not
    redacted nothing is expected about personal data.

    Raises `AgentRLError` when an expectation could not be evaluated, which is neither passed nor failed.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    frame, expectations = (_raw_frame, _raw_suite) if suite == "raw" else (_clean_frame, _clean_suite)
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("preferences").add_dataframe_asset(suite)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame(rows)})
    outcome = batch.validate(gx.ExpectationSuite(name=suite, expectations=expectations()))
    known = (_result(one) for one in outcome.results)
    asked = (one for one in known if redacted or one.name != NO_PERSONAL_DATA)
    return sorted(asked, key=lambda one: (one.severity, one.name))


def _raw_suite() -> "list[Expectation]":
    from great_expectations import expectations as gxe

    yes: dict[str, Any] = {"value_set": [True]}
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, **_stated("rows_present", "critical", "There are rows.")),
        gxe.ExpectColumnValuesToBeUnique(
            column="place", **_stated("places_unique", "critical", "Every row of a source has a number of its own.")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="readable", mostly=0.5, **yes, **_stated("mostly_readable", "critical", "Most rows can be read.")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="readable", **yes, **_stated("all_readable", "warning", "Every row can be read.")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="paired",
            mostly=0.5,
            **yes,
            **_stated("mostly_paired", "critical", f"Most rows have both sides. {KNOWN}"),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="paired", **yes, **_stated("all_paired", "warning", "Every row has both sides.")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="label",
            value_set=["chosen", "tie"],
            **_stated("labels_known", "warning", "Labels, where given, are 'chosen' or 'tie'."),
        ),
    ]


def _raw_frame(rows: Sequence[Any]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        {
            "place": [f"{row.source}:{row.row}" for row in rows],
            "readable": [row.problem is None for row in rows],
            "paired": [has_sides(row.data) for row in rows],
            "label": [label_of(row.data) if "chosen" in row.data else "chosen" for row in rows],
        }
    )


def _clean_suite() -> "list[Expectation]":
    from great_expectations import expectations as gxe

    yes: dict[str, Any] = {"value_set": [True]}
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, **_stated("pairs_present", "critical", "There are pairs.")),
        gxe.ExpectColumnValuesToBeUnique(
            column="pair_id", **_stated("pairs_unique", "critical", "No pair is there twice.")
        ),
        gxe.ExpectColumnValuesToBeUnique(
            column="comparison", **_stated("labels_consistent", "critical", "No two answers are labelled both ways.")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="answered", **yes, **_stated("sides_answer", "critical", "Both sides hold an answer.")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="differs", **yes, **_stated("sides_differ", "critical", "Chosen and rejected differ.")
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="split",
            value_set=["train", "holdout"],
            **_stated("splits_known", "critical", "Every pair is in train or holdout."),
        ),
        gxe.ExpectColumnDistinctValuesToContainSet(
            column="split",
            value_set=["train", "holdout"],
            **_stated("splits_present", "critical", "There are pairs to train on and pairs held out."),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="splits_of_task",
            value_set=[1],
            **_stated("tasks_in_one_split", "critical", "No task is on both sides of the split."),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="personal_data",
            value_set=[0],
            **_stated(NO_PERSONAL_DATA, "critical", "No personal data is left."),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="prompted", mostly=0.99, **yes, **_stated("prompts_present", "warning", "Pairs have a prompt.")
        ),
        gxe.ExpectColumnMeanToBeBetween(
            column="held_out",
            min_value=0.02,
            max_value=0.5,
            **_stated("holdout_share", "warning", "Between 2 % and half of the pairs are held out."),
        ),
        gxe.ExpectColumnMeanToBeBetween(
            column="chosen_longer",
            min_value=0.25,
            max_value=0.75,
            **_stated("length_balanced", "warning", "Length alone does not tell which side was chosen."),
        ),
        gxe.ExpectColumnValuesToNotBeNull(
            column="annotator", **_stated("annotators_named", "info", "Every pair names its annotator.")
        ),
    ]


def _clean_frame(pairs: Sequence[Any]) -> "pd.DataFrame":
    import pandas as pd

    splits: dict[str, set[str]] = {}
    for pair in pairs:
        splits.setdefault(pair.task_id, set()).add(pair.split)
    lengths = [(len(str(pair.chosen)), len(str(pair.rejected))) for pair in pairs]
    return pd.DataFrame(
        {
            "pair_id": [pair.pair_id for pair in pairs],
            "comparison": [_comparison(pair) for pair in pairs],
            "answered": [_answers(pair.chosen) and _answers(pair.rejected) for pair in pairs],
            "differs": [pair.chosen != pair.rejected for pair in pairs],
            "split": [pair.split for pair in pairs],
            "splits_of_task": [len(splits[pair.task_id]) for pair in pairs],
            "personal_data": [
                redact([pair.prompt, pair.chosen, pair.rejected, pair.metadata])[1].total() for pair in pairs
            ],
            "prompted": [bool(pair.prompt) or pair.compares == TWO_RUNS for pair in pairs],
            "held_out": [float(pair.split == "holdout") for pair in pairs],
            "chosen_longer": [0.5 if chosen == rejected else float(chosen > rejected) for chosen, rejected in lengths],
            "annotator": [pair.annotator for pair in pairs],
        }
    )


def _comparison(pair: Pair) -> str:
    """The same for a pair and for the pair with its sides swapped."""
    return digest_json([pair.prompt, sorted((digest_json(pair.chosen), digest_json(pair.rejected)))])


def _answers(turns: list[Message]) -> bool:
    return any(turn["role"] == "assistant" for turn in turns)


def _stated(name: str, severity: Severity, sentence: str) -> dict[str, Any]:
    return {"severity": severity, "meta": {"name": name, "sentence": sentence}}


def _result(outcome: Any) -> ValidationResult:
    config = outcome.expectation_config
    name, sentence = config.meta["name"], config.meta["sentence"]
    if crash := _crash(outcome.exception_info):
        raise AgentRLError(f"The expectation {name} could not be evaluated: {crash}")
    found = outcome.result
    observed = next(
        found[key] for key in ("unexpected_count", "partial_missing_list", "observed_value") if key in found
    )
    if isinstance(observed, float):
        observed = float(observed)  # numpy's floats look like floats but print otherwise
    detail = sentence
    if found.get("unexpected_count"):
        detail += f" {observed} of {found['element_count']} do not comply."
    elif found.get("partial_missing_list"):
        detail += f" Missing: {', '.join(observed)}."
    return ValidationResult(name, bool(outcome.success), config.severity.value, observed, detail)


def _crash(info: dict[str, Any]) -> str | None:
    """Great Expectations reports an exception either by itself or by the metric that raised it."""
    reports = [info] if "raised_exception" in info else list(info.values())
    return next((report["exception_message"] for report in reports if report["raised_exception"]), None)
