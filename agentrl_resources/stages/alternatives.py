"""Stage `rl_alternatives`: what the SFT policy comes to without RL, as it is, with more samples, with other words."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from agentrl_resources.evaluation import EpisodeFacts, worth_it
from agentrl_resources.families import standing
from agentrl_resources.files import read_jsonl
from agentrl_resources.learning import RewardModel, SampledEpisode, hash_seed, load_policy
from agentrl_resources.plotting import BASELINE, CANDIDATE, picture
from agentrl_resources.stages.pieces import Share, in_pieces, share_of
from agentrl_resources.stages.request import StageRequest, load_chat
from agentrl_resources.stages.sampling import sampling
from agentrl_resources.workflow import EpisodeFactory, Task, Workflow

Played = list[tuple[str, EpisodeFacts]]
"""Tasks by their name, and what one way came to on each."""


def run(request: StageRequest) -> None:
    options = request.settings.alternatives
    tasks = _tasks(request)
    total = len(tasks) * (options.best_of + bool(options.instructions))
    ways: dict[str, dict[str, EpisodeFacts]] = {}
    for part in in_pieces(request, _played, total, "episodes"):
        for way, played in part.items():
            ways.setdefault(way, {}).update(played)
    known = _evaluated(request)
    names = [task.task_id for task in tasks if task.task_id in known["candidate"]]
    others = {"SFT alone": known["baseline"], **ways}
    found = worth_it(
        [known["candidate"][name] for name in names],
        {way: [facts[name] for name in names] for way, facts in others.items()},
    )
    draw(request.output / "alternatives.png", found, request.made_up)
    request.report({**found, "best_of": options.best_of})


def _tasks(request: StageRequest) -> list[Task]:
    rows = read_jsonl(request.inputs["eval_suite"] / "capability.jsonl")
    return [Task.from_dict(row) for row in islice(rows, request.settings.alternatives.tasks)]


def _evaluated(request: StageRequest) -> dict[str, dict[str, EpisodeFacts]]:
    """Both arms of the evaluation on capability tasks at the production temperature, by task."""
    arms: dict[str, dict[str, EpisodeFacts]] = {"baseline": {}, "candidate": {}}
    with gzip.open(request.inputs["offline_eval_suite"] / "episodes.jsonl.gz", "rb") as file:
        for row in map(json.loads, file):
            if row["suite"] == "capability" and row["temperature"] == request.settings.evaluation.temperature:
                facts = EpisodeFacts(row["success"], row["safety_violation"], row["cost"], row["duration_ms"])
                arms[row["arm"]].setdefault(row["task_id"], facts)
    return arms


def _played(request: StageRequest, share: Share, done: Callable[[int], None]) -> dict[str, Played]:
    """A share of the tasks: the best of several samples by the reward model's word, and one sample by other
    instructions, where there are any."""
    options, settings = request.settings.alternatives, request.settings
    sft = request.inputs["sft_checkpoint"]
    numbers, tasks = zip(*share_of(list(enumerate(_tasks(request))), share), strict=True)
    so_far = 0
    with sampling(request, sft) as sampler_of:

        def play(workflow: Any, number: int) -> list[SampledEpisode]:
            nonlocal so_far
            factory = EpisodeFactory(workflow)
            sampler = sampler_of(policy, load_chat(sft, factory), factory)
            seeds = [hash_seed(settings.seed, "alternatives", number * options.tasks + place) for place in numbers]
            episodes = sampler.play(tasks, seeds, settings.evaluation.temperature, settings.evaluation.concurrency)
            so_far += len(episodes)
            done(so_far)
            return episodes

        policy = load_policy(sft).eval()
        samples = [play(request.workflow, number) for number in range(options.best_of)]
        told = play(_Told(request.workflow, options.instructions), 0) if options.instructions else []
    scorer = RewardModel.load(request.inputs["reward_model"])
    scores = [scorer.score([standing(one.rows) for one in episodes]) for episodes in samples]
    chosen: Played = []
    for place, task in enumerate(tasks):
        best = max(range(options.best_of), key=lambda number: scores[number][place])
        chosen.append((task.task_id, _facts(request.workflow, [one[place] for one in samples], best)))
    ways = {f"best of {options.best_of} by the reward model": chosen}
    if told:
        ways["other instructions"] = [(one.task.task_id, _facts(request.workflow, [one], 0)) for one in told]
    return ways


def _facts(workflow: Workflow, samples: Sequence[SampledEpisode], best: int) -> EpisodeFacts:
    """Of one task: the outcome is that of the best sample, and every sample is paid for."""
    outcome = samples[best].episode.outcome
    cost = sum(
        workflow.prices.of(
            one.tokens_in,
            one.tokens_out,
            len(one.episode.transcript.tool_calls),
            # of the others nobody hears
            number == best and one.episode.handed_over,
            number != best or outcome.success,
        )
        for number, one in enumerate(samples)
    )
    duration = max(one.duration_ms for one in samples)
    return EpisodeFacts(outcome.success, outcome.safety_violation, cost, duration)


class _Told:
    """A workflow with other instructions."""

    def __init__(self, workflow: Workflow, instructions: str) -> None:
        self._workflow = workflow
        self.instructions = instructions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workflow, name)


def draw(path: Path, found: Mapping[str, Any], simulated: str) -> None:
    """Cost per success of each way. `simulated`: what the title ends with."""
    rows = [row for row in found["alternatives"] if row["cost_per_success"] is not None]
    with picture(path, width=7.0) as axes:
        names = [f"{row['name']}\n{100 * row['success_rate']:.1f} % solved" for row in rows]
        colours = [CANDIDATE if row["name"] == "PPO" else BASELINE for row in rows]
        axes.barh(names, [row["cost_per_success"] for row in rows], color=colours)
        axes.invert_yaxis()
        axes.set(title=f"Cost per success{simulated}: RL is {found['answer']}", xlabel="EUR")
