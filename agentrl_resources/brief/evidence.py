"""The evidence of a release as warehouse tables, one row set a release, so that a brief can be traced and made again.

A brief says what was known when it was made: scores and costs are copied from the marts, which go on changing with
every run and every late label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.evaluation import parse_gate, upper_bound
from agentrl_resources.telemetry import Warehouse, utc_iso, version_name, weekly_score
from agentrl_resources.workflow import ToolPolicy

DRILL_FAILURES = 100
"""Failures that a drill must hold before it counts as a tested rollback."""

DRILL_CHANCE = 0.05
"""Highest upper bound (95 %) on the chance that a rollback takes longer than its gate allows."""

TREND_WEEKS = 4
"""The score must have risen over at most this many weeks with a score."""

Row = dict[str, Any]

_TEXT, _COUNT, _NUMBER, _FLAG = "VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN"


def _columns(**kinds: str) -> dict[str, str]:
    """`names="TYPE"` with several names in one key, joined by two underscores, for short tables."""
    return {"release": _TEXT} | {name: kind for names, kind in kinds.items() for name in names.split("__")}


TABLES: dict[str, dict[str, str]] = {
    "brief_releases": _columns(
        workflow__made_at__parent__rollback_target__code_commit__gate_configuration=_TEXT,
        policy_version__baseline_version__reward_model_version=_TEXT,
        code_dirty__promoted__expansion_stopped__simulated=_FLAG,
        expansion_gates__tools__max_calls=_COUNT,
        canary_percent__max_seconds__programme_cost=_NUMBER,
    ),
    "brief_rules": _columns(drill_failures__trend_weeks=_COUNT, drill_chance=_NUMBER),
    "brief_parts": _columns(part__digest=_TEXT, changed=_FLAG),
    "brief_verdicts": _columns(
        gate__kind__owner__answer__unit=_TEXT,
        position__n=_COUNT,
        estimate__low__high__threshold=_NUMBER,
        simulated=_FLAG,
    ),
    "brief_comparison": _columns(
        suite__task_type=_TEXT,
        n__baseline_successes__candidate_successes__only_baseline__only_candidate=_COUNT,
        baseline_violations__candidate_violations=_COUNT,
        candidate_low__candidate_high__difference__difference_low__difference_high=_NUMBER,
        minimum_detectable_effect__violation_bound=_NUMBER,
        simulated=_FLAG,
    ),
    "brief_decisions": _columns(
        answer__started_at__decided_at=_TEXT, n_canary__n_champion=_COUNT, expired__simulated=_FLAG
    ),
    "brief_decision_metrics": _columns(
        metric__owner__answer__unit=_TEXT,
        position=_COUNT,
        estimate__low__high__threshold=_NUMBER,
        simulated=_FLAG,
    ),
    "brief_drills": _columns(
        n=_COUNT,
        p50_seconds__p95_seconds__max_seconds__limit_seconds__chance_over_limit_upper=_NUMBER,
        canary_percent__traffic_per_second=_NUMBER,
        success_before__success_after__success_after_low__success_after_high=_NUMBER,
        simulated=_FLAG,
    ),
    "brief_drill_failures": _columns(
        kind=_TEXT,
        position=_COUNT,
        detected_seconds__decided_seconds__swapped_seconds__drained_seconds__total_seconds=_NUMBER,
        simulated=_FLAG,
    ),
    "brief_scores": _columns(
        iso_week__basis=_TEXT,
        n=_COUNT,
        score__low__high__success__human_override__tool_error=_NUMBER,
        simulated=_FLAG,
    ),
    "brief_costs": _columns(basis__pair__iso_week__role=_TEXT, n__successes=_COUNT, cost=_NUMBER, simulated=_FLAG),
    "brief_figures": _columns(figure__sql__value__unit=_TEXT, mark=_COUNT, simulated=_FLAG),
}
"""Table -> column -> DuckDB type. Money is in EUR, shares are between 0 and 1 unless a column says percent."""

_SIMULATED_EPISODES = """
SELECT bool_or(simulated) AS simulated FROM stg_runs
WHERE workflow = ? AND release_channel = 'offline_eval' AND ends_with(policy_version, ?)
"""
_SIMULATED_CANARY = """
SELECT bool_or(simulated) AS simulated FROM stg_runs
WHERE workflow = ? AND release_channel = 'canary' AND release_id = ?
"""

_OFFLINE_COSTS = """
SELECT 'offline_eval' AS basis, iso_week, ? AS role, n, successes, cost, simulated FROM cost_per_success
WHERE workflow = ? AND release_channel = 'offline_eval' AND ends_with(policy_version, ?)
ORDER BY iso_week DESC LIMIT 1
"""
_TRAFFIC_COSTS = """
SELECT
    'traffic' AS basis,
    $pair AS pair,
    iso_week,
    CASE WHEN list_contains($releases, release_id) THEN 'release' ELSE 'reference' END AS role,
    count(*) AS n,
    count(*) FILTER (success) AS successes,
    CASE WHEN count(*) = count(cost) THEN sum(cost) END AS cost,
    bool_or(simulated) AS simulated
