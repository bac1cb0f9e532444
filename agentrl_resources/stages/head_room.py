"""What a model makes of a workflow's tasks before RL: how many it solves, and how many it solves only now and then."""

from dataclasses import dataclass
from pathlib import Path

from agentrl_resources.families import recognise
from agentrl_resources.learning import Sampler, hash_seed, load_policy, load_tokenizer, new_model
from agentrl_resources.settings import Settings
from agentrl_resources.stages.request import load_chat, make_chat
from agentrl_resources.workflow import EpisodeFactory, Workflow

TASKS = 24
SAMPLES = 4


@dataclass(frozen=True)
class HeadRoom:
    """Of `tasks` tasks, each played `samples` times: episodes solved, tasks solved always, sometimes, and never."""

    model: str
    tasks: int
    samples: int
    solved: int
    always: int
    sometimes: int

    @property
    def never(self) -> int:
        return self.tasks - self.always - self.sometimes

    @property
    def rate(self) -> float:
        return self.solved / (self.tasks * self.samples)


def head_room(settings: Settings, workflow: Workflow, checkpoint: Path | None) -> HeadRoom | None:
    """Plays hold-out tasks with the SFT checkpoint, or else with the base that the settings name; None where there is
    neither."""
    factory = EpisodeFactory(workflow)
    if checkpoint is not None:
        name, model, chat = "the SFT checkpoint", load_policy(checkpoint), load_chat(checkpoint, factory)
    elif settings.model.base is not None:
        name, tokenizer = f"the base {settings.model.base}", load_tokenizer(settings.model.base)
        written = recognise(tokenizer, settings.model.renderer, settings.model.renderer_options, factory.tools)
        chat = make_chat(tokenizer, {**written, "uses_tools": True}, factory)
        model = new_model(settings.model, tokenizer, settings.policy, settings.seed)
    else:
        return None
    tasks = list({task.case: task for task in workflow.tasks("holdout", TASKS, settings.seed)}.values())
    each = [task for task in tasks for _ in range(SAMPLES)]
    seeds = [hash_seed(settings.seed, "head-room", number) for number in range(len(each))]
    sampler = Sampler(model.eval(), chat, factory)
    episodes = sampler.play(each, seeds, settings.evaluation.temperature, settings.evaluation.concurrency)
    solved = [episode.episode.outcome.success for episode in episodes]
    of_task = [sum(solved[start : start + SAMPLES]) for start in range(0, len(solved), SAMPLES)]
    always = sum(count == SAMPLES for count in of_task)
    return HeadRoom(name, len(tasks), SAMPLES, sum(solved), always, sum(0 < count < SAMPLES for count in of_task))
