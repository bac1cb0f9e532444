"""`agentrl release ...`: look at releases, compare them, move the pointers, clear a stop of expansion."""

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from agentrl_assets.commands import this_workspace
from agentrl_resources.errors import AgentRLError

if TYPE_CHECKING:
    from agentrl_resources.release import Pointers, Registry


def add_release_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", everywhere: argparse.ArgumentParser
) -> None:
    """The group `release`; `everywhere` has the options that each command takes."""
    what = "look at releases, compare them, and move the pointers"
    group = commands.add_parser("release", help=what, description=what)
    inside = group.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        added = inside.add_parser(name, help=what, description=what, parents=[everywhere])
        added.set_defaults(command=run)
        return added

    listed = command("list", _list, "every release with its pointers, gates and latest decision")
    show = command("show", _show, "one release: parts, verdicts, decisions, and what was done with it")
    show.add_argument("release", nargs="?", default="candidate", metavar="RELEASE", help="digest or pointer")
    diff = command("diff", _diff, "what changed between two releases, in words")
    diff.add_argument("old", nargs="?", default="champion", metavar="OLD", help="digest or pointer; default: champion")
    diff.add_argument("new", nargs="?", default="candidate", metavar="NEW", help="default: candidate")
    promote = command("promote", _promote, "make the canary the champion, once everything about it says GO")
    promote.add_argument("release", nargs="?", default="canary", metavar="RELEASE", help="default: canary")
    fail_back = command("fail-back", _fail_back, "end the canary: the champion gets all of the traffic")
    rollback = command("rollback", _rollback, "make the previous release the champion again, and end the canary")
    verify = command("verify", verify_release, "compute every digest and verdict of a release again, offline")
    verify.add_argument("release", nargs="?", default="candidate", metavar="RELEASE", help="digest or pointer")
    clear = command("clear", _clear, "end a stop of expansion")
    clear.add_argument("--reason", required=True, help="why expansion may go on; kept for ever")
    for moving in (promote, fail_back, rollback):
        moving.add_argument("--why", required=True, help="kept in the history")
    for acting in (promote, fail_back, rollback, clear):
        acting.add_argument("--who", help="default: the user of this machine")
    for with_json in (listed, show, diff, promote, fail_back, rollback, clear):
        with_json.add_argument("--json", action="store_true", help="for scripts")


def verify_release(options: argparse.Namespace) -> int:
    """Says what differs on stderr; 1 when something does."""
    from agentrl_assets.verification import differences

    workspace = this_workspace()
    release = workspace.registry.resolve(options.release)
    found = differences(release, workspace)
    for said in found:
        print(f"agentrl: {said}", file=sys.stderr)
    if not found:
        print(f"release {release[:12]}: every artifact, digest and verdict is as it was bundled")
    return 1 if found else 0


def _list(options: argparse.Namespace) -> int:
    registry = this_workspace().registry
    stop = registry.expansion.state()
    rows = [_row(registry, release) for release in registry.releases()]
    lines = [
        f"{row['release'][:12]}  {_roles(row['pointers'], registry.pointers()):<32} {_answers(row['gates']):<28}"
        f"canary {row['decision'] or 'not judged'}".rstrip()
        for row in rows
    ]
    state = f"EXPANSION is stopped: {' and '.join(stop.gates)} broke in {stop.week}" if stop.stopped else ""
    value = {"releases": rows, "pointers": asdict(registry.pointers()), "expansion": asdict(stop)}
    _print(options, value, "\n".join(filter(None, [*lines, state])) or "there is no release yet")
    return 0


def _row(registry: "Registry", release: str) -> dict[str, Any]:
    from agentrl_resources.release import POINTER_NAMES

    manifest, pointers = registry.manifest(release), registry.pointers()
    decisions = registry.decisions(release)
    return {
        "release": release,
        "pointers": [name for name in POINTER_NAMES if getattr(pointers, name) == release],
        "workflow": manifest["workflow"],
        "commit": manifest["code"]["commit"],
        "parent": manifest["parent"],
        "gates": {gate: manifest["verdicts"][gate]["answer"] for gate in manifest["gates"]},
        "decision": decisions[-1]["answer"] if decisions else None,
    }


def _roles(names: list[str], pointers: "Pointers") -> str:
    return ", ".join(f"canary ({pointers.canary_percent:g} %)" if name == "canary" else name for name in names)


