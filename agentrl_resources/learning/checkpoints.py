"""Training checkpoints: one folder per iteration, complete or absent.

A checkpoint is written under a temporary name, synced and renamed; only then are older ones deleted. So a crash or a
full disk at any moment leaves the last complete iteration.
"""

import shutil
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import full_disk_is_told, sync_tree

_PREFIX = "iteration-"


def save_checkpoint(folder: Path, iteration: int, state: dict[str, Any], kept: int = 2) -> Path:
    """Writes `state` (anything `torch.save` takes) as the checkpoint of `iteration`, and keeps the last `kept`.

    Raises:
        AgentRLError: the disk is full; earlier checkpoints are untouched.
    """
    import torch

    final = _place(folder, iteration)
    temporary = folder / f".{final.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with full_disk_is_told(final):
            temporary.mkdir(parents=True)
            with (temporary / "state.pt").open("wb") as stream:
                torch.save(state, stream)
            sync_tree(temporary)
            temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for outdated in _complete(folder)[:-kept]:
        shutil.rmtree(outdated)
    return final


def load_latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state of the latest complete iteration, or None when there is none."""
    complete = _complete(folder)
    return _load(complete[-1] / "state.pt") if complete else None


def load_checkpoint(folder: Path, iteration: int) -> dict[str, Any]:
    """The state of one iteration that is kept."""
    return _load(_place(folder, iteration) / "state.pt")


def _load(path: Path) -> dict[str, Any]:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise AgentRLError(f"{path}: cannot be read ({error}). Delete {path.parent} to go on before it.") from error


def _place(folder: Path, iteration: int) -> Path:
    return folder / f"{_PREFIX}{iteration:05d}"


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*"))
