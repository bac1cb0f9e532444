"""The arms of the gateway: what a channel serves."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agentrl_resources.gateway.backends import Backend
from agentrl_resources.gateway.runs import UnderWay
from agentrl_resources.release import Manifest
from agentrl_resources.telemetry import version_name


@dataclass(eq=False)
class Channel:
    """One arm: a release with its backend, and the answers of it that are under way."""

    name: str
    release: str
    manifest: Manifest
    backend: Backend
    percent: float = 0.0
    under_way: UnderWay = field(default_factory=UnderWay)
    last_answer_at: float | None = None

    @cached_property
    def versions(self) -> dict[str, Any]:
        """What run records call the models of this release."""
        artifacts, names = self.manifest["artifacts"], self.manifest["settings"]["workflow"]

        def version(name: str, part: str) -> str | None:
            return version_name(name, artifacts[part]["digest"]) if part in artifacts else None

        baseline = version(names["baseline"], "sft_checkpoint") or version(names["baseline"], "policy")
        trained = "sft_checkpoint" in artifacts
        return {
            "model_version": baseline,
            "reward_model_version": version(names["reward_model"], "reward_model"),
            "policy_version": version(names["policy_training"], "policy") if trained else baseline,
        }
