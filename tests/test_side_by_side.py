"""Pieces of work in processes of their own: all of it, in order, and one clear error when one fails or is killed."""

import os
import signal
import time

import pytest

from agentrl_resources.errors import AgentRLError
from agentrl_resources.side_by_side import cores, side_by_side
from agentrl_resources.stages.pieces import share_of


def squared(say, number):
    say(f"working on {number}")
    return os.getpid(), number * number


def failing(say, number):
    if number == 1:
        raise AgentRLError("number 1 cannot be done")
    time.sleep(60)


def breaking(say, number):
    return {}["no such key"]


def killed(say, number):
    os.kill(os.getpid(), signal.SIGKILL)


def threads(say, number):
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def test_results_come_in_order_from_other_processes_and_what_they_say_is_heard():
    heard = []
    results = side_by_side(squared, [3, 1, 2], lambda number, said: heard.append((number, said)))
    assert [square for _, square in results] == [9, 1, 4]
    assert len({pid for pid, _ in results} | {os.getpid()}) == 4
    assert sorted(heard) == [(0, "working on 3"), (1, "working on 1"), (2, "working on 2")]


def test_a_single_piece_needs_no_process():
    assert side_by_side(squared, [4], lambda *_: None) == [(os.getpid(), 16)]


def test_pieces_divide_the_cores_and_this_process_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    share = max(1, cores() // 2)
    assert side_by_side(threads, [1, 2], lambda *_: None) == [(share, str(share))] * 2
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("work", "said"),
    [(failing, "number 1 cannot be done"), (breaking, "KeyError: 'no such key'"), (killed, "ended without a result")],
)
def test_a_piece_that_fails_ends_them_all_with_one_error(work, said):
    started = time.monotonic()
    with pytest.raises(AgentRLError, match=said):
        side_by_side(work, [0, 1, 2], lambda *_: None)
    assert time.monotonic() - started < 45  # the others would sleep for a minute


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_shares_in_order_are_all_rows(shares, count):
    rows = list(range(count))
    parts = [share_of(rows, (number, shares)) for number in range(shares)]
    assert [row for part in parts for row in part] == rows
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
