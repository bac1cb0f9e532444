"""Finds a workflow by the name in `workflow.yaml`."""

import importlib
from difflib import get_close_matches
from pathlib import Path

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.base import Workflow

BUILT_IN = {"order_desk": "agentrl_resources.workflow.order_desk:OrderDeskWorkflow"}


def load_workflow(target: str, rubric: Path | None = None) -> Workflow:
    """A built-in workflow by name, or your own by `package.module:Class`.

    Args:
        target: the name, or the place of a class that offers `Workflow`.
        rubric: a rubric file to use in place of the workflow's own.

    Raises:
        AgentRLError: no such workflow.
    """
    place = BUILT_IN.get(target, target)
    module_name, _, class_name = place.partition(":")
    if not class_name:
        near = get_close_matches(target, BUILT_IN, n=1, cutoff=0.0)[0]
        raise AgentRLError(f"workflow `{target}` is neither built in (nearest: {near}) nor a `package.module:Class`.")
    try:
        workflow_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise AgentRLError(f"workflow `{target}` cannot be loaded: {error}. Check name and PYTHONPATH.") from error
    return workflow_class(rubric)
