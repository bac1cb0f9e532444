"""The rubric: what annotators score, how much each criterion weighs, and which of them decide more than a mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError

ROLES = ("outcome", "safety", "honesty")
"""What a criterion can stand for: whether the request was solved, that nothing forbidden was done, and that what was
said is true. One criterion at most is the outcome."""
_KEYS = ("weight", "wording", "role")


@dataclass(frozen=True)
class Criterion:
    """One thing that is scored."""

    name: str
    weight: float
    wording: str
    role: str | None = None

    @property
    def stands_for(self) -> str | None:
        """Its role. Without one it has the role that it is named like, if it is."""
        return self.role or (self.name if self.name in ROLES else None)


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

    def named(self, role: str) -> tuple[str, ...]:
        """The names of the criteria with a role."""
        return tuple(one.name for one in self.criteria if one.stands_for == role)

    def met(self, role: str, scores: Mapping[str, float]) -> bool | None:
        """Whether what has this role was reached: above the middle of 0..1 in each of its criteria that were scored.

        None when none of them was, or the rubric has none: nobody knows then.
        """
        found = [scores[name] for name in self.named(role) if name in scores and 0 <= scores[name] <= 1]
        return all(value > 0.5 for value in found) if found else None

    def score(self, scores: Mapping[str, float]) -> float:
        """Weighted mean of the criteria, in 0..1. AgentRLError when one has no score."""
        if missing := self.weights.keys() - scores.keys():
            names = ", ".join(f"`{name}`" for name in self.weights if name in missing)
            raise AgentRLError(f"rubric {self.version}: no score for {names}. Score every criterion, or take it out.")
        total = sum(self.weights.values())
        return sum(weight * scores[name] for name, weight in self.weights.items()) / total


def load_rubric(path: Path) -> Rubric:
    """Reads a rubric file.

    Raises:
        AgentRLError: the file is missing, is not YAML, a criterion lacks a wording or a positive numeric weight, or a
            role is unknown or given to two criteria of which there can be one.
    """
    try:
        return read_rubric(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise AgentRLError(f"{path}: no such rubric file. Create it, or point the workflow at another one.") from None
    except UnicodeDecodeError as error:
        raise AgentRLError(f"{path}: not a UTF-8 YAML file ({error}). Mend the file.") from None


def read_rubric(text: str, path: Path | str) -> Rubric:
    """A rubric from a file's text; `path` is what errors call it. AgentRLError as `load_rubric`."""
    import yaml

    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AgentRLError(f"{path}: not a UTF-8 YAML file ({error}). Mend the file.") from None
    if not isinstance(data, dict) or not isinstance(data.get("criteria"), dict) or not data["criteria"]:
        raise AgentRLError(f"{path}: a rubric needs `version` and a mapping `criteria`. Add them.")
    if "version" not in data:
        raise AgentRLError(f"{path}: key `version` is missing. Add one, for example `version: '1'`.")
    criteria = tuple(_criterion(path, name, entry) for name, entry in data["criteria"].items())
    rubric = Rubric(str(data["version"]), criteria, text)
    if len(rubric.named("outcome")) > 1:
        both = " and ".join(f"`{name}`" for name in rubric.named("outcome"))
        raise AgentRLError(
            f"{path}: {both} both have the role `outcome`. Leave it to the one that says what was solved."
        )
    return rubric


def _criterion(path: Path | str, name: str, entry: Any) -> Criterion:
    where = f"{path}: criterion `{name}`"
    if not isinstance(entry, dict) or not isinstance(entry.get("wording"), str):
        raise AgentRLError(f"{where} needs `weight` (a number) and `wording` (a sentence). Add what is missing.")
    weight: Any = entry.get("weight")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
    if not is_number or weight <= 0:
        raise AgentRLError(f"{where}: weight {weight!r} is not a positive number. Write one, for example `weight: 5`.")
    for key in entry.keys() - _KEYS:
        if meant := get_close_matches(str(key).lower(), _KEYS, n=1):
            raise AgentRLError(f"{where}: there is no key `{key}`. Write `{meant[0]}`.")
    role = entry.get("role")
    if role is not None and role not in ROLES:
        raise AgentRLError(f"{where}: there is no role {role!r}. Choose among: {', '.join(ROLES)}.")
    return Criterion(str(name), float(weight), entry["wording"], role)
