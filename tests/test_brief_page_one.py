"""Page one of the brief: few words, the verdict, what is simulated; and the annex behind it."""

import re
import shutil
from pathlib import Path
from typing import Any

import brief_evidence as made_up
import pytest
import yaml
from brief_evidence import RELEASE
from brief_pages import ENDED, SIMULATED, STOPPED, html_of, pdf_pages, pdf_text, squeezed, whole_brief

from agentrl_resources.brief import LOCALES, Brief, collect, write_brief
from agentrl_resources.brief.content import Say
from agentrl_resources.brief.figures import QUERIES
from agentrl_resources.brief.front import ribbon
from agentrl_resources.brief.locales import language
from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import Warehouse

PAGES = {"en-US": (612, 792), "en-GB": (595, 842), "fr-FR": (595, 842)}
CATALOGUES = {name: yaml.safe_load((QUERIES.parent / f"{name}.yaml").read_text()) for name in LOCALES}
MOST_WORDS = 350
"""On page one, in any language, numbers and the picture's labels included."""


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


def ribbon_text(brief: Brief, locale: str) -> str:
    """What the ribbon has to say, from the catalogue."""
    assert brief.ribbon is not None
    words = language(locale)
    topics = words.word("list.separator").join(map(words.word, brief.ribbon.words.get("topics", ())))
    return words.word(brief.ribbon.key).format(topics=topics)


def judged(**answers: str) -> dict[str, Any]:
    """A manifest whose gates (the start of their names) answer as given."""
    made = made_up.manifest(SIMULATED)
    for gate, verdict in made["verdicts"].items():
        verdict["answer"] = next((answer for name, answer in answers.items() if gate.startswith(name)), "GO")
    return made


@pytest.mark.parametrize("locale", LOCALES)
def test_page_one_is_the_readers_paper_in_readable_type_and_the_annex_follows(whole, locale):
    import pypdf

    reader = pypdf.PdfReader(whole[2] / f"brief.{locale}.pdf")
    page, *annex = reader.pages
    assert (round(page.mediabox.width), round(page.mediabox.height)) == PAGES[locale]
    sizes: dict[float, int] = {}

    def count(text: str, _: object, __: object, ___: object, size: float) -> None:
        sizes[round(size, 2)] = sizes.get(round(size, 2), 0) + len(text.strip())

    page.extract_text(visitor_text=count)
    assert max(sizes, key=lambda size: sizes[size]) >= 9.5
    assert language(locale).word("annex") not in page.extract_text()
    assert language(locale).word("annex") in annex[0].extract_text()
    assert reader.metadata["/CreationDate"].startswith("D:20261122")
    assert RELEASE[:12] in reader.metadata.title


@pytest.mark.parametrize("locale", LOCALES)
def test_page_one_has_few_words_and_no_marks(whole, locale):
    folder = whole[2]
    page, first = html_of(folder, locale), pdf_pages(folder / f"brief.{locale}.pdf")[0]
    for text in (page.front, first):
        assert 150 < len(text.split()) <= MOST_WORDS
        assert not re.search(r"†|\[\d", text)
    assert re.search(r"\[\d", page.annex)


@pytest.mark.parametrize(
    "changes",
    [
        {"decision": None, "drill": None, "parent": None},
        {"manifest": judged(cost="NO-GO"), "decision": made_up.decision("HOLD"), "drill": made_up.drill(99)},
    ],
)
def test_page_one_has_few_words_when_little_is_known_or_much_is_wrong(warehouse, tmp_path, changes):
    """Nothing is measured beyond the tests; or every reason against confidence is there."""
    made_up.store(warehouse, SIMULATED, promoted=False, **changes)
    write_brief(collect(warehouse, RELEASE), tmp_path)
    for locale in LOCALES:
        assert len(html_of(tmp_path, locale).front.split()) <= MOST_WORDS
        assert len(pdf_pages(tmp_path / f"brief.{locale}.pdf")[0].split()) <= MOST_WORDS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "GO: this release may serve everybody."),
        (
            {"manifest": judged(cost="NO-GO", latency="HOLD")},
            "NO-GO: this release must not serve. Gate failed: Cost per solved task.",
        ),
        (
            {"manifest": judged(rollback="HOLD"), "decision": made_up.decision("HOLD")},
            "HOLD: this release must wait. Gate not proven: Longest rollback.",
        ),
        (
            {"manifest": judged(rollback="HOLD"), "decision": made_up.decision("NO-GO"), "promoted": False},
            "NO-GO: this release must not serve. The canary found harm: Tasks solved.",
        ),
        ({"decision": ENDED, "promoted": False}, "NO-GO: this release must not serve. Its canary was stopped early."),
        (
            {"decision": made_up.decision("HOLD") | {"expired": True}, "promoted": False},
            "HOLD: this release must wait. Its canary ran out of time without a verdict.",
        ),
        ({"decision": None, "promoted": False}, "HOLD: this release must wait. Its canary has not decided yet."),
        (
            {"manifest": made_up.manifest(SIMULATED, gates=())},
            "HOLD: this release must wait. No gate has judged it.",
        ),
        (
            {"promoted": False, "expansion": STOPPED},
            "HOLD: this release must wait. Expansion is stopped until a named person clears it.",
        ),
        ({"promoted": True, "expansion": STOPPED}, "GO: this release may serve everybody."),
        (
            {"promoted": False},
            "HOLD: this release must wait. The canary says GO, but it does not serve everybody.",
        ),
    ],
)
def test_the_headline_is_the_verdict_and_what_decided_it(warehouse, tmp_path, changes, said):
    made_up.store(warehouse, SIMULATED, **changes)
    write_brief(collect(warehouse, RELEASE), tmp_path, ["en-US"])
    assert said in html_of(tmp_path, "en-US").front
    assert squeezed(said) in squeezed(pdf_pages(tmp_path / "brief.en-US.pdf")[0])


