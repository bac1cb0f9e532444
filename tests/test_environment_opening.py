"""How an episode opens: the prompt, and what `reset` says, as TRL puts them together."""

import copy
from typing import Any

import hypothesis.strategies as st
import pytest
from environments import play, texts_of, workflow_of
from hypothesis import given, settings

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families.gpt_oss import Harmony, train_tokenizer
from agentrl_resources.workflow import EpisodeFactory, Task, request_of
from agentrl_resources.workflow.opening import opening

BOARD = "\nThe board is empty."


def by_trl(prompt: list[dict[str, Any]], observation: Any) -> list[dict[str, Any]]:
    """GRPOTrainer's lines, as they stand."""
    if observation is None:
        return prompt
    content = prompt[-1]["content"]
    if isinstance(observation, list) and isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if isinstance(observation, str) and isinstance(content, list):
        observation = [{"type": "text", "text": observation}]
    return [*prompt[:-1], {**prompt[-1], "content": content + observation}]


def flat(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    def text(content: Any) -> str:
        return content if isinstance(content, str) else "".join(part["text"] for part in content)

    return [(message["role"], text(message["content"])) for message in messages]


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(lambda text: f"a{text}")
CONTENT = TEXT | st.lists(TEXT.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=3)
TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), CONTENT), max_size=3)


@given(TURNS, CONTENT, st.none() | CONTENT.map(lambda one: f"b{one}" if isinstance(one, str) else one))
@settings(deadline=None, print_blob=True)
def test_messages_are_put_together_as_in_trl(turns: list[Any], last: Any, said: Any) -> None:
    prompt = [{"role": role, "content": content} for role, content in [*turns, ("user", last)]]
    before = copy.deepcopy(prompt)
    wanted = flat(by_trl(prompt, said))
    if said is not None and flat([{"role": "user", "content": said}])[0][1].strip() == flat(prompt)[-1][1].strip():
        wanted = flat(prompt)  # what only repeats the prompt is not said twice
    assert flat(opening(prompt, said)) == wanted
    assert prompt == before


@pytest.mark.parametrize(
    ("prompt", "said", "wanted"),
    [
        ("Play white.", BOARD, [("user", "Play white." + BOARD)]),
        ("Play white.", None, [("user", "Play white.")]),
        ("Play white.", "", [("user", "Play white.")]),
        (None, BOARD, [("user", BOARD)]),
        ("", BOARD, [("user", BOARD)]),
        ([], BOARD, [("user", BOARD)]),
        ("Play white.", "Play white.", [("user", "Play white.")]),
        ("Play.", [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}], [("user", "Play.AB")]),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Play."}], BOARD,
         [("user", "Be brief.\n\nPlay." + BOARD)]),
        ([{"role": "developer", "content": "Be brief."}], BOARD, [("user", "Be brief." + BOARD)]),
        ([{"role": "user", "content": "Play."}, {"role": "assistant", "content": "Yes."}], "Go.",
         [("user", "Play."), ("assistant", "Yes."), ("user", "Go.")]),
    ],
)  # fmt: skip
def test_both_reach_the_agent(prompt: Any, said: Any, wanted: Any) -> None:
    assert flat(opening(prompt, said)) == wanted


class Game:
    said: Any = BOARD

    def __init__(self) -> None:
        self.got: dict[str, Any] = {}

    def reset(self, **payload: Any) -> Any:
        self.got = payload
        for value in payload.values():
            if isinstance(value, list):
                value.append("changed")
        return self.said


@pytest.mark.parametrize("said", [3, {"board": []}, ("board", {}), b"board", [{"type": "image", "image": 1}], object()])
def test_what_is_no_text_is_refused_with_the_place(said: Any) -> None:
    workflow = workflow_of(type("Odd", (Game,), {"said": said}), {})
    with pytest.raises(AgentRLError, match=r"task task-1: Odd\.reset"):
        play(workflow)


@pytest.mark.parametrize("payload", [{}, {"prompt": ""}, {"prompt": 3}, {"prompt": ["a"]}, {"prompt": [{"role": "x"}]}])
def test_without_anything_to_read_there_is_no_episode(payload: dict[str, Any]) -> None:
    workflow = workflow_of(type("Silent", (Game,), {"said": None}), {})
    with pytest.raises(AgentRLError, match=r"Silent\.reset"):
        play(workflow, payload=payload)


def test_an_environment_that_changes_its_payload_does_not_change_the_task() -> None:
    """In TRL each rollout gets a row of its own."""
    task = Task("task", "any", "train", {"prompt": "Play.", "moves": [], "deep": {"a": [1]}})
    factory = EpisodeFactory(workflow_of(Game, {}))
    for _ in range(2):
        episode = factory.start(task)
        assert episode._environment.got["moves"] == ["changed"]
    assert task.payload == {"prompt": "Play.", "moves": [], "deep": {"a": [1]}}


def test_what_was_asked_and_what_was_done_can_be_told_apart() -> None:
    prompt = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    episode = play(workflow_of(Game, {}), payload={"prompt": prompt})
    assert [message["content"] for message in episode.transcript.prompt] == ["a", "b", "c" + BOARD]
    assert [message["content"] for message in episode.transcript.completion] == ["done"]


def test_a_policy_reads_a_conversation_with_calls_that_opens_an_episode() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {"a": 1}}}
    prompt = [
        {"role": "user", "content": [{"type": "text", "text": "first"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "found"},
        {"role": "user", "content": "second"},
    ]
    workflow = workflow_of(Game, {})
    harmony = Harmony(train_tokenizer([], [], 300), EpisodeFactory(workflow).tools, workflow.instructions)
    messages = play(workflow, payload={"prompt": prompt}).transcript.messages
    text = harmony.tokenizer.decode(harmony.prompt(messages[:-1]))
    places = [text.index(part) for part in ("first", "functions.look", '"found"', "second", "The board is empty.")]
    assert places == sorted(places)


@pytest.mark.parametrize("said", [None, BOARD])
def test_a_task_tells_its_request_without_being_played(said: Any) -> None:
    workflow = workflow_of(type("Silent", (Game,), {"said": said}), {})
    task = Task("task", "any", "train", {"prompt": "Play white."})
    assert request_of(workflow, task) == texts_of(EpisodeFactory(workflow).start(task).transcript.prompt)  # type: ignore[arg-type]
    assert "Play white." in request_of(workflow, task)  # type: ignore[arg-type]
