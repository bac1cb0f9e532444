"""Releases and the pointers to them.

    releases/<digest>.json    a manifest, named by the SHA-256 of its bytes, never changed
    pointers.json             which release is candidate, canary, champion and previous: one file, swapped by one rename
    history/<revision>.json   every state that pointers.json had, with who, when and why

A state is written to the history first and takes effect when pointers.json is replaced; a revision above the current
one is a change that a crash cut off, and the next change overwrites it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json, digest_bytes, locked, read_json, write_atomic, write_json

Manifest = dict[str, Any]
PointerName = Literal["candidate", "canary", "champion", "previous"]
POINTER_NAMES: tuple[PointerName, ...] = ("candidate", "canary", "champion", "previous")


@dataclass(frozen=True)
class Pointers:
    """Which release plays which part, and the change that made it so. Revision 0 is the empty registry."""

    revision: int = 0
    candidate: str | None = None  # the release bundled last, whatever its gates said
    canary: str | None = None  # gets the canary's share of traffic
    champions: tuple[str, ...] = ()  # in order of promotion; a rollback takes the last one away
    action: str = ""
    who: str = ""
    why: str = ""
    at: str = ""  # UTC, ISO 8601

    @property
    def champion(self) -> str | None:
        """The release that gets the traffic which the canary does not."""
        return self.champions[-1] if self.champions else None

    @property
    def previous(self) -> str | None:
        """The release that a rollback goes back to."""
        return self.champions[-2] if len(self.champions) > 1 else None


class Registry:
    """Releases and pointers below one folder. Every change names the state it was decided on (`seen`)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, manifest: Manifest) -> str:
        """Store a manifest for ever and return its digest. The same manifest again is the same release."""
        data = canonical_json(manifest)
        release = digest_bytes(data)
        write_atomic(self._manifest_path(release), data)
        return release

    def manifest(self, release: str) -> Manifest:
        """The manifest of a release (full digest). AgentRLError when it is unknown or not what its name says."""
        path = self._manifest_path(release)
        if not path.exists():
            raise AgentRLError(f"{path}: there is no release {release[:12]} here")
        data = path.read_bytes()
        found = digest_bytes(data)
        if found != release:
            raise AgentRLError(f"{path} has changed: its SHA-256 should be {release[:12]}, it is {found[:12]}")
        manifest: Manifest = json.loads(data)
        return manifest

    def releases(self) -> list[str]:
        """The digests of all releases, sorted."""
        return sorted(path.stem for path in (self.root / "releases").glob("*.json"))

    def resolve(self, name: str) -> str:
        """The digest that a pointer's name or the first characters of a digest stand for."""
        if name in POINTER_NAMES:
            release = getattr(self.pointers(), name)
            if release is None:
                raise AgentRLError(f"{self.root}: there is no {name} yet")
            return str(release)
        matches = [release for release in self.releases() if release.startswith(name)]
        if len(matches) != 1:
            known = ", ".join(release[:12] for release in self.releases()) or "none"
            problem = "more than one release begins with" if matches else "no release is called"
            raise AgentRLError(
                f"{self.root}: {problem} '{name}'. Pointers: {', '.join(POINTER_NAMES)}; releases: {known}"
            )
        return matches[0]

    def pointers(self) -> Pointers:
        """The current state."""
        path = self.root / "pointers.json"
        return _read_pointers(path) if path.exists() else Pointers()

    def history(self) -> Iterator[Pointers]:
        """Every state that there was, the current one first."""
        for revision in range(self.pointers().revision, 0, -1):
            yield _read_pointers(self._history_path(revision))

    def propose(self, release: str, *, who: str, why: str, seen: Pointers) -> Pointers:
        """Make a release the candidate: the one that `verify` and `status` speak of by default."""
        return self.swap("propose", who=who, why=why, seen=seen, candidate=release)

    def promote(self, release: str, *, who: str, why: str, seen: Pointers) -> Pointers:
        """Make a release the champion; the present champion is then the previous one.

        AgentRLError unless every gate has said GO; only the first champion needs no gates.
        """
        manifest = self.manifest(release)
        if seen.champion == release:
            return seen
        if not manifest["gates"] and seen.champion:
            raise AgentRLError(f"Release {release[:12]} is not promoted: no gate has judged it")
        answers = {gate: manifest["verdicts"].get(gate, {}).get("answer", "HOLD") for gate in manifest["gates"]}
        refusals = [f"{gate} says {answer}" for gate, answer in answers.items() if answer != "GO"]
        if refusals:
            raise AgentRLError(f"Release {release[:12]} is not promoted: {'; '.join(refusals)}")
        canary = None if seen.canary == release else seen.canary
        return self.swap("promote", who=who, why=why, seen=seen, champions=(*seen.champions, release), canary=canary)

    def rollback(self, *, who: str, why: str, seen: Pointers) -> Pointers:
        """Make the previous release the champion again, and end the canary. A second rollback goes one further back."""
        if seen.previous is None:
            raise AgentRLError(f"{self.root}: there is no previous release to roll back to")
        return self.swap("rollback", who=who, why=why, seen=seen, champions=seen.champions[:-1], canary=None)

    def swap(self, action: str, *, who: str, why: str, seen: Pointers, **changes: Any) -> Pointers:
        """Change fields of the pointers, all at once. AgentRLError when they are no longer the ones that were seen."""
        with locked(self.root / "lock"):
            current = self.pointers()
            if current != seen:
                raise AgentRLError(
                    f"{self.root}: {action} is refused, the pointers have changed since they were read: "
                    f"'{current.action}' by {current.who} at {current.at} ({current.why}). Look again, then decide."
                )
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            state = replace(current, revision=current.revision + 1, action=action, who=who, why=why, at=at, **changes)
            for release in filter(None, (changes.get("candidate"), changes.get("canary"), state.champion)):
                self.manifest(release)
            write_json(self._history_path(state.revision), asdict(state))
            write_json(self.root / "pointers.json", asdict(state))
        return state

    def _manifest_path(self, release: str) -> Path:
        return self.root / "releases" / f"{release}.json"

    def _history_path(self, revision: int) -> Path:
        return self.root / "history" / f"{revision:08d}.json"


def _read_pointers(path: Path) -> Pointers:
    fields = read_json(path)
    return Pointers(**{**fields, "champions": tuple(fields["champions"])})
