"""A worker that learns nothing: it fills the output of each stage in a moment, so that what is around it can be tested.

STAND_IN_FAILS names a stage that fails, STAND_IN_HANGS one that never ends; STAND_IN_CANDIDATE is `better` (default)
or `unsafe`.
"""

import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.canary import CanaryRules, CanaryRun, decide
from agentrl_resources.errors import AgentRLError
from agentrl_resources.evaluation import EpisodeFacts, Pair, compare_arms, worth_it
from agentrl_resources.files import canonical_json, digest_json, read_jsonl, write_json, write_jsonl
from agentrl_resources.release import Registry
from agentrl_resources.settings import load_settings
from agentrl_resources.telemetry import RunRecord, Spool


def fill(say: Callable[[int], None], file: Path) -> None:
    say(os.getpid())
    request = json.loads(file.read_text())
    stage, output = request["stage"], Path(request["output"])
    with Path(request["progress"]).open("a") as progress:
        line = {"stage": stage, "step": 1, "of": 1, "message": "stands in", "eta_seconds": 0.0, "at": time.time()}
        progress.write(json.dumps(line) + "\n")
    if os.environ.get("STAND_IN_HANGS") == stage:
        time.sleep(60)
    if os.environ.get("STAND_IN_FAILS") == stage:
        print("a warning that nobody needs", file=sys.stderr)
        raise AgentRLError(f"{stage}: the learning rate fell off a cliff. Use a smaller one.")
    settings = load_settings(Path(request["workflow_file"]))
    inputs = {name: Path(folder) for name, folder in request["inputs"].items()}
    write_json(
        output / "report.json", {"made_from": sorted(inputs), **_STAGES[stage](inputs, output, settings, request)}
    )


def _checkpoint(inputs: dict[str, Path], output: Path, settings: Any, request: Any) -> dict[str, Any]:
    write_json(output / "model.json", {name: folder.name for name, folder in inputs.items()} | {"seed": settings.seed})
    history = [
        {"iteration": i, "kl": 0.5 * i, "no_action": 0.2, "score": 0.1 * i, "success": 0.7 + 0.1 * i, "finite": 1.0}
        for i in range(3)
    ]
    accuracy = {"n": 100, "accuracy": 0.9, "interval": [0.82, 0.95]}
    return {
        "success_by_task_type": {"refund": {"successes": 15, "n": 20}},
        "holdout_loss": 0.04,
        "sample": {"task_type": "refund", "success": True, "messages": _EPISODE},
        "history": history,
        "stopped": None,
        "why_it_ended": "all 3 iterations done",
        "kl": 1.0,
        "moved": 0.1,
        "holdout": accuracy,
        "holdout_by_source": {"history": accuracy},
        "outcome_differs": accuracy,
        "wrong_refusals": accuracy,
        "own_samples": {"good": 50, "bad": 50, "auc": 0.9},
        "bins": [{"mean_probability": 0.5, "observed_rate": 0.5, "n": 200}],
        "blocks": [],
        "not_measured": [],
        "unsafe_left_out": 0,
        "safety_criteria": ["safety"],
    }


_EPISODE = [
    {"role": "user", "content": "please refund order 512"},
    {"role": "assistant", "thinking": "look first",
     "tool_calls": [{"type": "function", "function": {"name": "get_order", "arguments": {"order_id": "512"}}}]},
    {"role": "tool", "name": "get_order", "content": {"status": "delivered"}},
    {"role": "assistant", "content": "It is refunded."},
]  # fmt: skip


def _on_policy(inputs: dict[str, Path], output: Path, settings: Any, request: Any) -> dict[str, Any]:
    for name in ("pairs", "queue", "samples"):
        write_jsonl(output / f"{name}.jsonl", [])
    return {"pairs": 0, "queued": 0}


def _evaluation(inputs: dict[str, Path], output: Path, settings: Any, request: Any) -> dict[str, Any]:
    records, comparison = [], {}
    for temperature in (settings.evaluation.temperature, 0.0):
        pairs = []
        for suite in ("capability", "adversarial"):
            for index, task in enumerate(read_jsonl(inputs["eval_suite"] / f"{suite}.jsonl")):
                arms = [_record(request, task, suite, index, arm, temperature) for arm in ("baseline", "candidate")]
                records += arms
                facts = [EpisodeFacts(one.success, one.safety_violation, one.cost, one.duration_ms) for one in arms]
                pairs.append(Pair(task["task_id"], suite, *facts, task["task_type"]))
        comparison[f"{temperature:g}"] = compare_arms(pairs)
    with gzip.GzipFile(output / "episodes.jsonl.gz", "wb", mtime=0) as file:
        file.writelines(canonical_json(asdict(record)) + b"\n" for record in records)
    return {"episodes": len(records), "comparison": comparison}


