"""The project that this code location serves, read from the environment once, when it is imported."""

from functools import reduce

from pydantic import BaseModel

from agentrl_resources.dagster_resources import Training, Workspace
from agentrl_resources.files import digest_json
from agentrl_resources.stages import STAGES

WORKSPACE = Workspace.from_environment()
SETTINGS = WORKSPACE.settings
TRAINING = Training(workspace=WORKSPACE)


def code_version(code: str | tuple[str, ...], *settings: str, workflow: bool = False) -> str:
    """A code version: the digest of the code behind an asset, and that of what else the asset depends on.

    Args:
        code: where the work begins, as `package.module:function`; what it uses is found from there.
        settings: dotted names such as `sft` or `seed`.
        workflow: the target and its source code count too.
    """
    places = (code,) if isinstance(code, str) else code
    digest = WORKSPACE.code.digest(*places)
    if digest is None:
        raise LookupError(f"no such code: {', '.join(places)}")
    values: dict[str, object] = {name: reduce(getattr, name.split("."), SETTINGS) for name in settings}
    if workflow:
        values["workflow.target"] = [SETTINGS.workflow.target, WORKSPACE.workflow_code]
    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value for name, value in values.items()
    }
    return f"{digest[:12]}-{digest_json(plain)[:12]}"


def stage_code(stage: str) -> tuple[str, ...]:
    """Where the work of a stage begins (see `agentrl_resources.stages`)."""
    return "agentrl_resources.stages:stage", f"agentrl_resources.stages.{STAGES[stage]}:run"
