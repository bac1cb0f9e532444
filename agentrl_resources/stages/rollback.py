"""Stage `rollback_drill`: failures injected into a live gateway before the real policies, and how long each took."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from agentrl_resources.canary import DrillPlan, drill, kinds_for
from agentrl_resources.evaluation import parse_gate
from agentrl_resources.gateway import Backend, BundleBackend
from agentrl_resources.plotting import ACCENT, BAD, BASELINE, CANDIDATE, GOOD, INK, picture
from agentrl_resources.settings import Settings
from agentrl_resources.stages.request import StageRequest, read_request
from agentrl_resources.workflow import EpisodeFactory, Workflow

DEFAULT_LIMIT_MINUTES = 5.0
"""Where no gate of the workflow file says how long a rollback may take."""


def run(request: StageRequest) -> None:
    settings = request.settings
    kinds = kinds_for(request.workflow, settings.seed)
    with tempfile.TemporaryDirectory(dir=request.work) as folder:
        plan = DrillPlan(
            Path(folder),
            settings,
            partial(_arms, request.file),
            injections=settings.rollback.drills,
            percent=settings.rollback.canary_percent,
            at_once=settings.canary.customers,
            lanes=settings.rollback.at_once,
            limit_seconds=60 * limit_minutes(settings),
        )
        report = drill(plan, kinds, request.progress)
    draw(request.output / "drill.png", report)
    request.report({**report, "measured_on": "this machine, its customers simulated"})


def _arms(file: Path) -> tuple[Workflow, dict[str, Backend]]:
    request = read_request(file, lambda *_: None)
    factory, rows = EpisodeFactory(request.workflow), request.settings.gateway.concurrency
    folders = {"champion": request.inputs["sft_checkpoint"], "canary": request.inputs["ppo_policy"]}
    return request.workflow, {arm: BundleBackend(folder, factory, rows) for arm, folder in folders.items()}


def limit_minutes(settings: Settings) -> float:
    """The time that the rollback gate allows."""
    gates = [parse_gate(name) for name in settings.release.gates]
    return next((gate.threshold for gate in gates if gate.kind.startswith("rollback")), DEFAULT_LIMIT_MINUTES)


def draw(path: Path, report: dict[str, Any]) -> None:
    """How many of the failures of each kind were over by when."""
    colours = dict(zip(report["kinds"], (CANDIDATE, BAD, ACCENT, BASELINE, GOOD), strict=False))
    with picture(path, width=6.4) as axes:
        for kind, colour in colours.items():
            seconds = sorted(one["total_seconds"] for one in report["failures"] if one["kind"] == kind)
            shares = [(index + 1) / len(seconds) for index in range(len(seconds))]
            axes.step(
                [seconds[0], *seconds], [0.0, *shares], where="post", color=colour, label=f"{kind} ({len(seconds)})"
            )
        axes.axvline(report["p95_seconds"], color=INK, linewidth=0.8, linestyle=":")
        axes.set(
            title=f"{report['n']} canary failures, over within {report['max_seconds']:.1f} s (simulated customers)",
            xlabel="seconds from the failure to the last canary answer; dotted: 95 % of all",
            ylabel="share that is over",
            ylim=(0, 1.03),
        )
        axes.set_xlim(left=0)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # beside: each corner has a curve
