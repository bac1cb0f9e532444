"""The annex of a brief: the evidence behind page one, block by block."""

from __future__ import annotations

from agentrl_resources.brief.content import Block, Chart, Grid, Pairs, Say, Teller


def annex_blocks(teller: Teller) -> list[Block]:
    """Every block of the annex; each language has its own order."""
    return [
        _changed(teller),
        _tests(teller),
        _gates(teller),
        _canary(teller),
        _score(teller),
        _confidence(teller),
        _guards(teller),
        _rollback(teller),
        _incident(teller),
        _versions(teller),
    ]


def _changed(teller: Teller) -> Block:
    return Block(
        "changed",
        (
            teller.bullets(
                teller.say(
                    "changed.policy",
                    policy="release.policy_name",
                    baseline="release.baseline_name",
                    reward_model="release.reward_model_name",
                ),
                teller.say(
                    "changed.success",
                    before="tests.capability.baseline_share",
                    after="tests.capability.success_share",
                    change="tests.capability.difference_points",
                    low="tests.capability.difference_low_points",
                    high="tests.capability.difference_high_points",
                ),
                teller.say(
                    "changed.violations",
                    before="tests_total.baseline_violations_count",
                    after="tests_total.violations_count",
                    n="tests_total.n_count",
                ),
                teller.say("changed.cost", before="cost.baseline_eur", after="cost.release_eur"),
            ),
        ),
    )


def _tests(teller: Teller) -> Block:
    rows = []
    for row in teller.figures.rows("tests"):
        at = row.columns
        rows.append(
            (
                Say("cell.text", words={"text": f"suite.{row.key}"}),
                Say("cell.value", {"value": at["n_count"]}),
                Say("cell.value", {"value": at["passed_count"]}),
                Say("cell.value", {"value": at["failed_count"]}),
                Say(
                    "cell.interval",
                    {"value": at["success_share"], "low": at["low_share"], "high": at["high_share"]},
                ),
            )
        )
    table = Grid(("head.suite", "head.tasks", "head.passed", "head.failed", "head.success"), tuple(rows))
    kept = teller.say(
        "tests.kept", won="tests_total.won_count", lost="tests_total.lost_count", failed="tests_total.failed_count"
    )
    return Block("tests", (table, teller.paragraph(kept)) if kept else (teller.paragraph(Say("tests.missing")),))


def _judged(teller: Teller, query: str, label: str, answer: str, measured_as: str) -> Grid:
    """A table of verdicts: what was judged and by whom, the answer, the estimate with its interval, the limit."""
    rows = []
    for row in teller.figures.rows(query):
        at = row.columns
        # of rollbacks the shortest and the longest are told, which is no interval of an estimate
        pair = "cell.range" if row.words.get("kind", "").startswith("rollback") else "cell.interval"
        measured = teller.say(
            pair, value=at["estimate_value"], low=at["low_value"], high=at["high_value"]
        ) or teller.say_or("cell.missing", "cell.value", value=at["estimate_value"])
        rows.append(
            (
                Say(
                    "cell.owned",
                    words={"text": f"{label}.{row.words.get('kind', row.key)}", "owner": f"owner.{row.words['owner']}"},
                ),
                Say("cell.value", {"value": at[answer]}),
                measured,
                teller.say_or("cell.none", "cell.value", value=at["limit_value"]),
            )
        )
    return Grid((f"head.{label}", "head.verdict", measured_as, "head.limit"), tuple(rows))


def _gates(teller: Teller) -> Block:
    said = teller.say_or("gates.missing", "gates.rule", go="gates.go_count", gates="gates.gates_count")
    table = _judged(teller, "verdicts", "gate", "verdict_answer", "head.measured")
    return Block("gates", (table, teller.paragraph(said)) if table.rows else (teller.paragraph(said),))


def _canary(teller: Teller) -> Block:
    decided = teller.say(
        "canary.decided",
        answer="decision.canary_answer",
        n="decision.canary_count",
        champion="decision.champion_count",
        share="decision.canary_share",
        date="decision.decided_date",
    )
    if decided is None:
        how = "canary.same" if teller.figures.value("decision.canary_answer") == "GO" else "canary.ended"
        ended = teller.say(how, answer="decision.canary_answer", date="decision.decided_date")
        missing = teller.say("canary.missing", share="release.limit_canary_share")
        return Block("canary", (teller.paragraph(ended or missing),))
    expired = Say("canary.expired") if teller.figures.value("decision.expired_flag") else None
    table = _judged(teller, "decision_metrics", "metric", "metric_answer", "head.sequence")
    said = teller.paragraph(decided, expired)
    return Block("canary", (said, table) if table.rows else (said,))


