"""Writes tasks.jsonl: forty tasks, which is enough to look at, and too few for a verdict. Put yours in its place."""

import json
from pathlib import Path

with Path(__file__).with_name("tasks.jsonl").open("w") as file:
    for number in range(40):
        key, value = f"room {number}", f"floor {number % 7}"
        row = {
            "prompt": f"Where is {key}?",
            "key": key,
            "value": value,
            # how it is solved, if you know: the first examples to learn from
            "reference": [{"name": "look_up", "arguments": {"key": key}}],
            "answer": f"It is on {value}.",
        }
        file.write(json.dumps(row) + "\n")
