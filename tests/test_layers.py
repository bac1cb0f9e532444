"""The order of the packages, as pyproject.toml has it: kept by the tree, and broken by every way around it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in ("agentrl_assets", "agentrl_resources"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_the_tree_keeps_to_the_order_of_its_packages():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("agentrl_resources/workflow/base.py", "from agentrl_resources.canary import drill", "workflow -> "),
        ("agentrl_resources/workflow/base.py", "def f():\n    import agentrl_resources.learning", "workflow -> "),
        ("agentrl_resources/evaluation/gates.py", "from agentrl_resources.gateway import Backend", "evaluation -> "),
        ("agentrl_resources/preferences/pairs.py", "import agentrl_resources.evaluation", "preferences.pairs -> "),
        ("agentrl_resources/files.py", "from agentrl_assets.project import SETTINGS", "agentrl_resources.files -> "),
        ("agentrl_resources/errors.py", "from agentrl_resources.files import digest_json", "errors -> "),
        ("agentrl_resources/newcomer.py", "x = 1", "newcomer"),
        ("agentrl_resources/learning/batching.py", "from agentrl_resources.learning import ppo", "learning"),
    ],
)
def test_an_import_against_the_order_is_found(copy, file, line, said):
    path = copy / file
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        done = lint(copy)
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout, done.stdout
