"""What the groups of commands share."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentrl_resources.dagster_resources import Workspace


def this_workspace() -> "Workspace":
    """The state folder that the environment names. Dagster is imported here, so that `--help` need not wait for it."""
    from agentrl_resources.dagster_resources import Workspace

    return Workspace.from_environment()
