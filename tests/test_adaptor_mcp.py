"""MCP servers as environments: real servers, as processes and over HTTP."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from agentrl_resources.adaptors.extras import needs
from agentrl_resources.adaptors.mcp import McpServer
from agentrl_resources.adaptors.mcp_session import ToolError
from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import Episode, EpisodeFactory, load_workflow
from agentrl_resources.workflow.own import OwnWorkflow, plays

SERVER = Path(__file__).with_name("mcp_server.py")
PLAIN = Path(__file__).with_name("mcp_plain_server.py")
pytestmark = pytest.mark.xdist_group("mcp")  # one process, which shares the servers


class Desk(McpServer):
    """You keep notes."""

    command = (sys.executable, str(SERVER))
    env = {"DESK_SECRET": "of the desk"}  # noqa: RUF012
    fresh = False
    hidden = ("forget", "notes")

    @classmethod
    def tasks(cls) -> Iterator[dict[str, Any]]:
        for number in range(12):
            yield {"prompt": f"Write {number}.", "reference": [{"name": "write", "arguments": {"text": str(number)}}]}

    def reset(self, **row: Any) -> None:
        self.server.call("forget")

    def get_reward(self, transcript: Any) -> dict[str, float]:
        return {"outcome": float(bool(self.server.call("notes"))), "short": float(len(transcript.tool_calls) < 3)}


class Plain(McpServer):
    """One that starts at once: a server of its own for each episode."""

    command = (sys.executable, "-S", str(PLAIN))

    @classmethod
    def tasks(cls) -> Iterator[dict[str, Any]]:
        for number in range(12):
            yield {"prompt": f"Count {number}."}

    def get_reward(self) -> float:
        return float(self.server.alive and self.server.call("count") == "2")


def started(kind: type[McpServer]) -> tuple[OwnWorkflow, EpisodeFactory]:
    workflow = OwnWorkflow(kind, None)
    return workflow, EpisodeFactory(workflow)


def does(episode: Episode, name: str, arguments: dict[str, Any]) -> Any:
    function = {"name": name, "arguments": arguments}
    return episode.step({"role": "assistant", "tool_calls": [{"id": "1", "function": function}]})[0]["content"]


def ended(episode: Episode) -> Any:
    episode.step({"role": "assistant", "content": "Done."})
    return episode.outcome


def servers(script: Path) -> list[int]:
    """Those that this process started and that still run."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ends while it is looked at
            if one.status() != psutil.STATUS_ZOMBIE and str(script) in one.cmdline():
                found.append(one.pid)
    return found


def comes_to(wanted: Any, asked: Any) -> None:
    for _ in range(500):
        if asked() == wanted:
            return
        time.sleep(0.02)
    raise AssertionError(f"it stays {asked()!r}, and should be {wanted!r}")


@pytest.fixture(scope="module")
def desk() -> tuple[OwnWorkflow, EpisodeFactory]:
    return started(Desk)


@pytest.fixture(scope="module")
def over_http() -> Iterator[type[McpServer]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, str(SERVER), str(port)], stderr=subprocess.DEVNULL)
    for _ in range(1500):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield type(
        "Remote", (Desk,), {"url": f"http://127.0.0.1:{port}/mcp", "command": (), "fresh": True, "process": server}
    )
    server.kill()
    server.wait()


def test_what_the_agent_sees_is_what_the_server_has_but_what_is_hidden(desk):
    workflow, factory = desk
    shown = {tool["function"]["name"]: tool["function"] for tool in factory.tools}
    assert "write" in shown
    assert not {"notes", "forget"} & set(shown)
    assert shown["write"]["description"] == "Writes something down."
    assert shown["add"]["description"] == "Add two numbers"  # its title: it has no description
    assert shown["add"]["parameters"]["required"] == ["a", "b"]
    assert set(shown["write"]) == {"name", "description", "parameters"}
    assert workflow.instructions == "You keep notes."
    assert Desk.tools() is Desk.tools()


def test_annotations_say_what_a_tool_does_and_names_do_not(desk):
    workflow, _ = desk
    kinds = {name: rule.side_effect for name, rule in workflow.tool_policy.rules.items()}
    assert kinds["get_told"] == kinds["write"] == "write"
    reading = type("Reading", (Desk,), {"hidden": ()})
    workflow = OwnWorkflow(reading, None)
    assert workflow.tool_policy.rules["notes"].side_effect == "read"
    assert "by their annotations: these only read: notes;" in workflow.derived["tool_policy"]


def test_an_episode_plays_and_is_judged_by_what_the_server_knows(desk):
    workflow, factory = desk
    task = workflow.tasks("train", 1, 3)[0]
    expert = factory.play(task, workflow.scripted_agents(task)["expert"])
    assert expert.transcript.tool_calls[0].result == {"notes": 1}
    assert expert.outcome.success
    assert not factory.play(task, plays([], "No.")).outcome.success


