"""The registry: releases, the pointers to them, and what has to hold before a pointer moves.

    releases/                    the manifests (manifests.py)
    pointers.json                which release is candidate, canary, champion: one file, swapped by one rename
    history/<revision>.json      every state that pointers.json had, with who, when and why
    decisions/<digest>/<n>.json  what the canary of a release was judged to be, each time that it was judged
    expansion/                   whether more traffic may go to new releases (expansion.py)

A state is written to the history first and takes effect when pointers.json is replaced; a revision above the current
one is a change that a crash cut off, and the next change overwrites it.

Expansion has to be earned: starting a canary, giving it more traffic and promoting it are refused otherwise. The way
back, failing the canary back and rolling the champion back, is always open.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import ArtifactStore, locked, read_json, write_json
from agentrl_resources.release.bundle import verify
from agentrl_resources.release.expansion import Expansion
from agentrl_resources.release.manifests import Manifest, Manifests

PointerName = Literal["candidate", "canary", "champion", "previous"]
POINTER_NAMES: tuple[PointerName, ...] = ("candidate", "canary", "champion", "previous")
ANSWERS = ("GO", "NO-GO", "HOLD")
BROKE_OFF = "break off"
"""What the history calls the end of a canary when the gateway itself ends it."""
DECIDED_AGAINST = "decide against"
"""The same when the statistics do."""


@dataclass(frozen=True)
class Pointers:
    """Which release plays which part, and the change that made it so. Revision 0 is the empty registry."""

    revision: int = 0
    candidate: str | None = None  # the release bundled last, whatever its gates said
    canary: str | None = None  # the release on trial
    canary_percent: float = 0.0  # share of sessions that the canary gets
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


class Registry(Manifests):
    """Releases and pointers below one folder of the state folder, beside the artifacts that the releases are made of.

    Every change names the state it was decided on (`seen`): of two that decide at once one wins, the other is told.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.expansion = Expansion(root / "expansion")

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

    def start_canary(self, release: str, percent: float, *, who: str, why: str, seen: Pointers) -> Pointers:
        """Put a release on trial with a share of the sessions, in percent.

        AgentRLError unless every gate says GO, every byte of it is as it was bundled, the champion is the release that
        it was bundled to go back to, no other canary is running, and expansion is not stopped.
        """
        refused = f"Release {release[:12]} is not made the canary"
        if seen.champion is None:
            raise AgentRLError(f"{refused}: there is no champion to compare it with")
        if seen.champion == release:
            raise AgentRLError(f"{refused}: it is the champion")
        if seen.canary is not None:
            raise AgentRLError(f"{refused}: {seen.canary[:12]} is. Promote that one or fail it back first")
        self._refuse_other_way_back(release, seen, refused)
        _refuse_share(percent)
        self._refuse_unproven(release, first=False)
        with self._deciding("start canary", seen):
            self._refuse_while_stopped()
            return self._write(seen, "start canary", who=who, why=why, canary=release, canary_percent=float(percent))

    def ramp(self, percent: float, *, who: str, why: str, seen: Pointers) -> Pointers:
        """Give the canary a larger share of the sessions. AgentRLError for a smaller one: a canary is failed back."""
        if seen.canary is None:
            raise AgentRLError(f"{self.root}: there is no canary to ramp")
        _refuse_share(percent)
        if percent <= seen.canary_percent:
            raise AgentRLError(
                f"The canary has {seen.canary_percent:g} % of the sessions: a ramp to {percent:g} % is refused, "
                "it only goes up. To take traffic away, fail the canary back"
            )
        with self._deciding("ramp", seen):
            self._refuse_while_stopped()
            return self._write(seen, "ramp", who=who, why=why, canary_percent=float(percent))

    def fail_back(self, *, who: str, why: str, seen: Pointers, action: str = "fail back") -> Pointers:
        """End the canary: all traffic goes to the champion. `action` says in the history how it came to its end."""
        if seen.canary is None:
            raise AgentRLError(f"{self.root}: there is no canary to fail back")
        return self.swap(action, who=who, why=why, seen=seen, canary=None, canary_percent=0.0)

    def promote(self, release: str, *, who: str, why: str, seen: Pointers) -> Pointers:
        """Make the canary the champion; the present champion is then the previous one.

        AgentRLError unless every gate says GO, every byte of it is as it was bundled, the latest decision on its
        present canary is GO, and expansion is not stopped. A release that `serves_the_same` as the champion needs no
        canary and takes its place, so that a rollback goes to another policy; the first champion needs neither canary
        nor gates.
        """
        if seen.champion == release:
            return seen
        self._refuse_unproven(release, first=seen.champion is None)
        with self._deciding("promote", seen):
            self._refuse_while_stopped()
            champions = (*self._champions_below(release, seen), release)
            return self._write(seen, "promote", who=who, why=why, champions=champions, canary=None, canary_percent=0.0)

    def rollback(self, *, who: str, why: str, seen: Pointers) -> Pointers:
        """Make the previous release the champion again, and end the canary. A second rollback goes one further back."""
        if seen.previous is None:
            raise AgentRLError(f"{self.root}: there is no previous release to roll back to")
        champions = seen.champions[:-1]
        return self.swap("rollback", who=who, why=why, seen=seen, champions=champions, canary=None, canary_percent=0.0)

    def swap(self, action: str, *, who: str, why: str, seen: Pointers, **changes: Any) -> Pointers:
        """Change fields of the pointers, all at once, whatever the rules of expansion say: for the way back, and for
        rehearsals in a registry of their own. AgentRLError when they are no longer the ones that were seen."""
        with self._deciding(action, seen):
            return self._write(seen, action, who=who, why=why, **changes)

    def record_decision(self, release: str, decision: Mapping[str, Any], seen: Pointers | None = None) -> None:
        """Keep for ever what a canary was judged to be: plain values, with at least `answer` (GO, NO-GO or HOLD).

        `seen`: the state that it was judged on; left out, the present one.
        """
        if decision.get("answer") not in ANSWERS:
            raise AgentRLError(f"A decision answers {', '.join(ANSWERS)}; this one says {decision.get('answer')!r}")
        self.manifest(release)
        with locked(self.root / "lock"):
            path = self.root / "decisions" / release / f"{len(self._decision_paths(release)) + 1:08d}.json"
            write_json(path, {**decision, "revision": (seen or self.pointers()).revision})

    def decisions(self, release: str) -> list[dict[str, Any]]:
        """Every decision on a release, the first one first, with the `revision` of the pointers it was taken on."""
        return [read_json(path) for path in self._decision_paths(release)]

    def way_back(self, manifest: Manifest, seen: Pointers) -> str | None:
        """The release that a rollback would go back to, were one with this manifest promoted: another policy always."""
        if seen.champion is None or not serves_the_same(manifest, self.manifest(seen.champion)):
            return seen.champion
        return seen.previous

    def first_with_its_policy(self, release: str) -> str:
        """The earliest of the release and its parents in line that serve the same: the one whose canary tried it."""
        manifest = self.manifest(release)
        while manifest["parent"] is not None:
            parent = self.manifest(manifest["parent"])
            if not serves_the_same(manifest, parent):
                break
            release, manifest = manifest["parent"], parent
        return release

    def champions(self) -> set[str]:
        """Every release that was ever the champion."""
        return {state.champion for state in self.history() if state.champion is not None}

    def canary_start(self) -> Pointers | None:
        """The change that made the present canary the canary; None when there is none."""
        canary, start = self.pointers().canary, None
        for state in self.history():
            if canary is None or state.canary != canary:
                break
            start = state
        return start

    def canary_end(self) -> tuple[str, Pointers] | None:
        """The release that was the canary last and is not any more, and the change that ended it."""
        for end, before in pairwise(self.history()):
            if before.canary is not None and before.canary != end.canary:
                return before.canary, end
        return None

    def _refuse_unproven(self, release: str, *, first: bool) -> None:
        manifest = self.manifest(release)
        if not manifest["gates"] and not first:
            raise AgentRLError(f"Release {release[:12]} is refused: no gate has judged it")
        answers = {gate: manifest["verdicts"].get(gate, {}).get("answer", "HOLD") for gate in manifest["gates"]}
        refusals = [f"{gate} says {answer}" for gate, answer in answers.items() if answer != "GO"]
        if refusals:
            raise AgentRLError(f"Release {release[:12]} is refused: {'; '.join(refusals)}")
        differences = verify(release, self, ArtifactStore(self.root.parent))
        if differences:
            raise AgentRLError(f"Release {release[:12]} is refused, it does not verify: {differences[0]}")

    def _refuse_other_way_back(self, release: str, seen: Pointers, refused: str) -> None:
        manifest = self.manifest(release)
        target, found = manifest.get("rollback_target"), self.way_back(manifest, seen)
        if target is not None and target != found:
            raise AgentRLError(
                f"{refused}: it was bundled to go back to {target[:12]}, and that would be {found and found[:12]} now. "
                "Bundle it again: agentrl run --select release_bundle"
            )

    def _champions_below(self, release: str, seen: Pointers) -> tuple[str, ...]:
        """The champions that stay below the release when it is promoted. AgentRLError when it is untried."""
        if seen.champion is None:
            return ()
        refused = f"Release {release[:12]} is not promoted"
        if seen.canary is None and serves_the_same(self.manifest(release), self.manifest(seen.champion)):
            self._refuse_other_way_back(release, seen, refused)
            return seen.champions[:-1]
        start = self.canary_start()
        if start is None or seen.canary != release:
            raise AgentRLError(f"{refused}: it is not the canary")
        decisions = [one for one in self.decisions(release) if one["revision"] >= start.revision]
        if not decisions or decisions[-1]["answer"] != "GO":
            said = decisions[-1]["answer"] if decisions else "not taken yet"
            raise AgentRLError(f"{refused}: the decision on its canary is {said}")
        return seen.champions

    def _refuse_while_stopped(self) -> None:
        state = self.expansion.state()
        if state.stopped:
            raise AgentRLError(
                f"Expansion is stopped: {' and '.join(state.gates)} broke in {state.week}. "
                "Find out why, then: agentrl release clear --reason ..."
            )

    @contextmanager
    def _deciding(self, action: str, seen: Pointers) -> Iterator[None]:
        with locked(self.root / "lock"):
            current = self.pointers()
            if current != seen:
                raise AgentRLError(
                    f"{self.root}: {action} is refused, the pointers have changed since they were read: "
                    f"'{current.action}' by {current.who} at {current.at} ({current.why}). Look again, then decide."
                )
            yield

    def _write(self, seen: Pointers, action: str, *, who: str, why: str, **changes: Any) -> Pointers:
        if not (who.strip() and why.strip()):
            raise AgentRLError(f"{self.root}: {action} is refused, say who wants it and why")
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        state = replace(seen, revision=seen.revision + 1, action=action, who=who, why=why, at=at, **changes)
        named = [changes.get("candidate"), changes.get("canary"), *changes.get("champions", ())[-1:]]
        for release in filter(None, named):
            self.manifest(release)
        write_json(self._history_path(state.revision), asdict(state))
        write_json(self.root / "pointers.json", asdict(state))
        return state

    def _history_path(self, revision: int) -> Path:
        return self.root / "history" / f"{revision:08d}.json"

    def _decision_paths(self, release: str) -> list[Path]:
        return sorted((self.root / "decisions" / release).glob("*.json"))


def serves_the_same(one: Manifest, other: Manifest) -> bool:
    """Whether two releases (their manifests) answer alike: one policy for one workflow, each from its own bundle.

    What a server elsewhere answers, no manifest can tell.
    """

    def policy(manifest: Manifest) -> str | None:
        gateway = manifest["settings"].get("gateway", {})
        elsewhere = gateway.get("champion_url") or gateway.get("canary_url")
        return None if elsewhere else manifest["artifacts"].get("policy", {}).get("digest")

    return policy(one) is not None and policy(one) == policy(other) and one["workflow"] == other["workflow"]


def _refuse_share(percent: float) -> None:
    if not 0 < percent <= 100:
        raise AgentRLError(f"A canary gets more than 0 and at most 100 % of the sessions, not {percent:g} %")


def _read_pointers(path: Path) -> Pointers:
    fields = read_json(path)
    return Pointers(**{**fields, "champions": tuple(fields["champions"])})
