"""What a run has to do, like `make`: which assets are out of date and why, and which checks wait for an answer."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import dagster as dg

from agentrl_assets.traces_only import END, within_reach
from agentrl_resources.dagster_history import Built, check_answer, latest_build
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.errors import AgentRLError
from agentrl_resources.strict_yaml import nearest


@dataclass(frozen=True)
class Plan:
    """`wanted`: the assets asked for with everything upstream, in the order they are built. `reasons`: why an asset is
    built, for those that are. `checks`: evaluated besides, or again.
    """

    wanted: tuple[str, ...]
    reasons: dict[str, str]
    checks: frozenset[dg.AssetCheckKey]


def make_plan(
    defs: dg.Definitions, instance: dg.DagsterInstance, workspace: Workspace, selected: Collection[str] = ()
) -> Plan:
    """The plan for the selected assets, by default all. Partitioned assets are left out: they have a week each.

    Of a workflow with traces alone, all are those that need no environment. AgentRLError for an asset that does not
    exist, or needs what is not there.
    """
    graph = defs.resolve_asset_graph()
    names = [key.to_user_string() for key in graph.toposorted_asset_keys]
    for name in selected:
        if name not in names:
            raise AgentRLError(f"there is no asset '{name}'; {nearest(name, names)}")
    inputs = {name: [key.to_user_string() for key in graph.get(dg.AssetKey(name)).parent_keys] for name in names}
    selected = within_reach(workspace, selected, _with_upstream([END], inputs))
    wanted = _with_upstream(selected or names, inputs)
    plain = tuple(name for name in names if name in wanted and graph.get(dg.AssetKey(name)).partitions_def is None)

    built = {name: latest_build(instance, name) for name in plain}
    reasons: dict[str, str] = {}
    for name in plain:
        code_version = graph.get(dg.AssetKey(name)).code_version
        if reason := _reason(name, inputs[name], code_version, built, reasons, workspace):
            reasons[name] = reason
    checks = frozenset(
        check
        for check in graph.asset_check_keys
        if (asset := check.asset_key.to_user_string()) in plain
        and (asset in reasons or _unanswered(graph.get_check_spec(check), instance))
    )
    return Plan(plain, reasons, checks)


def _with_upstream(names: Iterable[str], inputs: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += inputs[name]
    return found


def _reason(
    name: str,
    inputs: list[str],
    code_version: str | None,
    built: dict[str, Built | None],
    reasons: dict[str, str],
    workspace: Workspace,
) -> str | None:
    """Why an asset must be built, in the order in which a person wants to know; None when it is up to date."""
    own = built[name]
    if own is None:
        return "never built"
    if own.code_version != code_version:
        return "its code or its settings changed"
    if any(source in reasons for source in inputs):
        return "something upstream is built"
    for source in inputs:
        latest = built[source]
        if latest is not None and own.inputs.get(source) != latest.data_version:
            return f"{source} changed"
    if name == "release_bundle" and not workspace.leads_back(own.data_version):
        return "the champion changed"
    found = workspace.source_digest(name)
    if found is not None and own.metadata["source_digest"] != found:
        return "its source changed"
    if "artifact" in own.metadata and not workspace.holds(name, own.data_version):
        return "its artifact is missing"
    return None


def _unanswered(check: dg.AssetCheckSpec, instance: dg.DagsterInstance) -> bool:
    """Whether a check has not judged what there is now, or has stopped a run: it gets another chance then."""
    answer = check_answer(instance, check.asset_key.to_user_string(), check.name).answer
    return answer != "passed" and not (answer == "failed" and not check.blocking)
