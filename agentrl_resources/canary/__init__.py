"""The canary: a release on a share of the traffic, what its runs say about it, and drills of its end."""

from agentrl_resources.canary.customers import Customers
from agentrl_resources.canary.decision import CanaryRules, CanaryRun, Decision, MetricDecision, SampleRatio, decide
from agentrl_resources.canary.drill import DrillPlan, Injection, Watch, drill, kinds_for
from agentrl_resources.canary.faults import FAULTS, Fault, FaultyBackend, ScriptedBackend
from agentrl_resources.canary.metrics import METRICS
from agentrl_resources.canary.rehearsal import rehearsal_release
from agentrl_resources.canary.rollout import (
    SETTLING_RUNS,
    CanaryRollout,
    Look,
    due,
    is_on_trial,
    rules_of,
    with_customers,
)

__all__ = [
    "FAULTS",
    "METRICS",
    "SETTLING_RUNS",
    "CanaryRollout",
    "CanaryRules",
    "CanaryRun",
    "Customers",
    "Decision",
    "DrillPlan",
    "Fault",
    "FaultyBackend",
    "Injection",
    "Look",
    "MetricDecision",
    "SampleRatio",
    "ScriptedBackend",
    "Watch",
    "decide",
    "drill",
    "due",
    "is_on_trial",
    "kinds_for",
    "rehearsal_release",
    "rules_of",
    "with_customers",
]
