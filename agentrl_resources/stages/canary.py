"""Stage `canary_rollout`: the candidate before simulated customers, promoted or failed back by its canary.

A candidate that is broken on purpose goes the same way in a registry of its own, in a process beside: what should end a
bad canary is seen to do so, without a trace in the real one's records.
"""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentrl_resources.canary import (
    METRICS,
    SETTLING_RUNS,
    CanaryRollout,
    Fault,
    FaultyBackend,
    rehearsal_release,
    with_customers,
)
from agentrl_resources.gateway import Backend, BundleBackend
from agentrl_resources.learning import hash_seed
from agentrl_resources.plotting import ACCENT, BAD, BASELINE, CANDIDATE, GOOD, INK, picture
from agentrl_resources.release import Manifest, Registry
from agentrl_resources.side_by_side import Say, side_by_side
from agentrl_resources.stages.request import StageRequest, read_request
from agentrl_resources.workflow import EpisodeFactory

BAD_SHARE = 0.3
"""Share of its runs in which the policy that is broken on purpose does nothing."""
_COLOURS = (GOOD, BASELINE, ACCENT, CANDIDATE, "#7d5ba6", "#c58bd3", INK, BAD)


def run(request: StageRequest) -> None:
    tries = (("candidate", _good_one), ("broken on purpose", _bad_one))

    def heard(number: int, said: str) -> None:
        request.progress(0, 0, f"{tries[number][0]}: {said}")  # towards an end that nobody knows

    reports = side_by_side(_tried, [(request.file, work) for _, work in tries], heard)
    for (name, _), report in zip(tries, reports, strict=True):
        draw(request.output / f"{name.replace(' ', '_')}.png", name, report)
    good, bad = reports
    request.report({**good, "broken_on_purpose": bad})


def _tried(say: Say, piece: tuple[Path, Callable[[StageRequest, Say], dict[str, Any]]]) -> dict[str, Any]:
    file, work = piece
    return work(read_request(file, lambda *_: None), say)


def _good_one(request: StageRequest, say: Say) -> dict[str, Any]:
    """The candidate, in the state folder that it is to serve."""
    home, release = Path(request.parameters["home"]), request.parameters["release"]
    rollout = CanaryRollout(home, request.settings, request.workflow, release)
    if rollout.registry.pointers().canary != release:
        rollout.begin()
    seed = hash_seed(request.settings.seed, "customers", rollout.registry.pointers().revision)
    return asyncio.run(with_customers(rollout, None, seed, SETTLING_RUNS, say))


def _bad_one(request: StageRequest, say: Say) -> dict[str, Any]:
    """A candidate that does nothing in a share of its runs, on the workflow file's first share of the sessions."""
    settings = request.settings
    factory = EpisodeFactory(request.workflow)
    fault = Fault("wrong", BAD_SHARE)
    with tempfile.TemporaryDirectory(dir=request.work) as folder:
        registry = Registry(Path(folder) / "registry")
        champion, canary = (rehearsal_release(registry, settings, arm, arm) for arm in ("champion", "canary"))

        def load(channel: str, release: str, manifest: Manifest) -> Backend:
            asset = "sft_checkpoint" if release == champion else "ppo_policy"
            policy = BundleBackend(request.inputs[asset], factory, settings.gateway.concurrency)
            return policy if release == champion else FaultyBackend(policy, fault, request.workflow)

        registry.swap(
            "rehearse",
            who="canary_rollout",
            why="a candidate that is broken on purpose",
            seen=registry.pointers(),
            champions=(champion,),
            canary=canary,
            canary_percent=settings.release.canary_traffic_percent,
        )
        rollout = CanaryRollout(Path(folder), settings, request.workflow, canary, registry)
        seed = hash_seed(settings.seed, "customers of the broken one", 0)
        report = asyncio.run(with_customers(rollout, load, seed, 0, say))
    return {**report, "fault": fault.kind, "share": fault.share}


def draw(path: Path, name: str, report: dict[str, Any]) -> None:
    """The evidence of each metric as canary sessions came in: that it is not worse, and that it is harmful."""
    looks = [look for look in report["looks"] if look["n_canary"]]
    colours = dict(zip((metric.name for metric in METRICS), _COLOURS, strict=True))
    sides = {"good": "not worse by the margin", "harm": "harmful"}
    with picture(path, columns=2) as panels:
        for axes, (side, meaning) in zip(panels, sides.items(), strict=True):
            for metric, colour in colours.items():
                points = [(look["n_canary"], look[f"{side}_{metric}"]) for look in looks if f"{side}_{metric}" in look]
                axes.plot(*zip(*points, strict=True) if points else ((), ()), color=colour, label=metric)
            axes.axhline(20, color=INK, linewidth=0.8, linestyle=":")
            axes.set_yscale("log")
            axes.set_ylim(1e-3, 1e6)
            axes.set(title=f"Evidence: {meaning}", xlabel="canary sessions; dotted: proven at 20", ylabel="e-value")
        panels[1].legend(fontsize=7, loc="upper left")  # where harm would be proven before anything is known: free
        panels[0].figure.suptitle(f"Canary, {name}: {report['action']} (simulated customers)", fontsize=10)
