"""The project that this code location serves, read from the environment once, when it is imported."""

from functools import reduce

from pydantic import BaseModel

from agentrl_resources.dagster_resources import Training, Workspace
from agentrl_resources.files import digest_json

WORKSPACE = Workspace.from_environment()
SETTINGS = WORKSPACE.settings
TRAINING = Training(workspace=WORKSPACE)


def code_version(number: int, *settings: str, workflow: bool = False) -> str:
    """A code version: the number, raised by hand when the code behind an asset changes, and what else it depends on.

    `settings` are dotted names such as `sft` or `seed`; `workflow` stands for the target and its source code.
    """
    values: dict[str, object] = {name: reduce(getattr, name.split("."), SETTINGS) for name in settings}
    if workflow:
        values["workflow.target"] = [SETTINGS.workflow.target, WORKSPACE.workflow_code]
    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value for name, value in values.items()
    }
    return f"{number}-{digest_json(plain)[:12]}"
