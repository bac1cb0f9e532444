"""`agentrl keys`: who may use the gateway."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentrl_resources.gateway import KeyRing


def add_keys_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", everywhere: argparse.ArgumentParser
) -> None:
    """Adds `keys` with its own commands to the `agentrl` command."""
    keys = commands.add_parser("keys", help="API keys of the gateway", description="API keys of the gateway")
    parts = keys.add_subparsers(required=True, metavar="COMMAND")

    create = parts.add_parser("create", help="make a key and show it, once", parents=[everywhere])
    create.add_argument("name", metavar="NAME", help="such as that of the service that uses it")
    create.add_argument("--admin", action="store_true", help="it may use the admin routes")
    create.add_argument("--simulated", action="store_true", help="its traffic is marked as simulated")
    create.set_defaults(command=_create)

    shown = parts.add_parser(
        "list", help="the keys there are, without what they are checked against", parents=[everywhere]
    )
    shown.add_argument("--json", action="store_true", help="for scripts")
    shown.set_defaults(command=_list)

    revoke = parts.add_parser("revoke", help="a running gateway refuses the key within a second", parents=[everywhere])
    revoke.add_argument("name", metavar="NAME")
    revoke.set_defaults(command=_revoke)


def _create(options: argparse.Namespace) -> int:
    print(_keys().create(options.name, admin=options.admin, simulated=options.simulated))
    return 0


def _list(options: argparse.Namespace) -> int:
    rows = [asdict(key) for key in _keys().list()]
    for row in rows:
        del row["sha256"]
    if options.json:
        print(json.dumps(rows, indent=2))
    for row in [] if options.json else rows:
        marks = [mark for mark in ("admin", "simulated") if row[mark]]
        print("  ".join([row["name"], row["created_at"], *marks]))
    return 0


def _revoke(options: argparse.Namespace) -> int:
    _keys().revoke(options.name)
    print(f"{options.name}: revoked")
    return 0


def _keys() -> "KeyRing":
    from agentrl_resources.dagster_resources import Workspace
    from agentrl_resources.gateway import KeyRing

    return KeyRing(Workspace.from_environment().keys_file)
