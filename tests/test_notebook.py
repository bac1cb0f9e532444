"""The notebook's cells run from the first to the last, as plain Python: the project does not depend on Jupyter."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "look_inside.ipynb"
LOOK = """
import sys
assert not any(name.partition(".")[0] == "dagster" for name in sys.modules)
low, *_, high = [bin.observed_rate for bin in bins]
assert low < 0.2 and high > 0.8, bins
figure.savefig(sys.argv[1])
"""


def test_every_cell_runs_in_order_and_imports_no_dagster(tmp_path: Path) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells), "clear the outputs before a commit"
    program = "\n".join("".join(cell["source"]) for cell in cells) + LOOK
    assert "agentrl_assets" not in program
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "calibration.png"],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "harmful       success False  violation True" in done.stdout
    assert "of 1000 may train" in done.stdout
    assert (tmp_path / "calibration.png").stat().st_size > 10_000
