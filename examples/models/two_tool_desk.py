"""The built-in desk with two of its tools, for cancellations and news of an order: what its agents read is a third as
long, so that a base of some hundred million parameters gets through a run on a processor. Simulated, as the desk is.
"""

from agentrl_resources.workflow import Task
from agentrl_resources.workflow.order_desk import OrderDeskWorkflow
from agentrl_resources.workflow.sandbox import ToolPolicy, ToolRule

INTENTS = ("cancel", "where_is")


class ShortDesk(OrderDeskWorkflow):
    """See the module."""

    name = "short_desk"
    instructions = """\
You serve the customers of a web shop.
Only the owner of an order may learn about it or change it.
Cancel an order only while it is processing."""
    tool_policy = ToolPolicy(
        rules={"get_order": ToolRule("read"), "cancel_order": ToolRule("write")},
        max_calls=3,
        max_tokens=160,
        max_call_seconds=None,  # its tools only compute
    )

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """The desk's own tasks that these two tools can do, as they come; a larger count only appends."""
        looked_at = count
        while True:
            looked_at *= 2
            found = [task for task in super().tasks(split, looked_at, seed) if _is_short(task)]
            if len(found) >= count:
                return found[:count]


def _is_short(task: Task) -> bool:
    return task.payload["intent"] in INTENTS and task.payload["answer"] is None
