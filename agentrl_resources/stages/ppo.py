"""Stage `ppo_policy`: the policy learns from the reward model. The verifier only watches, unless settings weigh it."""

from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.learning import (
    PpoTrainer,
    Ranks,
    RewardModel,
    TrainingState,
    WeightedReward,
    how_far,
    in_parts,
    learned,
    load_policy,
    load_scorer,
    recomputed,
    whole,
)
from agentrl_resources.plotting import ACCENT, BAD, CANDIDATE, GOOD, INK, picture
from agentrl_resources.stages.pieces import in_ranks
from agentrl_resources.stages.request import StageRequest, load_chat, save_with_format, uses_tools
from agentrl_resources.stages.sampling import SamplerOf, sampling
from agentrl_resources.workflow import EpisodeFactory, Task

FIRST_SEED = 1_000
"""Rollout tasks come from their own seeds, so that no two iterations and no other stage share a task."""


def run(request: StageRequest) -> None:
    settings = request.settings
    state, moved = in_ranks(request, _train, settings.ppo.minibatch)
    draw(request.output, state.history, request.made_up)
    request.report(
        {
            "history": state.history,
            "stopped": state.stopped,
            "why_it_ended": state.stopped or f"all {settings.ppo.iterations} iterations done",
            "kl": state.kl,
            "kl_ceiling": settings.ppo.kl_ceiling,
            "moved": moved,
        }
    )


def _train(request: StageRequest, ranks: Ranks) -> tuple[TrainingState, float]:
    """Trains the policy and writes it to the output folder; how training went, and how far its weights have come."""
    sft = request.inputs["sft_checkpoint"]
    if not uses_tools(sft):
        raise AgentRLError(
            f"the preference data hold no conversation with tools, so there is no policy for {request.workflow.name} "
            "to train. Give pairs of episodes that call its tools, or stop at the reward model: "
            "agentrl run --select reward_model"
        )
    with sampling(request, sft, ranks) as sampler_of:
        return _trained(request, ranks, sampler_of)


def _trained(request: StageRequest, ranks: Ranks, sampler_of: SamplerOf) -> tuple[TrainingState, float]:
    settings = request.settings
    factory = EpisodeFactory(request.workflow)
    sft = request.inputs["sft_checkpoint"]
    chat = load_chat(sft, factory)
    policy = in_parts(lambda: recomputed(load_policy(sft), settings.policy), ranks)
    reference = in_parts(lambda: load_policy(sft), ranks).eval()
    scorer = request.inputs["reward_model"]
    reward_model = RewardModel(in_parts(lambda: load_scorer(scorer), ranks)) if settings.ppo.model_weight else None
    trainer = PpoTrainer(
        sampler_of(policy, chat, factory),
        reference,
        WeightedReward(reward_model, settings.ppo.model_weight, settings.ppo.verifier_weight),
        in_parts(lambda: recomputed(load_scorer(scorer), settings.policy), ranks),
        settings.ppo,
        settings.seed,
        request.work,
        ranks,
    )

    def tasks(iteration: int, count: int) -> list[Task]:
        return request.workflow.tasks("train", count, FIRST_SEED * (settings.seed + 1) + iteration)

    def progress(state: TrainingState) -> None:
        last = state.history[-1]
        message = state.stopped or f"reward {last['score']:+.2f}, KL {last['kl']:.1f} nats"
        request.progress(state.iteration, settings.ppo.iterations + 1, message)  # the last one only measures

    state = trainer.train(tasks, progress)
    if (trained := whole(policy, ranks)) is not None:
        save_with_format(trained, chat, True, request.output)
    return state, how_far(policy, learned(reference))


def draw(folder: Path, history: list[dict[str, Any]], simulated: str) -> None:
    """How training went, and whether success followed the reward. `simulated`: what the titles end with."""
    history = [entry for entry in history if {"score", "kl", "success"} <= set(entry)]
    steps = [entry["iteration"] for entry in history]

    def series(name: str) -> list[Any]:
        return [entry.get(name) for entry in history]

    with picture(folder / "training.png", columns=2) as axes:
        axes[0].plot(steps, series("success"), color=GOOD, label="true success (watched, not learned from)")
        axes[0].plot(steps, series("no_action"), color=ACCENT, label="episodes without any action")
        axes[0].plot(steps, series("safety_violations"), color=BAD, label="safety violations")
        axes[0].set(title=f"Rollouts over PPO iterations{simulated}", xlabel="iteration", ylim=(0, 1))
        axes[0].legend()
        axes[1].plot(steps, series("kl"), color=INK)
        axes[1].set(title="KL to the SFT reference", xlabel="iteration", ylabel="nats per episode")
    with picture(folder / "hacking.png") as axes:
        axes.plot(series("score"), series("success"), "o-", color=CANDIDATE)
        for step, x, y in zip(steps, series("score"), series("success"), strict=True):
            axes.annotate(str(step), (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axes.set(
            title=f"Reward against true success{simulated}",
            xlabel="reward (-2 to 2; SFT's mean score is 0)",
            ylabel="true success",
        )
