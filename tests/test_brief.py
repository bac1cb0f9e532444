"""The Reliability Brief: one page and its annex, three languages, the same traceable numbers in all of them."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import brief_evidence as made_up
import pytest
import yaml
from brief_evidence import RELEASE, conditions
from brief_pages import ENDED, SIMULATED, STOPPED, Page, pdf_pages, pdf_text, squeezed, whole_brief

from agentrl_resources.brief import LOCALES, Brief, collect, phases, phases_text, write_brief
from agentrl_resources.brief.content import Say
from agentrl_resources.brief.figures import QUERIES
from agentrl_resources.brief.locales import language
from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import Warehouse

CATALOGUES = {name: yaml.safe_load((QUERIES.parent / f"{name}.yaml").read_text()) for name in LOCALES}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with an evaluation in it and no evidence yet."""
    path = tmp_path_factory.mktemp("brief") / "warehouse.duckdb"
    made_up.warehouse(path, SIMULATED)
    return path


@pytest.fixture
def warehouse(empty: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(Path(shutil.copy(empty, tmp_path)))


@pytest.fixture(scope="module")
def whole(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Brief, Path]:
    return whole_brief(empty, tmp_path_factory.mktemp("whole"))


def test_every_stored_query_gives_its_stored_value_again(whole):
    warehouse, _, folder = whole
    stored = json.loads((folder / "queries.json").read_text())["figures"]
    assert len(stored) > 100
    table = warehouse.query("SELECT * FROM brief_figures WHERE release = ?", [RELEASE])
    assert {row["figure"]: (row["sql"], json.loads(row["value"]), row["mark"]) for row in table} == {
        name: (figure["sql"], figure["value"], figure["mark"]) for name, figure in stored.items()
    }
    with warehouse.connect(read_only=True) as connection:
        for name, figure in stored.items():
            assert connection.execute(figure["sql"]).fetchall() == [(figure["value"],)], name


@pytest.mark.parametrize("locale", LOCALES)
def test_every_language_shows_exactly_the_stored_figures_each_with_its_mark(whole, locale):
    _, brief, folder = whole
    html = (folder / f"brief.{locale}.html").read_text()
    stored = json.loads((folder / "queries.json").read_text())["figures"]
    page = Page(html)
    assert page.names == set(stored) == set(brief.figures)
    words = language(locale)
    texts = squeezed(page.text), squeezed(pdf_text(folder / f"brief.{locale}.pdf"))
    for figure in brief.figures.values():
        if figure.unit == "list" or figure.query == "trend":  # drawn
            continue
        written = {squeezed(words.write(figure)), squeezed(words.write(figure, bare=True))}
        for text in texts:
            assert any(one in text for one in written), (figure.name, written)
    annexes = page.annex, "".join(pdf_pages(folder / f"brief.{locale}.pdf")[1:])
    for name, figure in stored.items():
        assert all(f"[{figure['mark']}] {brief.figures[name].query}" in annex for annex in annexes), name


def test_the_same_evidence_gives_the_same_bytes(whole, tmp_path):
    warehouse, _, folder = whole
    for file in write_brief(collect(warehouse, RELEASE), tmp_path):
        assert file.read_bytes() == (folder / file.name).read_bytes(), file.name


@pytest.mark.parametrize("locale", LOCALES)
def test_the_html_needs_nothing_from_elsewhere(whole, locale):
    html = (whole[2] / f"brief.{locale}.html").read_text()
    assert not re.findall(r"<script|<link|<img|@import|url\(|src=|href=", html)
    assert set(re.findall(r"https?://[^\"]+", html)) == {"http://www.w3.org/2000/svg"}


def test_blocks_come_in_the_readers_order(whole):
    _, brief, folder = whole
    orders = {}
    for locale in LOCALES:
        html = (folder / f"brief.{locale}.html").read_text()
        layout = CATALOGUES[locale]["layout"]
        wanted = [name for place in ("front", "top", "left", "right", "bottom") for name in layout[place]]
        assert re.findall(r'<section class="block-(\w+)">', html) == wanted
        assert sorted(wanted) == sorted([*brief.front, *brief.annex, "phases"])
        assert sorted(layout["lead"]) == sorted(brief.lead)
        assert sorted(layout["tiles"]) == sorted(brief.tiles)
        assert len(brief.tiles) == 5
        orders[locale] = (layout["lead"][0], layout["tiles"][0], layout["front"][0])
    assert orders == {
        "en-US": ("speed", "recovery", "picture"),
        "en-GB": ("accountability", "safety", "owners"),
        "fr-FR": ("trace", "safety", "back"),
    }


def test_what_cannot_be_shown_to_be_real_counts_as_simulated(tmp_path):
    """No run of the canary is in the warehouse."""
    real = made_up.records(simulated=False)
    warehouse = made_up.warehouse(tmp_path / "warehouse.duckdb", real)
    made_up.store(warehouse, real, drill=made_up.drill(simulated=False))
    brief = collect(warehouse, RELEASE)
    assert {figure.query for figure in brief.figures.values() if figure.simulated} == {
        "decision",
        "decision_metrics",
        "phase_promoted",
        "verdict",
    }
    assert brief.ribbon == Say("ribbon.some", words={"topics": ("topic.canary",)})
    assert brief.figures["confidence.confidence_level"].value == "moderate"


def test_what_was_not_measured_is_said_in_words_and_never_as_a_number(warehouse, tmp_path):
    made_up.store(
        warehouse, SIMULATED, decision=None, drill=None, promoted=False, expansion=None, tool_policy=None, parent=None
    )
    brief = collect(warehouse, RELEASE)
    assert not {"decision", "decision_metrics", "drill", "drill_times"} & {one.query for one in brief.figures.values()}
    assert None not in [figure.value for figure in brief.figures.values() if figure.unit != "flag"]
    write_brief(brief, tmp_path)
    for locale in LOCALES:
        page = Page((tmp_path / f"brief.{locale}.html").read_text())
        pdf = squeezed(pdf_text(tmp_path / f"brief.{locale}.pdf"))
        for key in (
            "rollback.missing",
            "lead.speed.missing",
            "incident.detect.missing",
            "phase.drilled.missing",
            "back.time.missing",
            "cell.missing",
        ):
            said = language(locale).word(key)
            assert said in page.text, key
            assert squeezed(said) in pdf, key
    assert {row["condition"]: row["holds"] for phase in phases(warehouse, RELEASE) for row in phase["conditions"]} == (
        dict.fromkeys(("promoted", "drilled", "expansion", "rising", "profitable"))
    )


def test_evidence_of_another_release_and_later_runs_leave_a_brief_as_it_was(warehouse):
    made_up.store(warehouse, SIMULATED)
    before = collect(warehouse, RELEASE)
    warehouse.ingest(made_up.traffic(47, "release", 50, 0.5))
    made_up.build(warehouse)
    made_up.store(warehouse, SIMULATED, release="9" * 64)
    other = collect(warehouse, "9" * 64)
    assert collect(warehouse, RELEASE) == before
    assert other.figures["score.reliability_score"].value != before.figures["score.reliability_score"].value
    stored = warehouse.query("SELECT * FROM brief_figures")
    assert {row["release"] for row in stored} == {RELEASE, "9" * 64}
    with warehouse.connect(read_only=True) as connection:
        for row in stored:
            assert connection.execute(row["sql"]).fetchall() == [(json.loads(row["value"]),)], row["figure"]


def test_text_from_the_data_is_text(warehouse, tmp_path):
    """Neither HTML nor Typst may run what a workflow calls itself."""
    name = '<script>alert(1)</script> #panic("x") $x$ *b* {{ page }}'
    runs = made_up.relabelled(SIMULATED, workflow=name)
    made = made_up.warehouse(tmp_path / "other.duckdb", runs)
    made_up.store(made, runs, manifest=made_up.manifest(runs) | {"workflow": name})
    write_brief(collect(made, RELEASE), tmp_path, ["en-GB"])
    html = (tmp_path / "brief.en-GB.html").read_text()
    assert "<script" not in html
    assert name in Page(html).text
    assert squeezed(name) in squeezed(pdf_text(tmp_path / "brief.en-GB.pdf"))


def test_mistakes_have_one_clear_message(warehouse):
    with pytest.raises(AgentRLError, match="no evidence of release aaaaaaaaaaaa"):
        collect(warehouse, RELEASE)
    made_up.store(warehouse, SIMULATED)
    with pytest.raises(AgentRLError, match="no evidence of release 777777777777"):
        collect(warehouse, "7" * 64)
    with pytest.raises(AgentRLError, match=r"no brief in 'de-DE'\. Languages: en-US, en-GB, fr-FR"):
        language("de-DE")
    with pytest.raises(AgentRLError, match="says 100 failures and lists 99"):
        made_up.store(warehouse, SIMULATED, drill=made_up.drill(99) | {"n": 100})
    with pytest.raises(AgentRLError, match="is the baseline itself"):
        made_up.store(warehouse, SIMULATED, manifest={**made_up.manifest(SIMULATED), **made_up.parent_manifest()})
    strange = made_up.decision()
    strange["metrics"][0]["unit"] = "furlongs"
    made_up.store(warehouse, SIMULATED, decision=strange)
    with pytest.raises(AgentRLError, match=r"decision_metrics\.success is in 'furlongs', which the brief cannot show"):
        collect(warehouse, RELEASE)


@pytest.mark.parametrize(
    ("changes", "level", "promoted", "drilled", "expansion"),
    [
        ({}, "moderate", True, True, True),
        ({"promoted": False, "drill": made_up.drill(99), "expansion": STOPPED}, "moderate", False, False, False),
        ({"decision": made_up.decision("HOLD"), "drill": made_up.drill(bound=0.051)}, "moderate", None, False, True),
        ({"decision": made_up.decision("NO-GO"), "promoted": False, "drill": None}, "low", False, None, True),
        ({"manifest": made_up.manifest(SIMULATED, gates=())}, "low", True, True, True),
    ],
)
def test_confidence_and_the_first_phase_follow_their_rules(warehouse, changes, level, promoted, drilled, expansion):
    made_up.store(warehouse, SIMULATED, **changes)
    assert collect(warehouse, RELEASE).figures["confidence.confidence_level"].value == level
    holds = {name: row["holds"] for name, row in conditions(warehouse).items()}
    assert holds == {
        "promoted": promoted,
        "drilled": drilled,
        "expansion": expansion,
        "rising": None,
        "profitable": None,
    }


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            "NO-GO",
            {
                "en-US": "the canary was ended before the statistics had decided",
                "en-GB": "the canary was brought to an end before the statistics had decided",
                "fr-FR": "le canari a été retiré avant la décision statistique",
            },
        ),
        (
            "GO",
            {
                "en-US": "it serves the very policy that was already serving",
                "en-GB": "it serves the very policy already in service",
                "fr-FR": "la version sert la même politique que celle déjà en service",
            },
        ),
    ],
)
def test_what_was_decided_without_statistics_is_told_as_such(warehouse, tmp_path, answer, told):
    """The breaker or a person was faster, or there was nothing to try: there are no metrics."""
    made_up.store(warehouse, SIMULATED, decision=ENDED | {"answer": answer}, promoted=answer == "GO")
    write_brief(collect(warehouse, RELEASE), tmp_path)
    for locale, said in told.items():
        assert said in Page((tmp_path / f"brief.{locale}.html").read_text()).text


