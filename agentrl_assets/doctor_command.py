"""`agentrl doctor`: a look at the workflow before anything is trained."""

import argparse
import html
import sys
from pathlib import Path
from typing import Any

from agentrl_assets.commands import this_workspace


def add_doctor_command(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    what = "look at the workflow before anything is trained, and say what to do next"
    doctor = commands.add_parser("doctor", help=what, description=what, parents=[everywhere])
    doctor.add_argument("--html", metavar="FILE", help="write the page with an episode of each agent")
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
