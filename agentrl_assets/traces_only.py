"""Where there are only traces: how far a run goes, and what it came to."""

from collections.abc import Collection, Iterator

import dagster as dg

from agentrl_assets.reporting import percent
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import TRACES, WITHOUT_ENVIRONMENT

END = "reward_model"
"""The last asset that needs nothing to play in."""


def only_traces(workspace: Workspace) -> bool:
    return workspace.settings.workflow.target == TRACES


def within_reach(workspace: Workspace, selected: Collection[str], upstream: Collection[str]) -> Collection[str]:
    """The assets that are asked for, or all that can be built. `upstream`: `END` and what it is made of.

    AgentRLError for an asset that needs an environment, where there is none.
    """
    if not only_traces(workspace):
        return selected
    if beyond := [name for name in selected if name not in upstream]:
        raise AgentRLError(f"{', '.join(beyond)}: {WITHOUT_ENVIRONMENT}")
    return selected or [END]


def what_traces_gave(instance: dg.DagsterInstance, workspace: Workspace) -> Iterator[str]:
    """What was made of the traces, as far as it was built, and what cannot be made of them."""
    if data := workspace.find(instance, "cleaned_preference_data"):
        report = data.report
        reasons = ", ".join(f"{reason} {rows}" for reason, rows in report["by_reason"].items())
        yield "TRACES"
        yield (
            f"  {report['clean'] - report['demonstrations']} pairs and {report['demonstrations']} runs to imitate "
            f"alone, of {report['tasks']} tasks; {report['quarantined']} rows in quarantine"
            + (f": {reasons}" if reasons else "")
        )
    if sft := workspace.find(instance, "sft_checkpoint"):
        loss = sft.report["holdout_loss"]
        yield f"  SFT on {sft.report['conversations']} conversations: hold-out loss {loss:.3f} nats a token"
    if reward := workspace.find(instance, END):
        report = reward.report
        low, high = (percent(bound) for bound in report["holdout"]["interval"])
        yield (
            f"  reward model: ranks {percent(report['holdout']['accuracy'])} ({low} to {high}) of "
            f"{report['holdout']['n']} hold-out pairs rightly, ECE {report['ece']:.3f}, Brier {report['brier']:.3f}"
        )
        blocks = "; ".join(report["blocks"])
        yield f"  {'HOLD: ' + blocks if blocks else 'GO: a policy may learn from it'}"
    yield f"  WHAT IS LEFT: {WITHOUT_ENVIRONMENT}."
