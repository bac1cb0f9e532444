"""Backend of serving.py for `verifiers` 0.4: a taskset's tasks, toolsets and rewards, without its harnesses and models.

A rollout is what its library makes of one, as far as there is no model in it: setup, toolsets with the rollout's state,
a trace of the finished messages, finalize, rewards.
"""

import asyncio
import contextvars
from contextlib import AsyncExitStack
from typing import Any

import verifiers.v1 as vf
from mcp.server.mcpserver import MCPServer
from verifiers.v1.envs.single_agent import SingleAgentEnv
from verifiers.v1.runtimes import SubprocessConfig, provision_runtime
from verifiers.v1.state import state_cls
from verifiers.v1.utils.loaders import environment_class, taskset_class, taskset_config_type

_calling: contextvars.ContextVar[Any] = contextvars.ContextVar("calling")
"""The episode that a tool is called for: what all episodes share serves one after another."""


class Rollout:
    def __init__(self, task: Any) -> None:
        self.task = task
        self.stack = AsyncExitStack()
        self.tools: dict[str, tuple[Any, Any]] = {}
        """By the name that the model sees: the server, and the tool's own name."""
        self.runtime: Any = None
        self.trace = vf.Trace(
            task=vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
            state=state_cls(type(task))(),
            agent=vf.AgentInfo(config=vf.AgentConfig()),
        )


class Backend:
    async def load(self, source: Any, config: Any) -> Any:
        kind = environment_class(source)
        if not issubclass(kind, SingleAgentEnv):
            raise ValueError(f"its {kind.__name__} plays several agents or simulates a user with a model")
        self.taskset = taskset_class(source)(taskset_config_type(source).model_validate({"id": source, **config}))
        self.kind = self.taskset.task_type()
        self.loop = asyncio.get_running_loop()
        if self.kind.NEEDS_CONTAINER:
            raise ValueError(f"its {self.kind.__name__} needs a container, and there is none here")
        self.stack = AsyncExitStack()
        toolsets = type(self.taskset).toolsets(self.taskset.config)
        self.shared = await served(toolsets, self.stack)
        shown = [shown_tool(name, tool) for name, (_, tool) in self.shared.items()]
        async with AsyncExitStack() as stack:
            own = await served(self.kind.toolsets(self.taskset.config.task), stack)
            shown += [shown_tool(name, tool) for name, (_, tool) in own.items()]
        names = [one["name"] for one in shown]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two of its toolsets have a tool {min(twice)}: give one another TOOL_PREFIX")
        return {"tools": shown}

    async def tasks(self, most: Any) -> Any:
        rows = []
        for number, task in enumerate(self.taskset.take(most)):
            data = task.data.model_dump(mode="json", exclude_defaults=True, exclude={"idx"})
            if task.data.prompt is None:
                raise ValueError(f"task {number} has no prompt: its user begins, and there is none here")
            if task.data.image is not None:
                raise ValueError(f"task {number} needs the container image {task.data.image}, and there is none here")
            if self.kind(task.data, task.config).plugged_judges():
                raise ValueError(f"task {number} is judged by a model; only rewards that are functions are asked")
            named = {} if task.data.id is None else {"task_id": task.data.id}
            rows.append({**named, "task": data, "prompt": [one.model_dump(exclude_none=True) for one in opening(task)]})
        return rows

    async def begin(self, task: Any) -> Any:
        data = self.kind.data_type().model_validate(task)
        rollout = Rollout(self.kind(data, self.taskset.config.task))
        runtime: Any = provision_runtime(SubprocessConfig())  # it makes a folder, and runs what rewards run in it
        rollout.runtime = await rollout.stack.enter_async_context(runtime)
        await invoked(rollout.task.setup, rollout)
        rollout.tools = await served(self.kind.toolsets(self.taskset.config.task), rollout.stack, data)
        return rollout

    async def call(self, rollout: Any, name: Any, arguments: Any) -> Any:
        if name in rollout.tools:
            return await called(rollout, rollout.tools[name], arguments)
        shared = called(rollout, self.shared[name], arguments)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(shared, self.loop))

    async def judge(self, rollout: Any, messages: Any) -> Any:
        trace = rollout.trace
        for one in [*opening(rollout.task), *map(message, messages)]:
            sampled = one.role == "assistant" and len(trace.nodes) >= len(opening(rollout.task))
            parent = len(trace.nodes) - 1 if trace.nodes else None
            trace.nodes.append(vf.MessageNode(parent=parent, message=one, sampled=sampled))
        trace.is_completed = trace.ok = True
        await invoked(rollout.task.finalize, rollout)
        await rollout.task.score(trace, rollout.runtime)
        return {name: {"score": one.score, "weight": one.weight} for name, one in trace.rewards.items()}

    async def end(self, rollout: Any) -> None:
        await rollout.stack.aclose()


