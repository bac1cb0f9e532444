"""The release gates of the workflow file: the evidence, and one blocking check for each gate."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from agentrl_assets.project import SETTINGS, code_version, stage_code
from agentrl_assets.reporting import materialized, numbers, table
from agentrl_resources.dagster_history import latest_build
from agentrl_resources.dagster_resources import Training, Workspace
from agentrl_resources.evaluation import EpisodeFacts, Evidence, Pair, Verdict, judge, paired, parse_gate
from agentrl_resources.files import read_json, write_json
from agentrl_resources.telemetry import RunRecord


@dg.asset(
    group_name="evaluation",
    owners=["team:platform"],
    kinds={"json"},
    deps=["sft_checkpoint", "ppo_policy", "eval_suite"],
    code_version=code_version(
        stage_code("rollback_drill"), "rollback", "gateway", "canary", "seed", "release.gates", workflow=True
    ),
    pool="training",
)
def rollback_drill(context: dg.AssetExecutionContext, training: Training) -> dg.MaterializeResult:
    """Failures injected into the canary of a live gateway under load, and how long each took to be over."""
    artifact = training.run(context)
    report = artifact.report
    kinds = table({"kind": kind, **spread, "by": ", ".join(spread["by"])} for kind, spread in report["kinds"].items())
    parts = table({"part": part, **spread} for part, spread in report["parts"].items())
    in_short = f"{report['n']} failures, each over within {report['max_seconds']:.1f} s"
    shown = {"kinds": kinds, "parts": parts, "failures": table(report["failures"])}
    return materialized(artifact, **numbers(report), in_short=in_short, **shown)


@dg.asset(
    group_name="evaluation",
    owners=["team:platform"],
    kinds={"json"},
    deps=["offline_eval_suite", "rollback_drill"],
    code_version=code_version(f"{__name__}:gate_evidence", "evaluation.temperature"),
)
def gate_evidence(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """What the gates judge: both arms' episodes on the same tasks at the production temperature, and the rollbacks."""
    evidence = evidence_from(
        workspace.latest(context, "offline_eval_suite").path,
        workspace.latest(context, "rollback_drill").path,
        workspace.settings.evaluation.temperature,
    )
    with workspace.store.stage("gate_evidence") as folder:
        write_json(folder / "evidence.json", asdict(evidence))
        artifact = workspace.store.commit("gate_evidence", folder)
    verdicts = verdicts_on(evidence, workspace.settings.release.gates)
    return materialized(artifact, pairs=len(evidence.pairs), verdicts=table(map(verdict_row, verdicts)))


def evidence_from(evaluation: Path, drill: Path, temperature: float) -> Evidence:
    """Evidence from the stored run records of an evaluation and the timings of a drill."""
    pairs = paired(list(read_records(evaluation / "episodes.jsonl.gz")), temperature)
    return Evidence(pairs, read_json(drill / "report.json")["seconds"])


def stored_evidence(folder: Path) -> Evidence:
    """The evidence of a `gate_evidence` artifact."""
    stored = read_json(folder / "evidence.json")
    pairs = [
        Pair(**{**pair, "baseline": EpisodeFacts(**pair["baseline"]), "candidate": EpisodeFacts(**pair["candidate"])})
        for pair in stored["pairs"]
    ]
    return Evidence(pairs, stored["rollback_seconds"])


def verdicts_on(evidence: Evidence, gates: Sequence[str]) -> list[Verdict]:
    """The verdict of each gate, in the order of the workflow file."""
    return [judge(parse_gate(gate), evidence) for gate in gates]


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a row for people, its numbers with their unit."""
    low, high = verdict.interval or (None, None)
    row = {**verdict.to_dict(), "interval": None if low is None else f"{low:.3g} to {high:.3g}"}
    for name, change in row.pop("details", {}).items():
        ends = " to ".join("any" if end is None else f"{end:.3g}" for end in change["interval"])
        row[name] = f"{change['estimate']:.3g} ({ends}) {change['unit']}, limit {change['threshold']:g}"
    return row


def read_records(path: Path) -> list[RunRecord]:
    """The run records of a file with one JSON object a line, plain or gzipped."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [RunRecord(**json.loads(line)) for line in lines]


def _gate_check(name: str) -> dg.AssetChecksDefinition:
    gate = parse_gate(name)

    @dg.asset_check(
        name=name,
        asset="gate_evidence",
        blocking=True,
        description=f"Release gate: below {gate.threshold:g} {gate.unit}.",
        metadata={"owner": f"team:{gate.owner}"},
    )
    def check(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
        artifact = workspace.latest(context, "gate_evidence")
        verdict = judge(gate, stored_evidence(artifact.path))
        if verdict.answer == "NO-GO":
            built = latest_build(context.instance, "gate_evidence")
            at = datetime.fromtimestamp(built.at, UTC) if built else datetime.now(UTC)
            workspace.registry.expansion.record_break(gate=name, at=at, release=artifact.digest, said=verdict.reason)
        return dg.AssetCheckResult(
            passed=verdict.answer == "GO",
            description=f"{verdict.answer}: {verdict.reason}",
            metadata={name: value for name, value in verdict_row(verdict).items() if value is not None},
        )

    return check


gate_checks = [_gate_check(name) for name in SETTINGS.release.gates]
