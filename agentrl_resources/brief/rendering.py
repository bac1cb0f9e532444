"""From a brief to pages: one neutral structure a language, which the HTML and the Typst template both show."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from agentrl_resources.brief import charts
from agentrl_resources.brief.collecting import stored_figures
from agentrl_resources.brief.content import (
    Block,
    Brief,
    Bullets,
    Chart,
    Grid,
    Item,
    Pairs,
    Paragraph,
    Phase,
    Say,
    Terms,
)
from agentrl_resources.brief.figures import Figure
from agentrl_resources.brief.front import ribbon
from agentrl_resources.brief.locales import LOCALES, Language, language
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import write_atomic, write_json
from agentrl_resources.plotting import ACCENT, BAD, BASELINE, CANDIDATE, GOOD, INK

BODY_POINTS = (12.5, 12.0, 11.5, 11.0, 10.5, 10.0, 9.5)
"""Type sizes of page one, largest first: the first one at which everything fits on the page is taken."""

ANNEX_POINTS = 8.7

COLOURS = {"ink": INK, "grey": BASELINE, "accent": CANDIDATE, "good": GOOD, "bad": BAD, "warn": ACCENT}

_HERE = Path(__file__).parent
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_TONES = {"GO": "good", "NO-GO": "bad", "HOLD": "warn", "high": "good", "low": "bad", "moderate": "warn"}
_FLAG_TONES = {True: "good", False: "bad", None: "warn"}

Segment = dict[str, Any]
"""`t`: the text, `code`: whether it is one. A figure also has `figure` (its name), `tone`, and `mark` (the number of
its query, in the annex)."""


_SPACE: Segment = {"t": " ", "code": False}


def write_brief(brief: Brief, folder: Path, locales: Sequence[str] = LOCALES) -> list[Path]:
    """Write `brief.<locale>.html`, `brief.<locale>.pdf` and `queries.json` into a folder; returns the files.

    The same brief gives the same bytes. AgentRLError when page one does not fit on one page in readable type.
    """
    written = []
    for name in locales:
        page = page_of(brief, language(name))
        for suffix, data in (("html", _html(page)), ("pdf", _pdf(page, brief))):
            written.append(folder / f"brief.{name}.{suffix}")
            write_atomic(written[-1], data)
    written.append(folder / "queries.json")
    write_json(written[-1], {"release": brief.release, "made_at": brief.made_at, "figures": stored_figures(brief)})
    return written


def page_of(brief: Brief, words: Language) -> dict[str, Any]:
    """The page in one language, as plain JSON for the templates."""
    return _PageMaker(brief, words).page()


def phases_text(brief: Brief, locale: str = LOCALES[0]) -> str:
    """The 30/60/90-day view as text for a terminal; its last line says what of it is simulated."""
    maker = _PageMaker(brief, language(locale))
    names = [
        name
        for phase in brief.phases
        for condition in phase.conditions
        for name in (*condition.state.figures.values(), *condition.said.figures.values())
    ]

    def text(line: Iterable[Segment]) -> str:
        return "".join(segment["t"] for segment in line)

    lines = []
    for phase in maker.phases():
        lines += [f"{phase['title']}: {phase['state']}", *(f"  {text(line)}" for line in phase["conditions"])]
    simulated = ribbon(brief.figures[name] for name in names)
    return "\n".join([*lines, *([text(maker.line(simulated))] if simulated else [])])


class _PageMaker:
    def __init__(self, brief: Brief, words: Language) -> None:
        self.brief = brief
        self.words = words

    def page(self) -> dict[str, Any]:
        brief, words, layout = self.brief, self.words, self.words.layout
        subtitle, dated = brief.title
        first, *others = layout["lead"]
        return {
            "lang": words.name,
            "paper": words.paper,
            "colours": COLOURS,
            "name": "".join(segment["t"] for segment in self.line(Say("page", subtitle.figures))),
            "front": {
                "ribbon": self.line(brief.ribbon) if brief.ribbon else None,
                "title": words.word("title"),
                "subtitle": self.line(subtitle),
                "dated": self.line(dated),
                "headline": self._headline(),
                "tone": _TONES[brief.figures[brief.headline.figures["answer"]].value],
                "lead": self.line(brief.lead[first]),
                "tiles": [self._tile(name) for name in layout["tiles"]],
                "blocks": [self._block(brief.front[name]) for name in layout["front"]],
                "notes": [words.word("note.tiles"), words.word("note.annex")],
            },
            "annex": {
                "title": words.word("annex"),
                "lead": self._marked(self.line(*(brief.lead[name] for name in others))),
                **{
                    place: [self._annex_block(name) for name in layout[place]]
                    for place in ("top", "left", "right", "bottom")
                },
                "queries": self._queries(),
                "legend": [words.word(key) for key in ("legend.marks", "legend.digests")],
            },
        }

    def _headline(self) -> list[Segment]:
        first, *others = self.line(self.brief.headline)
        return [{**first, "t": _capitalised(first["t"])}, *others]

    def line(self, *said: Say) -> list[Segment]:
        """Some sentences as one line of segments."""
        return [segment for one in said for segment in [_SPACE, *self._segments(one)]][1:]

    def _segments(self, said: Say) -> list[Segment]:
        segments = []
        for position, piece in enumerate(_PLACEHOLDER.split(self.words.word(said.key))):
            if position % 2 == 0:
                texts = enumerate(piece.split("`"))
                segments += [{"t": text, "code": number % 2 == 1} for number, text in texts]
            elif piece in said.words:
                keys = said.words[piece]
                listed = [keys] if isinstance(keys, str) else keys
                joined = self.words.text["list.separator"].join(map(self.words.word, listed))
                segments.append({"t": joined, "code": False})
            else:
                segments.append(self._figure(self.brief.figures[said.figures[piece]], bare=piece == "low"))
        return [segment for segment in segments if segment["t"]]

    def _figure(self, figure: Figure, bare: bool) -> Segment:
        tones: Mapping[Any, str] = _FLAG_TONES if figure.unit == "flag" else _TONES
        toned = figure.unit in ("answer", "level", "flag")
        return {
            "t": self.words.write(figure, bare),
            "figure": figure.name,
            "mark": None,
            "tone": tones[figure.value] if toned else None,
            "code": figure.unit in ("digest", "name"),
        }

    def _marked(self, segments: list[Segment]) -> list[Segment]:
        """The segments with the number of its query at the last figure of each run from one query."""
        figures = [segment for segment in segments if "figure" in segment]
        marks = [self.brief.marks[self.brief.figures[one["figure"].split()[0]].query] for one in figures]
        for segment, (mark, following) in zip(figures, itertools.pairwise([*marks, None]), strict=True):
            segment["mark"] = mark if mark != following else None
        return segments

    def _tile(self, name: str) -> dict[str, Any]:
        tile = self.brief.tiles[name]
        parts = {part: self.line(getattr(tile, part)) for part in ("value", "interval", "note")}
        return {"label": self.words.word(f"tile.{name}"), **parts}

    def _block(self, block: Block, marked: bool = False) -> dict[str, Any]:
        items = [self._item(item, marked) for item in block.items]
        return {"name": block.name, "heading": self.words.word(f"block.{block.name}"), "items": items}

    def _annex_block(self, name: str) -> dict[str, Any]:
        if name == "phases":
            items = [{"kind": "phases", "phases": self.phases(marked=True)}]
            return {"name": name, "heading": self.words.word("block.phases"), "items": items}
        return self._block(self.brief.annex[name], marked=True)

    def _item(self, item: Item, marked: bool) -> dict[str, Any]:
        def line(*said: Say) -> list[Segment]:
            return self._marked(self.line(*said)) if marked else self.line(*said)

        match item:
            case Paragraph():
                return {"kind": "text", "line": line(*item.sentences)}
            case Bullets():
                return {"kind": "bullets", "lines": [line(said) for said in item.sentences]}
            case Pairs():
                return {"kind": "pairs", "lines": [line(said) for said in item.entries]}
            case Terms():
                term = self.words.text["term"]
                entries = [
                    [term.format(term=_capitalised(self.words.word(key))), line(said)] for key, said in item.entries
                ]
                return {"kind": "terms", "entries": entries}
            case Grid():
                header = [self.words.word(key) for key in item.header]
                return {"kind": "grid", "header": header, "rows": [self._row(row) for row in item.rows]}
            case Chart():
                drawn = {"t": "", "figure": " ".join(item.figures), "mark": None, "tone": None, "code": False}
                caption = [*self.line(item.caption), drawn]
                return {"kind": "chart", "svg": self._chart(item), "line": self._marked(caption) if marked else caption}

    def _row(self, cells: Iterable[Say]) -> list[list[Segment]]:
        row = [self._segments(cell) for cell in cells]
        self._marked([segment for cell in row for segment in cell])
        return row

    def _queries(self) -> dict[str, Any]:
        """The number and the name of every query."""
        marks = sorted((mark, query) for query, mark in self.brief.marks.items())
        return {"heading": self.words.word("block.queries"), "names": [f"[{mark}] {query}" for mark, query in marks]}

    def phases(self, marked: bool = False) -> list[dict[str, Any]]:
        return [self._phase(phase, marked) for phase in self.brief.phases]

    def _phase(self, phase: Phase, marked: bool) -> dict[str, Any]:
        state = {True: "phase.holds", False: "phase.fails", None: "phase.unknown"}[phase.holds]
        lines = [self.line(condition.state, condition.said) for condition in phase.conditions]
        return {
            "title": self.words.word("phase.title").format(number=phase.number, days=phase.days),
            "state": self.words.word(state),
            "tone": _FLAG_TONES[phase.holds],
            "conditions": [self._marked(line) if marked else line for line in lines],
        }

    def _chart(self, chart: Chart) -> str:
        figures = [self.brief.figures[name] for name in chart.figures]
        write, word = self.words.write, self.words.word
        about = word(f"chart.{chart.kind}")
        match chart.kind:
            case "compared":
                rows = [
                    charts.Compared(
                        word(f"suite.{after.key}"),
                        charts.Dot(before.value, write(before)),
                        charts.Dot(after.value, write(after)),
                        (low.value, high.value),
                    )
                    for before, after, low, high in zip(*(figures[column::4] for column in range(4)), strict=True)
                ]
                return charts.compared(rows, self.words.whole_percent, about)
            case "trend":
                points = [
                    charts.Point(self.words.short_week(one.key), one.value, low.value, high.value, write(one))
                    for one, low, high in zip(*(figures[column::3] for column in range(3)), strict=True)
                ]
                return charts.trend(points, word("chart.first"), about)
            case "drill":
                times, p50, p95, longest, limit = figures
                named = (("max", longest), ("p95", p95), ("p50", p50))
                markers = [charts.Marker(figure.value, name) for name, figure in named]
                end = charts.Marker(limit.value, word("chart.limit").format(limit=write(limit)))
                ticks = [charts.Marker(tick, self.words.seconds(tick)) for tick in (0.01, 0.1, 1, 10, 60)]
                return charts.drill(times.value, markers, ticks, end, about)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _html(page: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja").render(page=page)


def _pdf(page: Mapping[str, Any], brief: Brief) -> bytes:
    import typst

    made_at = datetime.fromisoformat(brief.made_at).replace(microsecond=0)
    fonts = typst.Fonts(include_system_fonts=False)
    for points in BODY_POINTS:
        inputs = {
            "page": json.dumps(page),
            "points": str(points),
            "annex": str(ANNEX_POINTS),
            "date": made_at.date().isoformat(),
        }
        compiler = typst.Compiler(_HERE / "page.typ", root=_HERE, font_paths=fonts, sys_inputs=inputs)
        (pages,) = json.loads(compiler.query("<front-pages>", field="value"))
        if pages == 1:
            pdf = compiler.compile(format="pdf", timestamp=made_at)
            assert isinstance(pdf, bytes)
            return pdf
    raise AgentRLError(
        f"Page one of the brief of release {brief.release[:12]} does not fit on one page in {page['lang']} at "
        f"{BODY_POINTS[-1]:g} pt. Shorten the names that it shows: the workflow's, the kinds of tasks, the owners."
    )
