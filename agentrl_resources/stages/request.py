"""What a stage is given, and what the stages share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl_resources.families import FORMAT_FILE, ChatFormat, format_of, load_format
from agentrl_resources.files import read_json, read_jsonl, write_json
from agentrl_resources.learning import load_tokenizer, save_network
from agentrl_resources.preferences import Pair
from agentrl_resources.settings import Settings, load_settings
from agentrl_resources.workflow import EpisodeFactory, Workflow, is_simulated, load_workflow

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class StageRequest:
    """One run of one stage.

    `inputs` are the folders of upstream artifacts by asset name; `output` is the folder to fill; `work` survives a
    crash; `versions` are the names that run records carry (`baseline`, `candidate`, `reward_model`); `parameters` are
    what one stage alone needs to know. `file` is where all of this stands, for processes that take a part of the work.
    """

    settings: Settings
    workflow: Workflow
    inputs: Mapping[str, Path]
    output: Path
    work: Path
    progress: Progress
    versions: Mapping[str, str]
    parameters: Mapping[str, str]
    file: Path

    @property
    def made_up(self) -> str:
        """What stands behind the title of a picture and the name of an annotator, where the workflow is simulated."""
        return " (simulated)" if is_simulated(self.workflow) else ""

    def report(self, numbers: Mapping[str, Any]) -> None:
        """Writes the stage's numbers where everybody looks for them."""
        write_json(self.output / "report.json", numbers)

    def demonstrations(self, split: str) -> list[Pair]:
        """Runs to imitate, which are compared with nothing. Data that were cleaned before there were any have none."""
        if not (self.inputs["cleaned_preference_data"] / "demonstrations.jsonl").exists():
            return []
        return [pair for pair in self.pairs("cleaned_preference_data", "demonstrations.jsonl") if pair.split == split]

    def pairs(self, asset: str, *files: str) -> list[Pair]:
        return [Pair.from_dict(row) for file in files for row in read_jsonl(self.inputs[asset] / file)]


def read_request(file: Path, progress: Progress) -> StageRequest:
    """The request that `Training.run` wrote to `file`."""
    request = read_json(file)
    settings = load_settings(Path(request["workflow_file"]))
    rubric, tasks = request["rubric"], settings.workflow.tasks
    return StageRequest(
        settings=settings,
        workflow=load_workflow(settings.workflow.target, *(Path(one) if one else None for one in (rubric, tasks))),
        inputs={name: Path(folder) for name, folder in request["inputs"].items()},
        output=Path(request["output"]),
        work=Path(request["work"]),
        progress=progress,
        versions=request["names"],
        parameters=request["parameters"],
        file=file,
    )


def load_chat(folder: Path, factory: EpisodeFactory) -> ChatFormat:
    """The conversation format of a tokenizer or model folder: with the workflow's tools, or plain dialogue."""
    return make_chat(load_tokenizer(folder), format_of(folder), factory)


def uses_tools(folder: Path) -> bool:
    """Whether what a tokenizer or model folder was made from are conversations with the workflow's tools."""
    return bool(format_of(folder)["uses_tools"])


def make_chat(tokenizer: Any, description: Mapping[str, Any], factory: EpisodeFactory) -> ChatFormat:
    workflow = factory.workflow
    if description["uses_tools"]:
        return load_format(tokenizer, description, factory.tools, workflow.instructions)
    return load_format(tokenizer, description, None, None, implied=workflow.instructions)


def save_with_format(model: Any | None, chat: ChatFormat, with_tools: bool, folder: Path) -> None:
    """Writes model (if any), tokenizer and conversation format, so that the folder stands alone."""
    if model is not None:
        save_network(model, folder)
    chat.tokenizer.save_pretrained(folder)
    write_json(folder / FORMAT_FILE, {**chat.describe(), "uses_tools": with_tools})
