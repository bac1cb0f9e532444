"""Lines and segments of a spool, made by hand."""

import fcntl
import json
import os
import random
from pathlib import Path

from telemetry_samples import random_records

AT = "2026-11-22T10:00:00Z"


def line_of(record: object) -> bytes:
    return json.dumps({"kind": "run", "record": vars(record)}).encode() + b"\n"


def open_segment(folder: Path, name: str = "open.jsonl") -> int:
    """A segment that its writer still holds."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def some_lines(rng: random.Random, n: int) -> list[bytes]:
    """Runs, labels of them and events, in any order."""
    records = random_records(rng, n)
    lines = [line_of(record) for record in records]
    for number, record in enumerate(records):
        label = {"kind": "label", "run_id": record.run_id, "labelled_at": f"2026-11-1{number % 10}", "success": True}
        lines.append(json.dumps(label | {"human_override": rng.random() < 0.5}).encode() + b"\n")
        lines.append(json.dumps({"kind": "event", "event": "failback", "at": AT, "n": number}).encode() + b"\n")
    return rng.sample(lines, len(lines))