def _score(teller: Teller) -> Block:
    weeks = teller.figures.rows("trend")
    if teller.figures.value("score.reliability_score") is None:
        unknown = teller.say("score.unknown", week="score.iso_week", n="score.n_count")
        return Block("score", (teller.paragraph(unknown or Say("score.missing")),))
    caption = Say(
        "score.week",
        {
            "week": "score.iso_week",
            "score": "score.reliability_score",
            "low": "score.low_score",
            "high": "score.high_score",
            "n": "score.n_count",
            "basis": "score.runs_basis",
        },
    )
    factors = Say(
        "score.factors",
        {"success": "score.success_share", "override": "score.override_share", "error": "score.tool_error_share"},
    )
    chart = Chart("trend", tuple(name for row in weeks for name in row.columns.values()), caption)
    return Block("score", (chart, teller.paragraph(factors)))


def _confidence(teller: Teller) -> Block:
    level = Say("confidence.level", {"level": "confidence.confidence_level"})
    rule = teller.say("confidence.rule", n="rules.limit_failures_count", chance="rules.limit_chance_share")
    return Block("confidence", (teller.paragraph(level, rule),))


def _guards(teller: Teller) -> Block:
    guards = teller.bullets(
        teller.say(
            "guards.tools",
            tools="release.limit_tools_count",
            calls="release.limit_calls_count",
            seconds="release.limit_run_seconds",
        ),
        teller.say("guards.canary", share="release.limit_canary_share"),
        Say("guards.expansion"),
    )
    return Block("guards", (guards,))


def _rollback(teller: Teller) -> Block:
    bound = teller.say(
        "rollback.bound",
        bound="drill.bound_share",
        limit="drill.limit_seconds",
        n="drill.failures_count",
        share="drill.canary_share",
        rate="drill.traffic_count",
    )
    if bound is None:
        timed = [row.columns for row in teller.figures.rows("verdicts") if row.words["kind"].startswith("rollback")]
        gate = [
            teller.say("rollback.gate", n=at["n_count"], longest=at["high_value"], limit=at["limit_value"])
            for at in timed
        ]
        return Block("rollback", (teller.paragraph(Say("rollback.missing"), *gate),))
    caption = Say(
        "rollback.times", {"p50": "drill.p50_seconds", "p95": "drill.p95_seconds", "max": "drill.max_seconds"}
    )
    chart = Chart("drill", ("drill_times.totals_list", *caption.figures.values(), "drill.limit_seconds"), caption)
    said = teller.bullets(
        bound,
        teller.say(
            "rollback.steps",
            detected="drill_times.detected_seconds",
            decided="drill_times.decided_seconds",
            swapped="drill_times.swapped_seconds",
            drained="drill_times.drained_seconds",
        ),
        teller.say(
            "rollback.slowest",
            kind="drill_slowest.failure_kind",
            p50="drill_slowest.p50_seconds",
            n="drill_slowest.failures_count",
        ),
        teller.say(
            "rollback.after",
            before="drill.before_share",
            after="drill.after_share",
            low="drill.after_low_share",
            high="drill.after_high_share",
        ),
    )
    return Block("rollback", (chart, said))


def _incident(teller: Teller) -> Block:
    return Block(
        "incident",
        (
            teller.bullets(
                teller.say_or("incident.detect.missing", "incident.detect", seconds="drill_times.detected_seconds"),
                teller.say_or(
                    "incident.failback.missing", "incident.failback", target="release.rollback_target_digest"
                ),
                Say("incident.verify"),
                Say("incident.learn"),
                Say("incident.tell"),
            ),
        ),
    )


def _versions(teller: Teller) -> Block:
    def pair(name: str, figure: str) -> Say:
        return Say("cell.pair", {"value": figure}, {"name": name})

    about = [
        pair(f"version.{name}", f"release.{name}_digest")
        for name in ("release", "parent", "commit", "gate_configuration")
        if teller.figures.value(f"release.{name}_digest")
    ]
    parts = [pair(f"part.{row.key}", row.columns["part_digest"]) for row in teller.figures.rows("parts")]
    dirty = [teller.paragraph(Say("version.dirty"))] if teller.figures.value("release.dirty_flag") else []
    return Block("versions", (Pairs((*about, *parts)), *dirty))
