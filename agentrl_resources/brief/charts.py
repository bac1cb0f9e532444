"""The two small charts of a brief, as SVG text that HTML and Typst both take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from agentrl_resources.plotting import BAD, BASELINE, CANDIDATE, INK

_WIDTH = 360
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


def _svg(drawn: Sequence[str], about: str, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="{_FONT}" font-size="9.5"><title>{escape(about)}</title>{"".join(drawn)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = BASELINE, width: float = 1.0) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'


def _text(x: float, y: float, said: str, anchor: str, colour: str = INK, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">'
        f"{escape(said)}</text>"
    )
