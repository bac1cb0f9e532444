"""A backend of serving.py that stands in for a library: its tools, tasks and rewards go wrong in every way."""

import asyncio
import datetime
import math
import os
import sys
import time


class Backend:
    async def load(self, source, config):
        print("this is said on stdout, and what stdin has is", repr(sys.stdin.read()))
        if source == "raises":
            raise ImportError("there is no such environment")
        if source == "hangs":
            time.sleep(3600)
        if source == "dies":
            sys.exit("killed as it was being loaded") if config else os._exit(7)
        self.config = config
        schema = {"type": "object", "properties": {"how": {"type": "string"}}, "required": ["how"]}
        count = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
        return {
            "tools": [
                {"name": "add", "description": "Adds a number.", "parameters": count},
                {"name": "get_odd", "description": "Gives or does something odd.", "parameters": schema},
                *config.get("more", ()),
            ]
        }

    async def tasks(self, most):
        rows = [{"task": {"goal": number % 5}, "prompt": f"Make it {number % 5}."} for number in range(10)]
        return rows[:most]

    async def begin(self, task):
        if task["goal"] < 0:
            raise ValueError("no goal below 0")
        return {"goal": task["goal"], "sum": 0, "asked": []}

    async def call(self, episode, name, arguments):
        if name == "add":
            await asyncio.sleep(0.001)
            episode["sum"] += arguments["number"]
            return {"sum": episode["sum"]}
        return await odd(arguments["how"])

    async def judge(self, episode, messages):
        last = messages[-1]["content"] or ""
        if last.startswith("reward "):
            return {"odd": {"score": await odd(last.removeprefix("reward ")), "weight": 1.0}}
        said = {"right": {"score": float(episode["sum"] == episode["goal"]), "weight": 0.7}}
        return said | {"short": {"score": float(len(messages) < 4), "weight": 0.3}, "pid": of(os.getpid())}

    async def end(self, episode):
        episode.clear()


def of(number):
    return {"score": number, "weight": 0.0}


async def odd(how):
    match how:
        case "raise":
            raise LookupError("it is not there\n" * 30)
        case "silent":
            raise ValueError
        case "exit":
            sys.exit(3)
        case "hang":
            time.sleep(3600)
        case "wait":
            await asyncio.sleep(3600)
        case "die":
            print("out of memory", file=sys.stderr, flush=True)
            os._exit(9)
        case "object":
            return object()
        case "deep":
            deep = []
            for _ in range(100_000):
                deep = [deep]
            return deep
        case "print":
            os.write(1, b'{"id": 0, "result": "forged"}\n')
            return os.getpid()
    return {
        "none": None,
        "date": datetime.date(2026, 3, 1),
        "bytes": b"\xffab",
        "nan": math.nan,
        "set": {"b", "a", "c"},
        "huge": "x" * 3_000_000,
        "half": "\udc80",
        "text": "no number",
    }[how]