def _answers(gates: dict[str, str]) -> str:
    wrong = [f"{gate} {answer}" for gate, answer in gates.items() if answer != "GO"]
    return "; ".join(wrong) or (f"{len(gates)} gates GO" if gates else "no gates (baseline)")


def _show(options: argparse.Namespace) -> int:
    registry = this_workspace().registry
    release = registry.resolve(options.release)
    row, manifest, decisions = _row(registry, release), registry.manifest(release), registry.decisions(release)
    history = _moves(registry, release)
    parts = [f"{name:<28}{part['kind']} {part['digest'][:12]}" for name, part in manifest["artifacts"].items()]
    gates = [f"{said['answer']:<6} {gate}: {said.get('reason', '')}" for gate, said in manifest["verdicts"].items()]
    canary = [f"{one['answer']:<6} {one.get('decided_at', '')} {one.get('reason', '')}" for one in decisions]
    moves = [f"{state.at}  {state.action} by {state.who}: {state.why}" for state in history]
    lines = [f"RELEASE {release}  {_roles(row['pointers'], registry.pointers())}".rstrip()]
    lines += [f"  workflow {row['workflow']}, commit {_short(row['commit'])}, parent {_short(row['parent'])}"]
    for title, under in (("PARTS", parts), ("GATES", gates), ("CANARY", canary), ("HISTORY", moves)):
        lines += [title, *(f"  {line}" for line in under)] if under else []
    value = {**row, "manifest": manifest, "decisions": decisions, "history": [asdict(state) for state in history]}
    _print(options, value, "\n".join(lines))
    return 0


def _moves(registry: "Registry", release: str) -> list["Pointers"]:
    """The changes that gave a release a part, took one away, or changed its share; the latest first."""
    from agentrl_resources.release import POINTER_NAMES, Pointers

    def part(state: Pointers) -> list[Any]:
        percent = state.canary_percent if state.canary == release else 0.0
        return [percent, *(getattr(state, name) == release for name in POINTER_NAMES)]

    states = [*registry.history(), Pointers()]
    return [after for after, before in pairwise(states) if part(after) != part(before)]


def _diff(options: argparse.Namespace) -> int:
    from agentrl_resources.release import differences_in_words

    registry = this_workspace().registry
    old, new = registry.resolve(options.old), registry.resolve(options.new)
    lines = differences_in_words(registry.manifest(old), registry.manifest(new))
    _print(options, {"old": old, "new": new, "changed": lines}, "\n".join([f"{old[:12]} -> {new[:12]}", *lines]))
    return 0


def _promote(options: argparse.Namespace) -> int:
    from agentrl_assets.verification import differences

    workspace = this_workspace()
    registry, seen = workspace.registry, workspace.registry.pointers()
    release = registry.resolve(options.release)
    found = differences(release, workspace)
    if found:
        raise AgentRLError(f"Release {release[:12]} is refused, it does not verify: {found[0]}")
    return _moved(options, registry.promote(release, who=_who(options), why=options.why, seen=seen))


def _fail_back(options: argparse.Namespace) -> int:
    registry = this_workspace().registry
    return _moved(options, registry.fail_back(who=_who(options), why=options.why, seen=registry.pointers()))


def _rollback(options: argparse.Namespace) -> int:
    registry = this_workspace().registry
    return _moved(options, registry.rollback(who=_who(options), why=options.why, seen=registry.pointers()))


def _clear(options: argparse.Namespace) -> int:
    expansion = this_workspace().registry.expansion
    state = expansion.clear(who=_who(options), reason=options.reason)
    still = f"expansion is still stopped: {' and '.join(state.gates)} broke in {state.week}"
    said = still if state.stopped else "expansion is open again"
    _print(options, asdict(expansion.clearings()[-1]), said)
    return 0


def _moved(options: argparse.Namespace, pointers: "Pointers") -> int:
    text = f"champion {_short(pointers.champion)}, previous {_short(pointers.previous)}"
    _print(options, {**asdict(pointers), "champion": pointers.champion, "previous": pointers.previous}, text)
    return 0


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _who(options: argparse.Namespace) -> str:
    try:
        return options.who or getpass.getuser()
    except (KeyError, OSError) as error:
        raise AgentRLError("This machine does not know who you are; say it with --who") from error


def _print(options: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value, indent=2) if options.json else text)
