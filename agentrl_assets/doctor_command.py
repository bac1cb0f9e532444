"""`agentrl doctor`: a look at the workflow before anything is trained."""

import argparse
import html
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentrl_assets.commands import this_workspace

if TYPE_CHECKING:
    from agentrl_resources.dagster_resources import Workspace
    from agentrl_resources.workflow.checkup import Finding


def add_doctor_command(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    what = "look at the workflow before anything is trained, and say what to do next"
    doctor = commands.add_parser("doctor", help=what, description=what, parents=[everywhere])
    doctor.add_argument("--html", metavar="FILE", help="write the page with an episode of each agent")
    what = "also play tasks with the SFT checkpoint, or else the base model: is there anything for RL to win?"
    doctor.add_argument("--model", action="store_true", help=what)
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from agentrl_resources.files import write_atomic
    from agentrl_resources.workflow import WITHOUT_ENVIRONMENT, recorded_tools
    from agentrl_resources.workflow.checkup import as_text, check_up, episodes_to_look_at

    workspace = this_workspace()
    if recorded_tools(workspace.workflow) is not None:  # there is nothing to play
        derived = getattr(workspace.workflow, "derived", {})
        print("\n".join(f"{part}: {said}" for part, said in derived.items()), f"\n[know] {WITHOUT_ENVIRONMENT}")
        return 0

    def progress(what: str) -> None:
        """On the line that the next one is written over; nothing clears it."""
        if sys.stderr.isatty():
            print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)

    found = check_up(workspace.workflow, workspace.settings.seed, lambda what: progress(f"{what} ..."))
    if options.model:
        progress("episodes of the model ...")
        found.findings.append(_of_model(workspace))
    progress("")
    text = "\n".join(as_text(found))
    print(text)
    if options.html:
        episodes = "".join(
            f"<h2>An episode of {html.escape(agent)}</h2><pre>{html.escape(chr(10).join(lines))}</pre>"
            for agent, lines in episodes_to_look_at(found)
        )
        page = _PAGE.format(title=html.escape(found.name), text=html.escape(text), episodes=episodes)
        write_atomic(Path(options.html), page)
    return 1 if any(finding.severity == "stop" for finding in found.findings) else 0


def _of_model(workspace: "Workspace") -> "Finding":
    """Whether there is anything for RL to win, as a finding."""
    from agentrl_assets.running import dagster_instance
    from agentrl_resources.stages.head_room import head_room
    from agentrl_resources.workflow.checkup import Finding

    with dagster_instance(workspace) as history:
        checkpoint = workspace.find(history, "sft_checkpoint")
    found = head_room(workspace.settings, workspace.workflow, checkpoint.path if checkpoint else None)
    if found is None:
        do = "Name a base, `model: {base: FOLDER}`, or train one first: agentrl run --select sft_checkpoint"
        return Finding("know", "there is no model yet that could play", do)
    said = (
        f"{found.model} solves {100 * found.rate:.0f} % of {found.tasks} hold-out tasks, each played {found.samples} "
        f"times: {found.always} always, {found.sometimes} now and then, {found.never} never"
    )
    if found.solved == 0:
        do = "RL has nothing to begin with: give references, or let a model show some (agentrl demonstrate)."
        return Finding("mend", said, do)
    if found.always == found.tasks:
        return Finding("mend", said, "There is nothing left for RL to win: give harder tasks.")
    return Finding("know", said, "What is solved now and then is what RL can win first.")


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ white-space: pre-wrap; background: #f5f5f2; padding: 1rem; font-size: 14px }}</style>
<h1>{title}</h1>
<pre>{text}</pre>
{episodes}
</html>
"""
