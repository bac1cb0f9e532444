"""Stored runs as preference data: of one request, what succeeded against what did not, each row with its two runs."""

import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from agentrl_assets.cli import main
from agentrl_resources.preferences import CleaningRules, clean, pairs_from, read_pairs
from agentrl_resources.preferences.from_runs import MOST_OF_A_TASK


def run(number: int, task: str, success: bool | None, **more: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": f"Where is the parcel of {task}?"},
        {"role": "assistant", "content": f"Answer {number}."},
    ]
    return {"run_id": f"r{number}", "task_id": task, "task_type": "where", "success": success,
            "human_override": None, "trace": {"messages": messages}} | more  # fmt: skip


def test_each_success_is_paired_with_each_failure_of_its_task() -> None:
    runs = [run(n, f"t{n % 3}", n % 2 == 0) for n in range(12)]
    found = pairs_from(runs)
    expected = {(good["run_id"], bad["run_id"]) for good, bad in product(runs, runs)
                if good["task_id"] == bad["task_id"] and good["success"] and not bad["success"]}  # fmt: skip
    assert {(row["chosen_run"], row["rejected_run"]) for row in found.rows} == expected
    assert (found.runs, found.unknown, found.one_sided, found.apart) == (12, 0, 0, 0)
    for row in found.rows:
        number = int(row["chosen_run"][1:])
        assert row["prompt"] == [{"role": "user", "content": f"Where is the parcel of {row['task_id']}?"}]
        assert row["chosen"] == [{"role": "assistant", "content": f"Answer {number}."}]


def test_what_gives_no_pair_is_counted() -> None:
    other = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "x"}]
    runs = [
        run(1, "a", True), run(2, "a", True),
        run(3, "b", None), run(4, "b", False),
        run(5, "c", True), run(6, "c", False, trace={"messages": other}),
        run(7, "d", True), run(8, "d", None, human_override=True),
        run(9, "e", True, trace={}),
    ]  # fmt: skip
    found = pairs_from(runs)
    pairs = [(row["chosen_run"], row["rejected_run"], "compares" in row) for row in found.rows if "rejected" in row]
    assert pairs == [("r5", "r6", True), ("r7", "r8", False)]
    assert [row["chosen_run"] for row in found.rows if "rejected" not in row] == ["r1", "r2"]
    assert (found.runs, found.unknown, found.one_sided, found.apart) == (9, 2, 2, 1)


def test_a_task_with_many_runs_does_not_outweigh_the_others() -> None:
    runs = [run(n, "t", n % 2 == 0) for n in range(40)]
    assert len(pairs_from(runs).rows) == MOST_OF_A_TASK
    assert pairs_from(runs).rows == pairs_from(runs).rows


def test_imported_traces_become_pairs_that_can_be_cleaned(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AGENTRL_WORKFLOW_FILE", "AGENTRL_HOME", "PYTHONPATH"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    traces, out = tmp_path / "traces.jsonl", tmp_path / "pairs.jsonl"
    runs = [run(n, f"t{n // 2}", n % 2 == 0) for n in range(20)]
    rows = [{**one, "messages": one.pop("trace")["messages"]} for one in runs]
    traces.write_text("\n".join(json.dumps(row) for row in rows))
    where = ["--home", str(tmp_path / "home")]
    assert main(["pairs", str(out), "--workflow", "parcels", *where]) == 1
    assert "Import traces first" in capsys.readouterr().err
    assert main(["import", str(traces), "--workflow", "parcels", *where]) == 0
    assert main(["pairs", str(out), "--workflow", "parcels", *where]) == 0
    assert "10 pairs (0 of them of runs whose requests are in other words" in capsys.readouterr().out
    assert len(list(read_pairs(out))) == 10
    assert {json.loads(line)["chosen_run"] for line in out.read_text().splitlines()} == {
        f"r{n}" for n in range(0, 20, 2)
    }
    cleaned = clean(list(read_pairs(out)), CleaningRules(near_duplicate_similarity=1.0))
    assert len(cleaned.clean) == 10