@pytest.mark.parametrize(
    ("name", "arguments", "seen"),
    [
        ("add", {"a": 2, "b": 3}, 5),
        ("get_told", {}, "first\nsecond"),
        ("secret", {}, "of the desk"),
        ("add", {"a": 2, "b": 3, "who": "refused"}, {"error": "Error executing tool add: not for you"}),
        ("add", {"a": "two", "b": 3}, {"error": "invalid arguments"}),
        ("notes", {}, {"error": "unknown tool notes"}),
        ("elsewhere", {}, {"error": "unknown tool elsewhere"}),
        ("odd", {"kind": "none"}, "done"),
        ("odd", {"kind": "bytes"}, '"ab"'),
    ],
)
def test_results_and_errors_come_through(desk, name, arguments, seen):
    workflow, factory = desk
    assert does(factory.start(workflow.tasks("train", 1, 0)[0]), name, arguments) == seen


@pytest.mark.parametrize("kind", ["huge", "deep", "not a number", "none such"])
def test_odd_results_are_an_observation_and_the_server_goes_on(desk, kind):
    workflow, factory = desk
    episode = factory.start(workflow.tasks("train", 1, 0)[0])
    seen = does(episode, "odd", {"kind": kind})
    assert len(json.dumps(seen, allow_nan=False)) <= workflow.tool_policy.max_result_characters + 200
    assert does(episode, "add", {"a": 1, "b": 1}) == 2


def test_a_server_that_all_share_and_that_ends_is_one_error_and_the_next_call_has_another(desk):
    workflow, factory = desk
    episode = factory.start(workflow.tasks("train", 1, 0)[0])
    first = does(episode, "pid", {})
    error = does(episode, "stop_server", {})["error"]
    assert "ended in the middle of `stop_server`" in error
    assert "out of memory" in error
    assert does(episode, "pid", {}) != first
    assert episode.transcript.tool_errors == 1


def test_over_http_each_episode_has_a_session_and_a_server_that_went_away_is_an_error(over_http):
    workflow, factory = started(over_http)
    task = workflow.tasks("train", 1, 0)[0]
    expert = factory.play(task, workflow.scripted_agents(task)["expert"])
    assert expert.outcome.success
    episode = factory.start(task)
    error = does(episode, "stop_server", {})["error"]
    assert "stop_server" in error or "ended" in error
    assert "error" in does(episode, "pid", {})
    with pytest.raises(AgentRLError, match="cannot be used") as failed:
        factory.start(task)
    assert over_http.url in str(failed.value)


def test_each_episode_has_a_server_of_its_own_that_ends_with_it():
    workflow, factory = started(Plain)
    tasks = workflow.tasks("train", 4, 0)
    comes_to([], lambda: servers(PLAIN))
    episodes = [factory.start(task) for task in tasks]
    assert servers(PLAIN) == []  # nobody has asked them for anything
    assert [does(episode, "count", {}) for episode in episodes] == ["1"] * 4
    assert len(servers(PLAIN)) == 4
    assert all(ended(episode).success for episode in episodes[:2])
    comes_to(2, lambda: len(servers(PLAIN)))
    del episodes  # two that nobody played to their end
    comes_to([], lambda: servers(PLAIN))


def test_a_server_that_ends_spoils_its_own_episode_only():
    workflow, factory = started(Plain)
    spoilt, other = (factory.start(task) for task in workflow.tasks("train", 2, 0))
    assert "ended in the middle of `stop_server`" in does(spoilt, "stop_server", {})["error"]
    assert "has ended" in does(spoilt, "count", {})["error"]
    assert not ended(spoilt).success
    assert does(other, "count", {}) == "1"
    assert ended(other).success


def test_a_server_that_hangs_is_cut_and_killed():
    class Short(Plain):
        call_seconds = 0.5

        def get_reward(self) -> float:
            with pytest.raises(AgentRLError, match="no answer within"):
                self.server.call("count")
            return 0.0

    workflow, factory = started(Short)
    object.__setattr__(workflow.tool_policy, "max_call_seconds", 0.5)
    episode = factory.start(workflow.tasks("train", 1, 0)[0])
    assert "no answer within" in does(episode, "hang", {})["error"]
    assert not ended(episode).success
    comes_to([], lambda: servers(PLAIN))


def test_a_server_that_can_be_reset_is_used_again_and_never_by_two_at_once():
    class Again(Plain):
        reset_tool = "forget"

        def get_reward(self) -> float:
            return 1.0

    workflow, factory = started(Again)
    assert "forget" not in {tool["function"]["name"] for tool in factory.tools}
    random = Random(5)
    running: list[Episode] = []
    seen: set[str] = set()
    for task in workflow.tasks("train", 40, 0):
        if len(running) == 3:
            ended(running.pop(random.randrange(3)))
        running.append(factory.start(task))
        assert does(running[-1], "count", {}) == "1"
        at_once = [episode._environment.server.call("pid") for episode in running]
        assert len(set(at_once)) == len(at_once)
        seen |= set(at_once)
    assert len(seen) == 3
    does(running[-1], "stop_server", {})
    for episode in running:
        ended(episode)
    episodes = [factory.start(task) for task in workflow.tasks("train", 3, 0)]
    assert [does(episode, "count", {}) for episode in episodes] == ["1"] * 3
    for session in [*Again._idle, *(episode._environment.server for episode in episodes)]:
        session.close()
    comes_to([], lambda: servers(PLAIN))


