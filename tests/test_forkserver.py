"""Processes forked with the libraries loaded: what they have from their parent, and that none outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrl_resources import forkserver
from agentrl_resources.errors import AgentRLError
from agentrl_resources.forkserver import Forked
from agentrl_resources.side_by_side import side_by_side


def surroundings(say, number):
    print("to standard output", flush=True)
    print("to standard error", file=sys.stderr)
    say(os.getpid())
    return number, os.environ["ASKED_WITH"], os.getcwd(), sys.path, sys.stdin.read(), sorted(sys.modules)


def echo(say, content):
    say(content)
    return content


def draws(say, _):
    import random
    import uuid

    return random.random(), uuid.uuid4()


def sleeps(say, _):
    say((os.getpid(), os.getppid()))
    time.sleep(600)


def splits(say, numbers):
    return side_by_side(echo, numbers, lambda *_: None)


def prints_much(say, count):
    print("x" * count, end="")


def refuses(say, _):
    raise AgentRLError("not that one")


def is_gone(pid, seconds=20.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def last_word(process):
    heard = []
    try:
        while not heard or heard[-1][0] == "said":
            heard.append(process.read())
    finally:
        process.end()
    return heard


def test_it_has_what_a_new_process_would_have_and_the_libraries_besides(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ASKED_WITH", "this")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (_, pid), (kind, found) = last_word(Forked(surroundings, 7, tmp_path / "stderr.log"))
    number, asked_with, folder, path, read, modules = found
    assert (kind, number, asked_with, folder, path) == ("done", 7, "this", str(tmp_path), sys.path)
    assert read == ""
    assert pid not in (os.getpid(), os.getppid())
    assert (tmp_path / "stderr.log").read_text() == "to standard error\n"
    assert "to standard output" in capfd.readouterr().out
    if sys.platform == "linux":
        assert {"torch", "trl.trainer.reward_trainer", "transformers.models.gpt_oss.modeling_gpt_oss"} <= set(modules)


def test_what_is_said_arrives_whole_and_in_order():
    content = [bytes(3_000_000), "äöü \ud800"]
    assert last_word(Forked(echo, content)) == [("said", content), ("done", content)]


def test_what_it_printed_last_is_not_lost(capfd):
    for _ in range(5):
        last_word(Forked(prints_much, 50_000))
    assert capfd.readouterr().out.count("x") == 250_000


def test_a_long_way_to_the_temporary_folder_is_no_obstacle(tmp_path, monkeypatch):
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    monkeypatch.setattr(forkserver, "_folder", None)
    monkeypatch.setattr(forkserver, "_server", None)
    monkeypatch.setattr(forkserver.tempfile, "tempdir", str(folder))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stand_in"))  # without libraries
    try:
        assert last_word(Forked(echo, 1)) == [("said", 1), ("done", 1)]
    finally:
        assert forkserver._server is not None
        assert forkserver._server.stdin is not None
        forkserver._server.stdin.close()
        forkserver._server.wait()


def test_two_of_one_server_draw_different_numbers():
    one, other = (last_word(Forked(draws, None))[-1][1] for _ in range(2))
    assert set(one).isdisjoint(other)


def test_they_may_ask_for_processes_themselves():
    assert last_word(Forked(splits, [1, 2, 3])) == [("done", [1, 2, 3])]


def test_a_refusal_is_the_last_word():
    ((kind, failure),) = last_word(Forked(refuses, None))
    assert kind == "failed"
    assert str(failure) == "not that one"


def test_a_killed_one_is_noticed_and_one_that_is_ended_is_gone():
    process, other = Forked(sleeps, None), Forked(sleeps, None)
    (_, (pid, server)), (_, (second, _)) = process.read(), other.read()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EOFError):
        process.read()
    process.end()
    other.end()
    assert is_gone(second, 5)
    assert not is_gone(server, 0.1)


def test_a_server_that_died_is_started_again():
    process = Forked(sleeps, None)
    _, (pid, server) = process.read()
    os.kill(server, signal.SIGKILL)
    assert forkserver._server is not None
    forkserver._server.wait()
    assert last_word(Forked(echo, "again")) == [("said", "again"), ("done", "again")]
    process.end()
    assert is_gone(pid, 5)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_process_that_asked(how):
    script = """
import signal
import sys
from agentrl_resources import forkserver
from agentrl_resources.forkserver import Forked
import test_forkserver as here
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it,
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and where Dagster ran before, SIGTERM is what SIGINT was
process = Forked(here.sleeps, None)
print(*process.read()[1], forkserver._folder, flush=True)
process.read()
"""
    tests = Path(__file__).parent
    without_libraries = os.pathsep.join([str(tests / "stand_in"), str(tests), *sys.path])
    environment = {**os.environ, "PYTHONPATH": without_libraries}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          env=environment) as asking:  # fmt: skip
        assert asking.stdout is not None
        pid, server, folder = asking.stdout.readline().split()
        asking.send_signal(how)
        asking.wait(timeout=30)
    assert is_gone(int(pid))
    assert is_gone(int(server))
    assert not Path(folder).exists()
