"""Stage `sft_checkpoint`: the baseline, and how often it solves tasks of each type that it has not seen."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import Encoded
from agentrl_resources.learning import (
    Ranks,
    Sampler,
    copied,
    has_adapter,
    hash_seed,
    how_far,
    in_parts,
    indistinct,
    learned,
    load_policy,
    new_model,
    recomputed,
    train_sft,
    whole,
)
from agentrl_resources.plotting import BASELINE, INK, picture
from agentrl_resources.preferences import Pair
from agentrl_resources.stages.pieces import in_ranks
from agentrl_resources.stages.request import StageRequest, load_chat, save_with_format, uses_tools
from agentrl_resources.stages.sampling import sampling
from agentrl_resources.workflow import EpisodeFactory, Rubric, recorded_tools

HOLDOUT_ROWS = 256


def run(request: StageRequest) -> None:
    settings = request.settings
    report = in_ranks(request, _train, settings.sft.batch_size)
    if uses_tools(request.output) and recorded_tools(request.workflow) is None:
        factory = EpisodeFactory(request.workflow)
        with sampling(request, request.output) as sampler_of:
            sampler = sampler_of(load_policy(request.output), load_chat(request.output, factory), factory)
            report |= _probe(request, sampler)
    draw(request.output / "training.png", report, request.made_up)
    request.report(report)


def _train(request: StageRequest, ranks: Ranks) -> dict[str, Any]:
    """Trains the checkpoint and writes it to the output folder; what is known of it from training."""
    settings = request.settings
    chat = load_chat(request.inputs["tokenizer"], EpisodeFactory(request.workflow))
    rubric, given = request.workflow.rubric, request.pairs("cleaned_preference_data", "train.jsonl")
    safe = [pair for pair in given if worth_imitating(pair, rubric)]
    train = once_a_run([*safe, *request.demonstrations("train")])
    held_out = [*request.pairs("cleaned_preference_data", "holdout.jsonl"), *request.demonstrations("holdout")]
    holdout = once_a_run(held_out)[:HOLDOUT_ROWS]
    encoded_train, encoded_holdout = (
        [row for pair in pairs for row in chat.rows([*pair.prompt, *pair.chosen], first_chosen=len(pair.prompt))]
        for pairs in (train, holdout)
    )

    def made() -> Any:
        model = recomputed(new_model(settings.model, chat.tokenizer, settings.policy, settings.seed), settings.policy)
        if has_adapter(model):
            can_be_learned(model, chat.tokenizer, encoded_train)
        return model

    model = in_parts(made, ranks)
    start = copied(learned(model))
    report: dict[str, Any] = train_sft(
        model,
        chat.tokenizer,
        encoded_train,
        encoded_holdout,
        settings.sft,
        settings.seed,
        request.work,
        request.progress,
        ranks,
    )
    if (trained := whole(model, ranks)) is not None:
        tools = any(message.get("tool_calls") for pair in train for message in pair.chosen)
        save_with_format(trained, chat, tools, request.output)
    report |= {"conversations": len(train), "parameters": sum(p.numel() for p in model.parameters())}
    report |= {"learned": sum(p.numel() for p in start.values()), "moved": how_far(model, start)}
    report |= {"unsafe_left_out": len(given) - len(safe), "safety_criteria": list(rubric.named("safety"))}
    return report | {"success_by_task_type": {}}


def can_be_learned(model: Any, tokenizer: Any, rows: Sequence[Encoded]) -> None:
    """AgentRLError if the agent has to write a control token that an adapter cannot teach this base."""
    chosen = {token for row in rows for token, own in zip(row.ids, row.mask, strict=True) if own}
    unlearnable = indistinct(model, sorted(chosen.intersection(tokenizer.get_added_vocab().values())))
    if unlearnable:
        names = ", ".join(f"`{tokenizer.decode([token])}`" for token in unlearnable)
        raise AgentRLError(
            f"model.base: the agent has to write {names}, which this base was never trained on: it has the same vector "
            "for other tokens too, and an adapter cannot change that. Take a base that was trained with this chat "
            "template (most often the one called Instruct), policy.adapter: full, or another model.renderer"
        )


def worth_imitating(pair: Pair, rubric: Rubric) -> bool:
    """A preferred answer that its own annotator scored unsafe is better than the other, but no example to follow."""
    return pair.rubric_scores is None or rubric.met("safety", pair.rubric_scores["chosen"]) is not False


def once_a_run(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, of those whose preferred side is one and the same run the first: a run that several failed ones stand
    against is imitated once."""
    kept: dict[str, Pair] = {}
    for pair in pairs:
        runs = pair.metadata.get("runs", {})
        whole = "chosen" in runs and runs["chosen"] != runs.get("rejected")  # and not one of its answers, corrected
        kept.setdefault(runs["chosen"] if whole else pair.pair_id, pair)
    return list(kept.values())


def _probe(request: StageRequest, sampler: Sampler) -> dict[str, Any]:
    """Success by task type on hold-out tasks, sampled at the production temperature; and one episode, to look at."""
    settings = request.settings
    tasks = request.workflow.tasks("holdout", settings.sft.probe_tasks, settings.seed + 1)
    seeds = [hash_seed(settings.seed, "probe", index) for index in range(len(tasks))]
    episodes = sampler.play(tasks, seeds, settings.evaluation.temperature, settings.evaluation.concurrency)
    tried = Counter(episode.task.task_type for episode in episodes)
    solved = Counter(episode.task.task_type for episode in episodes if episode.episode.outcome.success)
    # one in which the agent did something, and the first of those that it solved, if there is any
    shown = max(episodes, key=lambda episode: (episode.episode.outcome.success, episode.episode.acted))
    return {
        "success_by_task_type": {kind: {"successes": solved[kind], "n": n} for kind, n in sorted(tried.items())},
        "sample": {
            "task_type": shown.task.task_type,
            "success": shown.episode.outcome.success,
            "messages": shown.episode.transcript.messages[1:],
        },
    }


def draw(path: Path, report: dict[str, Any], simulated: str) -> None:
    """The loss, and success by task type where there is any. `simulated`: what the title of the latter ends with."""
    by_type = report["success_by_task_type"]
    with picture(path, columns=2 if by_type else 1) as axes:
        left = axes[0] if by_type else axes
        left.plot(*zip(*report["loss"], strict=True), color=BASELINE, label="training")
        left.axhline(report["holdout_loss"], color=INK, linestyle="--", label="hold-out, at the end")
        left.set(title="SFT loss", xlabel="step", ylabel="nats per token")
        left.legend()
        if by_type:
            rates = {kind: entry["successes"] / entry["n"] for kind, entry in by_type.items()}
            axes[1].barh(list(rates), list(rates.values()), color=BASELINE)
            axes[1].set(title=f"Success on hold-out tasks{simulated}", xlim=(0, 1))
