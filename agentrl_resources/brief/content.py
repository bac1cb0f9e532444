"""What a brief says, before any language: which sentence with which figures, in blocks.

A sentence is a key of the catalogues with a figure for each placeholder. A sentence whose figures are not all known is
not said, and another one that says so takes its place; no number is ever made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agentrl_resources.brief.figures import Figure, Figures

Words = str | tuple[str, ...]


@dataclass(frozen=True)
class Say:
    """A sentence: its key, and for each placeholder a figure's name, or a word's key (several become a list)."""

    key: str
    figures: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, Words] = field(default_factory=dict)


@dataclass(frozen=True)
class Paragraph:
    sentences: tuple[Say, ...]


@dataclass(frozen=True)
class Bullets:
    sentences: tuple[Say, ...]


@dataclass(frozen=True)
class Grid:
    """A table. `header` holds keys."""

    header: tuple[str, ...]
    rows: tuple[tuple[Say, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A picture of figures; `caption` says in words what it shows."""

    kind: Literal["compared", "trend", "drill"]
    figures: tuple[str, ...]
    caption: Say


@dataclass(frozen=True)
class Pairs:
    """Names with their values, side by side."""

    entries: tuple[Say, ...]


@dataclass(frozen=True)
class Terms:
    """Statements, each after the key of the word that it is found by."""

    entries: tuple[tuple[str, Say], ...]


Item = Paragraph | Bullets | Grid | Chart | Pairs | Terms


@dataclass(frozen=True)
class Block:
    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Tile:
    """One of the large numbers at the top: with its interval, and with what it is compared with."""

    name: str
    value: Say
    interval: Say
    note: Say


@dataclass(frozen=True)
class Condition:
    """A condition for the next step. `holds` is None when it is not known yet."""

    name: str
    holds: bool | None
    state: Say
    said: Say


@dataclass(frozen=True)
class Phase:
    """30, 60 or 90 days after the start, and what must hold then."""

    number: int
    days: int
    conditions: tuple[Condition, ...]

    @property
    def holds(self) -> bool | None:
        """Whether every condition holds; None when none fails and one is not known yet."""
        answers = [condition.holds for condition in self.conditions]
        return False if False in answers else None if None in answers else True


class Teller:
    """Says what is known."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def say(self, key: str, **figures: str) -> Say | None:
        """The sentence, or None when one of its figures is not known."""
        if any(self.figures.value(name) is None for name in figures.values()):
            return None
        return Say(key, figures)

    def say_or(self, otherwise: str, key: str, **figures: str) -> Say:
        """The sentence, or the one that says that it is not known."""
        return self.say(key, **figures) or Say(otherwise)

    def bullets(self, *sentences: Say | None) -> Bullets:
        """What is known of some sentences, one below the other."""
        return Bullets(tuple(sentence for sentence in sentences if sentence))

    def paragraph(self, *sentences: Say | None) -> Paragraph:
        """What is known of some sentences, one after the other."""
        return Paragraph(tuple(sentence for sentence in sentences if sentence))


def sentences(items: Sequence[Item]) -> list[Say]:
    """Every sentence of some items, in reading order."""
    found: list[Say] = []
    for item in items:
        match item:
            case Paragraph() | Bullets():
                found += item.sentences
            case Pairs():
                found += item.entries
            case Terms():
                found += [said for _, said in item.entries]
            case Grid():
                found += [cell for row in item.rows for cell in row]
            case Chart():
                found.append(item.caption)
    return found


@dataclass(frozen=True)
class Brief:
    """A release's brief before any language.

    Page one is `ribbon` (what is simulated, if anything), `headline`, one sentence of `lead`, `tiles` and `front`; the
    annex is the rest of `lead`, `annex` and `phases`. `figures` holds what it shows, `marks` the number of each query.
    """

    release: str
    workflow: str
    made_at: str
    title: tuple[Say, ...]
    ribbon: Say | None
    headline: Say
    lead: Mapping[str, Say]
    tiles: Mapping[str, Tile]
    front: Mapping[str, Block]
    annex: Mapping[str, Block]
    phases: tuple[Phase, ...]
    figures: Mapping[str, Figure]
    marks: Mapping[str, int]
