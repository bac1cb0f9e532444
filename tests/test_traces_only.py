"""A team that has only traces: in several shapes they become a workflow, whose run ends where a world is needed."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentrl_assets.cli import main
from agentrl_assets.traces_only import END, within_reach
from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import built_in, load_format
from agentrl_resources.files import read_json, write_jsonl
from agentrl_resources.preferences import CleaningRules, RawRow, clean
from agentrl_resources.settings import load_settings
from agentrl_resources.stages import StageRequest, on_policy, reward, sft, tokenizer
from agentrl_resources.telemetry import import_traces
from agentrl_resources.traces import TracesWorkflow, tools_of
from agentrl_resources.workflow import EpisodeFactory, load_workflow

POLICY = "You cancel trips. Call get_trip before you cancel_trip."
SCHEMA = {"type": "function", "function": {"name": "get_trip", "description": "Reads a trip.", "parameters": {
    "type": "object", "properties": {"trip": {"type": "string", "description": "Its number."}}, "required": ["trip"],
}}}  # fmt: skip


def turns(task: int, number: int, success: bool, as_text: bool) -> list[dict[str, Any]]:
    """A run of a task; each simulated customer says it in words of its own."""
    calls = ["get_trip", "cancel_trip"] if success else ["cancel_trip"]
    asked = f"Customer {number} wants trip T{task} gone, words {number * 7 % 5}."
    made: list[dict[str, Any]] = [{"role": "system", "content": POLICY}, {"role": "user", "content": asked}]
    for place, name in enumerate(calls):
        arguments: Any = {"trip": f"T{task}"} if name == "get_trip" else {"trip": f"T{task}", "refund": place == 1}
        arguments = json.dumps(arguments) if as_text else arguments
        function = {"name": name, "arguments": arguments}
        made += [
            {"role": "assistant", "content": None,
             "tool_calls": [{"id": f"call_{place}", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": f"call_{place}", "name": name, "content": '{"trip": "T", "ok": true}'},
        ]  # fmt: skip
    made += [{"role": "user", "content": f"Is that all, customer {number} asks."},
             {"role": "assistant", "content": "It is cancelled." if success else "Done."}]  # fmt: skip
    return made


def openai_messages(task: int, number: int, success: bool) -> dict[str, Any]:
    row = {"task_id": f"trip {task}", "run_id": f"run {number}", "messages": turns(task, number, success, True)}
    return {**row, "success": success}


def with_schemas(task: int, number: int, success: bool) -> dict[str, Any]:
    return {**openai_messages(task, number, success), "tools": [SCHEMA]}


def tau_bench(task: int, number: int, success: bool) -> dict[str, Any]:
    return {"task_id": str(task), "trial": str(number), "reward": "1.0" if success else "0.0", "info": "{'task': {}}",
            "traj": turns(task, number, success, True)}  # fmt: skip


def as_stored_here(task: int, number: int, success: bool) -> dict[str, Any]:
    tokens = [{"prompt": [1, 2], "ids": [3], "logprobs": [-0.5]}]
    trace = {"messages": turns(task, number, success, False), "tool_calls": [], "tokens": tokens, "tools": [SCHEMA]}
    return {"run_id": f"run {number}", "task_id": str(task), "success": success, "trace": trace}


SHAPES = (openai_messages, with_schemas, tau_bench, as_stored_here)


def written(folder: Path, shape: Any, tasks: int = 10, runs: int = 4) -> Path:
    """A file of traces, gzipped; of each task but the last the first half of the runs succeeds."""
    file = folder / "trips.jsonl.gz"
    rows = [shape(task, task * runs + n, n < runs // 2 or task == tasks - 1) for task in range(tasks)
            for n in range(runs)]  # fmt: skip
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return file


@pytest.mark.parametrize("shape", SHAPES)
def test_traces_of_any_shape_become_clean_pairs_and_runs_to_imitate(tmp_path: Path, shape: Any) -> None:
    workflow = load_workflow("traces", None, written(tmp_path, shape))
    rows = [RawRow(number, "traces", row) for number, row in enumerate(workflow.historical_pairs(1, 1), start=1)]
    functions = [tool["function"] for tool in EpisodeFactory(workflow).tools]
    schemas = {function["name"]: function["parameters"] for function in functions}
    result = clean(rows, CleaningRules(tool_schemas=schemas, near_duplicate_similarity=1.0))
    pairs = [pair for pair in result.clean if not pair.is_demonstration]
    assert (len(pairs), len(result.clean) - len(pairs), len(result.quarantine)) == (9 * 4, 4, 0)
    assert workflow.instructions == POLICY
    assert not any(turn["role"] == "system" for pair in pairs for turn in [*pair.prompt, *pair.chosen])
    assert {(pair.rubric_scores or {})["chosen"]["outcome"] for pair in pairs} == {1.0}
    assert all(len(set(pair.metadata["runs"].values())) == 2 for pair in pairs)
    sides = {split: {pair.task_id for pair in result.clean if pair.split == split} for split in ("train", "holdout")}
    assert sides["train"]
    assert sides["holdout"]
    assert not sides["train"] & sides["holdout"]


def test_recorded_schemas_count_and_what_calls_show_says_so() -> None:
    calls = [{"name": "get_trip", "arguments": {"trip": "T1"}}, {"name": "pay", "arguments": {"eur": 1, "to": ["a"]}},
             {"name": "pay", "arguments": {"eur": 1.5}}, {"name": "pay", "arguments": "no JSON"}]  # fmt: skip
    flat = {"name": "look", "description": "Looks.", "input_schema": {"properties": {"at": {"type": "string"}}}}
    found = tools_of([{"tools": [SCHEMA, flat, {"type": "web_search"}], "tool_calls": calls}])
    by_name = {schema["function"]["name"]: schema["function"] for schema in found.schemas}
    assert found.derived == ("pay",)
    assert by_name["get_trip"] == SCHEMA["function"]
    assert by_name["look"]["parameters"]["properties"] == {"at": {"type": "string"}}
    pay = by_name["pay"]["parameters"]
    assert pay["required"] == ["eur"]
    assert pay["properties"]["eur"]["type"] == "number"
    assert pay["properties"]["to"]["items"] == {"type": "string"}
    assert "2 recorded calls" in by_name["pay"]["description"]


def test_the_importer_keeps_schemas_tokens_and_corrections(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    row = {**as_stored_here(1, 1, True), "correction": "You get 20 EUR back."}
    bad = {**with_schemas(1, 2, True), "tools": "get_trip"}
    file.write_text("\n".join(map(json.dumps, [row, bad])))
    found = import_traces(file, "trips")
    (record,) = found.records
    assert record.trace["tokens"] == row["trace"]["tokens"]
    assert record.trace["tools"] == [SCHEMA]
    assert record.trace["correction"] == "You get 20 EUR back."
    assert (record.tool_calls_count, record.tool_error_count) == (2, 0)  # read from the messages
    assert [rejected.line for rejected in found.rejected] == [2]
    assert "tools must be a list of objects" in found.rejected[0].reason


def test_runs_without_a_task_belong_to_the_task_that_their_first_request_is(tmp_path: Path) -> None:
    rows = [openai_messages(task, task, number == 0) for task in range(3) for number in range(2)]
    for number, row in enumerate(rows):
        row.pop("task_id")
        row["run_id"] = f"r{number}"
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = list(TracesWorkflow(file).historical_pairs(1, 1))
    assert [(row["chosen_run"], row["rejected_run"]) for row in found] == [("r0", "r1"), ("r2", "r3"), ("r4", "r5")]
    assert all("compares" not in row for row in found)  # they answer the same words
    assert {row["split"] for row in found} == {"train", "holdout"}


def test_what_gives_no_pairs_is_said_with_what_to_give(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps(openai_messages(task, task, True)) for task in range(3)))
    with pytest.raises(AgentRLError, match="two tasks with pairs"):
        list(TracesWorkflow(file).historical_pairs(1, 1))
    file.write_text('{"hello": 1}\n')
    with pytest.raises(AgentRLError, match="holds no run that can be read: line 1"):
        TracesWorkflow(file)
    with pytest.raises(AgentRLError, match="cannot be read"):
        TracesWorkflow(tmp_path / "none.jsonl")
    with pytest.raises(AgentRLError, match=r"Name it: `workflow\.tasks"):
        load_workflow("traces")


def test_a_customers_words_in_a_side_are_never_the_agents(tmp_path: Path) -> None:
    """Training's mask covers what the agent wrote: its calls and answers, of whole runs too."""
    workflow = load_workflow("traces", None, written(tmp_path, tau_bench, tasks=3))
    rows = [RawRow(n, "traces", row) for n, row in enumerate(workflow.historical_pairs(1, 1), start=1)]
    tokenizer = built_in().train_tokenizer(["trip"], [], vocabulary=300)
    chat = load_format(tokenizer, {"family": "gpt_oss"}, EpisodeFactory(workflow).tools, workflow.instructions)
    seen = 0
    for pair in clean(rows, CleaningRules(near_duplicate_similarity=1.0)).clean:
        for side in filter(None, (pair.chosen, pair.rejected)):
            (encoded,) = chat.rows([*pair.prompt, *side], first_chosen=len(pair.prompt))
            agents = tokenizer.decode([one for one, own in zip(encoded.ids, encoded.mask, strict=True) if own])
            assert "ustomer" in tokenizer.decode(encoded.ids)
            assert "ustomer" not in agents
            assert "cancel_trip" in agents
            assert "Done." in agents or "It is cancelled." in agents
            seen += 1
    assert seen