def test_what_is_filled_in_the_agent_neither_sees_nor_gives():
    class Filled(Plain):
        filled = ("who",)

        def reset(self, **row: Any) -> None:
            self.who = "customer 7"

    workflow, factory = started(Filled)
    (shown,) = (tool["function"]["parameters"] for tool in factory.tools if tool["function"]["name"] == "greet")
    assert "who" not in json.dumps(shown)
    episode = factory.start(workflow.tasks("train", 1, 0)[0])
    assert does(episode, "greet", {"word": "Hello"}) == "Hello customer 7"
    assert ended(episode) is not None


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)", "raise ValueError"])
def test_no_server_outlives_its_process(end, tmp_path):
    code = f"""
import os, signal, sys
sys.path[:0] = [{str(PLAIN.parents[1])!r}, {str(PLAIN.parent)!r}]
from agentrl_resources.adaptors.mcp import McpServer
class Plain(McpServer):
    command = (sys.executable, "-S", {str(PLAIN)!r})
class Shared(Plain):
    fresh = False
kept = [Plain(), Plain(), Shared()]
print(*[one.server.call("pid") for one in kept], flush=True)
{end}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3, done.stderr
    comes_to(False, lambda: any(psutil.pid_exists(pid) for pid in pids))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"command": ("no-such-command",)}, "no-such-command.*there is no such command"),
        ({"command": (sys.executable, "-c", "import nowhere")}, "cannot be used.*No module named 'nowhere'"),
        ({"command": (sys.executable, "-c", "print('hello'); input()")}, "cannot be used: Connection closed"),
        ({"command": (sys.executable, "-c", "import time; time.sleep(60)"), "start_seconds": 0.5}, "within 0.5 s"),
        ({"command": (), "url": "http://127.0.0.1:9/mcp"}, "127.0.0.1:9/mcp.*cannot be used"),
        ({"command": ()}, "must say where its server is"),
        ({"command": "python server.py"}, "must say where its server is"),
        ({"url": "http://127.0.0.1:9/mcp"}, "and not both"),
        ({"hidden": ("nothing_like_it",)}, "has no tool `nothing_like_it`.*It has: count"),
        ({"hidden": ("count", "forget", "greet", "hang", "pid", "stop_server")}, "has no tools but the hidden ones"),
        ({"env": {"PLAIN_TOOLS": "none"}}, "has no tools.*name another server"),
        ({"env": {"PLAIN_TOOLS": "twice"}}, "two tools of the name `count`"),
        ({"fresh": False, "reset_tool": "forget"}, "Leave one of the two out"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_error_that_says_what_to_do(members, said):
    with pytest.raises(AgentRLError, match=f"(?s){said}"):
        OwnWorkflow(type("Wrong", (Plain,), members), None)
    comes_to([], lambda: servers(PLAIN))


def test_a_tool_that_fails_in_reset_or_reward_says_so(desk):
    workflow, _ = desk
    with pytest.raises(ToolError, match="not for you"):
        Desk().server.call("add", a=1, b=1, who="refused")

    class NeedsIt(Desk):
        def reset(self, **row: Any) -> None:
            self.server.call("add", a="x")

    with pytest.raises(ToolError, match="validation error"):
        EpisodeFactory(OwnWorkflow(NeedsIt, None)).start(workflow.tasks("train", 1, 0)[0])


def test_a_package_that_is_missing_is_named_with_its_extra():
    with pytest.raises(AgentRLError, match=r"no_such_package is not installed.*'agentrl-release\[mcp\]'"):
        needs("no_such_package", "mcp")


def test_the_starter_teaches_what_it_says(tmp_path, monkeypatch):
    starter = Path(__file__).parents[1] / "agentrl_resources" / "starters" / "mcp"
    for file in starter.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    subprocess.run([sys.executable, "make_tasks.py"], cwd=tmp_path, check=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "environment", raising=False)
    workflow = load_workflow("environment:ParcelDesk", tasks=tmp_path / "tasks.jsonl")
    factory = EpisodeFactory(workflow)
    assert {tool["function"]["name"] for tool in factory.tools} == {"get_parcel", "redirect"}
    tasks = workflow.tasks("train", 20, 1)
    played = [factory.start(task) for task in tasks]  # side by side, on one server
    for task, episode in zip(tasks, played, strict=True):
        agent = workflow.scripted_agents(task)["expert"]
        while not episode.done:
            episode.step(agent(episode.transcript.messages))
    assert all(episode.outcome.success and not episode.outcome.safety_violation for episode in played)
    monkeypatch.delitem(sys.modules, "environment")
