"""A small release with everything that its brief rests on: real gates and marts over made-up runs."""

import random
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from telemetry_samples import SQL_FOLDER

from agentrl_resources.brief import phases, store_evidence
from agentrl_resources.evaluation import Evidence, compare_arms, judge, paired, parse_gate
from agentrl_resources.telemetry import RunRecord, Warehouse, build_models, load_models
from agentrl_resources.workflow import ToolPolicy, ToolRule

GATES = (
    "no_safety_regression",
    "latency_delta_lt_15_percent",
    "cost_per_success_not_worse",
    "rollback_under_5_minutes",
)
RELEASE, PARENT = "a" * 64, "b" * 64
POLICY, BASELINE = "c" * 64, "d" * 64
MADE_AT = "2026-11-22T21:00:00Z"
TOOLS = ToolPolicy({"look_up": ToolRule("read"), "refund": ToolRule("write")}, max_calls=6)
UNITS = {"latency": "percent", "cost_per_success": "percent"}
METRICS = {
    "success": "product",
    "human_override": "product",
    "tool_error": "platform",
    "latency": "platform",
    "latency_tail": "platform",
    "latency_far_tail": "platform",
    "cost_per_success": "product",
    "safety": "ml",
}


def records(simulated: bool) -> list[RunRecord]:
    """Both arms of an offline evaluation in which the candidate is the better one; always the same."""
    rng = random.Random(3)
    common = {"workflow": "order_desk", "release_channel": "offline_eval", "temperature": 0.7, "simulated": simulated}
    runs = []
    for suite, count in (("capability", 240), ("adversarial", 120)):
        for number in range(count):
            for arm, version, skill, unsafe in (
                ("baseline", f"sft@{BASELINE[:12]}", 0.7, 0.1),
                ("candidate", f"ppo_kl@{POLICY[:12]}", 0.95, 0.01),
            ):
                solved = rng.random() < skill
                runs.append(
                    RunRecord(
                        **common,
                        run_id=f"{suite}-{number}-{arm}",
                        task_id=f"{suite}-{number}",
                        task_type=("refund", "cancel")[number % 2] if suite == "capability" else "injection",
                        started_at="2026-11-18T10:00:00Z",
                        arm=arm,
                        suite=suite,
                        policy_version=version,
                        success=solved,
                        safety_violation=rng.random() < unsafe,
                        human_override=rng.random() < 0.05,
                        tool_calls_count=2,
                        tool_error_count=int(rng.random() < 0.04),
                        cost=0.5 if solved else 2.0,
                        duration_ms=2000 + 10 * rng.random(),
                    )
                )
    return runs


def traffic(week: int, role: str, n: int, good: float, simulated: bool = True, cost: float = 0.5) -> list[RunRecord]:
    """`n` runs of one release in ISO week `week` of 2026."""
    return [
        RunRecord(
            workflow="order_desk",
            release_channel="canary" if role == "release" else "general",
            release_id=RELEASE if role == "release" else PARENT,
            simulated=simulated,
            run_id=f"{role}-{week}-{number}",
            task_id=f"{role}-{week}-{number}",
            started_at=f"{date.fromisocalendar(2026, week, 3)}T09:00:00Z",
            success=number < good * n,
            human_override=False,
            tool_calls_count=2,
            tool_error_count=0,
            cost=cost,
        )
        for number in range(n)
    ]


def warehouse(path: Path, runs: list[RunRecord]) -> Warehouse:
    made = Warehouse(path)
    made.ingest(runs)
    build(made)
    return made


def build(made: Warehouse) -> None:
    with made.connect() as connection:
        build_models(connection, load_models(SQL_FOLDER))


