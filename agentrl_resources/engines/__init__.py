"""Engines: who samples the tokens of a policy's turns, this process or a server."""

from typing import Any

from agentrl_resources.engines.launch import launched
from agentrl_resources.engines.layers import KINDS, is_small, masks_for, upcast
from agentrl_resources.engines.local import LocalEngine
from agentrl_resources.engines.protocol import Engine, How, Publication, Server, Written
from agentrl_resources.engines.vllm import VllmEngine
from agentrl_resources.engines.vllm_server import Capabilities, VllmServer

__all__ = [
    "KINDS",
    "Capabilities",
    "Engine",
    "How",
    "LocalEngine",
    "Publication",
    "Server",
    "VllmEngine",
    "VllmServer",
    "Written",
    "buffered_cache",
    "is_small",
    "launched",
    "masks_for",
    "upcast",
]


def buffered_cache(config: Any) -> Any:
    """A cache of keys and values for rows that advance in lock step. transformers is loaded with it."""
    from agentrl_resources.engines import cache

    return cache.buffered_cache(config)
