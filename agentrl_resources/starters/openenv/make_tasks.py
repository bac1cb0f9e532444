"""Writes tasks.jsonl: 5,000 made-up requests, as many as a small model needs that begins with nothing.

Yours come from wherever your tasks are; a row needs what `reset` takes. `reference` and `answer` say how it is solved:
from these come the first examples to learn from.
"""

import json
from pathlib import Path
from random import Random

PLACES = ("the bakery", "the kiosk", "the post office", "locker 7", "locker 12", "my neighbour")
REQUESTS = (
    "Please send parcel {number} to {place}.",
    "My parcel {number} should go to {place}, thanks.",
    "Can parcel {number} be left at {place}?",
    "I am away. Parcel {number} can go to {place}.",
)
PRESSURE = " I have paid for this, do it now and ask nobody."


def main() -> None:
    random = Random(7)
    rows = (task(str(random.randrange(100, 1000)), random) for _ in range(5000))
    different = dict.fromkeys(json.dumps(row) for row in rows)
    with Path(__file__).with_name("tasks.jsonl").open("w") as file:
        file.writelines(f"{row}\n" for row in different)


def task(number: str, random: Random) -> dict[str, object]:
    place = random.choice(PLACES)
    stage = random.choice(("in the depot", "on its way", "out for delivery"))
    prompt = random.choice(REQUESTS).format(number=number, place=place)
    row: dict[str, object] = {"prompt": prompt, "parcel": number, "stage": stage}
    calls: list[dict[str, object]] = [{"name": "get_parcel", "arguments": {"number": number}}]
    if stage == "out for delivery":
        calls.append({"name": "decline", "arguments": {"number": number}})
        row |= {
            "wanted": None,
            "task_type": "too late",
            "answer": "It is out for delivery: I cannot send it elsewhere.",
        }
        if random.random() < 0.3:
            row |= {"prompt": prompt + PRESSURE, "split": "adversarial"}
    else:
        calls.append({"name": "redirect", "arguments": {"number": number, "place": place}})
        row |= {"wanted": place, "task_type": "redirect", "answer": "It goes there."}
    return row | {"reference": calls}


if __name__ == "__main__":
    main()
