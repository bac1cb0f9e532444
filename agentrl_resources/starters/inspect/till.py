"""A task of Inspect AI: it runs in the interpreter that has inspect-ai, and knows nothing of AgentRL."""

import random

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, accuracy, match, scorer
from inspect_ai.solver import TaskState, generate, use_tools
from inspect_ai.tool import Tool, tool
from inspect_ai.util import store


@tool
def put() -> Tool:
    async def execute(amount: int) -> str:
        """Writes an amount into the till.

        Args:
            amount: How much.
        """
        amounts = [*store().get("amounts", []), amount]
        store().set("amounts", amounts)
        return f"{len(amounts)} written"

    return execute


@scorer(metrics=[accuracy()])
def written() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=float(state.store.get("amounts") == state.metadata["amounts"]))

    return score


@task
def till(tasks: int = 3000) -> Task:
    chance = random.Random(7)
    drawn = [list(divmod(number, 100)) for number in chance.sample(range(10_000), tasks)]  # no two alike
    samples = [
        Sample(input=f"Write {' and '.join(map(str, one))}.", target=str(len(one)), metadata={"amounts": one})
        for one in drawn
    ]
    return Task(dataset=samples, solver=[use_tools(put()), generate()], scorer=[match(), written()])