@pytest.mark.parametrize("locale", LOCALES)
def test_that_all_is_simulated_is_said_once(whole, locale):
    _, brief, folder = whole
    said = ribbon_text(brief, locale)
    assert said == language(locale).word("ribbon.all")
    assert html_of(folder, locale).text.count(said) == 1
    assert squeezed(pdf_text(folder / f"brief.{locale}.pdf")).count(squeezed(said)) == 1


@pytest.mark.parametrize(
    ("tests", "drilled", "canary", "topics"),
    [
        (True, True, False, ("tests", "drill")),
        (False, True, False, ("drill",)),
        (False, False, True, ("canary", "score")),
        (False, True, True, ("drill", "canary", "score")),
    ],
)
def test_the_ribbon_names_what_is_simulated_and_nothing_else(tmp_path, tests, drilled, canary, topics):
    evaluated = made_up.records(simulated=tests)
    runs = [*evaluated, *made_up.traffic(47, "release", 40, 0.95, simulated=canary)]
    warehouse = made_up.warehouse(tmp_path / "warehouse.duckdb", runs)
    made_up.store(warehouse, evaluated, drill=made_up.drill(simulated=drilled))
    brief = collect(warehouse, RELEASE)
    assert brief.ribbon is not None
    assert brief.ribbon.words["topics"] == tuple(f"topic.{topic}" for topic in topics)
    write_brief(brief, tmp_path)
    for locale in LOCALES:
        said = ribbon_text(brief, locale)
        assert said in html_of(tmp_path, locale).front
        assert squeezed(said) in squeezed(pdf_pages(tmp_path / f"brief.{locale}.pdf")[0])


def test_every_query_that_measures_has_a_topic(whole):
    """Else what it simulates would go unsaid."""
    derived = {"gates", "confidence", "verdict"}
    for figure in whole[1].figures.values():
        if figure.simulated and figure.query not in derived:
            assert ribbon([figure]) == Say("ribbon.all"), figure.name


def test_a_page_with_only_real_figures_has_no_ribbon(tmp_path):
    real = made_up.records(simulated=False)
    runs = [*real, *made_up.traffic(47, "release", 40, 0.95, simulated=False)]
    warehouse = made_up.warehouse(tmp_path / "warehouse.duckdb", runs)
    made_up.store(warehouse, real, drill=made_up.drill(simulated=False))
    brief = collect(warehouse, RELEASE)
    assert brief.ribbon is None
    assert not any(figure.simulated for figure in brief.figures.values())
    assert brief.figures["confidence.confidence_level"].value == "high"
    write_brief(brief, tmp_path)
    for locale in LOCALES:
        assert 'class="ribbon"' not in (tmp_path / f"brief.{locale}.html").read_text()
        assert not re.search("SIMUL", pdf_text(tmp_path / f"brief.{locale}.pdf"))


def test_every_team_is_named_with_its_gates(warehouse, tmp_path):
    strange = judged()
    strange["verdicts"]["no_safety_regression"]["owner"] = "guild"
    made_up.store(warehouse, SIMULATED, manifest=strange)
    write_brief(collect(warehouse, RELEASE), tmp_path, ["en-US"])
    front = html_of(tmp_path, "en-US").front
    for line in (
        "ML: No gate. Reads the traces of failed runs.",
        "Platform: Response time; Longest rollback. Checks",
        "Product: Cost per solved task. Informs",
        "Guild: Unsafe actions.",
    ):
        assert line in front


def test_a_page_that_would_be_too_full_is_refused(warehouse, tmp_path):
    made_up.store(warehouse, SIMULATED, manifest=made_up.manifest(SIMULATED) | {"workflow": "order desk " * 500})
    with pytest.raises(AgentRLError, match=r"does not fit on one page in en-US at 9\.5 pt"):
        write_brief(collect(warehouse, RELEASE), tmp_path)
    assert not list(tmp_path.glob("*.pdf"))


def test_more_evidence_makes_the_annex_longer_and_page_one_stays(warehouse, tmp_path):
    gates = tuple(f"latency_delta_lt_{percent}_percent" for percent in range(10, 60))
    made_up.store(warehouse, SIMULATED, manifest=made_up.manifest(SIMULATED, gates))
    write_brief(collect(warehouse, RELEASE), tmp_path)
    for locale in LOCALES:
        first, *annex = pdf_pages(tmp_path / f"brief.{locale}.pdf")
        assert len(first.split()) <= MOST_WORDS
        assert len(annex) > 1
