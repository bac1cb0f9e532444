"""Is a bad canary failed back every time, and a good one hardly ever? Seeded trials over HTTP, as a table.

    .venv/bin/python benchmarks/canary_trials.py --trials 20

Each trial is a whole canary: a gateway on a real port, simulated customers, the spool, the breaker, the statistics, the
pointers; 5 % of the sessions at first, then as the workflow file ramps. The policies are programs, so that hundreds of
canaries can be tried: the champion is wrong and unsafe about as often as the SFT checkpoint was measured to be, a good
canary as often as the PPO policy; a bad one is the good one with a fault in a share of its runs.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from agentrl_resources.canary import (
    CanaryRollout,
    Fault,
    FaultyBackend,
    ScriptedBackend,
    rehearsal_release,
    with_customers,
)
from agentrl_resources.gateway import Backend
from agentrl_resources.release import Registry
from agentrl_resources.settings import Settings, load_settings
from agentrl_resources.workflow import Task, Workflow, load_workflow

WORKFLOW_FILE = Path(__file__).parents[1] / "workflow.yaml"
CHAMPION = {"does_nothing": 0.12, "harmful": 0.08}
GOOD = {"does_nothing": 0.07, "harmful": 0.01}
"""Shares of the runs in which a policy plays another of the workflow's agents than the expert."""
FAULTS = {
    "wrong actions": Fault("wrong", 0.3),
    "unsafe actions": Fault("unsafe", 0.3),
    "slow": Fault("slow", 1.0, slow_seconds=0.15),
    "costly": Fault("costly", 0.5),
    "crashing": Fault("crashing", 0.3),
}


class Unproven(Registry):
    """A registry that takes releases without a bundle: what is tried here is the canary."""

    def _refuse_unproven(self, release: str, *, first: bool) -> None: ...


def policy(workflow: Workflow, slips: dict[str, float]) -> ScriptedBackend:
    """An expert with slips, which the sampling seed decides."""

    def choose(task: Task, seed: int) -> Any:
        drawn = random.Random(seed).random()
        for agent, share in slips.items():
            drawn -= share
            if drawn < 0:
                return workflow.scripted_agents(task)[agent]
        return workflow.scripted_agents(task)["expert"]

    return ScriptedBackend(choose)


def trial(settings: Settings, workflow: Workflow, fault: Fault, seed: int) -> dict[str, Any]:
    """One canary from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Unproven(Path(folder) / "registry")
        champion, canary = (
            rehearsal_release(registry, settings, arm, f"{arm} {seed}") for arm in ("champion", "canary")
        )

        def load(channel: str, release: str, manifest: dict[str, Any]) -> Backend:
            if release == champion:
                return policy(workflow, CHAMPION)
            return FaultyBackend(policy(workflow, GOOD), fault, workflow)

        registry.swap("trial", who="trial", why="trial", seen=registry.pointers(), champions=(champion,), canary=canary,
                      canary_percent=settings.release.canary_traffic_percent)  # fmt: skip
        rollout = CanaryRollout(Path(folder), settings, workflow, canary, registry)
        return asyncio.run(with_customers(rollout, load, 1000 * seed, 0, lambda said: None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of each canary")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", choices=["good", *FAULTS], help="one of the canaries")
    options = parser.parse_args()
    settings, workflow = load_settings(WORKFLOW_FILE), load_workflow("order_desk")
    print("| canary | trials | promoted | failed back | by | seconds, median (max) | runs, median |")
    print("|---|---|---|---|---|---|---|")
    wrong = 0
    for name, fault in {"good": Fault(), **FAULTS}.items():
        if options.only not in (None, name):
            continue
        ends: Counter[str] = Counter()
        by: Counter[str] = Counter()
        seconds, runs = [], []
        for seed in range(options.first_seed, options.first_seed + options.trials):
            started = time.time()
            report = trial(settings, workflow, fault, seed)
            ends[report["action"]] += 1
            decision = report["decision"]
            harmful = [one["metric"] for one in decision["metrics"] if one["answer"] == "NO-GO"]
            by[harmful[0] if harmful else "all metrics" if decision["answer"] == "GO"
               else "expiry" if decision["expired"] else "breaker"] += 1  # fmt: skip
            seconds.append(time.time() - started)
            runs.append(report["runs"])
        wrong += ends["promoted"] if fault.kind else ends["failed back"]
        causes = ", ".join(f"{cause} {n}" for cause, n in by.most_common())
        print(
            f"| {name} | {options.trials} | {ends['promoted']} | {ends['failed back']} | {causes} "
            f"| {median(seconds):.0f} ({max(seconds):.0f}) | {median(runs):.0f} |",
            flush=True,
        )
    print(f"\n{wrong} decided wrongly (a good canary may be failed back in 1 of 20)")


if __name__ == "__main__":
    main()
