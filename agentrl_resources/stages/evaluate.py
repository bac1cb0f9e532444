"""Stage `offline_eval_suite`: baseline and candidate on the same tasks with the same seeds; every episode is kept."""

import gzip
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from agentrl_resources.evaluation import compare_arms, paired
from agentrl_resources.files import canonical_json, digest_json, read_jsonl
from agentrl_resources.learning import (
    SampledEpisode,
    chosen_logprobs,
    hash_seed,
    load_policy,
    play_in_turns,
)
from agentrl_resources.plotting import BASELINE, CANDIDATE, picture
from agentrl_resources.stages.pieces import Share, in_pieces, share_of
from agentrl_resources.stages.request import StageRequest, load_chat
from agentrl_resources.stages.sampling import SamplerOf, sampling
from agentrl_resources.telemetry import RunRecord
from agentrl_resources.workflow import EpisodeFactory, Task, is_simulated

SUITES = ("capability", "adversarial")
ARMS = ("baseline", "candidate")


def run(request: StageRequest) -> None:
    temperatures = _temperatures(request)
    tasks = {one: sum(len(_tasks(request, suite, one)) for suite in SUITES) for one in temperatures}
    total = len(ARMS) * sum(count * len(_trials(request, one)) for one, count in tasks.items())
    records = [record for part in in_pieces(request, _played, total, "episodes") for record in part]
    with gzip.GzipFile(request.output / "episodes.jsonl.gz", "wb", mtime=0) as file:
        for record in records:
            file.write(canonical_json(asdict(record)) + b"\n")
    comparison = {f"{temperature:g}": compare_arms(paired(records, temperature)) for temperature in temperatures}
    draw(request.output / "comparison.png", comparison, request.made_up)
    request.report({"episodes": len(records), "comparison": comparison, "temperatures": temperatures})


def _temperatures(request: StageRequest) -> list[float]:
    options = request.settings.evaluation
    return [options.temperature, *([0.0] if options.greedy_control else [])]


def _trials(request: StageRequest, temperature: float) -> range:
    """The runs of each task and arm by their number."""
    return range(request.settings.evaluation.trials if temperature else 1)


def _seed(request: StageRequest, number: int, trial: int) -> int:
    """Of a task by its place in its suite, and of a run of it; both arms have the same."""
    return hash_seed(request.settings.seed, "evaluation", number, *([trial] if trial else []))


def _played(request: StageRequest, share: Share, done: Callable[[int], None]) -> list[RunRecord]:
    """A share of the tasks of every suite, at every temperature, by both arms."""
    with sampling(request, request.inputs["sft_checkpoint"]) as sampler_of:
        return _played_by(request, share, done, sampler_of)


def _played_by(
    request: StageRequest, share: Share, done: Callable[[int], None], sampler_of: SamplerOf
) -> list[RunRecord]:
    settings = request.settings
    factory = EpisodeFactory(request.workflow)
    folders = {"baseline": request.inputs["sft_checkpoint"], "candidate": request.inputs["ppo_policy"]}
    chat = load_chat(folders["baseline"], factory)
    samplers = {arm: sampler_of(load_policy(folder).eval(), chat, factory) for arm, folder in folders.items()}
    records: list[RunRecord] = []
    for temperature in _temperatures(request):
        for suite in SUITES:
            own = share_of(list(enumerate(_tasks(request, suite, temperature))), share)
            mine = [
                (task, _seed(request, number, trial)) for number, task in own for trial in _trials(request, temperature)
            ]
            for start in range(0, len(mine), settings.evaluation.concurrency):
                batch = mine[start : start + settings.evaluation.concurrency]
                tasks, seeds = [task for task, _ in batch], [seed for _, seed in batch]
                played = play_in_turns([samplers[arm] for arm in ARMS], tasks, seeds, temperature)
                for arm, episodes in zip(ARMS, played, strict=True):
                    kls = _kl(samplers["baseline"].model, episodes, temperature) if arm == "candidate" else None
                    records += _records(request, episodes, kls, arm, suite, temperature)
                    done(len(records))
    return records


