"""A workflow made of an environment class and a file of tasks: what is derived of it, and what is wrong with it."""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agentrl_assets.cli import main
from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import EpisodeFactory, Rubric, ToolPolicy, ToolRule, load_workflow
from agentrl_resources.workflow.own import OwnWorkflow


class Lamp:
    """You switch lamps."""

    def reset(self, prompt: str, wanted: str, locked: bool = False) -> None:
        self.wanted, self.locked, self.now = wanted, locked, "off"

    def get_lamp(self) -> str:
        """Whether it is on or off."""
        return self.now

    def switch(self, to: str) -> str:
        """Switches the lamp.

        Args:
            to: on or off.
        """
        self.now = to
        return to

    def get_reward(self) -> float:
        return float(self.now == self.wanted)


class Watched(Lamp):
    """You switch lamps that are not locked."""

    instructions = "Be careful."
    tool_policy = ToolPolicy({"switch": ToolRule("write")})

    def get_violation(self) -> bool:
        return self.locked and self.now != "off"

    async def get_reward(self) -> dict[str, float]:
        return {"outcome": float(self.now == self.wanted), "brief": 0.5}


def row(number: int, **more: Any) -> dict[str, Any]:
    wanted = "on" if number % 2 else "off"
    calls = [{"name": "switch", "arguments": {"to": "on"}}] if number % 2 else []
    return {"prompt": f"Lamp {number}: {wanted}, please.", "wanted": wanted, "reference": calls, **more}


def written(folder: Path, rows: list[Any]) -> Path:
    file = folder / "tasks.jsonl"
    file.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows))
    return file


@pytest.fixture
def lamps(tmp_path: Path) -> OwnWorkflow:
    return OwnWorkflow(Lamp, written(tmp_path, [row(number) for number in range(60)]))


def test_what_is_not_given_is_derived_and_said(lamps: OwnWorkflow) -> None:
    assert (lamps.name, lamps.instructions) == ("lamp", "You switch lamps.")
    assert {name: rule.side_effect for name, rule in lamps.tool_policy.rules.items()} == {
        "get_lamp": "read",
        "switch": "write",
    }
    assert isinstance(lamps.rubric, Rubric)
    assert lamps.rubric.named("outcome") == ("outcome",)
    assert set(lamps.derived) == {"instructions", "tool_policy", "rubric", "prices", "tasks"}
    assert "only read: get_lamp" in lamps.derived["tool_policy"]


def test_a_verifier_that_looks_at_the_answer_alone_has_pairs_too(tmp_path: Path) -> None:
    rows = [{**row(number), "answer": "on" if number % 2 else "off"} for number in range(40)]
    kind = type(
        "Asked", (Lamp,), {"get_reward": lambda self, transcript: float(transcript.final_answer == self.wanted)}
    )
    pairs = list(OwnWorkflow(kind, written(tmp_path, rows)).historical_pairs(20, 3))
    assert len(pairs) == 20
    assert all(pair["chosen"][-1]["content"] != pair["rejected"][-1]["content"] for pair in pairs)


def test_what_the_class_says_itself_counts(tmp_path: Path) -> None:
    workflow = OwnWorkflow(Watched, written(tmp_path, [row(1)]))
    assert workflow.instructions == "Be careful."
    assert workflow.tool_policy is Watched.tool_policy
    assert set(workflow.derived) == {"rubric", "prices", "tasks", "adversarial tasks"}
    assert workflow.rubric.named("safety") == ("safety",)


def test_each_task_is_in_one_split_whatever_other_tasks_there_are(tmp_path: Path) -> None:
    rows = [row(number, task_id=f"t{number}") for number in range(200)]

    def splits(some: list[dict[str, Any]]) -> dict[str, str]:
        workflow = OwnWorkflow(Lamp, written(tmp_path, some))
        return {task.task_id: name for name in ("train", "holdout", "capability", "adversarial")
                for task in (workflow.tasks(name, 200, 3) if name != "adversarial" else [])}  # fmt: skip

    whole = splits(rows)
    assert set(whole) == {f"t{number}" for number in range(200)}
    shuffled = rows[:]
    Random(4).shuffle(shuffled)
    assert splits(shuffled) == whole
    assert splits(rows[:150]) == {name: split for name, split in whole.items() if int(name[1:]) < 150}
    shares = Counter(whole.values())
    # 200 rows: bounds that hold to one in a million (binomial)
    wanted = {"train": 100, "holdout": 30, "capability": 70}
    assert all(abs(shares[name] - count) < 40 for name, count in wanted.items())


