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
from agentrl_resources.side_by_side import end_with_parent
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


def main() -> int:
    """Exit status 0; or 1 after one clear error on stderr."""
    # libraries are told before they are imported: no usage reports, no chatter, no lock-step with a hub
    os.environ.update(
        HF_HUB_DISABLE_TELEMETRY="1",
        TRANSFORMERS_VERBOSITY="error",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_DATASETS_DISABLE_PROGRESS_BARS="1",
        TOKENIZERS_PARALLELISM="false",
        TQDM_DISABLE="1",
    )
    end_with_parent()
    request_file = Path(sys.argv[1])
    try:
        with full_disk_is_told(Path(read_json(request_file)["output"])):
            run(request_file)
    except AgentRLError as error:
        print(f"agentrl: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from dagster_pipes import open_dagster_pipes

    if "DAGSTER_PIPES_CONTEXT" in os.environ:
        with open_dagster_pipes() as pipes:
            pipes.log.info(f"stage runs as process {os.getpid()}")
            status = main()
    else:
        status = main()
    sys.exit(status)
