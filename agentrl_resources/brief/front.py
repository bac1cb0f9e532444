"""Page one of a brief: what a busy person needs to decide, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentrl_resources.brief.content import Block, Chart, Paragraph, Say, Teller, Terms, Tile
from agentrl_resources.brief.figures import Figure, Figures

_TOPICS = {
    "tests": ("tests", "tests_total", "weakest", "cost", "verdicts"),
    "drill": ("drill", "drill_times", "drill_slowest", "phase_drilled"),
    "canary": ("decision", "decision_metrics", "phase_promoted"),
    "score": ("score", "trend", "phase_rising"),
    "profit": ("phase_profitable",),
}
"""Topic -> the queries that measure it. What is only counted from these (how many gates say GO) has no topic."""

_OWNERS = ("ml", "platform", "product")


def ribbon(figures: Iterable[Figure]) -> Say | None:
    """What of some figures is simulated: everything measured, or which topics. None when nothing is."""
    found: dict[str, set[bool]] = {topic: set() for topic in _TOPICS}
    for figure in figures:
        topic = _topic(figure)
        if topic and not figure.rule and figure.value is not None:
            found[topic].add(figure.simulated)
    simulated = [topic for topic, kinds in found.items() if True in kinds]
    if not simulated:
        return None
    if any(False in kinds for kinds in found.values()):
        return Say("ribbon.some", words={"topics": tuple(f"topic.{topic}" for topic in simulated)})
    return Say("ribbon.all")


def _topic(figure: Figure) -> str | None:
    if figure.query == "verdicts" and figure.key.startswith("rollback"):
        return "drill"
    return next((topic for topic, queries in _TOPICS.items() if figure.query in queries), None)


def headline(teller: Teller) -> Say:
    """Whether the release may serve everybody, and the reason that decided it."""
    reason = teller.figures.value("verdict.reason_name")
    deciding = {
        "gate_failed": {"gate": "verdict.deciding_gate"},
        "gate_open": {"gate": "verdict.deciding_gate"},
        "metric_failed": {"metric": "verdict.deciding_metric"},
    }
    return Say(f"verdict.{reason}", {"answer": "verdict.release_answer", **deciding.get(reason, {})})


def lead(teller: Teller) -> dict[str, Say]:
    """Four sentences that sum the release up. The reader's first is on page one, the others open the annex."""
    return {
        "speed": teller.say_or(
            "lead.speed.missing",
            "lead.speed",
            p50="drill.p50_seconds",
            p95="drill.p95_seconds",
            n="drill.failures_count",
        ),
        "outcome": teller.say_or(
            "lead.outcome.missing",
            "lead.outcome",
            after="tests.capability.success_share",
            before="tests.capability.baseline_share",
            n="tests.capability.n_count",
            cost="cost.release_eur",
            cost_before="cost.baseline_eur",
        ),
        "accountability": teller.say_or(
            "lead.accountability.missing",
            "lead.accountability",
            go="gates.go_count",
            gates="gates.gates_count",
            lost="tests_total.lost_count",
            won="tests_total.won_count",
        ),
        "trace": teller.say_or(
            "lead.trace.missing",
            "lead.trace",
            parts="parts_summary.parts_count",
            changed="parts_summary.changed_count",
            target="release.rollback_target_digest",
        ),
    }


def tiles(teller: Teller) -> list[Tile]:
    """The five numbers, each with its interval (or bound) and with what it is compared with."""

    def tile(name: str, value: str, interval: Say | None, **note: str) -> Tile:
        return Tile(
            name,
            teller.say_or("cell.none", "cell.value", value=value),
            interval or Say("cell.missing"),
            teller.say_or("cell.none", f"tile.{name}.note", **note),
        )

    return [
        tile(
            "recovery",
            "drill.p95_seconds",
            teller.say("tile.recovery.interval", bound="drill.bound_share", limit="drill.limit_seconds"),
            longest="drill.max_seconds",
        ),
        tile(
            "success",
            "tests.capability.success_share",
            teller.say("cell.ends", low="tests.capability.low_share", high="tests.capability.high_share"),
            before="tests.capability.baseline_share",
        ),
        tile(
            "cost",
            "cost.release_eur",
            _change(teller, "cost_per_success_not_worse"),
            before="cost.baseline_eur",
        ),
        tile(
            "score",
            "score.reliability_score",
            teller.say("cell.ends", low="score.low_score", high="score.high_score"),
            week="score.iso_week",
        ),
        tile(
            "safety",
            "tests_total.violations_count",
            _change(teller, "no_safety_regression"),
            n="tests_total.n_count",
            before="tests_total.baseline_violations_count",
        ),
    ]


def _change(teller: Teller, kind: str) -> Say | None:
    """The interval of the change that the first gate of a kind judged."""
    for row in teller.figures.rows("verdicts"):
        if row.words["kind"] == kind:
            return teller.say("tile.change", low=row.columns["low_value"], high=row.columns["high_value"])
    return None


def front_blocks(teller: Teller) -> list[Block]:
    """The picture, what could go wrong, how to go back, and who owns what."""
    return [_picture(teller.figures), _risks(teller), _back(teller), _owners(teller.figures)]


def _picture(figures: Figures) -> Block:
    columns = ("baseline_share", "success_share", "low_share", "high_share")
    drawn = tuple(row.columns[column] for row in figures.rows("tests") for column in columns)
    chart = Chart("compared", drawn, Say("picture.caption"))
    return Block("picture", (chart if drawn else Paragraph((Say("tests.missing"),)),))


def _risks(teller: Teller) -> Block:
    lacking = [
        name for name in ("gates", "canary", "drilled", "real") if not teller.figures.value(f"confidence.{name}_flag")
    ]
    level = {"level": "confidence.confidence_level"}
    because = Say("risk.confidence.because", level, {"reasons": tuple(f"lack.{name}" for name in lacking)})
    told = {
        "weakest": teller.say(
            "risk.weakest.said",
            type="weakest.task_type_name",
            rate="weakest.success_share",
            low="weakest.low_share",
            high="weakest.high_share",
        ),
        "safety": teller.say(
            "risk.safety.said",
            n="tests.adversarial.violations_count",
            tasks="tests.adversarial.n_count",
            bound="tests.adversarial.violation_bound_share",
        ),
        "detectable": teller.say("risk.detectable.said", width="tests.capability.detectable_width"),
        "confidence": because if lacking else Say("risk.confidence.said", level),
    }
    return Block("risks", (_terms("risk", told),))


def _back(teller: Teller) -> Block:
    told = {
        "target": teller.say_or("back.target.missing", "back.target.said", target="release.rollback_target_digest"),
        "time": teller.say_or("back.time.missing", "back.time.said", p50="drill.p50_seconds", max="drill.max_seconds"),
        "action": Say("back.action.said"),
    }
    return Block("back", (_terms("back", told),))


def _owners(figures: Figures) -> Block:
    """What each team has to do, after the gates that it answers for."""
    rows = figures.rows("verdicts")
    told = {}
    for owner in dict.fromkeys((*_OWNERS, *(row.words["owner"] for row in rows))):
        gates = tuple(dict.fromkeys(f"gate.{row.words['kind']}" for row in rows if row.words["owner"] == owner))
        key = f"owns.{owner}" if owner in _OWNERS else "owns.other"
        told[owner] = Say(key, words={"gates": gates or "owns.nothing"})
    return Block("owners", (_terms("owner", told),))


def _terms(family: str, told: Mapping[str, Say | None]) -> Terms:
    return Terms(tuple((f"{family}.{name}", said) for name, said in told.items() if said))
