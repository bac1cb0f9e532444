"""From a release's stored evidence to its brief."""

from __future__ import annotations

from collections.abc import Iterable

from agentrl_resources.brief.annex import annex_blocks
from agentrl_resources.brief.content import Block, Brief, Chart, Say, Teller, sentences
from agentrl_resources.brief.evidence import figure_rows, replace_rows
from agentrl_resources.brief.figures import Figure, Figures
from agentrl_resources.brief.front import front_blocks, headline, lead, ribbon, tiles
from agentrl_resources.brief.phases import phases_of
from agentrl_resources.telemetry import Warehouse


def collect(warehouse: Warehouse, release: str) -> Brief:
    """The brief of a release (full digest) whose evidence is stored.

    Every figure that it shows is kept in the table `brief_figures` with its SQL and raw value.
    """
    figures = Figures(warehouse, release)
    teller = Teller(figures)
    title = (
        Say("subtitle", {"workflow": "release.workflow_name", "release": "release.release_digest"}),
        Say("dated", {"date": "release.made_date"}),
    )
    verdict, summary, numbers = headline(teller), lead(teller), tiles(teller)
    front, annex, phases = front_blocks(teller), annex_blocks(teller), phases_of(teller)
    said = [
        *title,
        verdict,
        *summary.values(),
        *(sentence for tile in numbers for sentence in (tile.value, tile.interval, tile.note)),
        *(sentence for phase in phases for one in phase.conditions for sentence in (one.state, one.said)),
    ]
    names = [name for one in said for name in one.figures.values()]
    shown = {name: figures[name] for name in (*_names(annex), *_names(front), *names)}
    queries = dict.fromkeys(figure.query for figure in shown.values())
    brief = Brief(
        release=release,
        workflow=figures.value("release.workflow_name"),
        made_at=figures.value("release.made_date"),
        title=title,
        ribbon=ribbon(shown.values()),
        headline=verdict,
        lead=summary,
        tiles={tile.name: tile for tile in numbers},
        front={block.name: block for block in front},
        annex={block.name: block for block in annex},
        phases=phases,
        figures=shown,
        marks={query: mark for mark, query in enumerate(queries, start=1)},
    )
    replace_rows(warehouse, release, {"brief_figures": figure_rows(stored_figures(brief))})
    return brief


def _names(blocks: Iterable[Block]) -> list[str]:
    """The names of the figures that some blocks say or draw."""
    items = [item for block in blocks for item in block.items]
    drawn = [name for item in items if isinstance(item, Chart) for name in item.figures]
    return [*(name for one in sentences(items) for name in one.figures.values()), *drawn]


def stored_figures(brief: Brief) -> dict[str, dict[str, object]]:
    """Figure -> the number of its query in the annex, its SQL, its raw value."""

    def entry(figure: Figure) -> dict[str, object]:
        return {
            "mark": brief.marks[figure.query],
            "sql": figure.sql,
            "value": figure.value,
            "unit": figure.unit,
            "simulated": figure.simulated,
        }

    return {name: entry(figure) for name, figure in brief.figures.items()}
