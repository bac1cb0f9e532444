"""What is released: a source archive, the wheel made of it, and that wheel's command where there is no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("agentrl_assets", "agentrl_resources", "benchmarks", "dbt_like_sql", "docs", "examples", "skills", "tests")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*-instruct")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, f'build_{sys.argv[1]}')(sys.argv[2])"


def run(command: list[str | Path], folder: Path) -> str:
    """Runs it with nothing of this process's paths, and returns what it printed."""
    ours = ("PYTHONPATH", "AGENTRL_HOME", "AGENTRL_WORKFLOW_FILE")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the source archive alone, which is made of a copy: builds leave files where they are made."""
    copy = tmp_path_factory.mktemp("copy")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=LEFT_OUT)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    built = tmp_path_factory.mktemp("built")
    run([sys.executable, "-c", BUILD, "sdist", built], copy)
    (archive,) = built.iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(built, filter="data")
    source = built / archive.name.removesuffix(".tar.gz")
    run([sys.executable, "-c", BUILD, "wheel", built], source)
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with the wheel, and behind it the libraries that these tests run with.

    Only their folder is named, so that what makes the checkout importable there does not act here.
    """
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], folder)
    (packages,) = folder.glob("lib/python3*/site-packages")
    libraries = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "libraries.pth").write_text("\n".join(libraries))
    return folder / "bin"


def test_it_has_every_file_of_the_packages_and_what_they_read_at_the_root(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}

    def files(folder: str) -> set[str]:
        found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(ROOT).as_posix() for path in found}

    root = {"constraints.txt", "workspace.yaml", *files("dbt_like_sql")}
    expected = files("agentrl_assets") | files("agentrl_resources")
    assert names == expected | {f"agentrl_resources/project/{name}" for name in root}


def test_out_of_the_wheel_a_workflow_is_begun_and_looked_at(installed: Path, tmp_path: Path) -> None:
    python = "import agentrl_assets, agentrl_resources as r; print(agentrl_assets.__file__, r.__file__, sep='\\n')"
    places = run([installed / "python", "-c", python], tmp_path).splitlines()
    assert len(places) == 2
    assert all(Path(place).is_relative_to(installed.parent) for place in places)

    agentrl = installed / "agentrl"
    assert "Next: cd" in run([agentrl, "init", "desk"], tmp_path)
    said = run([agentrl, "doctor"], tmp_path / "desk")
    assert "redirect(number: string, place: string)" in said
    assert "expert            40 of 40" in said
    assert "[stop]" not in said


def test_out_of_the_wheel_the_whole_graph_loads(installed: Path, tmp_path: Path) -> None:
    """With the SQL models, the lock file of a release and the workspace file, none of which `doctor` reads."""
    shutil.copy(ROOT / "workflow.yaml", tmp_path)
    look = (
        "from agentrl_assets.definitions import defs; from agentrl_assets.release import LOCK_FILE, PROJECT;"
        "print(LOCK_FILE, PROJECT / 'workspace.yaml', sep='\\n');"
        "print(*(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()))"
    )
    lock, workspace, assets = run([installed / "python", "-c", look], tmp_path).splitlines()
    for name, found in (("constraints.txt", lock), ("workspace.yaml", workspace)):
        assert Path(found).is_relative_to(installed.parent)
        assert Path(found).read_bytes() == (ROOT / name).read_bytes()
    models = {file.stem for file in (ROOT / "dbt_like_sql").glob("*/*.sql")}
    assert models | {"release_bundle"} <= {*assets.split()}