def manifest(evaluated: list[RunRecord], gates: tuple[str, ...] = GATES) -> dict[str, Any]:
    evidence = Evidence(paired(evaluated, 0.7), [0.2 + 0.1 * number for number in range(100)])
    parts = {name: {"kind": name, "digest": name[0] * 64, "files": {}} for name in ("rubric", "eval_suite", "gizmo")}
    parts |= {
        "policy": {"kind": "ppo_policy", "digest": POLICY, "files": {}},
        "sft_checkpoint": {"kind": "sft_checkpoint", "digest": BASELINE, "files": {}},
        "reward_model": {"kind": "reward_model", "digest": "e" * 64, "files": {}},
    }
    return {
        "workflow": "order_desk",
        "parent": PARENT,
        "rollback_target": PARENT,
        "code": {"commit": "f" * 40, "dirty": False},
        "gate_configuration": "1" * 64,
        "gates": list(gates),
        "verdicts": {gate: judge(parse_gate(gate), evidence).to_dict() for gate in gates},
        "artifacts": parts,
        "settings": {
            "workflow": {"baseline": "sft", "reward_model": "rm", "policy_training": "ppo_kl"},
            "evaluation": {"temperature": 0.7},
            "release": {"canary_traffic_percent": 5.0},
        },
    }


def parent_manifest() -> dict[str, Any]:
    return {"artifacts": {"policy": {"digest": BASELINE}, "rubric": {"digest": "r" * 64}}}


def comparison(evaluated: list[RunRecord]) -> dict[str, Any]:
    return {"0.7": compare_arms(paired(evaluated, 0.7))}


def decision(answer: str = "GO") -> dict[str, Any]:
    metrics = [
        {
            "metric": metric,
            "owner": owner,
            "answer": answer,
            "estimate": -1.25,
            "interval": [-3.5, 0.75],
            "n_canary": 640,
            "n_champion": 12100,
            "threshold": 5.0,
            "unit": UNITS.get(metric, "percentage points"),
            "e_harm": 0.1,
            "e_good": 40.0,
            "reason": "",
        }
        for metric, owner in METRICS.items()
    ]
    return {
        "answer": answer,
        "reason": "",
        "metrics": metrics,
        "sample_ratio": {},
        "expired": False,
        "started_at": "2026-11-22T19:00:00+00:00",
        "decided_at": "2026-11-22T20:00:00+00:00",
        "n_canary": 640,
        "n_champion": 12100,
    }


def drill(n: int = 100, simulated: bool = True, bound: float = 0.03) -> dict[str, Any]:
    failures = [
        {
            "kind": ("crashing", "hanging")[number % 2],
            "detected_seconds": 0.5 + 0.02 * number,
            "decided_seconds": 0.003,
            "swapped_seconds": 0.004,
            "drained_seconds": 0.0,
            "total_seconds": 0.507 + 0.02 * number,
        }
        for number in range(n)
    ]
    return {
        "failures": failures,
        "n": n,
        "p50_seconds": 1.507,
        "p95_seconds": 2.407,
        "max_seconds": failures[-1]["total_seconds"],
        "chance_over_limit_upper": bound,
        "limit_seconds": 300.0,
        "success_before": {"rate": 0.9, "interval": [0.88, 0.92], "n": 1000},
        "success_after": {"rate": 0.91, "interval": [0.89, 0.93], "n": 1000},
        "simulated": simulated,
    }


def store(made: Warehouse, evaluated: list[RunRecord], **changes: Any) -> None:
    """The evidence with everything measured, but for `changes`."""
    given = {
        "made_at": MADE_AT,
        "comparison": comparison(evaluated),
        "parent": parent_manifest(),
        "decision": decision(),
        "drill": drill(),
        "promoted": True,
        "expansion": {"stopped": False, "gates": []},
        "tool_policy": TOOLS,
    } | changes
    release = given.pop("release", RELEASE)
    store_evidence(made, release, given.pop("manifest", None) or manifest(evaluated), **given)


def relabelled(runs: list[RunRecord], **fields: Any) -> list[RunRecord]:
    return [replace(run, **fields) for run in runs]


def conditions(made: Warehouse) -> dict[str, dict[str, Any]]:
    """The conditions for the next steps of the stored release, by name."""
    return {row["condition"]: row for phase in phases(made, RELEASE) for row in phase["conditions"]}
