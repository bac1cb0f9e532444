"""The one screen at the end of a run: what was learned, what the gates say, and where everything lies."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from agentrl_assets.alternatives import row
from agentrl_assets.evaluation import SUITES, pass_hats, violations
from agentrl_assets.gates import stored_evidence
from agentrl_assets.traces_only import only_traces, what_traces_gave
from agentrl_resources.dagster_history import check_answer, out_of_date
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.errors import AgentRLError
from agentrl_resources.evaluation import Verdict, judge, parse_gate
from agentrl_resources.telemetry import weekly_score
from agentrl_resources.workflow import WITHOUT_ENVIRONMENT


@dataclass(frozen=True)
class GateState:
    """A gate's verdict on the stored evidence, and whether that evidence is of what there is now."""

    verdict: Verdict
    current: bool
    why_not: str

    @property
    def is_go(self) -> bool:
        return self.current and self.verdict.answer == "GO"

    def to_dict(self) -> dict[str, Any]:
        return {**self.verdict.to_dict(), "current": self.current, "why_not_current": self.why_not}


def gate_states(instance: dg.DagsterInstance, workspace: Workspace) -> list[GateState]:
    """Every gate of the workflow file. AgentRLError when nothing was evaluated yet."""
    if only_traces(workspace):
        raise AgentRLError(WITHOUT_ENVIRONMENT)
    artifact = workspace.find(instance, "gate_evidence")
    if artifact is None:
        raise AgentRLError("No gate was evaluated yet. Run: agentrl run")
    evidence = stored_evidence(artifact.path)
    outdated = next(out_of_date(instance, "gate_evidence"), "")
    states = []
    for name in workspace.settings.release.gates:
        answer = check_answer(instance, "gate_evidence", name).answer
        why_not = outdated or {"missing": "never evaluated", "outdated": "evaluated before the latest evidence"}.get(
            answer, ""
        )
        states.append(GateState(judge(parse_gate(name), evidence), not why_not, why_not))
    return states


