"""Writes traces.jsonl: runs of a made-up parcel desk, two a task, as a team might export them. Put yours in there."""

import json
from pathlib import Path
from random import Random
from typing import Any

PLACES = ("the bakery", "the kiosk", "the post office", "locker 7")
PARAMETERS = {"type": "object", "properties": {"number": {"type": "string"}, "place": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "get_parcel", "description": "Where it is.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "redirect", "description": "Sends it on.", "parameters": PARAMETERS}},
]


def main() -> None:
    random = Random(7)
    with Path(__file__).with_name("traces.jsonl").open("w") as file:
        for number in range(200):
            for good in (True, False):
                file.write(json.dumps(run(number, good, random)) + "\n")


def run(task: int, good: bool, random: Random) -> dict[str, Any]:
    """One run. Who does it well looks first, and sends the parcel where it was asked to go."""
    number, place = str(500 + task), PLACES[task % len(PLACES)]
    asks = random.choice((f"Send parcel {number} to {place}.", f"Parcel {number} should go to {place}, please."))
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You work at a parcel desk."},
        {"role": "user", "content": asks},
    ]
    if good:
        messages += called("get_parcel", {"number": number}, '{"stage": "on its way"}')
    goes_to = place if good or random.random() < 0.5 else PLACES[(task + 1) % len(PLACES)]
    if good or goes_to != place:
        messages += called("redirect", {"number": number, "place": goes_to}, '{"done": true}')
    messages.append({"role": "assistant", "content": f"It goes to {goes_to}." if goes_to else "I cannot do that."})
    return {"task_id": f"parcel {number}", "messages": messages, "tools": TOOLS, "success": good}


def called(tool: str, arguments: dict[str, str], result: str) -> list[dict[str, Any]]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return [
        {"role": "assistant", "tool_calls": [{"id": tool, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": tool, "name": tool, "content": result},
    ]


if __name__ == "__main__":
    main()
