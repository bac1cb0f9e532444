"""A task of Inspect AI as an environment: till.py holds the task, and could be an installed one."""

from typing import Any

from agentrl_resources.adaptors.inspect_task import InspectTask


class Till(InspectTask):
    """You keep a till. Write every amount into it, then say how many there are."""

    python = ".inspect/bin/python"  # of an environment that has inspect-ai; relative to this file
    source = "till.py@till"  # a file beside this one and a task in it, or the name of an installed one
    config = {"tasks": 3000}  # the task's arguments  # noqa: RUF012
    simulated = True  # leave this out of a world that is real

    @classmethod
    def row(cls, task: dict[str, Any]) -> dict[str, Any]:
        """What is known of a task besides: here what solves it, so that there is something to imitate at first."""
        amounts = task["metadata"]["amounts"]
        calls = [{"name": "put", "arguments": {"amount": amount}} for amount in amounts]
        return {"reference": calls, "answer": task["target"][0], "group": str(amounts)}
