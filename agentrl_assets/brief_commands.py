"""`agentrl brief` and `agentrl phases`: the latest Reliability Brief, and what the next step waits for."""

import argparse
import json
import shutil
from pathlib import Path

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import Artifact, read_json


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


def _latest() -> Artifact:
    from agentrl_assets.running import dagster_instance
    from agentrl_resources.dagster_resources import Workspace

    workspace = Workspace.from_environment()
    with dagster_instance(workspace) as instance:
        artifact = workspace.find(instance, "reliability_brief")
    if artifact is None:
        raise AgentRLError("There is no brief yet: it needs a release. Run: agentrl run")
    return artifact


def _brief(options: argparse.Namespace) -> int:
    artifact, folder = _latest(), Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(artifact.path.glob("*.*")):
        print(shutil.copy(path, folder / path.name))
    return 0


def _phases(options: argparse.Namespace) -> int:
    found = read_json(_latest().path / "phases.json")
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    words = {True: "holds", False: "does not hold", None: "not known yet"}
    for phase in found:
        print(f"{phase['days']} days, phase {phase['phase']}: {words[phase['holds']]}")
        for one in phase["conditions"]:
            print(f"  {words[one['holds']]:<14} {one['condition'].replace('_', ' ')}")
    return 0
