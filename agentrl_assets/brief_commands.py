"""`agentrl brief` and `agentrl phases`: the latest Reliability Brief, and what the next step waits for."""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl_assets.commands import this_workspace
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import Artifact, read_json

if TYPE_CHECKING:
    from agentrl_resources.dagster_resources import Workspace


def add_brief_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", everywhere: argparse.ArgumentParser
) -> None:
    """Adds `brief` and `phases` to the `agentrl` command."""
    what = "copy the latest Reliability Brief (HTML and PDF, three languages) to a folder"
    brief = commands.add_parser("brief", help=what, description=what, parents=[everywhere])
    brief.add_argument("folder", nargs="?", default=".", metavar="FOLDER")
    brief.set_defaults(command=_brief)
    what = "the 30, 60 and 90 day view: which conditions for the next step hold, from data"
    phases = commands.add_parser("phases", help=what, description=what, parents=[everywhere])
    phases.add_argument("--json", action="store_true", help="for scripts")
    phases.set_defaults(command=_phases)


def _latest(workspace: "Workspace") -> Artifact:
    from agentrl_assets.running import dagster_instance

    with dagster_instance(workspace) as instance:
        artifact = workspace.find(instance, "reliability_brief")
    if artifact is None:
        raise AgentRLError("There is no brief yet: it needs a release. Run: agentrl run")
    return artifact


def _brief(options: argparse.Namespace) -> int:
    artifact, folder = _latest(this_workspace()), Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(artifact.path.glob("*.*")):
        print(shutil.copy(path, folder / path.name))
    return 0


def _phases(options: argparse.Namespace) -> int:
    """As of the brief's evidence, and what has happened since to the release's part and to expansion."""
    workspace = this_workspace()
    folder = _latest(workspace).path
    about = read_json(folder / "queries.json")
    release, pointers, stop = about["release"], workspace.registry.pointers(), workspace.registry.expansion.state()
    if options.json:
        now = {"champion": pointers.champion, "last_change": pointers.action, "expansion": asdict(stop)}
        told = {
            "release": release,
            "made_at": about["made_at"],
            "phases": read_json(folder / "phases.json"),
            "now": now,
        }
        print(json.dumps(told, indent=2))
        return 0
    print(f"RELEASE {release[:12]}, evidence as of {about['made_at'][:10]}")
    text = folder / "phases.txt"
    print(text.read_text() if text.exists() else "made by an earlier version; for its conditions: agentrl run")
    part = "is the champion" if pointers.champion == release else "is not the champion"
    print(f"NOW the release {part} (last change: {pointers.action} by {pointers.who}: {pointers.why})")
    stopped = f"stopped: {' and '.join(stop.gates)} broke in {stop.week}"
    print(f"NOW expansion is {stopped if stop.stopped else 'open'}")
    return 0
