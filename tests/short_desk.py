"""A workflow for untrained agents, named in workflow files as `short_desk:Short`."""

from dataclasses import replace
from pathlib import Path

from agentrl_resources.workflow.order_desk import OrderDeskWorkflow


class Short(OrderDeskWorkflow):
    """The built-in desk, whose agents may say little: an untrained one talks until it is stopped."""

    def __init__(self, rubric_path: Path | None = None) -> None:
        super().__init__(rubric_path)
        self.tool_policy = replace(self.tool_policy, max_tokens=24)