FROM stg_runs
WHERE
    workflow = $workflow AND release_channel <> 'offline_eval' AND success IS NOT NULL
    AND list_contains(list_concat($releases, $references), release_id)
GROUP BY ALL
ORDER BY ALL
"""


def store_evidence(
    warehouse: Warehouse,
    release: str,
    manifest: Mapping[str, Any],
    *,
    made_at: str,
    comparison: Mapping[str, Any],
    parent: Mapping[str, Any] | None = None,
    decision: Mapping[str, Any] | None = None,
    drill: Mapping[str, Any] | None = None,
    promoted: bool = False,
    expansion: Mapping[str, Any] | None = None,
    tool_policy: ToolPolicy | None = None,
    programme_cost: float | None = None,
    lineage: Mapping[str, str | None] | None = None,
    same_policy: Mapping[str, str] | None = None,
) -> None:
    """Store what the brief of a release rests on; what was stored of this release before is replaced.

    `manifest` and `parent` are the release's manifest and its parent's. `made_at` (ISO 8601) is the date on the brief.
    `comparison` is the report of the offline evaluation, by temperature. `decision` is the canary's, `drill` the
    report of the rollback drill, `expansion` {"stopped": bool, "gates": [names]}, `programme_cost` what improving the
    workflow has cost so far, EUR, and `lineage` the champions so far with their parents: what they saved counts too.
    `same_policy` names for each release that serves an earlier one's policy that earlier one: they count as one.
    `None` is "not measured yet" and is said so on the brief.

    What cannot be shown to be real counts as simulated. Needs the marts to be built.
    """
    workflow, settings = manifest["workflow"], manifest["settings"]
    digests = {part: artifact["digest"] for part, artifact in manifest["artifacts"].items()}
    before = {part: artifact["digest"] for part, artifact in parent["artifacts"].items()} if parent else {}
    if "sft_checkpoint" not in digests:
        raise AgentRLError(f"Release {release[:12]} is the baseline itself: a brief compares a release with it.")
    policy, baseline = f"@{digests['policy'][:12]}", f"@{digests['sft_checkpoint'][:12]}"
    names = settings["workflow"]
    first = {release: release, **(same_policy or {})}
    simulated = _any(warehouse, _SIMULATED_EPISODES, [workflow, policy])
    stopped = expansion or {"stopped": None, "gates": None}
    rows: dict[str, list[Row]] = {
        "brief_releases": [
            {
                "workflow": workflow,
                "made_at": utc_iso(made_at),
                "parent": manifest["parent"],
                "rollback_target": manifest["rollback_target"],
                "code_commit": manifest["code"]["commit"],
                "code_dirty": manifest["code"]["dirty"],
                "gate_configuration": manifest["gate_configuration"],
                "policy_version": version_name(names["policy_training"], digests["policy"]),
                "baseline_version": version_name(names["baseline"], digests["sft_checkpoint"]),
                "reward_model_version": version_name(names["reward_model"], digests["reward_model"]),
                "canary_percent": settings["release"]["canary_traffic_percent"],
                "promoted": promoted,
                "expansion_stopped": stopped["stopped"],
                "expansion_gates": None if stopped["gates"] is None else len(set(stopped["gates"])),
                "tools": len(tool_policy.rules) if tool_policy else None,
                "max_calls": tool_policy.max_calls if tool_policy else None,
                "max_seconds": tool_policy.max_seconds if tool_policy else None,
                "programme_cost": programme_cost,
                "simulated": simulated,
            }
        ],
        "brief_rules": [
            {"drill_failures": DRILL_FAILURES, "drill_chance": DRILL_CHANCE, "trend_weeks": TREND_WEEKS},
        ],
        "brief_parts": [
            {"part": part, "digest": digest, "changed": before.get(part) != digest}
            for part, digest in sorted(digests.items())
        ],
        "brief_verdicts": _verdicts(manifest, simulated, drill),
        "brief_comparison": _comparison(comparison[f"{settings['evaluation']['temperature']:g}"], simulated),
        "brief_scores": _scores(warehouse, workflow),
        "brief_costs": [
            *_offline_costs(warehouse, workflow, policy, baseline),
            *_traffic_costs(warehouse, workflow, {**(lineage or {}), release: manifest["parent"]}, first),
        ],
        **_decision(decision, decision is not None and _any(warehouse, _SIMULATED_CANARY, [workflow, first[release]])),
        **_drill(drill),
    }
    replace_rows(warehouse, release, rows)


def replace_rows(warehouse: Warehouse, release: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Replace a release's rows in some of the brief's tables, and leave those of other releases as they are."""
    others: dict[str, list[Row]] = {table: [] for table in rows}
    with warehouse.connect(read_only=True) as connection:
        known = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        for table in known & set(others):
            found = connection.execute(f"SELECT * FROM {table} WHERE release <> ?", [release])
            names = [column[0] for column in found.description or ()]
            others[table] = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    for table, its_rows in rows.items():
        stamped = [{"release": release, **row} for row in its_rows]
        warehouse.store_rows(table, [*others[table], *stamped], TABLES[table])


