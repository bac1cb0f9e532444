"""What a run begins with: an episode where the workflow can begin with what is said, plain chat where it cannot; and
where a text ends."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from fake_openai import Fake, fake_server, says
from gateways import WORKFLOW, client, running, settings_with
from hypothesis import example, given
from hypothesis import strategies as st

from agentrl_resources.files import ArtifactStore
from agentrl_resources.gateway import backends
from agentrl_resources.gateway.stops import StoppedText, until
from agentrl_resources.workflow import EpisodeFactory, Prices, ToolPolicy, ToolRule


class Environment:
    """One tool, and a memory of what it was begun with."""

    begun: Mapping[str, Any]

    def look(self) -> str:
        """Looks around."""
        return "nothing"


class TakesPrompt(Environment):
    def reset(self, prompt: str) -> None:
        type(self).begun = {"prompt": prompt}


class TakesPromptAndMore(Environment):
    def reset(self, level: int, prompt: str = "") -> None:
        type(self).begun = {"level": level, "prompt": prompt}


class TakesRow(Environment):
    def reset(self, **row: Any) -> None:
        type(self).begun = row


class NeedsOrder(Environment):
    def reset(self, **row: Any) -> str:
        type(self).begun = {"order": row["order"]}
        return f"What about order {row['order']}?"


def workflow_of(kind: type) -> Any:
    class Own:
        name = "order_desk"
        instructions = "You serve customers."
        tool_policy = ToolPolicy({"look": ToolRule("read")})
        rubric = WORKFLOW.rubric
        prices = Prices()
        hand_over_tools: frozenset[str] = frozenset()
        clarifying_tools: frozenset[str] = frozenset()
        judges_traffic = False
        environment = kind

    return Own()


@contextmanager
def serving(home: Path, environment: type) -> Iterator[tuple[openai.OpenAI, Fake]]:
    """A gateway for a workflow of this environment, with a server behind it that says one thing."""
    workflow = workflow_of(environment)
    with fake_server() as server:
        server.answer = says({"content": "done"})
        settings = settings_with(champion_url=server.url)
        champion = backends(settings, ArtifactStore(home), EpisodeFactory(workflow))("general", "0" * 64, {})
        with running(home, settings, champion, workflow) as served:
            yield client(served), server


LISTED = [{"role": "user", "content": "as TRL has it"}]


@pytest.mark.parametrize(
    ("environment", "task", "begun", "user"),
    [
        (TakesPrompt, None, {"prompt": "hi"}, "hi"),
        (TakesPrompt, {}, {"prompt": "hi"}, "hi"),
        (TakesPrompt, {"payload": {}}, {"prompt": "hi"}, "hi"),
        (TakesPrompt, {"payload": {"prompt": "theirs"}}, {"prompt": "theirs"}, "theirs"),
        (TakesPromptAndMore, {"payload": {"level": 3}}, {"level": 3, "prompt": "hi"}, "hi"),
        (TakesRow, None, {"prompt": "hi"}, "hi"),
        (TakesRow, {"payload": {"prompt": LISTED}}, {"prompt": LISTED}, "as TRL has it"),
        (TakesRow, {"payload": {"level": 3}}, {"level": 3, "prompt": "hi"}, "hi"),
        (NeedsOrder, {"payload": {"order": "512"}}, {"order": "512"}, "What about order 512?"),
    ],
)
def test_the_customers_words_reach_the_environment_and_the_policy(
    tmp_path: Path, environment: type, task: Any, begun: Any, user: str
) -> None:
    with serving(tmp_path, environment) as (asked, server):
        extra = {} if task is None else {"extra_body": {"task": task}}
        asked.chat.completions.create(model="order_desk", messages=[{"role": "user", "content": "hi"}], **extra)
        assert environment.begun == begun
        (body,) = server.bodies
        assert body["messages"] == [
            {"role": "system", "content": "You serve customers."},
            {"role": "user", "content": user},
        ]
        assert [tool["function"]["name"] for tool in body["tools"]] == ["look"]


@pytest.mark.parametrize("environment", [TakesPromptAndMore, NeedsOrder])
def test_where_the_workflow_cannot_begin_with_the_message_alone_it_is_plain_chat(
    tmp_path: Path, environment: type
) -> None:
    with serving(tmp_path, environment) as (asked, server):
        message = {"role": "user", "content": "hi"}
        answer = asked.chat.completions.create(model="order_desk", messages=[message])
        assert answer.choices[0].message.content == "done"
        (body,) = server.bodies
        assert body["messages"] == [message]
        assert "tools" not in body
        with pytest.raises(openai.BadRequestError) as caught:
            asked.chat.completions.create(
                model="order_desk", messages=[message], extra_body={"task": {"payload": {"other": 1}}}
            )
        assert caught.value.param == "task"
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "x"}],
    ],
    ids=["instructions", "history"],
)
def test_a_conversation_of_the_clients_own_is_not_played_over(tmp_path: Path, messages: Any) -> None:
    """An episode has the workflow's instructions and begins with one message: these words would be lost in it."""
    with serving(tmp_path, TakesPrompt) as (asked, server):
        asked.chat.completions.create(model="order_desk", messages=messages)
        assert server.bodies[0]["messages"] == messages
        assert "tools" not in server.bodies[0]


# --- where a text ends ------------------------------------------------------------------------------------------------

letters = st.text("ab#", max_size=12)
stops = st.lists(st.text("ab#", min_size=1, max_size=4), max_size=3)


@given(pieces=st.lists(letters, max_size=8), stops=stops)
@example(pieces=["#", "a", "a"], stops=["a", "#aa"])
def test_a_text_in_pieces_ends_where_the_whole_text_ends(pieces: Sequence[str], stops: Sequence[str]) -> None:
    """And nothing is held back that no stop sequence can begin with."""
    sent: list[str] = []
    told = StoppedText(stops, sent.append)
    so_far = ""
    for piece in pieces:
        told(piece)
        so_far += piece
        assert until(so_far, stops).startswith("".join(sent))
        if not any(stop in so_far for stop in stops):
            assert len(so_far) - len("".join(sent)) < max(map(len, stops), default=1)
    told.end()
    assert "".join(sent) == until("".join(pieces), stops)
    assert "" not in sent


@given(text=letters, stops=stops)
def test_no_stop_sequence_is_in_a_text_that_ended(text: str, stops: Sequence[str]) -> None:
    short = until(text, stops)
    assert text.startswith(short)
    assert not any(stop in short for stop in stops)
    assert short == text or any(text.startswith(stop, len(short)) for stop in stops)
