"""Models behind a server that help an own workflow along: one that shows how tasks are solved, one that is its user."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_openai import Handler, fake_server

from agentrl_assets.cli import main
from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.teacher import with_reference
from agentrl_resources.workflow import EpisodeFactory, load_workflow
from agentrl_resources.workflow.user_model import DONE, UserModel

USAGE = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


def said(handler: Handler, message: dict[str, Any]) -> None:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    handler.send(json.dumps({"choices": [choice], "usage": USAGE}).encode(), content_type="application/json")


def teacher(handler: Handler, body: dict[str, Any]) -> None:
    """Looks up the room, once in a wrong place, and answers; of rooms with a 3 it knows nothing."""
    asked = next(one["content"] for one in body["messages"] if one["role"] == "user")
    room = asked.removeprefix("Where is ").removesuffix("?")
    results = [one["content"] for one in body["messages"] if one["role"] == "tool"]
    if "3" in room:
        said(handler, {"content": "I do not know."})
    elif len(results) < 2:
        key = "the moon" if not results else room
        function = {"name": "look_up", "arguments": json.dumps({"key": key})}
        said(handler, {"content": None, "tool_calls": [{"id": "a", "type": "function", "function": function}]})
    else:
        said(handler, {"content": f"On {results[-1]}."})


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The blank starter, its tasks without references."""
    assert main(["init", str(tmp_path / "desk"), "--from", "blank"]) == 0
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("AGENTRL_HOME", str(tmp_path / "home"))
    file = Path("tasks.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text(
        "\n".join(json.dumps({k: v for k, v in r.items() if k not in ("reference", "answer")}) for r in rows)
    )
    return tmp_path / "desk"


def test_a_stronger_model_shows_how_tasks_are_solved(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_server() as fake:
        fake.answer = teacher
        assert main(["demonstrate", "shown.jsonl", "--url", fake.url, "--model", "big", "--tries", "1"]) == 0
    rows = [json.loads(line) for line in Path("shown.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    training = [row for row in rows if row["split"] in ("train", "holdout")]
    shown = [row for row in training if "reference" in row]
    assert {row["key"] for row in training if "3" not in row["key"]} == {row["key"] for row in shown}
    for row in shown:  # what failed is no part of it
        assert row["reference"] == [{"name": "look_up", "arguments": {"key": row["key"]}}]
        assert row["answer"] == f"On {row['value']}."
    assert f"{len(shown)} of {len(training)} tasks solved" in capsys.readouterr().out
    before = {
        task.task_id
        for task in load_workflow("environment:MyDesk", tasks=desk / "tasks.jsonl").tasks("capability", 99, 0)
    }
    workflow = load_workflow("environment:MyDesk", tasks=desk / "shown.jsonl")
    assert {task.task_id for task in workflow.tasks("capability", 99, 0)} == before  # every task is where it was
    factory = EpisodeFactory(workflow)
    tasks = {task.task_id: task for task in workflow.tasks("train", 99, 0)}
    experts = {name: workflow.scripted_agents(task).get("expert") for name, task in tasks.items()}
    assert all(factory.play(tasks[name], agent).outcome.success for name, agent in experts.items() if agent)


def test_a_server_that_is_away_is_one_clear_error(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demonstrate", "shown.jsonl", "--url", "http://127.0.0.1:9", "--model", "big"]
    assert main(arguments) != 0
    assert "cannot be reached" in capsys.readouterr().err
    assert not Path("shown.jsonl").exists()
    assert main([*arguments, "--key-variable", "NOT_SET_AT_ALL"]) != 0
    assert "the environment has no NOT_SET_AT_ALL" in capsys.readouterr().err


def test_a_user_who_is_a_model_answers_until_done() -> None:
    answers = iter(["My lamp is broken.", f"Thanks. {DONE}"])
    with fake_server() as fake:
        fake.answer = lambda handler, body: said(handler, {"content": next(answers)})
        user = UserModel(fake.url, "qwen", "You have a broken lamp.")
        assert user.says("How can I help?") == "My lamp is broken."
        assert user.says("I have sent another one.") is None
        first, second = fake.bodies
    assert "You have a broken lamp." in first["messages"][0]["content"]
    assert (second["seed"], second["temperature"]) == (0, 0.0)
    assert [one["role"] for one in second["messages"]] == ["system", "user", "assistant", "user"]
    with pytest.raises(AgentRLError, match="gave no answer"):
        user.says("Are you there?")


def test_a_turn_that_could_not_be_read_does_not_shift_which_calls_failed(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(desk)
    workflow = load_workflow("environment:MyDesk", tasks=desk / "tasks.jsonl")
    row = workflow.rows[0]  # type: ignore[attr-defined]
    episode = EpisodeFactory(workflow).start(row.task)
    calls = [
        {"function": {"name": "look_up", "arguments": {"key": key}}} for key in ("the moon", row.task.payload["key"])
    ]
    episode.malformed("look_up(")
    for call in calls:
        episode.step({"role": "assistant", "tool_calls": [call]})
    episode.step({"role": "assistant", "content": "There."})
    shown = with_reference(row, episode)
    assert shown["reference"] == [{"name": "look_up", "arguments": {"key": row.task.payload["key"]}}]
    assert shown["answer"] == "There."
