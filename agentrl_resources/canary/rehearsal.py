"""Releases without a bundle, for what is tried out in a registry of its own."""

from agentrl_resources.release import BUCKETS, Registry
from agentrl_resources.settings import Settings


def rehearsal_release(registry: Registry, settings: Settings, arm: str, salt: str) -> str:
    """Adds a release that holds what a gateway reads of one, and returns its digest. Its policy comes from a loader."""
    return registry.add(
        {
            "rehearsal": arm,
            "artifacts": {},
            "settings": {"workflow": settings.workflow.model_dump()},
            "routing": {"salt": salt, "buckets": BUCKETS},
        }
    )
