"""The heavy stages of the pipeline, each a function of a `StageRequest`; `agentrl_resources.worker` runs them."""

from collections.abc import Callable
from importlib import import_module

from agentrl_resources.learning import free_memory, refuse_what_does_not_fit, repeatable
from agentrl_resources.stages.request import Progress, StageRequest, load_chat, read_request

STAGES = {
    "tokenizer": "tokenizer",
    "sft_checkpoint": "sft",
    "on_policy_preference_data": "on_policy",
    "reward_model": "reward",
    "ppo_policy": "ppo",
    "offline_eval_suite": "evaluate",
    "rl_alternatives": "alternatives",
    "rollback_drill": "rollback",
    "canary_rollout": "canary",
}
"""Stage (the asset it makes) -> module of this package whose `run` makes it."""


def stage(name: str) -> Callable[[StageRequest], None]:
    """The function that runs a stage, the same way each time."""
    run = import_module(f"{__name__}.{STAGES[name]}").run

    def repeatably(request: StageRequest) -> None:
        if needs := refuse_what_does_not_fit(name, request.settings, free_memory()):
            request.progress(0, 1, needs)
        repeatable(request.settings.seed)
        run(request)

    return repeatably


__all__ = ["STAGES", "Progress", "StageRequest", "load_chat", "read_request", "stage"]
