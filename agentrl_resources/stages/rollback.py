"""Stage `rollback_drill`: the pointer is really swapped back, the previous policy loaded and asked, and timed.

It runs in a registry of its own: the gates have not judged the candidate yet, so it must not touch the one that serves.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import read_jsonl
from agentrl_resources.learning import Sampler, hash_seed, load_policy
from agentrl_resources.plotting import ACCENT, BASELINE, CANDIDATE, picture
from agentrl_resources.release import Registry, RollbackTiming, measure_rollbacks
from agentrl_resources.stages.request import StageRequest, load_harmony
from agentrl_resources.workflow import EpisodeFactory, Task

ATTEMPTS = 50
"""Tasks that the policy may get wrong before its first right answer."""


def run(request: StageRequest) -> None:
    factory = EpisodeFactory(request.workflow)
    folders = {"baseline": request.inputs["sft_checkpoint"], "candidate": request.inputs["ppo_policy"]}
    tasks = [Task.from_dict(row) for row in read_jsonl(request.inputs["eval_suite"] / "capability.jsonl")]
    timings: list[RollbackTiming] = []
    total = request.settings.rollback.drills

    def load(release: str) -> Sampler:
        folder = folders[registry.manifest(release)["arm"]]
        return Sampler(load_policy(folder).eval(), load_harmony(folder, factory), factory)

    def answer(sampler: Sampler) -> None:
        first = len(timings) * ATTEMPTS
        for attempt in range(first, first + ATTEMPTS):
            task = tasks[attempt % len(tasks)]
            seed = hash_seed(request.settings.seed, "rollback", attempt)
            if sampler.play([task], [seed], request.settings.evaluation.temperature, 1)[0].episode.outcome.success:
                return
        raise AgentRLError(f"the policy that is back gave no right answer in {ATTEMPTS} tasks. Look at its evaluation.")

    with tempfile.TemporaryDirectory(dir=request.work) as folder:
        registry = Registry(Path(folder))
        champions = tuple(registry.add({"arm": arm}) for arm in folders)
        registry.swap("rehearse", who="rollback drill", why="the candidate serves", seen=registry.pointers(),
                      champions=champions)  # fmt: skip
        for number in range(total):
            timings += measure_rollbacks(registry, load, answer, 1)
            request.progress(number + 1, total, f"rolled back in {timings[-1].total_seconds:.2f} s")
    seconds = [timing.total_seconds for timing in timings]
    _draw(request.output / "drill.png", timings)
    request.report(
        {
            "rollbacks": [asdict(timing) for timing in timings],
            "seconds": seconds,
            "max_seconds": max(seconds),
            "measured_on": "this machine, its own traffic simulated",
        }
    )


def _draw(path: Path, timings: list[RollbackTiming]) -> None:
    parts: dict[str, tuple[list[float], str]] = {
        "swap the pointer": ([timing.swap_seconds for timing in timings], ACCENT),
        "load the previous policy": ([timing.load_seconds for timing in timings], BASELINE),
        "first right answer": ([timing.answer_seconds for timing in timings], CANDIDATE),
    }
    bottoms: list[Any] = [0.0] * len(timings)
    with picture(path) as axes:
        for label, (seconds, colour) in parts.items():
            axes.bar(range(1, len(timings) + 1), seconds, bottom=bottoms, color=colour, label=label)
            bottoms = [low + high for low, high in zip(bottoms, seconds, strict=True)]
        axes.set(title="Rollbacks, really done", xlabel="rollback", ylabel="seconds")
        axes.legend()
