"""A workflow of which there are only traces: `workflow: {target: traces, tasks: traces.jsonl.gz}`."""

from agentrl_resources.traces.tools import tools_of
from agentrl_resources.traces.workflow import TracesWorkflow

__all__ = ["TracesWorkflow", "tools_of"]
