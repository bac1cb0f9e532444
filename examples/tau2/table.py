"""The table of docs/adaptors/tau2.md: every task of every domain, played by its reference and by nobody.

    .venv/bin/python examples/tau2/table.py [DOMAIN ...]

`opened`: ms that an episode's world takes to make, beside what the benchmark's own `get_environment` takes.
"""

import sys
import time
from importlib import import_module

from agentrl_resources.adaptors.tau2_domain import DOMAINS
from agentrl_resources.workflow import EpisodeFactory, load_workflow


def row(domain: str) -> str:
    workflow = load_workflow(f"agentrl_resources.adaptors.tau2:{domain.capitalize()}")
    factory = EpisodeFactory(workflow)
    there = {
        split: workflow.tasks(split, 1, 1) and _all(workflow, split) for split in ("train", "holdout", "capability")
    }
    tasks = [task for found in there.values() for task in found]
    counts = {"expert": [0, 0], "does_nothing": [0, 0]}
    for task in tasks:
        for name, agent in workflow.scripted_agents(task).items():
            if name in counts:
                counts[name][0] += factory.play(task, agent).outcome.success
                counts[name][1] += 1
    started = time.perf_counter()
    for task in tasks[:100]:
        workflow.environment().reset(**{name: task.payload[name] for name in ("task_id", "frozen")})
    opened = 1000 * (time.perf_counter() - started) / len(tasks[:100])
    module = import_module(f"tau2.domains.{domain}.environment")
    started = time.perf_counter()
    for _ in range(3):
        module.get_environment()
    before = 1000 * (time.perf_counter() - started) / 3
    policy = len(workflow.instructions)
    splits = "/".join(str(len(found)) for found in there.values())
    (solved, known), (nothing, all_tasks) = counts["expert"], counts["does_nothing"]
    return (
        f"| {domain} | {len(factory.tools)} | {all_tasks} ({splits}) | {solved} of {known} | {nothing} | "
        f"{opened:.1f} | {before:.0f} | {policy} |"
    )


def _all(workflow, split: str) -> list:
    """Each task of a split once."""
    return list({task.task_id: task for task in workflow.tasks(split, 10_000, 1)}.values())


if __name__ == "__main__":
    print("| domain | tools | tasks (train/holdout/capability) | references solve | doing nothing solves | "
          "opened, ms | the benchmark's, ms | characters of policy |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for domain in sys.argv[1:] or DOMAINS:
        print(row(domain), flush=True)