def _any(warehouse: Warehouse, sql: str, parameters: list[str]) -> bool:
    (row,) = warehouse.query(sql, parameters)
    return row["simulated"] is not False


def _verdicts(manifest: Mapping[str, Any], simulated: bool, drill: Mapping[str, Any] | None) -> list[Row]:
    rows = []
    for position, name in enumerate(manifest["gates"]):
        verdict, gate = manifest["verdicts"][name], parse_gate(name)
        low, high = verdict["interval"] or (None, None)
        timed = gate.kind.startswith("rollback")
        said = {field: verdict[field] for field in ("gate", "owner", "answer", "estimate", "n", "threshold", "unit")}
        rows.append(
            {
                **said,
                "position": position,
                "kind": gate.kind,
                "low": low,
                "high": high,
                "simulated": drill["simulated"] if timed and drill else simulated,
            }
        )
    return rows


def _comparison(suites: Mapping[str, Any], simulated: bool) -> list[Row]:
    rows = []
    for suite, whole in sorted(suites.items()):
        for task_type, facts in [(None, whole), *sorted(whole["task_types"].items())]:
            baseline, candidate = facts["baseline"], facts["candidate"]
            rows.append(
                {
                    "suite": suite,
                    "task_type": task_type,
                    "n": facts.get("episodes", facts["n"]),
                    "baseline_successes": baseline["successes"],
                    "candidate_successes": candidate["successes"],
                    "only_baseline": facts["only_baseline"],
                    "only_candidate": facts["only_candidate"],
                    "baseline_violations": baseline["safety_violations"],
                    "candidate_violations": candidate["safety_violations"],
                    "candidate_low": candidate["success_interval"][0],
                    "candidate_high": candidate["success_interval"][1],
                    "difference": facts["difference"],
                    "difference_low": facts["difference_interval"][0],
                    "difference_high": facts["difference_interval"][1],
                    "minimum_detectable_effect": facts["minimum_detectable_effect"],
                    "violation_bound": None
                    if (seen := candidate["safety_violations"]) is None
                    else upper_bound(seen, facts["n"]),
                    "simulated": simulated,
                }
            )
    return rows


