"""A taskset of the verifiers library as an environment: sums.py is the taskset, and could be an installed one."""

from typing import Any

from agentrl_resources.adaptors.verifiers import VerifiersEnvironment


class Sums(VerifiersEnvironment):
    """You keep a till. Write every amount into it, then say that you are done."""

    python = ".verifiers/bin/python"  # of an environment that has verifiers; relative to this file
    source = "sums"  # a module beside this file that exports a Taskset, or the id of an installed one
    config = {"tasks": 3000}  # what its TasksetConfig takes  # noqa: RUF012
    simulated = True  # leave this out of a world that is real

    @classmethod
    def row(cls, task: dict[str, Any]) -> dict[str, Any]:
        """What is known of a task besides: here what solves it, so that there is something to imitate at first."""
        calls = [{"name": "put", "arguments": {"amount": amount}} for amount in task["amounts"]]
        return {"reference": calls, "answer": "Done."}
