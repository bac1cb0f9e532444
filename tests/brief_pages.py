"""What a written brief shows, and the briefs that its tests write."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import brief_evidence as made_up
from brief_evidence import RELEASE

from agentrl_resources.brief import Brief, collect, write_brief
from agentrl_resources.telemetry import Warehouse

SIMULATED = made_up.records(simulated=True)
STOPPED = {"stopped": True, "gates": ["no_safety_regression", "rollback_under_5_minutes"]}
ENDED = {"answer": "NO-GO", "metrics": [], "expired": False, "decided_at": "2026-11-23T10:00:00+00:00"}


class Page(HTMLParser):
    """What a brief's HTML shows: the text of page one and of the annex, pictures included, and the figures' names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.front = self.annex = ""
        self.names: set[str] = set()
        self._hidden, self._in_annex = 0, False
        self.feed(html)

    @property
    def text(self) -> str:
        return self.front + self.annex

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("style", "title")
        self._in_annex |= tag == "article"
        self.handle_data(" " * (tag in ("text", "br", "p", "h2")))
        self.names |= set((dict(attrs).get("data-figure") or "").split())

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "title")

    def handle_data(self, data: str) -> None:
        if self._in_annex:
            self.annex += data * (not self._hidden)
        else:
            self.front += data * (not self._hidden)


def pdf_pages(path: Path) -> list[str]:
    import pypdf

    return [page.extract_text() for page in pypdf.PdfReader(path).pages]


def pdf_text(path: Path) -> str:
    return "".join(pdf_pages(path))


def html_of(folder: Path, locale: str) -> Page:
    return Page((folder / f"brief.{locale}.html").read_text())


def squeezed(text: str) -> str:
    return "".join(text.split())


def whole_brief(path: Path, folder: Path) -> tuple[Warehouse, Brief, Path]:
    """A brief with everything measured, on a copy of a warehouse: the copy, the brief, the folder it was written to."""
    warehouse = Warehouse(Path(shutil.copy(path, folder)))
    made_up.store(warehouse, SIMULATED)
    brief = collect(warehouse, RELEASE)
    write_brief(brief, folder)
    return warehouse, brief, folder
