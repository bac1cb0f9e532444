"""Preference data: the rubric, the pairs as they came, the pairs that may train, and the policy's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from agentrl_assets.project import code_version, stage_code
from agentrl_assets.reporting import counts, materialized, numbers, percent, table
from agentrl_resources.dagster_resources import Training, Workspace
from agentrl_resources.files import read_jsonl, write_atomic, write_json, write_jsonl
from agentrl_resources.preferences import (
    CleaningRules,
    Pair,
    RawRow,
    ValidationResult,
    clean,
    profile,
    validate,
)
from agentrl_resources.workflow import load_rubric

_CLEANING = tuple(f"preferences.{name}" for name in ("holdout_percent", "max_characters", "near_duplicate_similarity"))


@dg.asset(
    group_name="preference_data",
    owners=["team:product"],
    kinds={"yaml"},
    code_version=code_version(f"{__name__}:rubric"),
)
def rubric(workspace: Workspace) -> dg.MaterializeResult:
    """What makes an answer good: the criteria, their weights and their wording."""
    found = workspace.source_digest("rubric")
    rules = workspace.workflow.rubric
    with workspace.store.stage("rubric") as folder:
        write_atomic(folder / "rubric.yaml", rules.text)
        artifact = workspace.store.commit("rubric", folder)
    criteria = table(
        {"criterion": one.name, "role": one.stands_for, "weight": one.weight, "wording": one.wording}
        for one in rules.criteria
    )
    return materialized(artifact, source_digest=found, version=rules.version, criteria=criteria)


@dg.asset(
    group_name="preference_data",
    owners=["team:product"],
    kinds={"jsonl"},
    deps=["rubric"],
    code_version=code_version(f"{__name__}:raw_preference_data"),
)
def raw_preference_data(workspace: Workspace) -> dg.MaterializeResult:
    """Preference pairs as they came, never changed: the user's file, or what the workflow's annotators left."""
    found = workspace.source_digest("raw_preference_data")
    rows = list(workspace.preference_rows())
    with workspace.store.stage("raw_preference_data") as folder:
        write_jsonl(folder / "rows.jsonl", (row.to_dict() for row in rows))
        artifact = workspace.store.commit("raw_preference_data", folder)
    unreadable = sum(row.problem is not None for row in rows)
    first = table({"row": row.row, "source": row.source, "data": str(row.data)[:400]} for row in rows[:5])
    return materialized(artifact, source_digest=found, rows=len(rows), unreadable=unreadable, first_rows=first)


@dg.asset(
    group_name="preference_data",
    owners=["team:ml"],
    kinds={"jsonl", "duckdb"},
    deps=["raw_preference_data", "rubric"],
    code_version=code_version(f"{__name__}:cleaned_preference_data", *_CLEANING, workflow=True),
    pool="warehouse",
)
def cleaned_preference_data(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Pairs that may train, split by task, and a quarantine that says for every other row why not."""
    result = clean(_raw_rows(workspace.latest(context, "raw_preference_data").path), _rules(workspace))
    report = profile(result)
    quarantine = [row.to_dict() for row in result.quarantine]
    with workspace.store.stage("cleaned_preference_data") as folder:
        parts: dict[str, list[dict[str, Any]]] = {"train": [], "holdout": [], "demonstrations": []}
        for pair in result.clean:
            parts["demonstrations" if pair.is_demonstration else pair.split].append(pair.to_dict())
        for part, pairs in parts.items():
            write_jsonl(folder / f"{part}.jsonl", pairs)
        write_jsonl(folder / "quarantine.jsonl", quarantine)
        write_json(folder / "report.json", report)
        _draw_reasons(folder / "reasons.png", report["by_reason"])
        artifact = workspace.store.commit("cleaned_preference_data", folder)
    workspace.warehouse.store_rows("preference_quarantine", quarantine, _QUARANTINE_COLUMNS)
    tables = {name: counts(report[name], of=name.removeprefix("by_")) for name in report if name.startswith("by_")}
    tables["unused_columns"] = counts(report["unused_columns"], of="column")
    in_short = f"{report['clean'] - report['demonstrations']} pairs, {report['quarantined']} rows in quarantine"
    if report["demonstrations"]:
        in_short += f", {report['demonstrations']} runs to imitate alone"
    return materialized(
        artifact, **numbers(report), in_short=in_short, **tables, redactions=counts(report["redactions"], of="kind")
    )


@dg.asset(
    group_name="training",
    owners=["team:ml"],
    kinds={"pytorch", "jsonl"},
    deps=["cleaned_preference_data", "sft_checkpoint", "rubric"],
    code_version=code_version(
        stage_code("on_policy_preference_data"),
        "on_policy",
        "engine.kind",
        "seed",
        "evaluation.concurrency",
        workflow=True,
    ),
    pool="training",
)
def on_policy_preference_data(context: dg.AssetExecutionContext, training: Training) -> dg.MaterializeResult:
    """Pairs sampled from the SFT checkpoint, labelled under the rubric or left as a queue for people."""
    artifact = training.run(context)
    report = artifact.report
    in_short = f"{report['pairs']} pairs labelled, {report['queued']} queued for people"
    return materialized(artifact, **numbers(report), in_short=in_short)


