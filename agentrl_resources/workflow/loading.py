"""Finds a workflow by the name in `workflow.yaml`."""

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.base import Workflow
from agentrl_resources.workflow.own import OwnWorkflow
from agentrl_resources.workflow.protocol_check import check_workflow
from agentrl_resources.workflow.rubric import load_rubric
from agentrl_resources.workflow.several import several
from agentrl_resources.workflow.tools import environment_class

TRACES = "traces"
"""The name of a workflow of which there are only traces."""
BUILT_IN = {
    "order_desk": "agentrl_resources.workflow.order_desk:OrderDeskWorkflow",
    TRACES: "agentrl_resources.traces:TracesWorkflow",  # stands above this package, is imported when asked for
}


def load_workflow(target: str, rubric: Path | None = None, tasks: Path | None = None) -> Workflow:
    """A built-in workflow by name, or your own by `package.module:Class`.

    Args:
        target: the name, or the place of a class that offers `Workflow`, or of an environment (`OwnWorkflow`).
        rubric: a rubric file to use in place of the workflow's own.
        tasks: the tasks of an environment; the traces of `traces`.

    Raises:
        AgentRLError: no such workflow; its module cannot be imported; it lacks something that a workflow has.
    """
    place = BUILT_IN.get(target, target)
    module_name, _, class_name = place.partition(":")
    if not class_name:
        near = get_close_matches(target, BUILT_IN, n=1, cutoff=0.0)[0]
        raise AgentRLError(f"workflow `{target}` is neither built in (nearest: {near}) nor a `package.module:Class`.")
    module = _module(target, module_name)
    try:
        make = getattr(module, class_name)
    except AttributeError as error:
        near_names = get_close_matches(class_name, vars(module), n=1)
        nearest = f" (nearest: {near_names[0]})" if near_names else ""
        raise AgentRLError(
            f"workflow `{target}` cannot be loaded: the module {module_name} ({module.__file__}) has no "
            f"`{class_name}`{nearest}. Name a class that is there."
        ) from error
    if target == TRACES:
        if tasks is None:
            raise AgentRLError(
                "workflow `traces` is made of a file of traces. Name it: `workflow.tasks: traces.jsonl`."
            )
        return make(tasks, load_rubric(rubric) if rubric else None)
    if isinstance(make, Mapping):
        make = several(make, target)
    if is_environment(make) or _makes_one(make):
        return _around(target, make, rubric, tasks)
    if tasks is not None:
        raise AgentRLError(f"workflow.tasks is for an environment, and `{target}` brings its own tasks. Take it out.")
    workflow = _made(target, make, rubric)
    check_workflow(workflow, target)
    return workflow


def is_environment(made: Any) -> bool:
    """Whether it is an environment by TRL's convention, and not a workflow that has one."""
    return inspect.isclass(made) and callable(getattr(made, "reset", None)) and not hasattr(made, "environment")


def _makes_one(made: Any) -> bool:
    """Whether it is a function without arguments that makes environments, as TRL takes them too."""
    if inspect.isclass(made) or not callable(made):
        return False
    try:
        return not inspect.signature(made).parameters and is_environment(environment_class(made))
    except Exception:  # it is the user's code, and is asked again below
        return False


def _around(target: str, environment: Callable[[], Any], rubric: Path | None, tasks: Path | None) -> Workflow:
    """A workflow made of an environment."""
    kind = environment_class(environment)
    if tasks is None and not inspect.ismethod(getattr(kind, "tasks", None)):
        raise AgentRLError(
            f"workflow `{target}` is an environment. Name the file of its tasks too, `workflow.tasks: tasks.jsonl`, a "
            "JSON object a line: what reset() is called with. Or give it a class method `tasks`, which yields them."
        )
    if not callable(getattr(kind, "get_reward", None)):
        raise AgentRLError(
            f"workflow `{target}`: {kind.__name__} has no `get_reward()`. It says how well an episode went: a "
            "number, of which 1 or more is success."
        )
    workflow = OwnWorkflow(environment, tasks, load_rubric(rubric) if rubric else None)
    check_workflow(workflow, target)
    return workflow


def _module(target: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a module runs any code when it is imported
        parents = [name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)]
        if isinstance(error, ModuleNotFoundError) and error.name in parents:
            said = f"there is no module {error.name}. Check name and PYTHONPATH."
        elif isinstance(error, TypeError | ValueError) and (not name or name.startswith(".")):
            said = "that is no name of a module. Write `package.module:Class`."
        else:
            said = f"importing {name} failed: {type(error).__name__}: {error}{_place(error)}. Mend it there."
        raise AgentRLError(f"workflow `{target}` cannot be loaded: {said}") from error


def _place(error: BaseException) -> str:
    """Where in the user's code it happened: the innermost place that is not Python's own import."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<frozen")]
    inside = [one for one in frames if one.filename not in (__file__, importlib.__file__)]
    if isinstance(error, SyntaxError) or not inside:  # says its place itself
        return ""
    return f" ({inside[-1].filename}, line {inside[-1].lineno})"


def _made(target: str, make: Any, rubric: Path | None) -> Any:
    takes = (
        "Its constructor takes one argument, a rubric file or None: `def __init__(self, rubric: Path | None = None)`."
    )
    if not callable(make):
        raise AgentRLError(
            f"workflow `{target}` is an instance of {type(make).__name__}. Name its class, which is made from a "
            "rubric file."
        )
    try:
        inspect.signature(make).bind(rubric)
    except TypeError as error:
        raise AgentRLError(f"workflow `{target}` cannot be made: {error}. {takes}") from error
    except ValueError:  # a class of C code has no signature
        pass
    try:
        return make(rubric)
    except AgentRLError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}{_place(error)}"
        raise AgentRLError(f"workflow `{target}` cannot be made: {said}. {takes}") from error
