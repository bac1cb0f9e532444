"""Stage `on_policy_preference_data`: what the SFT checkpoint does itself, in pairs, labelled or queued for people.

A reward model trained on history alone knows only the mistakes of history's agents; the policy finds the others at
once. So its own answers are among the data.
"""

from dataclasses import asdict
from typing import Any

from agentrl_resources.files import digest_json, write_jsonl
from agentrl_resources.learning import Encoded, SampledEpisode, Sampler, hash_seed, load_policy, sample_replies
from agentrl_resources.preferences import ON_POLICY, Pair
from agentrl_resources.stages.request import StageRequest, load_harmony
from agentrl_resources.workflow import EpisodeFactory

QUEUE_REPLY_TOKENS = 128


def run(request: StageRequest) -> None:
    settings = request.settings
    factory = EpisodeFactory(request.workflow)
    folder = request.inputs["sft_checkpoint"]
    harmony = load_harmony(folder, factory)
    model = load_policy(folder)
    rows = request.pairs("cleaned_preference_data", "train.jsonl")
    if settings.preferences.source is None:
        _label(request, Sampler(model, harmony, factory))
    else:
        _queue(request, model, harmony, rows)


def _label(request: StageRequest, sampler: Sampler) -> None:
    """Several episodes per task; the workflow's annotators judge the best against the worst, the second best against
    the second worst, and so on: every episode is in one pair at most."""
    settings, options, workflow = request.settings, request.settings.on_policy, request.workflow
    tasks = workflow.tasks("train", options.tasks, settings.seed + 2)
    tasks += workflow.tasks("holdout", options.holdout_tasks, settings.seed + 2)
    repeated = [task for task in tasks for _ in range(options.samples_per_task)]
    seeds = [hash_seed(settings.seed, "on_policy", index) for index in range(len(repeated))]
    episodes = sampler.play(
        repeated,
        seeds,
        options.temperature,
        settings.evaluation.concurrency,
        lambda done, of: request.progress(done, of, "episodes sampled"),
    )
    pairs: list[Pair] = []
    ties = 0
    for start in range(0, len(episodes), options.samples_per_task):
        ranked = sorted(episodes[start : start + options.samples_per_task], key=lambda e: e.episode.outcome.quality)
        for place in range(options.samples_per_task // 2):
            worse, better = ranked[place], ranked[-1 - place]
            seed = hash_seed(settings.seed, "label", start + place)
            label = workflow.prefer(worse.episode.outcome, better.episode.outcome, seed)
            if label == 0:
                ties += 1
            else:
                pairs.append(_pair(request, *((better, worse) if label > 0 else (worse, better))))
    write_jsonl(request.output / "pairs.jsonl", [pair.to_dict() for pair in pairs])
    write_jsonl(request.output / "queue.jsonl", [])
    samples = [_sample(episode) for episode in episodes if episode.task.split == "holdout"]
    write_jsonl(request.output / "samples.jsonl", samples)
    request.report(
        {
            "tasks": len(tasks),
            "episodes": len(episodes),
            "pairs": len(pairs),
            "ties": ties,
            "queued": 0,
            "success": sum(episode.episode.outcome.success for episode in episodes) / len(episodes),
            "labelled_by": f"{workflow.name} annotators (simulated), under rubric {workflow.rubric.version}",
        }
    )


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
        metadata={side: asdict(Encoded(episode.ids, episode.mask)) for side, episode in sides.items()},
    )


def _sample(episode: SampledEpisode) -> dict[str, Any]:
    return {
        "task_id": episode.task.task_id,
        "task_type": episode.task.task_type,
        "ids": episode.ids,
        "mask": episode.mask,
        "success": episode.episode.outcome.success,
    }


def _queue(request: StageRequest, model: Any, harmony: Any, rows: list[Pair]) -> None:
    """Pairs of replies to the user's own prompts, for people to label and add to their preference file."""
    settings = request.settings
    prompts = [pair.prompt for pair in rows[: settings.on_policy.queue]]
    sides = [
        sample_replies(model, harmony, prompts, settings.on_policy.temperature, QUEUE_REPLY_TOKENS, seed)
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