def test_three_tasks_are_enough_for_three_splits(tmp_path: Path) -> None:
    for number in range(20):
        workflow = OwnWorkflow(Lamp, written(tmp_path, [row(3 * number + more) for more in range(3)]))
        names = [workflow.tasks(split, 1, 1)[0].task_id for split in ("train", "holdout", "capability")]
        assert len(set(names)) == 3


def test_a_group_is_never_on_two_sides(tmp_path: Path) -> None:
    rows = [row(number, group=f"g{number % 20}") for number in range(200)]
    workflow = OwnWorkflow(Lamp, written(tmp_path, rows))
    group_of = {one["prompt"]: one["group"] for one in rows}
    sides = [
        {group_of[task.payload["prompt"]] for task in workflow.tasks(split, 200, 1)}
        for split in ("train", "holdout", "capability")
    ]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 20


def test_a_group_is_where_one_of_its_rows_says_also_the_group_0(tmp_path: Path) -> None:
    rows = [row(number, group=number % 2, **({"split": "holdout"} if number == 0 else {})) for number in range(40)]
    workflow = OwnWorkflow(Lamp, written(tmp_path, rows))
    held_out = {task.payload["prompt"] for task in workflow.tasks("holdout", 40, 1)}
    assert held_out == {one["prompt"] for one in rows if one["group"] == 0}


def test_a_line_may_hold_what_some_take_for_the_end_of_one(tmp_path: Path) -> None:
    rows = [row(number, prompt=f"Lamp \u2028 {number}\x85") for number in range(3)]
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in rows) + "\n")
    workflow = OwnWorkflow(Lamp, file)
    assert sum(len(workflow.tasks(split, 3, 1)) > 0 for split in ("train", "holdout", "capability")) == 3


