"""Tasks of Inspect AI: one with tools and state, one without, and some that are refused."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, accuracy, includes, match, model_graded_fact, scorer
from inspect_ai.solver import generate, multiple_choice, system_message, use_tools
from inspect_ai.tool import tool
from inspect_ai.util import store

CAPITALS = {"France": "Paris", "Peru": "Lima", "Japan": "Tokyo", "Kenya": "Nairobi", "Chad": "N'Djamena"}


@tool
def look_up():
    async def execute(country: str) -> str:
        """Looks up a capital.

        Args:
            country: The country's name.
        """
        store().set("looked", store().get("looked", 0) + 1)
        return f"{CAPITALS[country]} ({store().get('looked')})"

    return execute


@scorer(metrics=[accuracy()])
def looked_once():
    async def score(state, target):
        return Score(value=float(state.store.get("looked", 0) == 1))

    return score


def samples():
    return [Sample(input=f"The capital of {name}?", target=capital) for name, capital in CAPITALS.items()]


@task
def with_tool():
    solver = [system_message("Answer in a word."), use_tools(look_up()), generate()]
    return Task(dataset=samples(), solver=solver, scorer=[match(location="any"), looked_once()])


@task
def plain(only: int = 5):
    return Task(dataset=samples()[:only], scorer=includes())


@task
def graded():
    return Task(dataset=samples(), scorer=model_graded_fact())


@task
def boxed():
    return Task(dataset=samples(), scorer=includes(), sandbox="docker")


@task
def chosen():
    return Task(dataset=samples(), solver=multiple_choice(), scorer=includes())
