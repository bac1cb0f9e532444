"""Inspect AI itself, in an environment of its own: `make test-engines`."""

import os
from typing import Any

import pytest

from agentrl_resources.adaptors.inspect_task import InspectTask
from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.episode import EpisodeFactory
from agentrl_resources.workflow.own import OwnWorkflow, plays


class WithTool(InspectTask):
    python = os.environ["AGENTRL_INSPECT"]
    source = "capitals.py@with_tool"


def made(**members: Any) -> EpisodeFactory:
    return EpisodeFactory(OwnWorkflow(type("Made", (WithTool,), {"__module__": __name__, **members}), None))


def test_samples_tools_and_scorers_are_the_tasks() -> None:
    factory = made()
    [tool] = factory.tools
    assert tool["function"]["name"] == "look_up"
    assert tool["function"]["parameters"]["properties"]["country"]["description"] == "The country's name."
    for row in factory.workflow.rows:
        country = row.task.payload["prompt"][-1]["content"].removeprefix("The capital of ").removesuffix("?")
        target = row.task.payload["task"]["target"][0]
        look = ("look_up", {"country": country})
        once = factory.play(row.task, plays([look], f"It is {target}."))
        assert once.transcript.messages[1]["content"] == f"Answer in a word.\n\nThe capital of {country}?"
        assert once.transcript.tool_calls[0].result == f"{target} (1)"
        assert once.outcome.success
        assert factory.play(row.task, plays([look, look], target)).outcome.scores["outcome"] == 0.5
        assert factory.play(row.task, plays([], "I do not know.")).outcome.scores["outcome"] == 0
        unknown = factory.play(row.task, plays([("look_up", {"country": "Oz"})], "?"))
        assert unknown.transcript.tool_calls[0].error == "'Oz'"


def test_a_task_without_tools_and_with_arguments() -> None:
    factory = made(source="capitals.py@plain", config={"only": 3})
    assert factory.tools == []
    assert len(factory.workflow.rows) == 3
    row = factory.workflow.rows[0]
    assert factory.play(row.task, plays([], "Paris, I think")).outcome.success == ("Paris" in str(row.task.payload))
    assert not factory.play(row.task, plays([], "no")).outcome.success


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("capitals.py@graded", "only scorers without a model"),
        ("capitals.py@boxed", "it needs a sandbox"),
        ("capitals.py@chosen", "cannot be loaded"),
        ("capitals.py", "names 5 tasks. Say which"),
        ("nowhere.py@task", "cannot be loaded"),
    ],
)
def test_what_cannot_be_played_is_refused_in_a_sentence(source: str, expected: str) -> None:
    with pytest.raises(AgentRLError) as refusal:
        made(source=source)
    print(refusal.value)
    assert expected in str(refusal.value)
