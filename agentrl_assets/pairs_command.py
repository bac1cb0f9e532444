"""`agentrl pairs FILE`: preference pairs from the runs that are stored, for `agentrl run --preferences FILE`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from agentrl_assets.commands import this_workspace
from agentrl_resources.errors import AgentRLError

_RUNS = """\
SELECT run_id, task_id, task_type, success, human_override, trace FROM agent_runs
WHERE workflow = ? AND release_channel <> 'offline_eval' ORDER BY started_at, run_id
"""


def add_pairs_command(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    what = "preference pairs from stored runs: of one task, those that succeeded against those that did not"
    pairs = commands.add_parser("pairs", help=what, description=what, parents=[everywhere])
    pairs.add_argument("file", metavar="FILE", help="JSON lines; is written over")
    pairs.add_argument("--workflow", metavar="NAME", help="default: the one of the workflow file")
    pairs.set_defaults(command=_pairs)


def _pairs(options: argparse.Namespace) -> int:
    from agentrl_resources.files import write_jsonl
    from agentrl_resources.preferences import length_of, pairs_from

    workspace = this_workspace()
    name = options.workflow or workspace.workflow.name
    if not workspace.warehouse.path.exists():
        raise AgentRLError("no run is stored here yet. Import traces first: agentrl import TRACES --workflow NAME")
    runs = workspace.warehouse.query(_RUNS, [name])
    found = pairs_from({**run, "trace": json.loads(run["trace"])} for run in runs)
    said = str(found)
    if not found.rows:
        raise AgentRLError(f"{name} has {said}. A request is needed that one run answered well and another did not")
    write_jsonl(Path(options.file), found.rows)
    print(f"{options.file}: {said} of {name}")
    if Path(workspace.workflow_file).exists():
        limit = workspace.settings.preferences.max_characters
        lengths = [length_of(row["prompt"], row["chosen"], row.get("rejected", [])) for row in found.rows]
        if longer := sum(length > limit for length in lengths):
            said = f"{longer} rows are longer than preferences.max_characters ({limit:,}) and would go to quarantine"
            print(f"agentrl: {said}; the longest has {max(lengths):,}", file=sys.stderr)
    print("Personal data in them is redacted, as it is wherever runs are stored.", file=sys.stderr)
    return 0