def _scores(warehouse: Warehouse, workflow: str) -> list[Row]:
    with warehouse.connect(read_only=True) as connection:
        weeks = connection.execute(
            "SELECT iso_week FROM weekly_reliability WHERE workflow = ? AND n > 0 ORDER BY iso_week", [workflow]
        ).fetchall()
        scores = [asdict(weekly_score(connection, workflow, week)) for (week,) in weeks]
    ends = ((score, score["interval"] or (None, None)) for score in scores)
    return [{**score, "score": score["reliability_score"], "low": low, "high": high} for score, (low, high) in ends]


def _offline_costs(warehouse: Warehouse, workflow: str, policy: str, baseline: str) -> list[Row]:
    """Both sides' totals: the baseline is the reference."""
    return [
        row
        for role, version in (("release", policy), ("reference", baseline))
        for row in warehouse.query(_OFFLINE_COSTS, [role, workflow, version])
    ]


def _traffic_costs(
    warehouse: Warehouse, workflow: str, parents: Mapping[str, str | None], first: Mapping[str, str]
) -> list[Row]:
    """Both sides' totals week by week, for each policy beside its parent's, which is the reference.

    `first` names the release that each one with the same policy counts as.
    """
    known = {release for release in (*parents, *parents.values()) if release is not None}
    counts_as = {release: first.get(release, release) for release in known}

    def like(release: str | None) -> list[str]:
        return sorted(one for one in known if release is not None and counts_as[one] == counts_as[release])

    rows = []
    with warehouse.connect(read_only=True) as connection:
        for release, parent in parents.items():
            if counts_as[release] != release:
                continue
            sides = {"pair": release, "releases": like(release), "references": like(parent)}
            found = connection.execute(_TRAFFIC_COSTS, {"workflow": workflow, **sides})
            names = [column[0] for column in found.description or ()]
            rows += [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return rows


def _decision(decision: Mapping[str, Any] | None, simulated: bool) -> dict[str, list[Row]]:
    if decision is None:
        return {"brief_decisions": [], "brief_decision_metrics": []}
    metrics = []
    for position, metric in enumerate(decision["metrics"]):
        low, high = metric["interval"] or (None, None)
        metrics.append({**metric, "position": position, "low": low, "high": high, "simulated": simulated})
    return {
        "brief_decisions": [{**decision, "simulated": simulated}],
        "brief_decision_metrics": metrics,
    }


def _drill(drill: Mapping[str, Any] | None) -> dict[str, list[Row]]:
    if drill is None:
        return {"brief_drills": [], "brief_drill_failures": []}
    if len(drill["failures"]) != drill["n"]:
        raise AgentRLError(
            f"The drill's report says {drill['n']} failures and lists {len(drill['failures'])}. Run the drill again."
        )
    before, after = drill["success_before"], drill["success_after"]
    low, high = after["interval"] or (None, None)
    rates = {"success_before": before["rate"], "success_after": after["rate"]}
    whole = {**drill, **rates, "success_after_low": low, "success_after_high": high}
    failures = [
        {**failure, "position": position, "simulated": drill["simulated"]}
        for position, failure in enumerate(drill["failures"])
    ]
    return {"brief_drills": [whole], "brief_drill_failures": failures}


def figure_rows(figures: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """`queries.json`'s figures as rows of `brief_figures`; the value as JSON text."""
    return [
        {"figure": name, **figure, "value": json.dumps(figure["value"], ensure_ascii=False)}
        for name, figure in figures.items()
    ]
