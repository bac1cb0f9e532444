"""OpenEnv environments: a real server, made with the package's own classes, in a Python of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrl_resources.adaptors.openenv import OpenEnv
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import locked
from agentrl_resources.workflow import Episode, EpisodeFactory
from agentrl_resources.workflow.own import OwnWorkflow, plays

ROOT = Path(__file__).parents[1]
OPENENV = "openenv==0.10.0"
pytestmark = pytest.mark.xdist_group("openenv")  # one process: its server takes long to start


class Counter(OpenEnv):
    """You count."""

    @classmethod
    def tasks(cls) -> Iterator[dict[str, Any]]:
        for number in range(12):
            reference = [{"name": "add", "arguments": {"number": 2}}] * 2
            yield {"prompt": f"Count, {number}.", "goal": 4, "seed": number, "reference": reference}


@pytest.fixture(scope="session")
def python_with_openenv() -> str:
    """OpenEnv wants other versions of MCP and Pillow than this project, so it lives apart. Made once: `make clean`."""
    folder = Path(os.environ.get("AGENTRL_OPENENV", ROOT / ".openenv"))
    with locked(folder.with_suffix(".lock"), wait_seconds=900):
        if not (folder / ".ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", OPENENV]
            subprocess.run(pip, check=True, timeout=900)
            (folder / ".ready").touch()
    return str(folder / "bin" / "python")


def served(python: str) -> tuple["subprocess.Popen[bytes]", str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([python, str(ROOT / "tests" / "openenv_server.py"), str(port)])
    while server.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}"
        time.sleep(0.05)
    raise AssertionError("the server did not start")


@pytest.fixture(scope="module")
def running(python_with_openenv: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    process, url = served(python_with_openenv)
    yield process, url
    process.kill()
    process.wait()


@pytest.fixture
def server(running: tuple["subprocess.Popen[bytes]", str]) -> str:
    return running[1]


def of(url: str, **members: Any) -> tuple[OwnWorkflow, EpisodeFactory]:
    workflow = OwnWorkflow(type("Game", (Counter,), {"url": url, **members}), None)
    return workflow, EpisodeFactory(workflow)


def begun(made: tuple[OwnWorkflow, EpisodeFactory]) -> Episode:
    workflow, factory = made
    return factory.start(workflow.tasks("train", 1, 0)[0])


def does(episode: Episode, name: str, **arguments: Any) -> Any:
    function = {"name": name, "arguments": arguments}
    return episode.step({"role": "assistant", "tool_calls": [{"id": "1", "function": function}]})[0]["content"]


def ended(episode: Episode) -> Any:
    episode.step({"role": "assistant", "content": "Done."})
    return episode.outcome


def test_tools_are_the_servers_and_a_row_reaches_its_reset(server):
    workflow, factory = of(f"{server}/tools")
    shown = {tool["function"]["name"]: tool["function"] for tool in factory.tools}
    assert set(shown) == {"add", "get_total", "hang"}
    assert shown["add"]["description"] == "Adds a number."
    assert shown["add"]["parameters"]["required"] == ["number"]
    task = workflow.tasks("train", 1, 0)[0]
    assert factory.play(task, workflow.scripted_agents(task)["expert"]).outcome.success  # 4, which the row asks for
    assert not factory.play(task, plays([], "No.")).outcome.success


def test_rewards_of_the_steps_are_added_up_and_none_counts_nothing(server):
    episode = begun(of(f"{server}/tools"))
    assert does(episode, "get_total") == {"total": 0}  # which gives no reward
    assert does(episode, "add", number=1) == 1
    assert episode._environment.rewards == [0.5]
    assert does(episode, "add", number=3) == 4
    assert "over" in does(episode, "add", number=1)["error"]  # the server said that it is done
    assert episode._environment.get_reward() == 1.0
    assert ended(episode).success


def test_errors_are_tool_errors_and_the_session_goes_on(server):
    episode = begun(of(f"{server}/tools"))
    assert "not downwards" in does(episode, "add", number=-1)["error"]
    assert does(episode, "add", number="two") == {"error": "invalid arguments"}
    assert does(episode, "close") == {"error": "unknown tool close"}
    assert does(episode, "add", number=1) == 1


def test_each_episode_has_a_session_of_its_own(server):
    made = of(f"{server}/tools")
    episodes = [begun(made) for _ in range(4)]
    for number, episode in enumerate(episodes):
        does(episode, "add", number=number)
    assert [does(episode, "get_total") for episode in episodes] == [{"total": number} for number in range(4)]
    for episode in episodes:
        ended(episode)


def test_a_session_ends_with_its_episode_and_no_room_is_one_error(server):
    made = of(f"{server}/one")
    for _ in range(3):
        ended(begun(made))
    kept = begun(made)
    with pytest.raises(AgentRLError, match=r"no room for another episode.*max_concurrent_envs"):
        begun(made)
    del kept  # nobody played it to its end
    for _ in range(200):
        try:
            ended(begun(made))
            break
        except AgentRLError:
            time.sleep(0.02)
    else:
        raise AssertionError("the session of an episode that nobody holds any more is still there")


def test_without_tools_the_action_is_one(server):
    rows = [{"prompt": f"Count, {number}. ", "goal": 3} for number in range(12)]
    made = of(f"{server}/actions", tasks=classmethod(lambda cls: iter(rows)))
    (tool,) = (tool["function"] for tool in made[1].tools)
    assert tool["name"] == "step"
    assert tool["description"] == "Adds a number."
    assert set(tool["parameters"]["properties"]) == {"number"}
    episode = begun(made)
    assert episode.transcript.messages[1]["content"].endswith('. {"text": "Reach 3.", "total": 0}')
    assert does(episode, "step", number=1) == {"text": "more", "total": 1}
    assert does(episode, "step", numbr=1) == {"error": "invalid arguments"}
    assert does(episode, "step", number=2) == {"text": "there", "total": 3, "done": True}
    assert ended(episode).success


def test_a_call_that_hangs_is_cut_and_its_session_is_over(server):
    made = of(f"{server}/tools")
    object.__setattr__(made[0].tool_policy, "max_call_seconds", 0.5)
    episode = begun(made)
    assert "no answer within" in does(episode, "hang")["error"]
    assert "has ended" in does(episode, "get_total")["error"]
    assert not ended(episode).success


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", 'must say where its server is: `url = "http://..."`, or OPENENV_URL'),
        ("http://127.0.0.1:9", "127.0.0.1:9 cannot be reached.*Start it"),
        ("not an address", "cannot be reached"),
        ("{server}/nowhere", "cannot be reached"),
        ("{server}/bare", "its action is no object with fields of its own.*MCPEnvironment"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_error_that_says_what_to_do(server, url, said):
    with pytest.raises(AgentRLError, match=said):
        of(url.format(server=server))


def test_the_address_may_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("OPENENV_URL", f"{server}/tools/")
    assert json.dumps(of("")[1].tools) == json.dumps(of(f"{server}/tools")[1].tools)


def test_a_server_that_dies_is_one_error_and_the_next_episode_says_so(running):
    process, url = running
    made = of(f"{url}/tools")
    episode = begun(made)
    process.kill()  # the last test of this file
    process.wait()
    assert "went away" in does(episode, "add", number=1)["error"]
    assert not ended(episode).success
    with pytest.raises(AgentRLError, match="cannot be reached"):
        begun(made)
