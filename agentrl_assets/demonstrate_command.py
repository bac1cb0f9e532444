"""`agentrl demonstrate FILE`: a stronger model solves the workflow's own tasks, for references to begin with."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from agentrl_assets.commands import this_workspace
from agentrl_resources.errors import AgentRLError


def add_demonstrate_command(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    what = "let a model behind an OpenAI-compatible server solve tasks that have no reference, and keep what it did"
    add = commands.add_parser("demonstrate", help=what, description=what, parents=[everywhere])
    add.add_argument("file", metavar="FILE", help="all tasks once more, with references; is written over")
    add.add_argument("--url", required=True, help="the server, as an OpenAI client takes it: http://host:8000/v1")
    add.add_argument("--model", required=True, metavar="NAME", help="what the server calls the model")
    add.add_argument("--key-variable", metavar="NAME", help="environment variable that holds the server's API key")
    add.add_argument("--tasks", type=_positive, default=200, metavar="N", help="tasks at most (default 200)")
    add.add_argument("--tries", type=_positive, default=2, metavar="N", help="episodes of a task at most (default 2)")
    add.add_argument("--at-once", type=_positive, default=8, metavar="N", help="episodes side by side (default 8)")
    add.add_argument("--temperature", type=float, default=0.7, help="of its sampling (default 0.7)")
    add.set_defaults(command=_demonstrate)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _demonstrate(options: argparse.Namespace) -> int:
    from agentrl_resources.files import write_jsonl
    from agentrl_resources.gateway.teacher import lacking
    from agentrl_resources.workflow.own import OwnWorkflow

    workflow = this_workspace().workflow
    if not isinstance(workflow, OwnWorkflow):
        raise AgentRLError(f"{workflow.name} brings its own examples; this is for an environment and its tasks.")
    key = None
    if options.key_variable and not (key := os.environ.get(options.key_variable)):
        raise AgentRLError(f"--key-variable: the environment has no {options.key_variable}. Set it to the API key.")
    wanted = lacking(workflow.rows)[: options.tasks]
    if not wanted:
        raise AgentRLError(f"{workflow.name}: every task of training has a reference already.")
    found = asyncio.run(_played(workflow, wanted, options, key))
    new = {one.row["task_id"]: one.row for one in found}
    write_jsonl(Path(options.file), [new.get(row.task.task_id) or row.to_dict() for row in workflow.rows])
    print(file=sys.stderr)
    solved = sum(one.solved for one in found)
    print(f"{options.file}: {solved} of {len(found)} tasks solved in {sum(one.tries for one in found)} episodes")
    print(f"Name it in the workflow file, `workflow.tasks: {options.file}`, and run: agentrl doctor")
    return 0


async def _played(workflow: Any, wanted: Any, options: argparse.Namespace, key: str | None) -> Any:
    from agentrl_resources.gateway.remote import RemoteBackend
    from agentrl_resources.gateway.teacher import demonstrated
    from agentrl_resources.workflow import EpisodeFactory

    factory = EpisodeFactory(workflow)
    backend = RemoteBackend(options.url, options.model, key, factory.tools)

    def progress(solved: int, done: int) -> None:
        print(f"\r{done} of {len(wanted)} tasks, {solved} solved", end="", file=sys.stderr, flush=True)

    try:
        return await demonstrated(
            factory, wanted, backend, options.tries, options.at_once, options.temperature, progress
        )
    except* AgentRLError as group:
        raise group.exceptions[0] from None
    finally:
        await backend.close()
