"""The three small charts of a brief, as SVG text that HTML and Typst both take. Readable without colours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from agentrl_resources.plotting import BAD, BASELINE, CANDIDATE, INK

_WIDTH = 360
_FRONT_WIDTH = 250
"""Points, about as wide as a column of page one: type keeps its size."""
_QUIET, _RULE = "#52606d", "#cbd2d9"
_FONT = "Libertinus Serif, Arial, Liberation Sans, sans-serif"


class Point(NamedTuple):
    """A week's score with its interval, and how it is labelled."""

    week: str
    value: float
    low: float
    high: float
    label: str


class Marker(NamedTuple):
    """A moment on the axis of durations, and how it is labelled."""

    seconds: float
    label: str


class Dot(NamedTuple):
    """A share, and how it is labelled."""

    value: float
    label: str


class Compared(NamedTuple):
    """Two shares of one suite, and the interval of the one after."""

    name: str
    before: Dot
    after: Dot
    interval: tuple[float, float]


def compared(rows: Sequence[Compared], percent: Callable[[float], str], about: str) -> str:
    """Each suite before (hollow) and after (filled, with its interval), on one axis that ends at 100 %."""
    width, pitch, top = _FRONT_WIDTH, 50, 2
    left, right, bottom = 46, width - 50, top + pitch * len(rows)
    lowest = min(min(row.before.value, row.interval[0]) for row in rows)
    floor = min(0.9, max(0.0, math.floor(10 * lowest) / 10))

    def x(share: float) -> float:
        return left + (share - floor) / (1 - floor) * (right - left)

    drawn = [_line(0, bottom, width, bottom, _RULE)]
    for share in (floor, 1.0):
        at = x(share)
        drawn += [
            _line(at, bottom - 3, at, bottom + 3, BASELINE),
            _text(at, bottom + 13, percent(share), "middle", _QUIET),
        ]
    for number, row in enumerate(rows):
        y = top + pitch * number + 31
        before, after, low, high = x(row.before.value), x(row.after.value), *map(x, row.interval)
        ends = ((min(before, low) - 7, "end"), (max(before, high) + 7, "start"))
        labelled = zip(ends, sorted((row.before, row.after), key=lambda dot: dot.value), strict=True)
        drawn += [
            _text(0, y - 18, row.name, "start", weight="bold"),
            _line(before, y, after, y, BASELINE, 2.2),
            _line(low, y, high, y, CANDIDATE, 1.6),
            *(_line(end, y - 5, end, y + 5, CANDIDATE, 1.6) for end in (low, high)),
            f'<circle cx="{before:.1f}" cy="{y:.1f}" r="4.2" fill="#fff" stroke="{INK}" stroke-width="1.4"/>',
            f'<circle cx="{after:.1f}" cy="{y:.1f}" r="4.4" fill="{CANDIDATE}"/>',
            *(
                _text(at, y + 3.6, dot.label, anchor, weight="bold" if dot is row.after else "normal")
                for (at, anchor), dot in labelled
            ),
        ]
    return _svg(drawn, about, bottom + 16, width, 10.5)


def trend(points: Sequence[Point], first: str, about: str) -> str:
    """Scores by week with their intervals; `first` is said beside a single one."""
    alone = len(points) == 1
    height = 40 if alone else 66
    low, high = min(point.low for point in points), max(point.high for point in points)
    room = max(0.02, 0.15 * (high - low))
    floor, ceiling = max(0.0, low - room), min(1.0, high + room)
    left, right, top, bottom = 24, _WIDTH - 24, 4 if alone else 12, height - 14

    def x(index: int) -> float:
        return left if alone else left + index * (right - left) / (len(points) - 1)

    def y(value: float) -> float:
        return bottom - (value - floor) / (ceiling - floor) * (bottom - top)

    drawn = [_line(0, bottom, _WIDTH, bottom, _RULE)]
    path = " ".join(f"{x(index):.1f},{y(point.value):.1f}" for index, point in enumerate(points))
    drawn.append(f'<polyline points="{path}" fill="none" stroke="{CANDIDATE}" stroke-width="1.5"/>')
    for index, point in enumerate(points):
        at = x(index)
        drawn += [
            _line(at, y(point.low), at, y(point.high), CANDIDATE),
            *(_line(at - 4, y(end), at + 4, y(end), CANDIDATE) for end in (point.low, point.high)),
            f'<circle cx="{at:.1f}" cy="{y(point.value):.1f}" r="3.2" fill="{CANDIDATE}"/>',
            _text(at, height - 2, point.week, "middle", _QUIET),
            _text(at + 7, y(point.value) + 3.5, point.label, "start", weight="bold")
            if alone
            else _text(at, y(point.high) - 3, point.label, "middle"),
        ]
    if alone:
        drawn.append(_text(right, height - 18, first, "end", _QUIET))
    return _svg(drawn, about, height)


def drill(
    seconds: Sequence[float], markers: Sequence[Marker], ticks: Sequence[Marker], limit: Marker, about: str
) -> str:
    """How long the drilled failures took, as a histogram over a logarithmic axis that ends at the limit.

    `markers` from the highest label to the lowest, so that close ones do not overlap.
    """
    height = 84
    first = math.log10(min(seconds)) - 0.15
    last = math.log10(max(limit.seconds, *seconds)) + 0.05
    left, right, top, bottom = 4, _WIDTH - 4, 32, height - 14

    def x(duration: float) -> float:
        return left + (math.log10(duration) - first) / (last - first) * (right - left)

    width = 4.0
    bins = Counter(int((x(duration) - left) / width) for duration in seconds)
    unit = (bottom - top) / max(bins.values())
    drawn = [_line(0, bottom, _WIDTH, bottom, _RULE)]
    drawn += [
        f'<rect x="{left + slot * width:.1f}" y="{bottom - count * unit:.1f}" width="{width - 0.7:.1f}" '
        f'height="{count * unit:.1f}" fill="{CANDIDATE}" fill-opacity="0.55"/>'
        for slot, count in sorted(bins.items())
    ]
    for tick in ticks:
        if left + 12 < x(tick.seconds) < x(limit.seconds) - 12:
            at = x(tick.seconds)
            drawn += [_line(at, bottom, at, bottom + 3, BASELINE), _text(at, height - 2, tick.label, "middle", _QUIET)]
    for rank, marker in enumerate(markers):
        at = x(marker.seconds)
        drawn += [
            _line(at, 10 * rank + 9, at, bottom, INK, 0.8),
            _text(at, 10 * rank + 7, marker.label, "middle"),
        ]
    at = x(limit.seconds)
    drawn += [_line(at, 2, at, bottom, BAD, 1.4), _text(at - 4, 9, limit.label, "end", BAD)]
    return _svg(drawn, about, height)


def _svg(drawn: Sequence[str], about: str, height: int, width: int = _WIDTH, size: float = 9.5) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="{_FONT}" font-size="{size:g}"><title>{escape(about)}</title>{"".join(drawn)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = BASELINE, width: float = 1.0) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'


def _text(x: float, y: float, said: str, anchor: str, colour: str = INK, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">'
        f"{escape(said)}</text>"
    )
