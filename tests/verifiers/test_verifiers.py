"""The verifiers library itself, in an environment of its own: `make test-engines`.

What the protocol does when something goes wrong is seen in tests/test_adaptor_elsewhere.py, with a backend of our own;
here it is seen that verifiers' tasksets, toolsets, states and rewards are what the adaptor takes them for.
"""

import os
from typing import Any, ClassVar

import pytest

from agentrl_resources.adaptors.verifiers import VerifiersEnvironment
from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.episode import Episode, EpisodeFactory
from agentrl_resources.workflow.own import OwnWorkflow


class Shelves(VerifiersEnvironment):
    """You are asked for books."""

    python = os.environ["AGENTRL_VERIFIERS"]
    source = "shelves"

    @classmethod
    def row(cls, task: dict[str, Any]) -> dict[str, Any]:
        steps = [{"name": "shelves_move", "arguments": {"book": task["book"], "shelf": "archive"}}]
        return {"reference": steps, "answer": "It is in the archive."}


FACTORY = EpisodeFactory(OwnWorkflow(Shelves, None))
TASKS = [row.task for row in FACTORY.workflow.rows]


def seen(episode: Episode, name: str, **arguments: Any) -> Any:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    [observation] = episode.step({"role": "assistant", "tool_calls": [call]})
    return observation["content"]


def says(episode: Episode, text: str) -> Episode:
    episode.step({"role": "assistant", "content": text})
    return episode


def test_tasks_and_tools_are_the_tasksets() -> None:
    assert [task.task_id for task in TASKS] == [f"book-{number}" for number in range(8)]
    names = [tool["function"]["name"] for tool in FACTORY.tools]
    assert names == ["common_count", "shelves_find", "shelves_misbehave", "shelves_move"]
    opening = FACTORY.start(TASKS[0]).transcript.messages[1]["content"]
    assert opening == "You keep a library.\n\nArchive Book0."


def test_references_solve_by_state_and_by_reply() -> None:
    for task in TASKS:
        agents = FACTORY.workflow.scripted_agents(task)
        assert FACTORY.play(task, agents["expert"]).outcome.success
        assert FACTORY.play(task, agents["does_nothing"]).outcome.scores["outcome"] == 0
        half = FACTORY.play(task, agents["wasteful"]).outcome  # moved twice, which is not what was asked for
        assert half.scores["outcome"] == pytest.approx(1 / 3)


def test_each_rewards_score_is_told_by_its_name() -> None:
    episode = FACTORY.start(TASKS[0])
    seen(episode, "shelves_move", book="Book0", shelf="archive")
    says(episode, "Done.")
    parts = episode._environment.get_reward(episode.transcript)
    assert parts == {"outcome": pytest.approx(2 / 3), "moved": 1.0, "said": 0.0, "outcome_reward": 2.0}


def test_state_and_toolset_belong_to_the_episode_and_what_is_shared_to_all() -> None:
    first, second = FACTORY.start(TASKS[0]), FACTORY.start(TASKS[1])
    assert seen(first, "shelves_move", book="Book0", shelf="archive") == "1 moved"
    assert seen(second, "shelves_move", book="Book1", shelf="archive") == "1 moved"
    assert '"A1"' not in seen(first, "shelves_find", book="Book0")
    assert "there is no book Book0" in seen(second, "shelves_find", book="Book0")["error"]
    counted = [int(seen(one, "common_count")) for one in (first, second, first)]
    assert counted == [counted[0], counted[0] + 1, counted[0] + 2]


def test_a_tool_that_fails_leaves_the_state_as_it_was() -> None:
    episode = FACTORY.start(TASKS[0])
    assert seen(episode, "shelves_move", book="Book0", shelf="none") == {"error": "there is no such shelf"}
    assert seen(episode, "shelves_move", book="Book0", shelf="archive") == "1 moved"
    assert says(episode, "It is in the archive.").outcome.success


def test_a_tool_that_hangs_or_dies_costs_its_own_episode() -> None:
    class Hasty(Shelves):
        seconds: ClassVar[float] = 5.0

    factory = EpisodeFactory(OwnWorkflow(Hasty, None))
    episode, other = factory.start(TASKS[0]), factory.start(TASKS[1])
    assert "no answer within 5 s" in seen(episode, "shelves_misbehave", how="hang")["error"]
    assert seen(other, "shelves_misbehave", how="print") == "fine"
    assert "its process ended (exit code 9)" in seen(other, "shelves_misbehave", how="die")["error"]
    assert says(other, "It is in the archive.").outcome.success is False
    agents = factory.workflow.scripted_agents(TASKS[2])
    assert factory.play(TASKS[2], agents["expert"]).outcome.success


@pytest.mark.parametrize(("text", "expected"), [("raise", "KeyError: 'no reply'"), ("nan", "reward `said` gave nan")])
def test_a_reward_that_fails_is_one_clear_error(text: str, expected: str) -> None:
    with pytest.raises(AgentRLError, match=expected):
        says(FACTORY.start(TASKS[0]), text).outcome  # noqa: B018


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"source": "nowhere"}, "taskset 'nowhere' not found"),
        ({"config": {"shelfs": 3}}, "shelfs"),
        ({"source": "refused", "config": {"why": "container"}}, "needs a container"),
        ({"source": "refused", "config": {"why": "image"}}, "needs the container image"),
        ({"source": "refused", "config": {"why": "no prompt"}}, "has no prompt"),
        ({"source": "refused", "config": {"why": "server"}}, "is a server elsewhere"),
    ],
)
def test_what_cannot_be_played_is_refused_in_a_sentence(members: dict[str, Any], expected: str) -> None:
    kind = type("Wrong", (Shelves,), {"__module__": __name__, **members, "row": classmethod(lambda *_: {})})
    with pytest.raises(AgentRLError, match=expected) as refusal:
        OwnWorkflow(kind, None)
    print(refusal.value)


def test_how_many_tasks_is_said_by_its_config() -> None:
    kind = type("Few", (Shelves,), {"__module__": __name__, "config": {"books": 3}})
    assert len(list(kind.tasks())) == 3
    kind.most_tasks = 2
    assert len(list(kind.tasks())) == 2
