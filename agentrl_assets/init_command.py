"""`agentrl init`: a folder with a small workflow of one's own that runs, to be changed into the real one."""

import argparse
import runpy
import shutil
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError

STARTERS = Path(__file__).parents[1] / "agentrl_resources" / "starters"


def add_init_command(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    what = "write a small workflow of your own that runs, to be changed into yours"
    init = commands.add_parser("init", help=what, description=what, parents=[everywhere])
    init.add_argument("folder", metavar="FOLDER", help="a new folder, or an empty one")
    kinds = sorted(path.name for path in STARTERS.iterdir() if (path / "workflow.yaml").is_file())
    init.add_argument(
        "--from",
        dest="kind",
        choices=kinds,
        default="trl",
        metavar="KIND",
        help=f"what you have: {', '.join(kinds)} (default trl: an environment class)",
    )
    init.set_defaults(command=_init)


def _init(options: argparse.Namespace) -> int:
    folder = Path(options.folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AgentRLError(f"{folder} is there already. Name a new folder: nothing is written over.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(STARTERS / options.kind, partial, ignore=shutil.ignore_patterns("__pycache__"))
    if (partial / "make_tasks.py").is_file():
        runpy.run_path(str(partial / "make_tasks.py"), run_name="__main__")
    if folder.exists():  # it is empty, and somebody may stand in it
        for file in partial.iterdir():
            file.rename(folder / file.name)
        partial.rmdir()
    else:
        partial.rename(folder)
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    print(f"{folder}: {files}\nNext: cd {folder} && agentrl doctor")
    return 0
