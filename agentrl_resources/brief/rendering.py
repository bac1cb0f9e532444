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
from agentrl_resources.brief.content import Brief, Bullets, Chart, Grid, Item, Pairs, Paragraph, Phase, Say
from agentrl_resources.brief.figures import Figure
from agentrl_resources.brief.locales import LOCALES, Language, language
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import write_atomic, write_json
from agentrl_resources.plotting import ACCENT, BAD, BASELINE, CANDIDATE, GOOD, INK

BODY_POINTS = (9.4, 9.2, 9.0, 8.8, 8.6, 8.5)
"""Type sizes of the body, largest first: the first one at which everything fits on the page is taken."""

COLOURS = {"ink": INK, "grey": BASELINE, "accent": CANDIDATE, "good": GOOD, "bad": BAD, "warn": ACCENT}

_HERE = Path(__file__).parent
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_TONES = {"GO": "good", "NO-GO": "bad", "HOLD": "warn", "high": "good", "low": "bad", "moderate": "warn"}
_FLAG_TONES = {True: "good", False: "bad", None: "warn"}

Segment = dict[str, Any]
"""`t`: the text; a figure also has `figure` (its name), `simulated`, `mark`, `tone`, `code`."""


def write_brief(brief: Brief, folder: Path, locales: Sequence[str] = LOCALES) -> list[Path]:
    """Write `brief.<locale>.html`, `brief.<locale>.pdf` and `queries.json` into a folder; returns the files.

    The same brief gives the same bytes. AgentRLError when a page is too full to be read in print.
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
    """The 30/60/90-day view as text for a terminal."""
    maker = _PageMaker(brief, language(locale))

    def text(line: Iterable[Segment]) -> str:
        return "".join(segment["t"] + "†" * segment.get("simulated", False) for segment in line)

    lines = []
    for phase in maker.phases():
        lines += [f"{phase['title']}: {phase['state']}", *(f"  {text(line)}" for line in phase["conditions"])]
    return "\n".join([*lines, *([maker.words.word("legend.simulated")] if brief.simulated else [])])


class _PageMaker:
    def __init__(self, brief: Brief, words: Language) -> None:
        self.brief = brief
        self.words = words

    def page(self) -> dict[str, Any]:
        brief, words, layout = self.brief, self.words, self.words.layout
        subtitle, dated = brief.title
        legend = ["legend.simulated"] if brief.simulated else []
        return {
            "lang": words.name,
            "paper": words.paper,
            "colours": COLOURS,
            "title": words.word("title"),
            "name": "".join(segment["t"] for segment in self.line(Say("page", subtitle.figures))),
            "subtitle": self.line(subtitle),
            "dated": self.line(dated),
            "lead": [self.line(brief.lead[name]) for name in layout["lead"]],
            "tiles": [self._tile(name) for name in layout["tiles"]],
            **{place: [self._block(name) for name in layout[place]] for place in ("top", "left", "right", "bottom")},
            "legend": [words.word(key) for key in ("legend.marks", "legend.digests", *legend)],
        }

    def line(self, *said: Say) -> list[Segment]:
        """Some sentences as one line of segments, a mark at the last figure of each run from the same query."""
        segments = [segment for one in said for segment in [{"t": " "}, *self._segments(one)]]
        self._mark(segments)
        return segments[1:]

    def _segments(self, said: Say) -> list[Segment]:
        segments = []
        for position, piece in enumerate(_PLACEHOLDER.split(self.words.word(said.key))):
            if position % 2 == 0:
                segments.append({"t": piece})
            elif piece in said.words:
                keys = said.words[piece]
                listed = [keys] if isinstance(keys, str) else keys
                segments.append({"t": self.words.text["list.separator"].join(map(self.words.word, listed))})
            else:
                segments.append(self._figure(self.brief.figures[said.figures[piece]], bare=piece == "low"))
        return [segment for segment in segments if segment["t"]]

    def _figure(self, figure: Figure, bare: bool) -> Segment:
        tones: Mapping[Any, str] = _FLAG_TONES if figure.unit == "flag" else _TONES
        toned = figure.unit in ("answer", "level", "flag")
        return {
            "t": self.words.write(figure, bare),
            "figure": figure.name,
            "simulated": figure.simulated,
            "mark": self.brief.marks[figure.query],
            "tone": tones[figure.value] if toned else None,
            "code": figure.unit in ("digest", "name"),
        }

    def _mark(self, segments: list[Segment]) -> None:
        figures = [position for position, segment in enumerate(segments) if "figure" in segment]
        for here, after in itertools.pairwise(figures):
            one, other = segments[here], segments[after]
            between = "".join(segment["t"] for segment in segments[here + 1 : after])
            if one["mark"] == other["mark"]:
                one["mark"] = None
            # The two ends of an interval are one statement.
            if between == self.words.interval_joiner and other["simulated"]:
                one["simulated"] = False

    def _tile(self, name: str) -> dict[str, Any]:
        tile = self.brief.tiles[name]
        label = self.words.word(f"tile.{name}")
        return {"label": label, "value": self.line(tile.value), "note": self.line(tile.note)}

    def _block(self, name: str) -> dict[str, Any]:
        heading = self.words.word(f"block.{name}")
        if name == "phases":
            return {"name": name, "heading": heading, "items": [{"kind": "phases", "phases": self.phases()}]}
        return {"name": name, "heading": heading, "items": [self._item(item) for item in self.brief.blocks[name].items]}

    def _item(self, item: Item) -> dict[str, Any]:
        match item:
            case Paragraph():
                return {"kind": "text", "line": self.line(*item.sentences)}
            case Bullets():
                return {"kind": "bullets", "lines": [self.line(said) for said in item.sentences]}
            case Pairs():
                return {"kind": "pairs", "lines": [self.line(said) for said in item.entries]}
            case Grid():
                header = [self.words.word(key) for key in item.header]
                return {"kind": "grid", "header": header, "rows": [self._row(row) for row in item.rows]}
            case Chart():
                drawn = {
                    "t": "",
                    "figure": " ".join(item.figures),
                    "simulated": False,
                    "mark": self.brief.marks[self.brief.figures[item.figures[0]].query],
                    "tone": None,
                    "code": False,
                }
                return {"kind": "chart", "svg": self._chart(item), "line": [*self.line(item.caption), drawn]}

    def _row(self, cells: Iterable[Say]) -> list[list[Segment]]:
        row = [self._segments(cell) for cell in cells]
        self._mark([segment for cell in row for segment in [*cell, {"t": "\n"}]])
        return row

    def phases(self) -> list[dict[str, Any]]:
        return [self._phase(phase) for phase in self.brief.phases]

    def _phase(self, phase: Phase) -> dict[str, Any]:
        state = {True: "phase.holds", False: "phase.fails", None: "phase.unknown"}[phase.holds]
        return {
            "title": self.words.word("phase.title").format(number=phase.number, days=phase.days),
            "state": self.words.word(state),
            "tone": _FLAG_TONES[phase.holds],
            "conditions": [self.line(condition.state, condition.said) for condition in phase.conditions],
        }

    def _chart(self, chart: Chart) -> str:
        figures = [self.brief.figures[name] for name in chart.figures]
        write = self.words.write
        about = self.words.word(f"chart.{chart.kind}")
        if chart.kind == "trend":
            points = [
                charts.Point(
                    self.words.short_week(value.key),
                    value.value,
                    low.value,
                    high.value,
                    write(value) + "†" * value.simulated,
                )
                for value, low, high in zip(figures[::3], figures[1::3], figures[2::3], strict=True)
            ]
            return charts.trend(points, self.words.word("chart.first"), about)
        times, p50, p95, longest, limit = figures
        markers = [charts.Marker(figure.value, name) for name, figure in (("max", longest), ("p95", p95), ("p50", p50))]
        end = charts.Marker(limit.value, self.words.word("chart.limit").format(limit=write(limit)))
        ticks = [charts.Marker(tick, self.words.seconds(tick)) for tick in (0.01, 0.1, 1, 10, 60)]
        return charts.drill(times.value, markers, ticks, end, about)


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
        inputs = {"page": json.dumps(page), "points": str(points), "date": made_at.date().isoformat()}
        compiler = typst.Compiler(_HERE / "page.typ", root=_HERE, font_paths=fonts, sys_inputs=inputs)
        (pages,) = json.loads(compiler.query("<pages>", field="value"))
        if pages == 1:
            pdf = compiler.compile(format="pdf", timestamp=made_at)
            assert isinstance(pdf, bytes)
            return pdf
    raise AgentRLError(
        f"The brief of release {brief.release[:12]} does not fit on one page in {page['lang']} at "
        f"{BODY_POINTS[-1]:g} pt. Name fewer gates or shorten the names it shows."
    )