async def served(toolsets: Any, stack: Any, data: Any = None) -> Any:
    """The tools of toolsets by the names that the model sees, each with its server; set up until `stack` is closed."""
    found: dict[str, tuple[Any, Any]] = {}
    for toolset in toolsets:
        if toolset.config.url:
            raise ValueError(f"{type(toolset).__name__} is a server elsewhere ({toolset.config.url}); it is not asked")
        toolset._pull_state, toolset._push_state = pull_state_of(toolset), push_state
        await stack.enter_async_context(toolset._exit_stack)
        await toolset.setup()
        if data is not None:
            await toolset.setup_task(data)
        server = MCPServer(toolset.server_name or type(toolset).__name__)
        toolset.register(server)
        for tool in await server.list_tools():
            found[f"{toolset.server_name}_{tool.name}" if toolset.server_name else tool.name] = server, tool
    return found


def shown_tool(name: Any, tool: Any) -> Any:
    return {"name": name, "description": tool.description or "", "parameters": tool.input_schema}


async def called(rollout: Any, found: Any, arguments: Any) -> str:
    server, tool = found
    _calling.set(rollout)
    try:
        result = await server.call_tool(tool.name, arguments)
    except Exception as error:
        # what the tool itself raised, and not what its server makes of it
        raise (error.__cause__ if isinstance(error.__cause__, Exception) else error) from None
    texts = [block.text if block.type == "text" else f"({block.type})" for block in result.content]
    if result.is_error:
        raise RuntimeError("\n".join(texts))
    return "\n".join(texts)


def pull_state_of(toolset: Any) -> Any:
    """A rollout's state as a toolset gets it over HTTP: a copy, of the toolset's own class."""

    async def pull_state() -> Any:
        return toolset._state_adapter.validate_json(_calling.get().trace.state.model_dump_json())

    return pull_state


async def push_state(before: Any) -> None:
    """What a tool left of the state; only once it returned, as over HTTP."""
    from verifiers.v1.mcp.server import _call_state

    trace = _calling.get().trace
    trace.state = type(trace.state).model_validate_json(_call_state.get().model_dump_json())


async def invoked(hook: Any, rollout: Any) -> Any:
    from verifiers.v1.utils.decorators import invoke

    return await invoke(hook, {"trace": rollout.trace, "runtime": rollout.runtime})


def opening(task: Any) -> Any:
    """The messages that a task begins with."""
    data = task.data
    asked = [vf.UserMessage(content=data.prompt)] if isinstance(data.prompt, str) else list(data.prompt)
    return [vf.SystemMessage(content=data.system_prompt), *asked] if data.system_prompt else asked


def message(one: Any) -> Any:
    """A message of ours as verifiers has it."""
    content = one.get("content") or ""
    if one["role"] == "tool":
        return vf.ToolMessage(tool_call_id=one.get("tool_call_id") or "", content=content, name=one.get("name"))
    if one["role"] != "assistant":
        return vf.UserMessage(content=content)
    calls = [
        vf.ToolCall(id=call.get("id") or "", name=call["function"]["name"], arguments=call["function"]["arguments"])
        for call in one.get("tool_calls") or ()
    ]
    return vf.AssistantMessage(content=content, reasoning_content=one.get("thinking"), tool_calls=calls or None)
