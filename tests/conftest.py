"""What tests of the whole share: a small project, its home as a run leaves it, and the command in a process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import hypothesis
import pytest

from agentrl_assets.cli import main
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.files import locked

# no test is timed: a slow moment of the machine is no failure
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

if TYPE_CHECKING:
    from gateways import Running

# The test processes share the cores: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
STAND_IN = ROOT / "tests" / "stand_in"

SMALL = """\
preferences:
  pairs: 120
evaluation:
  capability_tasks: 300
  adversarial_tasks: 150
"""


class Command:
    """The `agentrl` command on one state folder, with the worker that learns nothing."""

    def __init__(self, home: Path, workflow_file: Path) -> None:
        self.home = home
        self.workflow_file = workflow_file

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        path = os.pathsep.join([str(STAND_IN), str(ROOT)])
        folders = {"AGENTRL_HOME": str(self.home), "AGENTRL_WORKFLOW_FILE": str(self.workflow_file)}
        return subprocess.Popen(
            [sys.executable, "-m", "agentrl_assets.cli", *arguments],
            env={**os.environ, "PYTHONPATH": path, **folders, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def setting(self, text: str) -> None:
        """Adds a section to the workflow file."""
        self.workflow_file.write_text(f"{self.workflow_file.read_text()}{text}\n")


class Here:
    """The command in this process, for what does not run the pipeline."""

    def __init__(self, project: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("AGENTRL_HOME", str(project.home))
        monkeypatch.setenv("AGENTRL_WORKFLOW_FILE", str(project.workflow_file))
        for variable in ("PYTHONPATH", "DAGSTER_HOME"):
            monkeypatch.setenv(variable, "")  # so that it is put back
        monkeypatch.setattr(sys, "path", [*sys.path])
        self.home = project.home
        self._capsys = capsys

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        try:
            code = main(arguments)
        except SystemExit as done:
            code = int(done.code or 0)
        said = self._capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)


def small_project(folder: Path) -> Command:
    workflow_file = folder / "workflow.yaml"
    workflow_file.write_text((ROOT / "workflow.yaml").read_text() + SMALL)
    return Command(folder / "home", workflow_file)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on what a run left go to one process: the others would only wait for that run."""
    for item in items:
        if "built_once" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("built"))


@pytest.fixture(autouse=True)
def each_own_workflow_is_its_own() -> Iterator[None]:
    """Starter folders all call their module `environment`: what one test has loaded is no other's."""
    path = [*sys.path]
    yield
    sys.path[:] = path
    sys.modules.pop("environment", None)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A project after its first run, which takes a while: one for all test processes. Take a copy with `built`."""
    session = tmp_path_factory.getbasetemp()
    folder = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "built"
    with locked(folder.with_suffix(".lock"), wait_seconds=300):
        if not (folder / "out.txt").exists():
            folder.mkdir(exist_ok=True)
            done = small_project(folder)("run")
            assert done.returncode == 0, done.stderr
            (folder / "err.txt").write_text(done.stderr)
            (folder / "out.txt").write_text(done.stdout)
    return Command(folder / "home", folder / "workflow.yaml")


@pytest.fixture
def built(built_once: Command, tmp_path: Path) -> Command:
    """A copy of a project after its first run."""
    shutil.copytree(built_once.home, tmp_path / "home")
    shutil.copy(built_once.workflow_file, tmp_path / "workflow.yaml")
    return Command(tmp_path / "home", tmp_path / "workflow.yaml")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command on an empty state folder."""
    return Here(small_project(tmp_path), monkeypatch, capsys)


@pytest.fixture
def here_built(built: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command on what a run left."""
    return Here(built, monkeypatch, capsys)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty small project."""
    project = small_project(tmp_path)
    return Workspace(home=str(project.home), workflow_file=str(project.workflow_file))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def bit_for_bit() -> Iterator[None]:
    """The same work gives the same bits within a test, also where several threads add up."""
    import torch

    from agentrl_resources.learning import repeatable

    repeatable(0)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Running]":
    """A gateway with scripted policies, for all tests of a module."""
    from gateways import running

    with running(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture
def fresh(tmp_path: Path) -> "Iterator[Running]":
    """One of the test's own, with short times."""
    from gateways import running, settings_with

    with running(tmp_path, settings_with(canary_seconds=0.3, request_seconds=2.0, body_seconds=0.5)) as found:
        yield found
