"""One look for every picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INK = "#1f2933"
BASELINE = "#7b8794"
CANDIDATE = "#0b6e99"
GOOD = "#2f8f5b"
BAD = "#c0392b"
ACCENT = "#e08e0b"


@contextmanager
def picture(path: Path, columns: int = 1, rows: int = 1, width: float = 5.2, height: float = 3.4) -> Iterator[Any]:
    """Yields the axes of a new figure (an array when there are several) and writes it to `path` as PNG at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e7eb",
        "text.color": INK,
        "legend.frameon": False,
    }
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(rows, columns, figsize=(width * columns, height * rows), layout="constrained")
        try:
            yield axes
            figure.savefig(path, dpi=110)
        finally:
            pyplot.close(figure)