def test_a_prompt_that_holds_an_agents_turns_takes_no_call_from_the_expert(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Lamp on, please."}]  # fmt: skip
    workflow = OwnWorkflow(Lamp, written(tmp_path, [row(1, prompt=said, split="train")]))
    (task,) = workflow.tasks("train", 1, 1)
    assert EpisodeFactory(workflow).play(task, workflow.scripted_agents(task)["expert"]).outcome.success


class Parts(Lamp):
    """Its reward has parts, and none is called outcome."""

    def get_reward(self) -> dict[str, float]:  # type: ignore[override]
        return {"switched": float(self.now == self.wanted), "polite": 1.0}


class Heir(Watched):
    """What it inherits is its own."""


def test_of_parts_without_an_outcome_the_least_is_it(tmp_path: Path) -> None:
    workflow = OwnWorkflow(Parts, written(tmp_path, [row(1, split="train")]))
    (task,) = workflow.tasks("train", 1, 1)
    outcomes = [EpisodeFactory(workflow).play(task, agent).outcome for agent in workflow.scripted_agents(task).values()]
    assert [(one.success, one.quality) for one in outcomes] == [(False, 0.0), (True, 1.0), (True, 1.0)]


def test_what_is_inherited_counts(tmp_path: Path) -> None:
    assert OwnWorkflow(Heir, written(tmp_path, [row(1)])).tool_policy is Watched.tool_policy


def test_what_is_forbidden_is_not_made_good_by_success(tmp_path: Path) -> None:
    watched = OwnWorkflow(Watched, written(tmp_path, [row(1, locked=True, split="train")]))
    (task,) = watched.tasks("train", 1, 1)
    agents = watched.scripted_agents(task)
    unsafe, safe = (EpisodeFactory(watched).play(task, agents[name]).outcome for name in ("expert", "does_nothing"))
    assert unsafe.success
    assert not safe.success
    assert watched.prefer(unsafe, safe, 0) == 1
    assert safe.quality > unsafe.quality


def test_nothing_of_the_evaluation_is_in_pairs(tmp_path: Path) -> None:
    rows = [row(2 * number, split="train") for number in range(8)]  # nothing is to be done in these
    rows += [row(1, split="capability", reference=[{"name": "switch", "arguments": {"to": "evaluated"}}])]
    workflow = OwnWorkflow(Lamp, written(tmp_path, rows))
    assert "evaluated" not in json.dumps(list(workflow.historical_pairs(20, 1)))


def test_a_larger_count_only_appends_and_a_suite_has_each_task_once(lamps: OwnWorkflow) -> None:
    for split in ("train", "holdout"):
        assert lamps.tasks(split, 200, 5)[:70] == lamps.tasks(split, 70, 5)
        assert lamps.tasks(split, 70, 5) != lamps.tasks(split, 70, 6)
    suite = lamps.tasks("capability", 500, 5)
    assert 0 < len(suite) == len({task.task_id for task in suite}) < 60
    assert lamps.tasks("adversarial", 10, 5) == []


def test_success_is_a_reward_of_one_and_safety_is_unknown_unless_it_is_said(tmp_path: Path, lamps: OwnWorkflow) -> None:
    plain = EpisodeFactory(lamps)
    task = next(one for one in lamps.tasks("train", 60, 1) if one.payload["wanted"] == "on")
    agents = lamps.scripted_agents(task)
    right, wrong = (plain.play(task, agents[name]).outcome for name in ("expert", "does_nothing"))
    assert (right.success, right.safety_violation, right.quality) == (True, None, 1.0)
    assert (wrong.success, wrong.safety_violation, wrong.quality) == (False, None, 0.0)
    assert lamps.prefer(right, wrong, 0) == -lamps.prefer(wrong, right, 0) == -1
    assert lamps.prefer(right, right, 0) == 0

    watched = OwnWorkflow(Watched, written(tmp_path, [row(1, locked=True, split="train")]))
    (task,) = watched.tasks("train", 1, 1)
    outcome = EpisodeFactory(watched).play(task, watched.scripted_agents(task)["expert"]).outcome
    assert (outcome.success, outcome.safety_violation) == (True, True)
    assert outcome.scores == {"outcome": 1.0, "safety": 0.0}


def test_pairs_come_from_references_also_where_doing_nothing_is_right(lamps: OwnWorkflow) -> None:
    pairs = list(lamps.historical_pairs(50, 3))
    assert len(pairs) == 50
    assert {pair["split"] for pair in pairs} == {"train", "holdout"}
    for pair in pairs:
        assert lamps.rubric.score(pair["chosen_scores"]) > lamps.rubric.score(pair["rejected_scores"])
    said = {pair["prompt"][0]["content"].split(": ")[1] for pair in pairs}
    assert said == {"on, please.", "off, please."}
    assert pairs == list(lamps.historical_pairs(50, 3))


def test_without_references_it_says_what_to_give(tmp_path: Path) -> None:
    rows = [{"prompt": f"Lamp {number}", "wanted": "on"} for number in range(20)]
    workflow = OwnWorkflow(Lamp, written(tmp_path, rows))
    with pytest.raises(AgentRLError, match="none of the 20 tasks has a `reference`"):
        next(workflow.historical_pairs(10, 1))
    assert set(workflow.scripted_agents(workflow.tasks("train", 1, 1)[0])) == {"does_nothing"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: "),
        ("[1]", "line 2: it is no JSON object"),
        ({"prompt": "x"}, "line 2: reset() needs `wanted`"),
        ({"prompt": "x", "wanted": "on", "colour": "red"}, "line 2: reset() takes no `colour`"),
        (row(3, split="production"), "line 2: there is no split 'production'"),
        (row(3, reference="switch"), "line 2: `reference` is no list of calls"),
        (row(3, reference=[{"name": "dim", "arguments": {}}]), "line 2: `reference` has"),
        (row(3, reference=[{"name": "switch", "arguments": "{"}]), "line 2: "),
        (row(3, reference=[{"function": "switch", "arguments": {}}]), "line 2: `reference` has"),
        (row(3, reference=[{"name": ["switch"], "arguments": {}}]), "line 2: `reference` has"),
        ('{"prompt": "x", "wanted": NaN}', "line 2: "),
        (row(3, group=1, split="train"), "line 3: its group is in training and in evaluation"),
        (row(1), "line 2: it is the task of line 1 once more"),
    ],
)
def test_a_line_that_is_no_task_is_named(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(AgentRLError) as caught:
        OwnWorkflow(Lamp, written(tmp_path, [row(1), line, row(2, group=1, split="capability")]))
    assert "tasks.jsonl" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "dataset", "splits"])
