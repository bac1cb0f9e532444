"""Runs one heavy stage in a process of its own:

    python -m agentrl_resources.worker REQUEST.json

The request names the stage, its inputs and where its output goes (see `Training.run`). One launch like this becomes
`accelerate launch` on many accelerators, or a job of Kubernetes or Ray, without a change in the assets.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import full_disk_is_told, read_json
from agentrl_resources.forkserver import ENVIRONMENT, Say
from agentrl_resources.stages.request import Progress

EVERY_SECONDS = 1.0
"""Progress is written at most this often, and always at a stage's first and last step."""


def progress_writer(path: Path, stage: str) -> Progress:
    """A function that appends one JSON line per report: stage, step, of, message, eta_seconds, at.

    `of` is 0 where nobody knows how many steps it will take.
    """
    started = time.monotonic()
    last = -EVERY_SECONDS

    def report(step: int, of: int, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if (step < of or of == 0) and now - last < EVERY_SECONDS:
            return
        last = now
        line = {
            "stage": stage,
            "step": step,
            "of": of,
            "message": message,
            "eta_seconds": (now - started) / step * (of - step) if step else None,
            "at": datetime.now(UTC).isoformat(),
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    return report


def run(file: Path) -> None:
    """Fills the output folder of the request in `file`."""
    from agentrl_resources.stages import read_request, stage

    name, progress_file = (read_json(file)[key] for key in ("stage", "progress"))
    progress = progress_writer(Path(progress_file), name)
    progress(0, 1, "loading libraries")
    stage(name)(read_request(file, progress))


def fill(say: Say, file: Path) -> None:
    """The same as work for a forked process (`forkserver.Forked`), which says its number."""
    say(os.getpid())
    with full_disk_is_told(Path(read_json(file)["output"])):
        run(file)


def main() -> int:
    """Exit status 0; or 1 after one clear error on stderr."""
    os.environ.update(ENVIRONMENT | dict(os.environ))
    try:
        fill(lambda _: None, Path(sys.argv[1]))
    except AgentRLError as error:
        print(f"agentrl: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
