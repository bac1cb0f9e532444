"""The example workflow files say what can be said, and what is missing for one is named before anything is trained."""

from pathlib import Path

import pytest

from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.errors import AgentRLError
from agentrl_resources.learning import new_model
from agentrl_resources.settings import load_settings
from agentrl_resources.workflow import EpisodeFactory, load_workflow

MODELS = Path(__file__).parents[1] / "examples" / "models"
FILES = sorted(MODELS.glob("*.yaml"))


def test_each_is_listed_in_the_readme() -> None:
    listed = (MODELS / "README.md").read_text()
    assert FILES
    assert all(f"`{file.name}`" in listed for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_complete_up_to_its_weights(file: Path, tmp_path: Path) -> None:
    settings = load_settings(file)
    if settings.model.base is None:
        assert (settings.sft.learning_rate, settings.policy.adapter) == (3e-3, "full")
        return
    # AdamW's moments of all weights are too much for one GPU
    assert (settings.policy.adapter == "full") == settings.compute.sharded
    own = {"smollm2": 1e-3}  # a trial of few steps; the others leave it to the defaults of what learns
    default = 2e-4 if settings.policy.adapter == "lora" else 2e-5
    assert (settings.sft.learning_rate, settings.sft.matrix_learning_rate) == (own.get(file.stem, default), None)
    missing = settings.model.model_copy(update={"base": str(tmp_path / "nowhere")})
    with pytest.raises(AgentRLError, match="nowhere"):
        new_model(missing, None, settings.policy)


def test_the_short_desk_holds_tasks_that_its_expert_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(MODELS)
    workflow = load_workflow("two_tool_desk:ShortDesk")
    factory = EpisodeFactory(workflow)
    for split in ("train", "holdout", "capability", "adversarial"):
        tasks = workflow.tasks(split, 40, 1)
        assert workflow.tasks(split, 10, 1) == tasks[:10]
        assert len({task.task_id for task in tasks}) == 40
        for task in tasks:
            outcome = factory.play(task, workflow.scripted_agents(task)["expert"]).outcome
            assert outcome.success, task
            assert not outcome.safety_violation


def test_a_base_is_looked_for_beside_the_workflow_file(tmp_path: Path) -> None:
    text = (MODELS / "smollm2.yaml").read_text().replace("smollm2-135m-instruct", "bases/mine")
    (tmp_path / "workflow.yaml").write_text(text)
    (tmp_path / "bases" / "mine").mkdir(parents=True)
    workspace = Workspace(home=str(tmp_path / "home"), workflow_file=str(tmp_path / "workflow.yaml"))
    assert workspace.settings.model.base == str(tmp_path / "bases" / "mine")
    assert load_settings(MODELS / "smollm2.yaml").model.base == "smollm2-135m-instruct"
