"""A taskset of verifiers 0.4: it runs in the interpreter that has verifiers, and knows nothing of AgentRL."""

import random

import verifiers.v1 as vf
from pydantic import Field


class Till(vf.State):
    amounts: list[int] = Field(default_factory=list)


class SumsData(vf.TaskData):
    amounts: list[int]


class TillToolset(vf.Toolset[vf.ToolsetConfig, Till]):
    TOOL_PREFIX = None  # `put`, and not `till_put`

    @vf.tool
    def put(self, amount: int) -> str:
        """Writes an amount into the till."""
        self.state.amounts.append(amount)
        return f"{len(self.state.amounts)} written"


class SumsTask(vf.Task[SumsData, Till]):
    @classmethod
    def toolsets(cls, config: vf.TaskConfig) -> list[vf.Toolset]:
        return [TillToolset(vf.ToolsetConfig())]

    @vf.reward(weight=3.0)
    async def written(self, trace: vf.Trace) -> float:
        return float(trace.state.amounts == self.data.amounts)

    @vf.reward
    async def said_so(self, trace: vf.Trace) -> float:
        return float("done" in trace.last_reply.lower())


class SumsConfig(vf.TasksetConfig):
    tasks: int = 3000


class SumsTaskset(vf.Taskset[SumsTask, SumsConfig]):
    def load(self) -> list[SumsTask]:
        chance = random.Random(7)
        numbers = chance.sample(range(10_000), self.config.tasks)  # no two alike
        drawn = [list(divmod(number, 100)) for number in numbers]
        return [
            SumsTask(SumsData(prompt=f"Write {' and '.join(map(str, amounts))}.", amounts=amounts), self.config.task)
            for amounts in drawn
        ]


__all__ = ["SumsTaskset"]
