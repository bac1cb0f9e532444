"""`agentrl gateway` and `agentrl drill`: answer traffic, and break a canary on purpose to time its end."""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError


def add_gateway_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", everywhere: argparse.ArgumentParser
) -> None:
    """Adds `gateway` and `drill` to the `agentrl` command."""
    what = "answer traffic over OpenAI's protocol with the champion, and the canary while there is one"
    gateway = commands.add_parser("gateway", help=what, description=what, parents=[everywhere])
    gateway.add_argument("--host", default="127.0.0.1", help="of the traffic; default: this machine only")
    gateway.add_argument("--port", type=int, default=8080)
    gateway.add_argument("--admin-host", default="127.0.0.1", help="of metrics and administration")
    gateway.add_argument("--admin-port", type=int, default=8081)
    gateway.set_defaults(command=_gateway)

    what = "inject failures into the canary of a live gateway under load, and time how soon each is over"
    drill = commands.add_parser("drill", help=what, description=what, parents=[everywhere])
    drill.add_argument("--failures", type=int, metavar="N", help="default: rollback.drills")
    drill.add_argument("--percent", type=float, help="the canary's share; default: rollback.canary_percent")
    drill.add_argument("--release", default="candidate", metavar="RELEASE", help="whose policy is the canary")
    drill.add_argument("--picture", metavar="FILE.png", help="draw the distribution")
    drill.add_argument("--json", action="store_true", help="for scripts")
    drill.set_defaults(command=_drill)


def _gateway(options: argparse.Namespace) -> int:
    from agentrl_resources.dagster_resources import Workspace
    from agentrl_resources.gateway import Address, serve

    workspace = Workspace.from_environment()
    address = Address(options.host, options.port, options.admin_host, options.admin_port)

    def say(text: str) -> None:
        print(f"agentrl: {text}", file=sys.stderr, flush=True)

    serve(workspace.root, workspace.settings, workspace.workflow, address, say)
    return 0


def _drill(options: argparse.Namespace) -> int:
    from agentrl_resources.canary import DrillPlan, drill, kinds_for
    from agentrl_resources.dagster_resources import Workspace
    from agentrl_resources.stages.rollback import draw, limit_minutes

    workspace = Workspace.from_environment()
    settings, registry = workspace.settings, workspace.registry
    failures = settings.rollback.drills if options.failures is None else options.failures
    if failures < 1:
        raise AgentRLError(f"--failures is {failures}: inject at least one")
    release = registry.resolve(options.release)
    manifest = registry.manifest(release)
    if manifest["rollback_target"] is None:
        raise AgentRLError(f"Release {release[:12]} has nothing to go back to, so there is nothing to drill")
    target = manifest["rollback_target"]
    kinds = kinds_for(workspace.workflow, settings.seed)

    def progress(done: int, of: int, said: str) -> None:
        print(f"agentrl: {done} of {of}: {said}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        plan = DrillPlan(
            Path(folder),
            settings,
            partial(_arms, target, release),
            injections=failures,
            percent=settings.rollback.canary_percent if options.percent is None else options.percent,
            at_once=settings.canary.customers,
            lanes=settings.rollback.at_once,
            limit_seconds=60 * limit_minutes(settings),
        )
        report = drill(plan, kinds, progress)
    if options.picture:
        draw(Path(options.picture), report)
    if options.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"{'':<12}{'n':>5}{'p50 s':>9}{'p95 s':>9}{'max s':>9}   ended by")
    for kind, spread in report["kinds"].items():
        print(_row(kind, spread["n"], spread, ", ".join(spread["by"])))
    print(_row("all", report["n"], report, ""))
    for part, spread in report["parts"].items():
        print(_row(f"  {part}", report["n"], spread, ""))
    for phase in ("before", "during", "after"):
        found = report[f"success_{phase}"]
        if not found["n"]:
            continue
        low, high = found["interval"]
        print(f"success {phase}: {found['rate']:.3f} ({low:.3f} to {high:.3f}), n = {found['n']}")
    print(
        f"{report['exceeded']} of {report['n']} took more than {report['limit_seconds']:g} s; the chance that one does "
        f"is at most {100 * report['chance_over_limit_upper']:.1f} % (95 % confidence)"
    )
    print(f"{report['traffic_per_second']:.0f} runs a second, simulated; canary {report['canary_percent']:g} %")
    return 0 if report["exceeded"] == 0 else 3


def _arms(champion: str, canary: str) -> tuple[Any, dict[str, Any]]:
    """The workflow and the policies of two releases of the state folder."""
    from agentrl_resources.dagster_resources import Workspace
    from agentrl_resources.gateway import backends
    from agentrl_resources.workflow import EpisodeFactory

    workspace = Workspace.from_environment()
    workflow, manifest = workspace.workflow, workspace.registry.manifest
    load = backends(workspace.settings, workspace.store, EpisodeFactory(workflow))
    return workflow, {
        "champion": load("general", champion, manifest(champion)),
        "canary": load("canary", canary, manifest(canary)),
    }


def _row(name: str, n: int, spread: dict[str, float], by: str) -> str:
    p50, p95, longest = (spread[f"{part}_seconds"] for part in ("p50", "p95", "max"))
    return f"{name:<12}{n:>5}{p50:>9.2f}{p95:>9.2f}{longest:>9.2f}   {by}"
