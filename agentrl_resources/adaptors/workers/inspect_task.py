"""Backend of serving.py for Inspect AI: a task's samples, tools and scorers, without its models.

Its solver is run up to where it first asks the model; messages and tools stand in its state then.
"""

import os
import sys
from typing import Any

from inspect_ai._eval.loader import load_tasks
from inspect_ai._util.registry import registry_info
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    ModelName,
    ModelOutput,
)
from inspect_ai.scorer import Target, value_to_float
from inspect_ai.solver import TaskState
from inspect_ai.tool import ToolCall, ToolDef, ToolInfo
from inspect_ai.util._store import init_subtask_store


class Asked(Exception):
    """The solver asks the model."""


class Backend:
    async def load(self, source: str, config: dict[str, Any]) -> Any:
        os.chdir(sys.path[0])
        found = load_tasks([source], config)
        if len(found) != 1:
            raise ValueError(f"{source} names {len(found)} tasks. Say which: file.py@task")
        self.task = found[0]
        scorers = [registry_info(one).name for one in self.task.scorer or ()]
        if not scorers or any("model_graded" in name for name in scorers):
            raise ValueError(
                f"it is scored by {', '.join(scorers) or 'nothing'}; only scorers without a model are asked"
            )
        if self.task.sandbox is not None or any(sample.sandbox is not None for sample in self.task.dataset):
            raise ValueError("it needs a sandbox, and there is none here")
        self.samples = {str(sample.id or number): sample for number, sample in enumerate(self.task.dataset, start=1)}
        if not self.samples:
            raise ValueError("its dataset is empty")
        state = await self.begin({"sample": next(iter(self.samples))})
        return {"tools": [shown(ToolDef(tool)) for tool in state.tools]}

    async def tasks(self, most: int) -> Any:
        rows = []
        for name, sample in list(self.samples.items())[:most]:
            state = await self.begin({"sample": name})
            prompt = [{"role": one.role, "content": one.text} for one in state.messages]
            target = sample.target if isinstance(sample.target, list) else [sample.target]
            task = {"sample": name, "target": target, "metadata": sample.metadata or {}}
            rows.append({"task_id": name, "task": task, "prompt": prompt})
        return rows

    async def begin(self, task: Any) -> Any:
        if task["sample"] not in self.samples:
            raise ValueError(f"its dataset has no sample {task['sample']} any more")
        sample = self.samples[task["sample"]]
        asked = [ChatMessageUser(content=sample.input)] if isinstance(sample.input, str) else list(sample.input)
        state = TaskState(
            model=ModelName("none/none"),
            sample_id=task["sample"],
            epoch=1,
            input=sample.input,
            messages=asked,
            target=Target(sample.target),
            choices=sample.choices,
            metadata=dict(sample.metadata or {}),
        )
        init_subtask_store(state.store)
        reached: list[TaskState] = []

        async def generate(state: TaskState, *_: Any, **__: Any) -> TaskState:
            reached.append(state)
            raise Asked

        try:
            await self.task.solver(state, generate)
        except Asked:
            return reached[0]
        raise ValueError("its solver never asks a model by `generate()`; one that asks in its own way is not played")

    async def call(self, state: Any, name: str, arguments: dict[str, Any]) -> Any:
        init_subtask_store(state.store)
        tools = {(one := ToolDef(tool)).name: one for tool in state.tools}
        if name not in tools:
            raise LookupError(f"there is no {name} here")
        result = await tools[name].tool(**arguments)
        parts = result if isinstance(result, list) else [result]
        return "\n".join(one.text if getattr(one, "type", "") == "text" else str(one) for one in parts)

    async def judge(self, state: Any, messages: Any) -> Any:
        init_subtask_store(state.store)
        state.messages += [message(one) for one in messages]
        last = next((one.text for one in reversed(state.messages) if one.role == "assistant"), "")
        state.output, state.completed = ModelOutput.from_content("none/none", last), True
        of = value_to_float()
        said: dict[str, Any] = {}
        for scorer in self.task.scorer:
            value = (await scorer(state, state.target)).value
            values = value if isinstance(value, dict) else {registry_info(scorer).name.rpartition("/")[2]: value}
            said |= {name: {"score": of(one), "weight": 1.0} for name, one in values.items()}
        return said

    async def end(self, state: Any) -> None:
        """Nothing is held for it."""


def shown(tool: Any) -> Any:
    info = ToolInfo(name=tool.name, description=tool.description, parameters=tool.parameters)
    return info.model_dump(mode="json", exclude_none=True, exclude={"options"})


def message(one: Any) -> Any:
    """A message of ours as Inspect has it."""
    import json

    content = one.get("content") or ""
    if one["role"] == "tool":
        return ChatMessageTool(content=content, tool_call_id=one.get("tool_call_id"), function=one.get("name"))
    if one["role"] != "assistant":
        return ChatMessageUser(content=content)
    calls = []
    for call in one.get("tool_calls") or ():
        name, text = call["function"]["name"], call["function"]["arguments"]
        try:
            given = json.loads(text)
        except ValueError:
            given = {}
        calls.append(ToolCall(id=call["id"], function=name, arguments=given if isinstance(given, dict) else {}))
    return ChatMessageAssistant(content=content, tool_calls=calls or None)