def summary(instance: dg.DagsterInstance, workspace: Workspace) -> str:
    """What there is in the state folder by now; parts that were not built yet are left out."""
    if only_traces(workspace):
        return "\n".join([*what_traces_gave(instance, workspace), *_places(instance, workspace)])
    parts = [
        list(_comparison(instance, workspace)),
        list(_worth(instance, workspace)),
        list(_gates(instance, workspace)),
        list(_canary(instance, workspace)),
        list(_score(workspace)),
        list(_places(instance, workspace)),
        list(_next(instance, workspace)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _comparison(instance: dg.DagsterInstance, workspace: Workspace) -> Iterator[str]:
    artifact = workspace.find(instance, "offline_eval_suite")
    if artifact is None:
        return
    yield f"SUCCESS ON HELD-OUT TASKS{'SFT':>15}{'PPO':>9}   difference (95 %)             McNemar p   violations"
    comparison = artifact.report["comparison"]
    for temperature in sorted(comparison, key=float, reverse=True):  # production's first, greedy is the control
        decoding = "greedy (control)" if float(temperature) == 0 else f"temperature {temperature}"
        for suite in (suite for suite in SUITES if suite in comparison[temperature]):
            result = comparison[temperature][suite]
            baseline, candidate = result["baseline"], result["candidate"]
            low, high = (100 * bound for bound in result["difference_interval"])
            difference = f"{100 * result['difference']:+.1f} points ({low:+.1f} to {high:+.1f})"
            seen = violations(result)
            seen = seen if seen == "unknown" else f"{seen} of {result['n']}"
            yield (
                f"  {suite:<13}{decoding:<17}{100 * baseline['success_rate']:>6.1f} %"
                f"{100 * candidate['success_rate']:>7.1f} %   {difference:<30}{result['p_value']:<12.2g}{seen}"
            )
            for k, (before, after) in pass_hats(result).items():
                yield f"    pass^{k:<25}{100 * before:>6.1f} %{100 * after:>7.1f} %"


def _worth(instance: dg.DagsterInstance, workspace: Workspace) -> Iterator[str]:
    artifact = workspace.find(instance, "rl_alternatives")
    if artifact is None:
        return
    yield f"IS RL WORTH IT HERE? It is {artifact.report['answer']}. {artifact.report['reason']}"
    for one in map(row, artifact.report["alternatives"]):
        against = f"   PPO costs {one['ppo_costs']}" if one["ppo_costs"] else ""
        yield f"  {one['way']:<30}{one['success']:<26}{one['cost_per_success']:>14} a success{against}"


def _gates(instance: dg.DagsterInstance, workspace: Workspace) -> Iterator[str]:
    if workspace.find(instance, "gate_evidence") is None:
        return
    yield "GATES"
    for state in gate_states(instance, workspace):
        note = "" if state.current else f" [out of date: {state.why_not}]"
        yield f"  {state.verdict.answer:<6} {state.verdict.gate}: {state.verdict.reason}{note}"


def _canary(instance: dg.DagsterInstance, workspace: Workspace) -> Iterator[str]:
    artifact = workspace.find(instance, "canary_rollout")
    if artifact is None:
        return
    report = artifact.report
    decision = report["decision"]
    simulated = " (simulated customers)" if report.get("simulated") else ""
    yield f"CANARY{simulated}"
    yield f"  {decision['answer']:<6} {report['action']}: {decision['reason']}"
    if broken := report.get("broken_on_purpose"):
        harm = [one["metric"] for one in broken["decision"]["metrics"] if one["answer"] == "NO-GO"]
        why = f"harm in {', '.join(harm)}" if harm else broken["decision"]["reason"]
        yield f"  the same policy broken on purpose: {broken['action']} after {broken['seconds']:.0f} s, {why}"


def _score(workspace: Workspace) -> Iterator[str]:
    try:
        with workspace.warehouse.connect(read_only=True) as connection:
            score = weekly_score(connection, workspace.workflow.name)
    except AgentRLError:
        return
    source = f"{score.basis}, simulated" if score.simulated else score.basis
    shown, errors = "unknown", f"unknown of {100 * score.tool_error_unknown:.1f} % of the runs"
    if score.reliability_score is not None and score.interval is not None and score.tool_error is not None:
        low, high = score.interval
        shown, errors = f"{score.reliability_score:.3f} ({low:.3f} to {high:.3f})", f"{score.tool_error:.3f}"
    yield f"RELIABILITY SCORE {score.iso_week}: {shown}, {source}"
    yield (
        f"  success {score.success:.3f} * (1 - human override {score.human_override:.3f})"
        f" * (1 - tool error {errors}), n = {score.n}"
    )


def _places(instance: dg.DagsterInstance, workspace: Workspace) -> Iterator[str]:
    pointers = workspace.registry.pointers()
    if pointers.candidate and pointers.candidate == pointers.champion:
        yield f"CHAMPION {pointers.champion[:12]}   (agentrl release list)"
    elif pointers.candidate:
        outdated = next(out_of_date(instance, "release_bundle"), None)
        note = f"(of before: {outdated})" if outdated else "(agentrl verify)"
        yield f"RELEASE CANDIDATE {pointers.candidate[:12]}   {note}"
    yield f"ARTIFACTS {workspace.root / 'artifacts'}   LOG {workspace.root / 'run.log'}"


def _next(instance: dg.DagsterInstance, workspace: Workspace) -> Iterator[str]:
    """What to open next."""
    yield "OPEN NEXT"
    yield "  the graph, its checks and pictures   agentrl ui, then http://127.0.0.1:3000"
    if brief := workspace.find(instance, "reliability_brief"):
        yield f"  the brief, one page                  {brief.path / 'brief.en-US.pdf'}"
    if workspace.registry.pointers().champion:
        yield "  the gateway, for your application    agentrl keys create NAME, then agentrl gateway"
