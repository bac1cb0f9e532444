"""The rubric: what annotators score, and how much each criterion weighs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError


@dataclass(frozen=True)
class Criterion:
    name: str
    weight: float
    wording: str


@dataclass(frozen=True)
class Rubric:
    """Criteria scored 0..1. `text` is the file as written: its hash is the rubric's data version."""

    version: str
    criteria: tuple[Criterion, ...]
    text: str

    @cached_property
    def weights(self) -> dict[str, float]:
        return {criterion.name: criterion.weight for criterion in self.criteria}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file's text, 64 hex characters."""
        return sha256(self.text.encode()).hexdigest()

    def score(self, scores: Mapping[str, float]) -> float:
        """Weighted mean of the criteria, in 0..1."""
        total = sum(self.weights.values())
        return sum(weight * scores[name] for name, weight in self.weights.items()) / total


def load_rubric(path: Path) -> Rubric:
    """Reads a rubric file.

    Raises:
        AgentRLError: the file is missing, is not YAML, or a criterion lacks a wording or a positive numeric weight.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        data: Any = yaml.safe_load(text)
    except FileNotFoundError:
        raise AgentRLError(f"{path}: no such rubric file. Create it, or point the workflow at another one.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise AgentRLError(f"{path}: not a UTF-8 YAML file ({error}). Mend the file.") from None
    if not isinstance(data, dict) or not isinstance(data.get("criteria"), dict) or not data["criteria"]:
        raise AgentRLError(f"{path}: a rubric needs `version` and a mapping `criteria`. Add them.")
    if "version" not in data:
        raise AgentRLError(f"{path}: key `version` is missing. Add one, for example `version: '1'`.")
    criteria = tuple(_criterion(path, name, entry) for name, entry in data["criteria"].items())
    return Rubric(str(data["version"]), criteria, text)


def _criterion(path: Path, name: str, entry: Any) -> Criterion:
    where = f"{path}: criterion `{name}`"
    if not isinstance(entry, dict) or not isinstance(entry.get("wording"), str):
        raise AgentRLError(f"{where} needs `weight` (a number) and `wording` (a sentence). Add what is missing.")
    weight: Any = entry.get("weight")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
    if not is_number or weight <= 0:
        raise AgentRLError(f"{where}: weight {weight!r} is not a positive number. Write one, for example `weight: 5`.")
    return Criterion(name, float(weight), entry["wording"])