def test_the_limits_of_traces_are_defaults_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    file.write_text("workflow: {target: traces, tasks: t.jsonl}\nsft: {epochs: 2}\n")
    settings = load_settings(file)
    assert settings.preferences.max_characters == 40_000
    assert (settings.sft.epochs, settings.sft.batch_size) == (2, 4)
    file.write_text("workflow: {target: order_desk}\n")
    assert load_settings(file).preferences.max_characters == 6000
    file.write_text("workflow: {target: traces, tasks: t.jsonl}\nmodel: {base: some/base}\n")
    based = load_settings(file)
    assert (based.sft.learning_rate, based.sft.epochs, based.preferences.max_characters) == (2e-5, 3, 40_000)


SMALL = """\
workflow: {target: traces, tasks: trips.jsonl.gz}
model: {width: 16, layers: 1, heads: 2, kv_heads: 1, head_dim: 8, experts: 2, expert_width: 16, vocabulary: 400}
sft: {epochs: 1, batch_size: 4}
reward: {epochs: 1, batch_size: 16}
"""


def test_the_stages_go_to_a_judged_reward_model_without_playing(tmp_path: Path) -> None:
    """Tokenizer, SFT, on-policy pairs (none) and reward model, of whole runs and of runs to imitate."""
    workflow = load_workflow("traces", None, written(tmp_path, tau_bench, tasks=6))
    (tmp_path / "workflow.yaml").write_text(SMALL)
    settings = load_settings(tmp_path / "workflow.yaml")
    rows = [RawRow(n, "traces", row) for n, row in enumerate(workflow.historical_pairs(1, 1), start=1)]
    inputs = {"cleaned_preference_data": tmp_path / "cleaned"}
    parts: dict[str, list[Any]] = {"train": [], "holdout": [], "demonstrations": []}
    for pair in clean(rows, CleaningRules(near_duplicate_similarity=1.0)).clean:
        parts["demonstrations" if pair.is_demonstration else pair.split].append(pair.to_dict())
    inputs["cleaned_preference_data"].mkdir()
    for part, pairs in parts.items():
        write_jsonl(inputs["cleaned_preference_data"] / f"{part}.jsonl", pairs)
    for name, stage in (("tokenizer", tokenizer), ("sft_checkpoint", sft), ("on_policy_preference_data", on_policy),
                        ("reward_model", reward)):  # fmt: skip
        output, work = tmp_path / name, tmp_path / f"{name}.work"
        output.mkdir()
        work.mkdir()
        stage.run(
            StageRequest(settings, workflow, dict(inputs), output, work, lambda *_: None, {}, {}, work / "r.json")
        )
        inputs[name] = output
    imitated = {pair["metadata"]["runs"]["chosen"] for part in ("train", "demonstrations") for pair in parts[part]
                if pair["split"] == "train"}  # fmt: skip
    learned = read_json(inputs["sft_checkpoint"] / "report.json")
    assert learned["conversations"] == len(imitated) < len(parts["train"])  # a run that two failed beside, once
    assert "sample" not in learned
    assert read_json(inputs["on_policy_preference_data"] / "report.json")["labelled_by"].startswith("nobody")
    judged = read_json(inputs["reward_model"] / "report.json")
    assert judged["holdout"]["n"] == judged["outcome_differs"]["n"] == len(parts["holdout"])
    assert 0 <= judged["ece"] <= 1
    assert judged["pairs_train"] == {"history": len(parts["train"]), "on_policy": 0}
    with pytest.raises(AgentRLError, match="Give an environment"):
        workflow.tasks("train", 1, 1)
    with pytest.raises(AgentRLError, match="Give an environment"):
        workflow.environment()


def test_what_needs_an_environment_is_refused_in_one_sentence_and_doctor_says_it_too(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, tau_bench)
    (tmp_path / "workflow.yaml").write_text(SMALL)
    for variable in ("AGENTRL_WORKFLOW_FILE", "AGENTRL_HOME", "PYTHONPATH"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    monkeypatch.setattr(sys, "path", [*sys.path])
    where = ["--workflow-file", str(tmp_path / "workflow.yaml"), "--home", str(tmp_path / "home")]
    assert main(["doctor", *where]) == 0
    assert "[know] there are only traces" in capfd.readouterr().out
    # in a process of its own: in this one Dagster's code location may be that of another workflow
    command = [sys.executable, "-m", "agentrl_assets.cli", "run", "--select", "ppo_policy", *where]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ppo_policy: there are only traces, and no environment to play in: no pairs of" in done.stderr
    assert "Traceback" not in done.stderr
    assert within_reach(_Only(tmp_path), [], {END}) == [END]  # type: ignore[arg-type]


class _Only:
    """As much of a workspace as is asked for."""

    def __init__(self, folder: Path) -> None:
        self.settings = load_settings(folder / "workflow.yaml")