def test_a_canary_that_has_just_begun_was_not_ended(warehouse, tmp_path):
    begun = made_up.decision("HOLD") | {"n_canary": 0, "n_champion": 0, "metrics": []}
    made_up.store(warehouse, SIMULATED, decision=begun, promoted=False)
    write_brief(collect(warehouse, RELEASE), tmp_path)
    text = Page((tmp_path / "brief.en-US.html").read_text()).text
    assert "after 0" in text
    assert "was ended" not in text


def test_the_canarys_share_is_that_of_the_sessions_that_decided(warehouse):
    made_up.store(warehouse, SIMULATED)
    figures = collect(warehouse, RELEASE).figures
    canary, champion = (figures[f"decision.{arm}_count"].value for arm in ("canary", "champion"))
    assert figures["decision.canary_share"].value == pytest.approx(canary / (canary + champion))


@pytest.mark.parametrize("simulated", [True, False])
def test_what_the_first_release_with_the_policy_went_through_is_what_its_canary_was(warehouse, simulated):
    tried = "e" * 64
    runs = made_up.traffic(48, "release", 20, 0.8, simulated=simulated)
    warehouse.ingest([replace(run, release_id=tried, release_channel="canary") for run in runs])
    made_up.build(warehouse)
    nothing_to_try = ENDED | {"answer": "GO"}
    made_up.store(warehouse, SIMULATED, decision=nothing_to_try, same_policy={RELEASE: tried})
    assert collect(warehouse, RELEASE).figures["decision.canary_answer"].simulated == simulated


def test_phases_as_text_say_each_condition_in_words(whole):
    _, brief, _ = whole
    assert phases_text(brief).splitlines() == [
        "Phase 1, 30 days: conditions hold",
        "  holds: Promoted on the canary’s word: GO after 640 sessions",
        "  holds: Rollback tested: 100 failures; chance above 5 min at most 3.0%",
        "  holds: Expansion not stopped (gates stopping it: 0)",
        "Phase 2, 60 days: not known yet",
        "  not known yet: Score rising: needs two weeks of the same kind",
        "Phase 3, 90 days: not known yet",
        "  not known yet: First workflow profitable: needs traffic and the program’s cost",
        "SIMULATED: everything here comes from simulated customers or injected failures.",
    ]
    assert [phase["holds"] for phase in phases(whole[0], RELEASE)] == [True, None, None]


def test_a_name_that_no_catalogue_knows_stands_for_itself(whole):
    assert "gizmo" in Page((whole[2] / "brief.fr-FR.html").read_text()).text
