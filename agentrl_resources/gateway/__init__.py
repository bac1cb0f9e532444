"""The gateway: one OpenAI-compatible door for traffic, behind it the champion and the canary."""

from agentrl_resources.gateway.backends import (
    Backend,
    BackendError,
    Conversation,
    OnText,
    Sampling,
    Turn,
)
from agentrl_resources.gateway.breaker import Breaker, Trip, Watched
from agentrl_resources.gateway.bundle import BundleBackend
from agentrl_resources.gateway.channels import Channel
from agentrl_resources.gateway.keys import Key, KeyRing
from agentrl_resources.gateway.routing import bucket, goes_to_canary
from agentrl_resources.gateway.runs import UnderWay
from agentrl_resources.gateway.server import Address, backends, is_served, serve, serving
from agentrl_resources.gateway.service import Gateway, Loader

__all__ = [
    "Address",
    "Backend",
    "BackendError",
    "Breaker",
    "BundleBackend",
    "Channel",
    "Conversation",
    "Gateway",
    "Key",
    "KeyRing",
    "Loader",
    "OnText",
    "Sampling",
    "Trip",
    "Turn",
    "UnderWay",
    "Watched",
    "backends",
    "bucket",
    "goes_to_canary",
    "is_served",
    "serve",
    "serving",
]
