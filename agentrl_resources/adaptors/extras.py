"""Packages that only some adaptors need."""

import importlib
from typing import Any

from agentrl_resources.errors import AgentRLError


def needs(module: str, extra: str) -> Any:
    """The module. AgentRLError where it is not installed: which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise AgentRLError(f"{module} is not installed. Install it: pip install 'agentrl-release[{extra}]'") from error
