"""Workflows: the environment an agent works in, its tools and their policy, its tasks, its rubric, its annotators."""

from agentrl_resources.workflow.base import (
    WITHOUT_ENVIRONMENT,
    Agent,
    Message,
    Outcome,
    Prices,
    Task,
    Transcript,
    Workflow,
    is_simulated,
    recorded_tools,
)
from agentrl_resources.workflow.episode import Episode, EpisodeFactory, request_of
from agentrl_resources.workflow.loading import BUILT_IN, TRACES, load_workflow
from agentrl_resources.workflow.own import OwnWorkflow, budgets, only_reads
from agentrl_resources.workflow.rows import ANSWER, SAYS, Row, Step
from agentrl_resources.workflow.rubric import Rubric, load_rubric, read_rubric
from agentrl_resources.workflow.sandbox import SideEffect, ToolCall, ToolPolicy, ToolRule
from agentrl_resources.workflow.tool_thread import ToolThread
from agentrl_resources.workflow.tools import tool_schemas

__all__ = [
    "ANSWER",
    "BUILT_IN",
    "SAYS",
    "TRACES",
    "WITHOUT_ENVIRONMENT",
    "Agent",
    "Episode",
    "EpisodeFactory",
    "Message",
    "Outcome",
    "OwnWorkflow",
    "Prices",
    "Row",
    "Rubric",
    "SideEffect",
    "Step",
    "Task",
    "ToolCall",
    "ToolPolicy",
    "ToolRule",
    "ToolThread",
    "Transcript",
    "Workflow",
    "budgets",
    "is_simulated",
    "load_rubric",
    "load_workflow",
    "only_reads",
    "read_rubric",
    "recorded_tools",
    "request_of",
    "tool_schemas",
]
