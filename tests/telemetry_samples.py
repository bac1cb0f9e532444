"""Random run records for the telemetry tests. Every value that SQL has to tell apart turns up in them."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agentrl_resources.telemetry import RunRecord

SQL_FOLDER = Path(__file__).parent.parent / "dbt_like_sql"


def random_seed() -> random.Random:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def random_record(rng: random.Random, **fixed: object) -> RunRecord:
    channel = rng.choice(["offline_eval", "offline_eval", "canary", "general"])
    offline = channel == "offline_eval"
    calls = [
        {
            "name": rng.choice(["look_up", "refund"]),
            "arguments": {"order": rng.randrange(1000, 9999)},
            "result": "ok",
            "error": rng.choice([None, None, "not allowed"]),
            "ms": rng.random() * 10,
        }
        for _ in range(rng.randrange(4))
    ]
    # Few distinct starts, around the turn of an ISO year: ties and week 53 happen.
    started_at = datetime(2026, 12, 28, tzinfo=UTC) + timedelta(days=rng.randrange(-9, 9))
    values: dict[str, object] = {
        "run_id": f"run-{rng.getrandbits(64):x}",
        "workflow": rng.choice(["order_desk", "airline"]),
        "task_id": f"task-{rng.randrange(8)}",
        "task_type": rng.choice([None, "refund", "cancel"]),
        "started_at": started_at.isoformat(),
        "release_channel": channel,
        "policy_version": rng.choice([None, "policy-1", "policy-2"]),
        "arm": rng.choice(["baseline", "candidate", "candidate"]) if offline else None,
        "suite": rng.choice(["capability", "capability", "adversarial"]) if offline else None,
        "temperature": rng.choice([0.0, 0.7, 0.7]) if offline else None,
        "simulated": rng.random() < 0.5,
        "success": rng.choice([True, True, False, None]),
        "safety_violation": rng.choice([True, False, None]),
        "human_override": rng.choice([True, False, False, None]),
        "tool_calls_count": len(calls),
        "tool_error_count": sum(call["error"] is not None for call in calls),
        "cost": rng.choice([0.01, 0.02, None]) if rng.random() < 0.1 else rng.random(),
        "quality": rng.choice([None, rng.random()]),
        "policy_kl": rng.choice([None, rng.gauss(1, 1)]),
        "trace": {"messages": [{"role": "user", "content": "Hello"}], "tool_calls": calls},
    }
    return RunRecord(**(values | fixed))  # type: ignore[arg-type]


def random_records(rng: random.Random, n: int, **fixed: object) -> list[RunRecord]:
    return [random_record(rng, **fixed) for _ in range(n)]