def test_tasks_are_the_same_out_of_parquet_and_datasets(tmp_path: Path, lamps: OwnWorkflow, kind: str) -> None:
    from datasets import Dataset, DatasetDict

    calls = [{"name": "switch", "arguments": {"to": "on"}}, {"name": "get_lamp", "arguments": {}}]
    rows = [row(number, reference=calls[number % 2 :]) for number in range(60)]
    written_out = OwnWorkflow(Lamp, written(tmp_path, rows))
    place = tmp_path / f"tasks.{kind}"
    if kind == "parquet":
        Dataset.from_list(rows).to_parquet(place)
    elif kind == "dataset":
        Dataset.from_list(rows).save_to_disk(place)
    else:
        halves = {"train": rows[:20], "validation": rows[20:40], "test": rows[40:]}
        DatasetDict({name: Dataset.from_list(some) for name, some in halves.items()}).save_to_disk(place)
    workflow = OwnWorkflow(Lamp, place)
    if kind == "splits":
        assert [len(workflow.tasks(split, 20, 1)) for split in ("train", "holdout", "capability")] == [20, 20, 20]
    else:
        assert workflow.rows == written_out.rows


def test_what_is_no_parquet_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "tasks.parquet"
    file.write_text("{}")
    with pytest.raises(AgentRLError, match=r"tasks\.parquet cannot be read"):
        OwnWorkflow(Lamp, file)


def test_a_file_that_is_missing_or_empty_is_said(tmp_path: Path) -> None:
    with pytest.raises(AgentRLError, match="there is no file"):
        OwnWorkflow(Lamp, tmp_path / "none.jsonl")
    with pytest.raises(AgentRLError, match="is empty"):
        OwnWorkflow(Lamp, written(tmp_path, [""]))


@pytest.mark.parametrize("reward", [None, "much", float("nan"), {}, {"outcome": None}])
def test_a_reward_that_is_none_is_said(tmp_path: Path, reward: Any) -> None:
    kind = type("Odd", (Lamp,), {"get_reward": lambda self: reward})
    workflow = OwnWorkflow(kind, written(tmp_path, [row(1, split="train")]))
    (task,) = workflow.tasks("train", 1, 1)
    episode = EpisodeFactory(workflow).play(task, workflow.scripted_agents(task)["expert"])
    with pytest.raises(AgentRLError, match=r"Odd\.get_reward\(\) gave"):
        episode.outcome  # noqa: B018


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_lamps.py").write_text(
        "class Lamp:\n    def reset(self, prompt): ...\n    def get_reward(self): return 1.0\n"
        "class Unrewarded:\n    def reset(self, prompt): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own_lamps", None)
    return "own_lamps"


def test_an_environment_is_loaded_with_its_tasks_and_nothing_else(module: str, tmp_path: Path) -> None:
    file = written(tmp_path, [{"prompt": "on"}])
    assert load_workflow(f"{module}:Lamp", tasks=file).name == "lamp"
    with pytest.raises(AgentRLError, match=r"is an environment\. Name the file of its tasks"):
        load_workflow(f"{module}:Lamp")
    with pytest.raises(AgentRLError, match=r"Unrewarded has no `get_reward\(\)`"):
        load_workflow(f"{module}:Unrewarded", tasks=file)
    with pytest.raises(AgentRLError, match="brings its own tasks"):
        load_workflow("order_desk", tasks=file)


def test_init_writes_a_workflow_that_loads_and_nothing_over_another(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AGENTRL_WORKFLOW_FILE", "AGENTRL_HOME", "PYTHONPATH"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    folder = tmp_path / "desk"
    assert main(["init", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "environment.py", "make_tasks.py", "tasks.jsonl", "workflow.yaml",
    }  # fmt: skip
    namespace: dict[str, Any] = {}
    exec((folder / "environment.py").read_text(), namespace)
    workflow = OwnWorkflow(namespace["ParcelDesk"], folder / "tasks.jsonl")
    factory = EpisodeFactory(workflow)
    for split in ("train", "capability", "adversarial"):
        for task in workflow.tasks(split, 20, 1):
            assert factory.play(task, workflow.scripted_agents(task)["expert"]).outcome.quality == 1.0
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["init", "."]) == 0
    assert Path("tasks.jsonl").read_bytes() == (folder / "tasks.jsonl").read_bytes()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["init", str(folder)]) == 1
    assert "nothing is written over" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
