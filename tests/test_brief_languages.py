"""The catalogues of the brief's languages, and how each language writes figures."""

import re

import pytest
import yaml

from agentrl_resources.brief import LOCALES
from agentrl_resources.brief.figures import QUERIES, Figure
from agentrl_resources.brief.locales import language

CATALOGUES = {name: yaml.safe_load((QUERIES.parent / f"{name}.yaml").read_text()) for name in LOCALES}
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@pytest.mark.parametrize("locale", LOCALES[1:])
def test_every_language_has_every_text_with_every_placeholder(locale):
    reference, other = CATALOGUES["en-US"]["text"], CATALOGUES[locale]["text"]
    assert list(other) == list(reference)
    for key, text in reference.items():
        assert sorted(PLACEHOLDER.findall(other[key])) == sorted(PLACEHOLDER.findall(text)), key
        assert other[key].strip(), key


def test_nothing_is_left_untranslated():
    english, french = CATALOGUES["en-US"]["text"], CATALOGUES["fr-FR"]["text"]
    with_words = {key for key, text in english.items() if re.search(r"[^\W\d_]", PLACEHOLDER.sub("", text))}
    assert {key for key in with_words if english[key] == french[key]} == {"owner.ml", "unit.points", "version.commit"}


def test_american_and_british_spelling_are_kept_apart():
    american, british = (
        PLACEHOLDER.sub("", " ".join(CATALOGUES[name]["text"].values())) for name in ("en-US", "en-GB")
    )
    only_american = r"\bprograms?\b|izer?\b|ization|[^f]avor|behavior|color|\bas of\b|\bcenter"
    only_british = r"programme|iser\b|isation|avour|haviour|colour|\bas at\b|whilst|\bcentre"
    assert not re.findall(only_british, american)
    assert not re.findall(only_american, british)
    assert re.findall(only_american, american)
    assert re.findall(only_british, british)


def test_french_typography():
    for key, text in CATALOGUES["fr-FR"]["text"].items():
        assert not re.search(r"[^\u202f][;:!?%»]", text), key
        assert not re.search(r"«[^\u202f]|'|\.\.\.", text), key
    for name in LOCALES:
        assert "'" not in "".join(CATALOGUES[name]["text"].values()), name


@pytest.mark.parametrize(
    ("unit", "value", "rule", "american", "british", "french"),
    [
        ("count", 12100, False, "12,100", "12,100", "12\u202f100"),
        ("share", 0.9081, False, "90.8%", "90.8%", "90,8\u202f%"),
        ("share", 0.05, True, "5%", "5%", "5\u202f%"),
        ("percent", -34.74, False, "−34.7%", "−34.7%", "−34,7\u202f%"),
        ("percent", 15.0, True, "+15%", "+15%", "+15\u202f%"),
        ("points", -0.04, False, "0.0 pts", "0.0 pts", "0,0 pts"),
        ("width", 3.35, False, "3.4 pts", "3.4 pts", "3,4 pts"),
        ("score", 0.81439, False, "0.814", "0.814", "0,814"),
        ("eur", 0.667, False, "€0.67", "€0.67", "0,67\u00a0€"),
        ("eur", -12500.4, False, "−€12,500", "−€12,500", "−12\u202f500\u00a0€"),
        ("seconds", 2.552, False, "2.55 sec", "2.55 secs", "2,55\u202fs"),
        ("seconds", 0.0412, False, "41 ms", "41 ms", "41\u202fms"),
        ("minutes", 5.0, True, "5 min", "5 mins", "5\u00a0min"),
        ("ms", 1500.0, False, "1.50 sec", "1.50 secs", "1,50\u202fs"),
        ("date", "2026-11-22T21:00:00Z", False, "November 22, 2026", "22 November 2026", "22 novembre 2026"),
        ("week", "2026-W07", False, "week 7, 2026", "week 7, 2026", "semaine 7 de 2026"),
        ("flag", None, False, "not known yet", "not yet known", "pas encore connu"),
        ("answer", "NO-GO", False, "NO-GO", "NO-GO", "défavorable"),
        ("digest", "b123577a1f3220e0", False, "b123577a1f32", "b123577a1f32", "b123577a1f32"),
    ],
)
def test_figures_are_written_as_the_reader_writes_them(unit, value, rule, american, british, french):
    figure = Figure("x", "x", "", "", value, unit, simulated=False, rule=rule)
    assert [language(name).write(figure) for name in LOCALES] == [american, british, french]
