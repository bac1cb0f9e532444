"""Pieces of work on a real Ray cluster of two nodes: the same results, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_models import small_factory, small_harmony, small_model

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import write_json
from agentrl_resources.on_ray import on_ray
from agentrl_resources.stages import read_request, stage
from agentrl_resources.stages.request import save_with_format

pytestmark = pytest.mark.xdist_group("ray")

SETTINGS = """
workflow: {{target: short_desk:Short, baseline: b, reward_model: r, policy_training: ppo_kl}}
release: {{canary_traffic_percent: 5, gates: [rollback_under_5_minutes]}}
monitoring: [tool_error_rate]
on_policy: {{tasks: 5, holdout_tasks: 3, samples_per_task: 2}}
compute: {compute}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes with a core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        nodes: Any = Cluster()
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=2**27, include_dashboard=False)
        yield nodes.address
        nodes.shutdown()


def squared(say: Any, number: int) -> int:
    say(number)
    return number * number


def test_results_come_in_order_and_what_is_said_is_heard(cluster: str) -> None:
    heard: dict[int, int] = {}
    assert on_ray(squared, lambda count: range(5 * count), heard.__setitem__, cluster, 2) == [n * n for n in range(10)]
    assert all(number == said for number, said in heard.items())
    assert on_ray(squared, lambda count: [count], heard.__setitem__, cluster, None) == [4], "two nodes, a core each"


def wrong(_: Any, number: int) -> int:
    if number == 1:
        raise AgentRLError("piece 1 is wrong: mend it")
    time.sleep(600)
    return number


def test_a_pieces_error_is_raised_and_ends_the_others(cluster: str) -> None:
    began = time.monotonic()
    with pytest.raises(AgentRLError, match=r"^piece 1 is wrong: mend it$"):
        on_ray(wrong, lambda _: [1, 2], lambda *_: None, cluster, 2)
    assert time.monotonic() - began < 300


def killed_once(_: Any, place: str) -> str:
    if not os.path.exists(place):
        Path(place).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return place


def test_a_worker_that_is_killed_costs_time_and_nothing_else(cluster: str, tmp_path: Path) -> None:
    places = [str(tmp_path / name) for name in ("one", "two")]
    assert on_ray(killed_once, lambda _: places, lambda *_: None, cluster, 2) == places
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def killed_always(_: Any, place: str) -> None:
    with open(place, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_piece_that_kills_every_worker_is_given_up(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(AgentRLError, match="without a result on each of 4 workers"):
        on_ray(killed_always, lambda _: [str(tmp_path / "begun")], lambda *_: None, cluster, 1)
    assert (tmp_path / "begun").read_text() == "xxxx"


DRIVER = """
import os, sys, time
from pathlib import Path
from agentrl_resources.on_ray import on_ray

def slow(_, place):
    Path(place).write_text(str(os.getpid()))
    time.sleep(300)

on_ray(slow, lambda _: sys.argv[2:], lambda *_: None, sys.argv[1], 2)
"""


def test_pieces_end_when_whoever_asked_for_them_is_killed(cluster: str, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "two")]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, cluster, *map(str, places)])
    deadline = time.monotonic() + 120
    while not all(place.exists() and place.read_text() for place in places):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [int(place.read_text()) for place in places]
    assert all(psutil.pid_exists(worker) for worker in workers)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(worker) for worker in workers):
        assert time.monotonic() < deadline, "a piece outlives whoever asked for it"
        time.sleep(0.1)


def test_a_cluster_that_does_not_answer_is_one_clear_error() -> None:
    with pytest.raises(AgentRLError, match=r"^compute\.address: 127\.0\.0\.1:1 does not answer"):
        on_ray(squared, range, lambda *_: None, "127.0.0.1:1", 1)
    with pytest.raises(AgentRLError, match=r"^compute\.address: `somewhere` is no address of a Ray cluster"):
        on_ray(squared, range, lambda *_: None, "somewhere", 1)


def test_a_stage_samples_the_same_there(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On-policy pairs by two processes of this machine, and by two nodes: the same files, byte by byte."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the workflow is
    for place in ("stages.pieces", "side_by_side"):
        monkeypatch.setattr(f"agentrl_resources.{place}.cores", lambda: 2)
    harmony = small_harmony(small_factory())
    model = small_model(harmony)
    for name in ("sft_checkpoint", "cleaned_preference_data"):
        (tmp_path / name).mkdir()
    save_with_format(model, harmony, True, tmp_path / "sft_checkpoint")
    made: list[dict[str, bytes]] = []
    for number, compute in enumerate(["{kind: local}", f"{{kind: ray, address: '{cluster}', workers: 2}}"]):
        place = tmp_path / str(number)
        (place / "work").mkdir(parents=True)
        (place / "output").mkdir()
        (place / "workflow.yaml").write_text(SETTINGS.format(compute=compute))
        inputs = {name: str(tmp_path / name) for name in ("sft_checkpoint", "cleaned_preference_data")}
        request = {
            "workflow_file": str(place / "workflow.yaml"), "rubric": None, "inputs": inputs,
            "output": str(place / "output"), "work": str(place / "work"), "names": {}, "parameters": {},
        }  # fmt: skip
        write_json(place / "request.json", request)
        stage("on_policy_preference_data")(read_request(place / "request.json", lambda *_: None))
        made.append({file.name: file.read_bytes() for file in (place / "output").iterdir()})
    assert made[0] == made[1]
    assert len(made[0]["samples.jsonl"].splitlines()) == 6
