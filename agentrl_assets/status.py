"""What `agentrl status` says: every asset with its state, the checks that do not pass, the releases."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from agentrl_assets.definitions import defs
from agentrl_assets.plan import make_plan
from agentrl_assets.reliability import outdated_weeks
from agentrl_resources.dagster_history import check_answer, latest_build
from agentrl_resources.dagster_resources import Workspace


def status(instance: dg.DagsterInstance, workspace: Workspace) -> dict[str, Any]:
    """The state of the whole project as plain values."""
    plan = make_plan(defs, instance, workspace)
    assets = []
    for name in plan.wanted:
        built = latest_build(instance, name)
        assets.append(
            {
                "asset": name,
                "up_to_date": name not in plan.reasons,
                "why": plan.reasons.get(name),
                "data_version": built.data_version if built else None,
                "built_at": _time(built.at) if built else None,
            }
        )
    keys = sorted(defs.resolve_asset_graph().asset_check_keys)
    checked = [check_answer(instance, key.asset_key.to_user_string(), key.name) for key in keys]
    pointers = workspace.registry.pointers()
    marts_are_built = latest_build(instance, "weekly_reliability") is not None
    return {
        "home": workspace.home,
        "workflow_file": workspace.workflow_file,
        "up_to_date": not plan.reasons,
        "assets": assets,
        "checks": [
            {"asset": one.asset, "check": one.check, "answer": one.answer, "said": one.said}
            for one in checked
            if one.answer != "passed" and latest_build(instance, one.asset)
        ],
        "weeks_to_score": outdated_weeks(instance, workspace) if marts_are_built else [],
        "releases": {name: getattr(pointers, name) for name in ("candidate", "canary", "champion", "previous")},
    }


def status_text(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{found['home']} ({found['workflow_file']})"]
    lines += [f"  {one['asset']:<28} {one['why'] or 'up to date since ' + one['built_at']}" for one in found["assets"]]
    lines += [f"  check {one['asset']}: {one['check']}: {one['answer']}  {one['said']}" for one in found["checks"]]
    lines += [f"  {name}: {release[:12]}" for name, release in found["releases"].items() if release]
    return "\n".join(lines)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
