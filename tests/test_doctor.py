"""`agentrl doctor`: what is wrong with a workflow is found before anything is trained, and what to do comes with it."""

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from small_models import small_factory, small_harmony, small_model
from test_own_workflow import Lamp, Watched, row, written

from agentrl_assets.cli import main
from agentrl_resources.settings import Settings
from agentrl_resources.stages.head_room import head_room
from agentrl_resources.stages.request import save_with_format
from agentrl_resources.workflow import load_workflow
from agentrl_resources.workflow.checkup import Checkup, as_text, check_up
from agentrl_resources.workflow.own import OwnWorkflow

MANY = [row(number) for number in range(400)]
TURNS = count()


def looked_at(kind: type, folder: Path, rows: list[dict[str, Any]] = MANY) -> Checkup:
    return check_up(OwnWorkflow(kind, written(folder, rows)), seed=1)


def said(found: Checkup, severity: str) -> list[str]:
    return [one.what for one in found.findings if one.severity == severity]


def test_of_a_sound_workflow_it_says_what_is_to_be_known(tmp_path: Path) -> None:
    rows = [*MANY, *(row(number, locked=True, split="adversarial", wanted="off") for number in range(500, 700, 2))]
    found = looked_at(Watched, tmp_path, rows)
    assert said(found, "stop") == said(found, "mend") == []
    expert = next(played for played in found.played if played.agent == "expert")
    assert (expert.episodes, expert.successes, expert.violations) == (40, 40, 0)
    text = "\n".join(as_text(found))
    assert "switch(to: string)" in text
    assert "100 or more adversarial" in text
    assert "[know]" in text


def test_the_built_in_workflow_has_nothing_to_mend() -> None:
    found = check_up(load_workflow("order_desk"), seed=17)
    assert found.findings == []
    by_name = {played.agent: played for played in found.played}
    assert by_name["expert"].successes == by_name["expert"].episodes == 40
    assert by_name["harmful"].violations
    assert by_name["does_nothing"].successes == 0


class Content(Lamp):
    """Its verifier is always content."""

    def get_reward(self) -> float:
        return 1.0


class Never(Lamp):
    """Its verifier never is."""

    def get_reward(self) -> float:
        return 0.0


class Breaks(Lamp):
    """Its verifier breaks."""

    def get_reward(self) -> float:
        raise RuntimeError("the lamp fell down")


class Changes(Lamp):
    """Its opening differs each time."""

    def reset(self, prompt: str, wanted: str) -> str:  # type: ignore[override]
        super().reset(prompt, wanted)
        return f" (request {next(TURNS)})"


class Refuses(Lamp):
    """It cannot begin."""

    def reset(self, prompt: str, wanted: str) -> None:  # type: ignore[override]
        raise KeyError("no such lamp")


class Remembers(Lamp):
    """It counts over all episodes how often somebody looked."""

    looked = 0

    def get_lamp(self) -> str:
        """Whether it is on or off."""
        Remembers.looked += 1
        return f"{self.now}, looked at {Remembers.looked} times"


class Silent(Lamp):
    """One tool takes its time once, and says nothing."""

    waited = False

    def switch(self, to: str) -> str:
        """Switches the lamp.

        Args:
            to: on or off.
        """
        if not Silent.waited:
            Silent.waited = True
            time.sleep(1.05)
        self.now = to
        return ""


@pytest.mark.parametrize(
    ("kind", "severity", "what"),
    [
        (Content, "stop", "`does_nothing` solves all 40 tasks"),
        (Never, "stop", "the expert solves 0 of 40 tasks"),
        (Breaks, "stop", "RuntimeError: the lamp fell down"),
        (Changes, "mend", "opens differently each time"),
        (Refuses, "stop", "cannot begin: KeyError"),
        (Remembers, "mend", "played twice in the same way, went differently"),
        (Silent, "know", "tool `switch` took 1."),
        (Silent, "know", "tool `switch` returns nothing"),
        (Lamp, "mend", "nobody can tell whether an episode was safe"),
        (Lamp, "mend", "0 tasks in `adversarial`: the gate on safety says HOLD"),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, kind: type, severity: str, what: str) -> None:
    found = looked_at(kind, tmp_path)
    assert any(what in one for one in said(found, severity)), found.findings
    order = [one.severity for one in found.next_steps()]
    assert order == sorted(order, key=("stop", "mend", "know").index)


def test_few_tasks_and_none_that_says_how_it_is_solved(tmp_path: Path) -> None:
    rows = [{"prompt": f"Lamp {number}", "wanted": "on"} for number in range(20)]
    found = looked_at(Lamp, tmp_path, rows)
    assert "no task says how it is solved" in said(found, "mend")
    assert any("in `capability`: gates on success" in one for one in said(found, "know"))


def test_a_task_on_both_sides_is_found(tmp_path: Path) -> None:
    rows = [
        row(number, task_id=f"{side}{number}", split=side) for number in range(60) for side in ("train", "capability")
    ]
    rows += [row(number, task_id=f"h{number}", split="holdout") for number in range(60, 100)]
    found = looked_at(Lamp, tmp_path, rows)
    assert any("are in `train` and in `capability`, word for word" in one for one in said(found, "mend"))


def test_the_command_has_a_page_and_an_exit_code(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    folder, page = tmp_path / "desk", tmp_path / "page.html"
    for variable in ("AGENTRL_WORKFLOW_FILE", "AGENTRL_HOME", "PYTHONPATH"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    assert main(["init", str(folder)]) == 0
    options = ["--workflow-file", str(folder / "workflow.yaml"), "--home", str(tmp_path / "home")]
    assert main(["doctor", "--html", str(page), *options]) == 0
    printed = capsys.readouterr().out
    assert "get_parcel(number: string)" in printed
    html = page.read_text()
    assert "An episode of expert" in html
    assert "verifier" in html
    lines = (folder / "tasks.jsonl").read_text().splitlines()
    spoilt = [json.dumps(json.loads(line) | {"wanted": "the moon"}) for line in lines]
    (folder / "tasks.jsonl").write_text("\n".join(spoilt))
    assert main(["doctor", *options]) == 1
    assert "[stop]" in capsys.readouterr().out


def test_what_a_model_makes_of_the_tasks_adds_up(tmp_path: Path) -> None:
    factory = small_factory()
    harmony = small_harmony(factory)
    save_with_format(small_model(harmony), harmony, True, tmp_path)
    settings = Settings.model_validate({"workflow": {"target": "order_desk"}})
    found = head_room(settings, factory.workflow, tmp_path)
    assert found is not None
    assert found.always + found.sometimes + found.never == found.tasks
    assert found.always * found.samples <= found.solved <= (found.tasks - found.never) * found.samples
    assert head_room(settings, factory.workflow, None) is None


def test_without_a_model_doctor_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "desk"), "--from", "blank"]) == 0
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("AGENTRL_HOME", str(tmp_path / "home"))
    assert main(["doctor", "--model"]) == 0
    assert "there is no model yet that could play" in capsys.readouterr().out
