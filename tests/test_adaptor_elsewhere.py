"""Environments of another interpreter: a real process that speaks the protocol, with a backend that goes wrong."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentrl_resources.adaptors.elsewhere import as_openai
from agentrl_resources.adaptors.verifiers import VerifiersEnvironment
from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import load_workflow
from agentrl_resources.workflow.episode import Episode, EpisodeFactory
from agentrl_resources.workflow.own import OwnWorkflow
from agentrl_resources.workflow.sandbox import ToolPolicy, ToolRule

HERE = Path(__file__).parent


class Sums(VerifiersEnvironment):
    """Makes sums."""

    python = sys.executable
    source = "sums"
    seconds = 20.0
    tool_policy = ToolPolicy({"add": ToolRule("write"), "get_odd": ToolRule("read")}, max_call_seconds=10.0)

    @classmethod
    def row(cls, task: dict[str, Any]) -> dict[str, Any]:
        return {"reference": [{"name": "add", "arguments": {"number": task["goal"]}}], "answer": "Made."}


Sums._backend = str(HERE / "stand_in_backend.py")
FACTORY = EpisodeFactory(OwnWorkflow(Sums, None))
TASKS = [row.task for row in FACTORY.workflow.rows]


def said(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def calls(name: str, **arguments: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def seen(episode: Episode, message: dict[str, Any]) -> Any:
    [observation] = episode.step(message)
    return observation["content"]


def refused(kind: type[VerifiersEnvironment]) -> str:
    with pytest.raises(AgentRLError) as refusal:
        OwnWorkflow(kind, None)
    print(refusal.value)
    return str(refusal.value)


def played(*messages: dict[str, Any], factory: EpisodeFactory = FACTORY, goal: int = 3) -> Episode:
    task = next(one for one in TASKS if one.payload["task"]["goal"] == goal)
    episode = factory.start(task)
    for message in messages:
        episode.step(message)
    return episode


def test_equal_tasks_are_one_and_a_workflow_file_can_name_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted(one.payload["task"]["goal"] for one in TASKS) == [0, 1, 2, 3, 4]
    monkeypatch.syspath_prepend(str(HERE))
    workflow = load_workflow("test_adaptor_elsewhere:Sums")
    assert {one.split for one in TASKS} == {"train", "holdout", "capability"}
    assert [tool["function"]["name"] for tool in EpisodeFactory(workflow).tools] == ["add", "get_odd"]


def test_references_solve_and_nothing_does_not() -> None:
    for task in TASKS:
        agents = FACTORY.workflow.scripted_agents(task)
        assert FACTORY.play(task, agents["expert"]).outcome.success
        right = task.payload["task"]["goal"] == 0
        idle = FACTORY.play(task, agents["does_nothing"])
        assert idle.outcome.success == right
        assert idle.outcome.scores["outcome"] == pytest.approx(1.0 if right else 0.3)


def test_episodes_that_run_beside_each_other_keep_their_states() -> None:
    episodes = {goal: played(goal=goal) for goal in range(5)}
    for round_ in range(1, 4):
        for goal, episode in episodes.items():
            assert seen(episode, calls("add", number=goal)) == {"sum": round_ * goal}
    threads = [threading.Thread(target=one.step, args=(calls("add", number=100),)) for one in episodes.values()]
    for one in [*threads]:
        one.start()
    for one in threads:
        one.join()
    for goal, episode in episodes.items():
        assert seen(episode, calls("add", number=0)) == {"sum": 3 * goal + 100}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", "done"),
        ("date", "2026-03-01"),
        ("bytes", "�ab"),
        ("nan", "NaN"),
        ("set", ["a", "b", "c"]),
        ("half", "?"),
    ],
)
def test_odd_results(how: str, expected: Any) -> None:
    assert seen(played(), calls("get_odd", how=how)) == expected


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("raise", "it is not there ..."),
        ("silent", "ValueError"),
        ("exit", "SystemExit: 3"),
        ("object", "it returned a object, which is neither text nor JSON"),
        ("deep", "recursion"),
    ],
)
def test_a_call_that_fails_is_a_tool_error_and_the_episode_goes_on(how: str, expected: str) -> None:
    episode = played()
    assert expected in seen(episode, calls("get_odd", how=how))["error"]
    assert seen(episode, calls("add", number=3)) == {"sum": 3}
    episode.step(said("Made."))
    assert episode.outcome.success is False, "it took four messages"
    assert episode.outcome.scores["outcome"] == pytest.approx(0.7)


def test_a_huge_result_is_cut_and_what_is_printed_is_no_reply() -> None:
    episode = played()
    assert len(seen(episode, calls("get_odd", how="huge"))) < 21_000
    assert isinstance(seen(episode, calls("get_odd", how="print")), int)
    assert seen(episode, calls("add", number="3")) == {"error": "invalid arguments"}
    assert seen(episode, calls("remove", number=3)) == {"error": "unknown tool remove"}


@pytest.mark.parametrize("how", ["hang", "wait"])
def test_a_call_that_hangs_is_cut_and_others_go_on_meanwhile(how: str) -> None:
    class Hasty(Sums):
        seconds = 0.5

    factory = EpisodeFactory(OwnWorkflow(Hasty, None))
    episode, other = played(factory=factory), played(factory=factory)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(seen(episode, calls("get_odd", how=how))))
    waiting.start()
    assert [seen(other, calls("add", number=1))["sum"] for _ in range(5)] == [1, 2, 3, 4, 5]
    waiting.join()
    assert "no answer within 0.5 s" in found[0]["error"]
    assert seen(played(factory=factory), calls("add", number=2)) == {"sum": 2}


def test_the_tool_policy_cuts_too() -> None:
    class Cut(Sums):
        tool_policy = ToolPolicy({"add": ToolRule("write"), "get_odd": ToolRule("read")}, max_call_seconds=0.2)

    factory = EpisodeFactory(OwnWorkflow(Cut, None))
    assert seen(played(factory=factory), calls("get_odd", how="wait")) == {"error": "no answer within 0.2 s"}
    assert seen(played(factory=factory), calls("add", number=2)) == {"sum": 2}


def test_a_process_that_dies_in_a_call_ends_its_episodes_and_no_more() -> None:
    before = seen(played(), calls("get_odd", how="print"))
    episode, beside = played(calls("add", number=3)), played()
    error = seen(episode, calls("get_odd", how="die"))["error"]
    assert "its process ended (exit code 9): out of memory" in error
    assert "its process ended" in seen(beside, calls("add", number=3))["error"]
    for one in (episode, beside):
        one.step(said("Made."))
        assert one.outcome.success is False
        assert one.outcome.scores == {"outcome": 0.0}
    again = played()
    assert seen(again, calls("get_odd", how="print")) not in (before, None)
    assert seen(again, calls("add", number=3)) == {"sum": 3}


def test_episodes_that_end_leave_nothing_in_the_process() -> None:
    pid = seen(played(), calls("get_odd", how="print"))
    for _ in range(60):
        played(calls("add", number=3), said("Made.")).outcome  # noqa: B018
        played(calls("add", number=3))  # left without an end
    played()
    deadline = time.monotonic() + 10
    while (threads := len(os.listdir(f"/proc/{pid}/task"))) > 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threads <= 20


@pytest.mark.parametrize(
    ("how", "expected"),
    [("raise", "cannot be judged: it is not there"), ("nan", "gave nan"), ("text", "gave 'no number'"),
     ("hang", "no answer within 0.5 s")],
)  # fmt: skip
def test_a_reward_that_fails_is_one_clear_error(how: str, expected: str) -> None:
    class Hasty(Sums):
        seconds = 0.5

    episode = played(said(f"reward {how}"), factory=EpisodeFactory(OwnWorkflow(Hasty, None)))
    with pytest.raises(AgentRLError, match=expected):
        episode.outcome  # noqa: B018


def test_a_task_that_cannot_be_begun_says_why() -> None:
    environment = Sums()
    with pytest.raises(AgentRLError, match="Sums: the task cannot be begun: no goal below 0"):
        environment.reset({"goal": -1})


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"source": "raises"}, "`raises` cannot be loaded by .*: there is no such environment"),
        ({"source": "hangs", "loading_seconds": 0.5}, "no answer within 0.5 s"),
        ({"source": "dies"}, "its process ended .exit code 7"),
        ({"source": "dies", "config": {"said": True}}, "killed as it was being loaded"),
        ({"source": ""}, "Give it `source`"),
        ({"python": ""}, "and `python`, the interpreter of a virtual environment that has verifiers"),
        ({"python": "nowhere/bin/python"}, "there is no interpreter .*tests/nowhere/bin/python"),
        ({"python": "/bin/false"}, "its process ended .exit code 1"),
        ({"config": {"more": [{"name": "bare", "parameters": {}}]}}, "tool `bare` has no description"),
        (
            {"config": {"more": [{"name": "add", "description": "Once more.", "parameters": {}}]}},
            "two tools of the name `add`",
        ),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_error(members: dict[str, Any], expected: str) -> None:
    import re

    text = refused(type("Wrong", (Sums,), {"__module__": __name__, **members}))
    assert re.search(expected, text), text


def test_what_all_episodes_share_may_not_hang_for_ever() -> None:
    class Stuck(Sums):
        config: ClassVar = {"stuck": True}
        seconds = 0.5

    process = Stuck._worker().running()
    with pytest.raises(AgentRLError, match="no answer"):
        process.ask("load", 0.3, source="hangs", config={})
    deadline = time.monotonic() + 15
    while not process.gone and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "what all episodes share hangs" in str(process.gone)
    assert Stuck._worker().running() is not process


def test_a_fork_has_a_process_of_its_own() -> None:
    ours = Sums._worker().running()._process.pid
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(Sums._worker().running()._process.pid).encode())
        os._exit(0)
    os.close(writing)
    theirs = int(os.read(reading, 20) or 0)
    os.waitpid(child, 0)
    os.close(reading)
    assert theirs not in (0, ours)
    assert seen(played(), calls("get_odd", how="print")) == ours


def test_it_ends_with_whoever_started_it() -> None:
    code = (
        "import test_adaptor_elsewhere as here, time\n"
        "print(here.Sums._worker().running()._process.pid, flush=True)\ntime.sleep(99)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in _state(pid)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_each_result_names_its_call() -> None:
    two = calls("add", number=1)
    two["tool_calls"] *= 2
    messages = [two, {"role": "tool", "content": {"sum": 1}}, {"role": "tool", "content": "2"}, calls("add", number=2),
                {"role": "tool", "content": None}, said("Made.")]  # fmt: skip
    told = as_openai(messages)
    ids = [one["id"] for message in told for one in message.get("tool_calls", ())]
    assert len(set(ids)) == 3
    assert [one["tool_call_id"] for one in told if one["role"] == "tool"] == ids
    assert told[1]["content"] == '{"sum": 1}'
    assert told[0]["tool_calls"][0]["function"]["arguments"] == '{"number": 1}'


@pytest.mark.parametrize(
    ("said", "success_at", "outcome"),
    [
        ([(1.0, 0.1)] * 10, None, 1.0),  # 0.1 ten times is not quite 1
        ([(1.0, 1.0), (0.0, -1.0)], None, 1.0),
        ([(1.0, 1.0), (1.0, -1.0)], None, 0.0),
        ([(0.5, 1.0), (1.0, 1.0)], None, 0.75),
        ([(0.5, 1.0), (1.0, 1.0)], 1.5, 1.0),
        ([(0.25, 1.0), (0.0, 1.0)], 0.5, 0.5),
        ([(3.0, 1.0)], None, 1.0),
    ],
)
def test_success_is_the_weighted_sum(said: list[tuple[float, float]], success_at: float | None, outcome: float) -> None:
    kind = type("Weighed", (Sums,), {"success_at": success_at})
    parts = kind()._parts({str(n): {"score": score, "weight": weight} for n, (score, weight) in enumerate(said)})
    assert parts.pop("outcome") == pytest.approx(outcome, abs=1e-12)
    assert list(parts.values()) == [score for score, _ in said]


def test_no_reward_with_a_weight_is_no_success() -> None:
    with pytest.raises(AgentRLError, match=r"Set Sums\.success_at"):
        Sums()._parts({"only": {"score": 1.0, "weight": 0.0}})