def _tasks(request: StageRequest, suite: str, temperature: float) -> list[Task]:
    """A suite's tasks; of the greedy control the first ones."""
    rows = read_jsonl(request.inputs["eval_suite"] / f"{suite}.jsonl")
    some = request.settings.evaluation.greedy_tasks if temperature == 0 else None
    return [Task.from_dict(row) for row in islice(rows, some)]


def _kl(reference: Any, episodes: Sequence[SampledEpisode], temperature: float) -> list[float] | None:
    """KL from the reference in nats per episode, estimated on the sampled tokens; greedy decoding has none."""
    if temperature == 0:
        return None
    rows = [row for episode in episodes for row in episode.rows]
    expected = iter(chosen_logprobs(reference, rows, temperature))
    return [sum(sum(row.logprobs) - sum(next(expected)) for row in episode.rows) for episode in episodes]


def _records(
    request: StageRequest,
    episodes: Sequence[SampledEpisode],
    kls: Sequence[float] | None,
    arm: str,
    suite: str,
    temperature: float,
) -> list[RunRecord]:
    started_at = datetime.now(UTC).isoformat()
    return [
        run_record(request, episode, None if kls is None else kls[index], arm, suite, temperature, started_at)
        for index, episode in enumerate(episodes)
    ]


def run_record(
    request: StageRequest,
    sampled: SampledEpisode,
    kl: float | None,
    arm: str,
    suite: str,
    temperature: float,
    started_at: str,
) -> RunRecord:
    """The run record of one episode; `kl` in nats from the baseline."""
    episode, workflow = sampled.episode, request.workflow
    transcript, outcome = episode.transcript, episode.outcome
    calls = transcript.tool_calls
    version = request.versions[arm]
    return RunRecord(
        model_version=request.versions["baseline"],
        reward_model_version=request.versions["reward_model"],
        policy_version=version,
        tool_calls_count=len(calls),
        tool_error_count=transcript.tool_errors,
        tokens_in=sampled.tokens_in,
        tokens_out=sampled.tokens_out,
        duration_ms=sampled.duration_ms,
        human_override=episode.handed_over,
        release_channel="offline_eval",
        run_id=digest_json([version, sampled.task.task_id, sampled.seed, temperature]),
        workflow=workflow.name,
        task_id=sampled.task.task_id,
        task_type=sampled.task.task_type,
        started_at=started_at,
        assigned_channel="offline_eval",
        served_channel="offline_eval",
        simulated=is_simulated(workflow),
        arm=arm,
        suite=suite,
        temperature=temperature,
        success=outcome.success,
        safety_violation=outcome.safety_violation,
        quality=outcome.quality,
        policy_kl=kl,
        clarifying_questions=episode.clarifying_questions,
        cost=workflow.prices.of(
            sampled.tokens_in, sampled.tokens_out, len(calls), episode.handed_over, outcome.success
        ),
        trace={"messages": transcript.messages, "tool_calls": [call.to_dict() for call in calls]},
    )


def draw(path: Path, comparison: dict[str, Any], simulated: str) -> None:
    """Success of both arms, suite by suite. `simulated`: what the title ends with."""
    bars = [
        (f"{suite}\n{'greedy' if temperature == '0' else f'temperature {temperature}'}", result)
        for temperature, suites in comparison.items()
        for suite, result in suites.items()
    ]
    with picture(path, width=7.0) as axes:
        for offset, arm, colour in ((-0.2, "baseline", BASELINE), (0.2, "candidate", CANDIDATE)):
            rates = [result[arm]["success_rate"] for _, result in bars]
            intervals = [result[arm]["success_interval"] for _, result in bars]
            errors = [
                [rate - low for rate, (low, _) in zip(rates, intervals, strict=True)],
                [high - rate for rate, (_, high) in zip(rates, intervals, strict=True)],
            ]
            places = [index + offset for index in range(len(bars))]
            axes.bar(places, rates, width=0.38, yerr=errors, color=colour, capsize=3, label=arm)
        axes.set_xticks(range(len(bars)), [label for label, _ in bars])
        title = f"Success on held-out tasks, both arms on the same tasks and seeds{simulated}"
        axes.set(title=title, ylim=(0, 1.15))
        axes.legend(ncols=2, loc="upper left")