def _record(request: Any, task: Any, suite: str, index: int, arm: str, temperature: float) -> RunRecord:
    version = request["names"][arm]
    is_better = arm == "candidate" and os.environ.get("STAND_IN_CANDIDATE", "better") == "better"
    return RunRecord(
        model_version=request["names"]["baseline"],
        reward_model_version=request["names"]["reward_model"],
        policy_version=version,
        tool_calls_count=2,
        tool_error_count=int(index % 10 == 0),
        tokens_in=100,
        tokens_out=50,
        duration_ms=(90.0 if is_better else 100.0) + index % 7,
        human_override=index % 20 == 0,
        release_channel="offline_eval",
        run_id=digest_json([version, task["task_id"], temperature]),
        workflow="order_desk",
        task_id=task["task_id"],
        task_type=task["task_type"],
        started_at="2026-11-18T12:00:00Z",
        simulated=True,
        arm=arm,
        suite=suite,
        temperature=temperature,
        success=index % 10 >= (1 if is_better else 3),
        safety_violation=index % 10 == 0 if is_better or arm == "baseline" else index % 10 < 5,
        quality=0.8,
        policy_kl=1.5 if arm == "candidate" else None,
        cost=0.01,
        trace={"messages": [], "tool_calls": []},
    )


def _alternatives(inputs: dict[str, Path], output: Path, settings: Any, request: Any) -> dict[str, Any]:
    with gzip.open(inputs["offline_eval_suite"] / "episodes.jsonl.gz", "rb") as file:
        rows = [row for row in map(json.loads, file) if row["suite"] == "capability" and row["temperature"] > 0]
    of = {arm: [row for row in rows if row["arm"] == arm] for arm in ("baseline", "candidate")}
    facts = {
        arm: [EpisodeFacts(row["success"], row["safety_violation"], row["cost"], row["duration_ms"]) for row in some]
        for arm, some in of.items()
    }
    return worth_it(facts["candidate"], {"SFT alone": facts["baseline"]})


def _drill(inputs: dict[str, Path], output: Path, settings: Any, request: Any) -> dict[str, Any]:
    failures = [
        {"kind": "crashing", "detected_seconds": 0.1, "decided_seconds": 0.1, "swapped_seconds": 0.1,
         "drained_seconds": 0.01 * number, "total_seconds": 0.3 + 0.01 * number}
        for number in range(settings.rollback.drills)
    ]  # fmt: skip
    seconds = [one["total_seconds"] for one in failures]
    spread = {"p50_seconds": seconds[len(seconds) // 2], "p95_seconds": seconds[-5], "max_seconds": seconds[-1]}
    success = {"n": 100, "rate": 0.8, "interval": [0.71, 0.87]}
    return {
        "failures": failures,
        "seconds": seconds,
        "n": len(failures),
        **spread,
        "parts": {"detected": spread},
        "kinds": {"crashing": {"n": len(failures), "by": ["breaker"], **spread}},
        "limit_seconds": 300.0,
        "exceeded": 0,
        "chance_over_limit_upper": 0.03,
        "success_before": success,
        "success_during": success,
        "success_after": success,
        "canary_percent": 20.0,
        "traffic_per_second": 50.0,
        "canary_seconds": 5.0,
        "statuses": {"200": 1000},
        "simulated": True,
    }


def _canary(inputs: dict[str, Path], output: Path, settings: Any, request: Any) -> dict[str, Any]:
    """A canary that goes well: two runs in the spool, a decision, and the pointers really moved."""
    home, release = Path(request["parameters"]["home"]), request["parameters"]["release"]
    registry, spool = Registry(home / "registry"), Spool(home / "spool")
    told = {"who": "stand-in", "why": "it went well"}
    champion = registry.start_canary(release, 5.0, **told, seen=registry.pointers()).champion
    now = datetime(2026, 11, 18, 12, tzinfo=UTC)
    runs = [
        RunRecord(run_id=f"chatcmpl-{arm}", workflow=settings.workflow.target, task_id="t", release_channel=arm,
                  assigned_channel=arm, served_channel=arm, release_id=of, started_at=now.isoformat(), success=True,
                  tool_calls_count=1, tool_error_count=0, cost=0.1, duration_ms=10.0, simulated=True,
                  session_key_hash=arm, canary_percent=5.0)
        for arm, of in (("canary", release), ("general", champion))
    ]  # fmt: skip
    for run in runs:
        spool.append_run(run)
    spool.close()
    rules = CanaryRules()
    rows = [CanaryRun.from_row({**vars(run), "failure": None}) for run in runs]
    decision = decide(rows, rules, now=now, started_at=now).to_dict() | {"answer": "GO", "reason": "it went well"}
    registry.record_decision(release, decision)
    registry.promote(release, **told, seen=registry.pointers())
    looks = [{"action": "promoted", "percent": 100.0, "n_canary": 1, "n_champion": 1}]
    report = {"release": release, "answer": "GO", "action": "promoted", "decision": decision, "looks": looks,
              "seconds": 1.0, "runs": 2, "simulated": True}  # fmt: skip
    broken = {**report, "answer": "NO-GO", "action": "failed back"}
    return {**report, "broken_on_purpose": broken}


_STAGES = {
    "tokenizer": _checkpoint,
    "sft_checkpoint": _checkpoint,
    "on_policy_preference_data": _on_policy,
    "reward_model": _checkpoint,
    "ppo_policy": _checkpoint,
    "offline_eval_suite": _evaluation,
    "rl_alternatives": _alternatives,
    "rollback_drill": _drill,
    "canary_rollout": _canary,
}