@dg.asset_check(asset="rubric", metadata={"owner": "team:product"})
def roles_are_named(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """The rubric says which criterion is the outcome and which are safety: gates of the reward model and the choice of
    examples rest on them."""
    rules = load_rubric(workspace.latest(context, "rubric").path / "rubric.yaml")
    named = {role: ", ".join(rules.named(role)) for role in _NEEDED_ROLES}
    said = [f"{role}: {names}." if names else f"No criterion has `role: {role}`: {_NEEDED_ROLES[role]}."
            for role, names in named.items()]  # fmt: skip
    return dg.AssetCheckResult(passed=all(named.values()), description=" ".join(said))


_NEEDED_ROLES = {
    "outcome": "no policy will be let learn from the reward model",
    "safety": "SFT learns from unsafe answers too",
}


def _expectations(asset: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            "expectations_critical",
            asset=asset,
            blocking=True,
            description="Great Expectations that must hold: nothing may train otherwise.",
            metadata={"owner": "team:ml"},
        ),
        dg.AssetCheckSpec(
            "expectations_warning",
            asset=asset,
            description="Great Expectations that should hold.",
            metadata={"owner": "team:ml"},
        ),
    ]


@dg.multi_asset_check(specs=_expectations("raw_preference_data"), can_subset=True)
def raw_expectations(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> Iterator[dg.AssetCheckResult]:
    rows = _raw_rows(workspace.latest(context, "raw_preference_data").path)
    yield from _answers(context, validate(rows, "raw"))


@dg.multi_asset_check(specs=_expectations("cleaned_preference_data"), can_subset=True)
def clean_expectations(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> Iterator[dg.AssetCheckResult]:
    folder = workspace.latest(context, "cleaned_preference_data").path
    rows = [row for split in ("train", "holdout") for row in read_jsonl(folder / f"{split}.jsonl")]
    pairs = [Pair.from_dict(row) for row in rows]
    yield from _answers(context, validate(pairs, "clean", redacted=not workspace.pairs_are_played))


@dg.asset_check(asset="cleaned_preference_data", blocking=True, metadata={"owner": "team:ml"})
def raw_equals_clean_plus_quarantined(
    context: dg.AssetCheckExecutionContext, workspace: Workspace
) -> dg.AssetCheckResult:
    """Every raw row is among the clean pairs or in quarantine, and in one of them only."""
    raw = len(_raw_rows(workspace.latest(context, "raw_preference_data").path))
    folder = workspace.latest(context, "cleaned_preference_data").path
    kept = {name: sum(1 for _ in read_jsonl(folder / f"{name}.jsonl")) for name in _PARTS}
    said = f"{raw} raw rows; {kept['train']} train, {kept['holdout']} are held out, {kept['quarantine']} in quarantine."
    if kept["demonstrations"]:
        said += f" {kept['demonstrations']} are demonstrations."
    share = percent(kept["quarantine"] / raw)
    return dg.AssetCheckResult(
        passed=raw == sum(kept.values()), description=said, metadata={"raw": raw, **kept, "quarantined": share}
    )


_PARTS = ("train", "holdout", "demonstrations", "quarantine")
_QUARANTINE_COLUMNS = {
    "row": "BIGINT", "source": "VARCHAR", "reason": "VARCHAR", "detail": "VARCHAR", "data": "JSON"
}  # fmt: skip


def _raw_rows(folder: Path) -> list[RawRow]:
    return [RawRow.from_dict(row) for row in read_jsonl(folder / "rows.jsonl")]


def _rules(workspace: Workspace) -> CleaningRules:
    from agentrl_resources.workflow import EpisodeFactory

    workflow, options = workspace.workflow, workspace.settings.preferences
    functions = [schema["function"] for schema in EpisodeFactory(workflow).tools]
    return CleaningRules(
        rubric_weights=workflow.rubric.weights,
        tool_schemas={function["name"]: function["parameters"] for function in functions},
        holdout_percent=options.holdout_percent,
        max_characters=options.max_characters,
        near_duplicate_similarity=options.near_duplicate_similarity,
        redact=not workspace.pairs_are_played,
    )


def _answers(context: dg.AssetCheckExecutionContext, results: list[ValidationResult]) -> Iterator[dg.AssetCheckResult]:
    shown = table(
        {"expectation": one.name, "passed": one.passed, "severity": one.severity, "found": one.detail}
        for one in results
    )
    for key in context.selected_asset_check_keys:
        critical = key.name == "expectations_critical"
        broken = [one for one in results if not one.passed and (one.severity == "critical") == critical]
        yield dg.AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=not any(one.severity != "info" for one in broken),
            severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
            description=" ".join(one.detail for one in broken) or "All hold.",
            metadata={"expectations": shown},
        )


def _draw_reasons(path: Path, by_reason: dict[str, int]) -> None:
    from agentrl_resources.plotting import BAD, picture

    reasons = dict(sorted(by_reason.items(), key=lambda item: item[1]))
    with picture(path, width=6.5) as axes:
        axes.barh(list(reasons), list(reasons.values()), color=BAD)
        axes.set(title="Rows in quarantine by reason", xlabel="rows")
