"""Stage `on_policy_preference_data`: what the SFT checkpoint does itself, in pairs, labelled or queued for people.

A reward model trained on history alone knows only the mistakes of history's agents; the policy finds the others at
once. So its own answers are among the data.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from agentrl_resources.families import Encoded, standing
from agentrl_resources.files import digest_json, write_jsonl
from agentrl_resources.learning import SampledEpisode, hash_seed, load_policy, sample_replies
from agentrl_resources.preferences import ON_POLICY, Pair
from agentrl_resources.stages.pieces import Share, in_pieces, share_of
from agentrl_resources.stages.request import StageRequest, load_chat, uses_tools
from agentrl_resources.stages.sampling import sampling
from agentrl_resources.workflow import WITHOUT_ENVIRONMENT, EpisodeFactory, Task, recorded_tools

QUEUE_REPLY_TOKENS = 128


def run(request: StageRequest) -> None:
    if recorded_tools(request.workflow) is not None:
        for name in ("pairs.jsonl", "samples.jsonl", "queue.jsonl"):
            write_jsonl(request.output / name, [])
        request.report({"pairs": 0, "queued": 0, "labelled_by": f"nobody: {WITHOUT_ENVIRONMENT}"})
    elif can_label(request):
        _label(request)
    else:
        _queue(request)


def can_label(request: StageRequest) -> bool:
    """Whether the workflow labels what was sampled: the checkpoint plays its episodes, and it has annotators. Whose the
    data are does not matter; what is left waits for people."""
    return uses_tools(request.inputs["sft_checkpoint"]) and callable(getattr(request.workflow, "prefer", None))


@dataclass
class _Labelled:
    """What came of some tasks."""

    pairs: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    ties: int = 0
    successes: int = 0


def _label(request: StageRequest) -> None:
    options, workflow = request.settings.on_policy, request.workflow
    tasks = len(_tasks(request))
    episodes = tasks * options.samples_per_task
    parts = in_pieces(request, _labelled, episodes, "episodes sampled")
    pairs = [pair for part in parts for pair in part.pairs]
    write_jsonl(request.output / "pairs.jsonl", pairs)
    write_jsonl(request.output / "queue.jsonl", [])
    write_jsonl(request.output / "samples.jsonl", [sample for part in parts for sample in part.samples])
    request.report(
        {
            "tasks": tasks,
            "episodes": episodes,
            "pairs": len(pairs),
            "ties": sum(part.ties for part in parts),
            "queued": 0,
            "success": sum(part.successes for part in parts) / episodes,
            "labelled_by": f"{workflow.name} annotators{request.made_up}, under rubric {workflow.rubric.version}",
        }
    )


def _tasks(request: StageRequest) -> list[Task]:
    options, seed = request.settings.on_policy, request.settings.seed + 2
    wanted = {"train": options.tasks, "holdout": options.holdout_tasks}
    return [task for split, count in wanted.items() for task in request.workflow.tasks(split, count, seed)]


def _labelled(request: StageRequest, share: Share, done: Callable[[int], None]) -> _Labelled:
    """Several episodes per task; the workflow's annotators judge the best against the worst, the second best against
    the second worst, and so on: every episode is in one pair at most."""
    settings, options, workflow = request.settings, request.settings.on_policy, request.workflow
    folder, factory = request.inputs["sft_checkpoint"], EpisodeFactory(workflow)
    mine = share_of(list(enumerate(_tasks(request))), share)
    numbers = [number * options.samples_per_task + place
               for number, _ in mine for place in range(options.samples_per_task)]  # fmt: skip
    with sampling(request, folder) as sampler_of:
        episodes = sampler_of(load_policy(folder), load_chat(folder, factory), factory).play(
            [task for _, task in mine for _ in range(options.samples_per_task)],
            [hash_seed(settings.seed, "on_policy", number) for number in numbers],
            options.temperature,
            settings.evaluation.concurrency,
            lambda so_far, _: done(so_far),
        )
    labelled = _Labelled(successes=sum(episode.episode.outcome.success for episode in episodes))
    for start in range(0, len(episodes), options.samples_per_task):
        ranked = sorted(episodes[start : start + options.samples_per_task], key=lambda e: e.episode.outcome.quality)
        for place in range(options.samples_per_task // 2):
            worse, better = ranked[place], ranked[-1 - place]
            seed = hash_seed(settings.seed, "label", numbers[start] + place)
            label = workflow.prefer(worse.episode.outcome, better.episode.outcome, seed)
            if label == 0:
                labelled.ties += 1
            else:
                labelled.pairs.append(_pair(request, *((better, worse) if label > 0 else (worse, better))).to_dict())
    labelled.samples = [_sample(episode) for episode in episodes if episode.task.split == "holdout"]
    return labelled


def _pair(request: StageRequest, chosen: SampledEpisode, rejected: SampledEpisode) -> Pair:
    sides = {"chosen": chosen, "rejected": rejected}
    return Pair(
        pair_id=digest_json([chosen.task.task_id, chosen.ids, rejected.ids]),
        task_id=chosen.task.task_id,
        task_type=chosen.task.task_type,
        prompt=chosen.episode.transcript.prompt,
        chosen=chosen.episode.transcript.completion,
        rejected=rejected.episode.transcript.completion,
        rubric_scores={side: dict(episode.episode.outcome.scores) for side, episode in sides.items()},
        annotator=f"{request.workflow.name} annotators",
        rubric_version=request.workflow.rubric.version,
        split="holdout" if chosen.task.split == "holdout" else "train",
        source=ON_POLICY,
        conversational=True,
        metadata={side: asdict(_as_it_stands(episode)) for side, episode in sides.items()},
    )


def _as_it_stands(episode: SampledEpisode) -> Encoded:
    found = standing(episode.rows)
    return Encoded(found.ids, found.mask)


def _sample(episode: SampledEpisode) -> dict[str, Any]:
    return {
        "task_id": episode.task.task_id,
        "task_type": episode.task.task_type,
        "ids": episode.ids,
        "mask": episode.mask,
        "success": episode.episode.outcome.success,
    }


def _queue(request: StageRequest) -> None:
    """Pairs of replies to the user's own prompts, for people to label and add to their preference file."""
    settings, folder = request.settings, request.inputs["sft_checkpoint"]
    model, chat = load_policy(folder), load_chat(folder, EpisodeFactory(request.workflow))
    rows = request.pairs("cleaned_preference_data", "train.jsonl")
    prompts = [pair.prompt for pair in rows[: settings.on_policy.queue]]
    sides = [
        sample_replies(model, chat, prompts, settings.on_policy.temperature, QUEUE_REPLY_TOKENS, seed)
        for seed in (hash_seed(settings.seed, "queue", side) for side in range(2))
    ]
    queue = [
        {"prompt": prompt, "answers": [[{"role": "assistant", "content": text}] for text in answers], "label": None}
        for prompt, *answers in zip(prompts, *sides, strict=True)
    ]
    for name in ("pairs.jsonl", "samples.jsonl"):
        write_jsonl(request.output / name, [])
    write_jsonl(request.output / "queue.jsonl", queue)
    request.report({"pairs": 0, "queued": len(queue), "labelled_by": "nobody yet: queue.jsonl waits for people"})
