"""Workflows: the environment an agent works in, its tools and their policy, its tasks, its rubric, its annotators."""

from agentrl_resources.workflow.base import Agent, Message, Outcome, Prices, Task, Transcript, Workflow, is_simulated
from agentrl_resources.workflow.episode import Episode, EpisodeFactory, request_of
from agentrl_resources.workflow.loading import load_workflow
from agentrl_resources.workflow.own import OwnWorkflow
from agentrl_resources.workflow.rubric import Rubric, load_rubric
from agentrl_resources.workflow.sandbox import ToolCall, ToolPolicy, ToolRule
from agentrl_resources.workflow.tool_thread import ToolThread
from agentrl_resources.workflow.tools import tool_schemas

__all__ = [
    "Agent",
    "Episode",
    "EpisodeFactory",
    "Message",
    "Outcome",
    "OwnWorkflow",
    "Prices",
    "Rubric",
    "Task",
    "ToolCall",
    "ToolPolicy",
    "ToolRule",
    "ToolThread",
    "Transcript",
    "Workflow",
    "is_simulated",
    "load_rubric",
    "load_workflow",
    "request_of",
    "tool_schemas",
]
