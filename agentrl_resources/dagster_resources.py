"""What assets are built with: the workspace (settings, stores, workflow) and the launcher of long stages."""

import functools
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from pydantic import Field

from agentrl_resources.dagster_history import latest_build
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import (
    Artifact,
    ArtifactStore,
    digest_file,
    digest_json,
    digest_tree,
    write_atomic,
    write_json,
)
from agentrl_resources.forkserver import Forked
from agentrl_resources.preferences import RawRow, read_pairs
from agentrl_resources.release import Registry
from agentrl_resources.settings import Settings, load_settings
from agentrl_resources.source_code import SourceCode
from agentrl_resources.telemetry import Warehouse, segment_sizes, version_name
from agentrl_resources.worker import fill
from agentrl_resources.workflow import BUILT_IN, OwnWorkflow, Workflow, load_workflow

_HERE = Path(__file__).parent
PROJECT = _HERE / "project" if (_HERE / "project").is_dir() else _HERE.parent
"""Where the SQL models, the lock file and the workspace file lie: the checkout, or what setup.py put into a wheel."""

OWN_PACKAGES = ("agentrl_assets", "agentrl_resources")
AROUND = (
    "agentrl_assets.project",
    "agentrl_assets.reporting",
    "agentrl_resources.dagster_*",
    "agentrl_resources.forkserver",
    "agentrl_resources.plotting",
    "agentrl_resources.settings",
)
"""Code that stores, launches and shows what others made, and the settings, whose values count by themselves: when it
changes, no asset is made again."""

_STDERR_LINES = 20


class Workspace(dg.ConfigurableResource):
    """One project: its workflow file, its state folder, and everything that lies there."""

    home: str = Field(description="The state folder.")
    workflow_file: str = Field(description="The workflow file.")
    preferences: str | None = Field(default=None, description="Preference data, in place of what the file names.")
    rubric_file: str | None = Field(default=None, description="A rubric, in place of the workflow's own.")

    @classmethod
    def from_environment(cls) -> "Workspace":
        """AGENTRL_HOME (.agentrl), AGENTRL_WORKFLOW_FILE (workflow.yaml), AGENTRL_PREFERENCES, AGENTRL_RUBRIC."""

        def path(value: str) -> str:
            return str(Path(value).expanduser().absolute())

        def given(name: str) -> str | None:
            value = os.environ.get(name)
            return path(value) if value else None

        return cls(
            home=given("AGENTRL_HOME") or path(".agentrl"),
            workflow_file=given("AGENTRL_WORKFLOW_FILE") or path("workflow.yaml"),
            preferences=given("AGENTRL_PREFERENCES"),
            rubric_file=given("AGENTRL_RUBRIC"),
        )

    @property
    def root(self) -> Path:
        return Path(self.home)

    @property
    def settings(self) -> Settings:
        """What the workflow file said when this process first asked. Its paths count from its own folder."""
        settings = _settings(Path(self.workflow_file))
        around = Path(self.workflow_file).parent
        source, base = self.preferences or settings.preferences.source, settings.model.base
        tasks = settings.workflow.tasks
        if source is not None:
            source = str(around / Path(source).expanduser())
        if base is not None and (folder := around / Path(base).expanduser()).is_dir():
            base = str(folder)  # otherwise it is a hub id
        if tasks is not None:
            tasks = str((around / Path(tasks).expanduser()).resolve())
        changes = {
            "preferences": settings.preferences.model_copy(update={"source": source}),
            "model": settings.model.model_copy(update={"base": base}),
            "workflow": settings.workflow.model_copy(update={"tasks": tasks}),
        }
        return settings.model_copy(update=changes)

    @property
    def workflow(self) -> Workflow:
        target, tasks = self.settings.workflow.target, self.settings.workflow.tasks
        return load_workflow(target, *(Path(one) if one else None for one in (self.rubric_file, tasks)))

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.root)

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.root / "warehouse.duckdb")

    @property
    def registry(self) -> Registry:
        return Registry(self.root / "registry")

    @property
    def progress_file(self) -> Path:
        return self.root / "progress.jsonl"

    @property
    def spool(self) -> Path:
        """The folder in which a gateway leaves what it did, for `agent_runs` to read."""
        return self.root / "spool"

    @property
    def keys_file(self) -> Path:
        """Hashes of the gateway's API keys."""
        return self.root / "keys.json"

    def find(self, instance: dg.DagsterInstance, asset: str) -> Artifact | None:
        """The artifact of the latest materialisation; None when there was none."""
        built = latest_build(instance, asset)
        return None if built is None else self.store.get(asset, built.data_version)

    def latest(self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, asset: str) -> Artifact:
        """The artifact of the latest materialisation. AgentRLError when the asset was never built."""
        artifact = self.find(context.instance, asset)
        if artifact is None:
            raise AgentRLError(f"{asset} was never built. Build it first: agentrl run --select {asset}")
        return artifact

    def holds(self, asset: str, digest: str) -> bool:
        """Whether an artifact is still in the store."""
        return (self.root / "artifacts" / asset / digest).is_dir()

    def preference_rows(self) -> Iterator[RawRow]:
        """The preference data as it comes: the user's, or what the workflow's own annotators left."""
        settings, workflow = self.settings, self.workflow
        if settings.preferences.source is not None:
            return read_pairs(settings.preferences.source)
        pairs = workflow.historical_pairs(settings.preferences.pairs, settings.seed)
        source = f"{workflow.name} annotators"
        return (RawRow(number, source, pair) for number, pair in enumerate(pairs, start=1))

    @property
    def pairs_are_played(self) -> bool:
        """Whether the preference data comes of playing an environment of the user's: nothing in it is redacted."""
        return self.settings.preferences.source is None and isinstance(self.workflow, OwnWorkflow)

    def source_digest(self, asset: str) -> str | None:
        """What an asset that reads the outside world would find there now; None for an asset that reads only assets."""
        sources = {
            "rubric": self._rubric_digest,
            "raw_preference_data": self._preferences_digest,
            "agent_runs": self._runs_digest,
        }
        return sources[asset]() if asset in sources else None

    def leads_back(self, release: str) -> bool:
        """Whether a release is the champion, or was bundled for the way back that there is now."""
        pointers = self.registry.pointers()
        try:
            manifest = self.registry.manifest(release)
            way_back = self.registry.way_back(manifest, pointers)
            return pointers.champion == release or way_back == manifest["rollback_target"]
        except AgentRLError:  # a manifest that is missing or damaged leads nowhere: it is to be made again
            return False

    def table_digest(self, table: str) -> str:
        """SHA-256 of a warehouse table's rows, whatever their order; of nothing when there is no warehouse."""
        if not self.warehouse.path.exists():
            return digest_json(None)
        rows = f'SELECT sha256(CAST(row AS VARCHAR)) AS digest FROM "{table}" AS row'
        found = self.warehouse.query(f"SELECT sha256(string_agg(digest, '' ORDER BY digest)) AS digest FROM ({rows})")
        return found[0]["digest"] or digest_json([])

    @property
    def code(self) -> SourceCode:
        """Digests of code. What was parsed is remembered in the state folder, once there is one."""
        return _source_code(self.root / "code.json")

    @property
    def workflow_code(self) -> str:
        """Digest of the workflow's own module, of everything of its project that this imports, and of its file of
        tasks: an edited environment is a new version."""
        target, tasks = self.settings.workflow.target, self.settings.workflow.tasks
        place = target if ":" in target else BUILT_IN.get(target, target).partition(":")[0]
        if (digest := self.code.digest(place)) is None:
            self.workflow  # noqa: B018  # says what is wrong with the name
        if tasks is None:
            return digest or ""
        around = self.code.digest("agentrl_resources.workflow.own:OwnWorkflow")
        return digest_json([digest, around, _digest_of(Path(tasks))])

    def _rubric_digest(self) -> str:
        return self.workflow.rubric.digest

    def _preferences_digest(self) -> str:
        settings = self.settings
        if settings.preferences.source is None:
            made_from = [settings.preferences.pairs, settings.seed, self.workflow_code, self.workflow.rubric.digest]
            return digest_json(made_from)
        read_pairs(settings.preferences.source)  # says what is wrong with a path
        return _digest_of(Path(settings.preferences.source)) or ""

    def runs_digest(self, runs: str, unread: Mapping[str, int]) -> str:
        """The source of `agent_runs`: the digest of the runs that are stored, and the sizes of segments with more."""
        return digest_json([runs, unread])

    def _runs_digest(self) -> str:
        read = self.warehouse.spool_offsets()
        unread = {name: size for name, size in segment_sizes(self.spool).items() if size > read.get(name, 0)}
        return self.runs_digest(self.table_digest("agent_runs"), unread)


class Training(dg.ConfigurableResource):
    """Runs stages that learn or sample, each in a process of its own; what they made becomes an artifact."""

    workspace: dg.ResourceDependency[Workspace]

    def run(self, context: dg.AssetExecutionContext, **parameters: str) -> Artifact:
        """Run the stage that is named like the asset on the latest artifacts of the asset's declared inputs.

        `parameters` are what this stage alone needs to know; checkpoints belong to them too.
        Checkpoints lie in `work/<stage>/<digest of everything the stage depends on>` until it has succeeded, so a
        stage that was cut off goes on where it was. `dg.Failure` ends with what the process said last.
        """
        workspace, stage = self.workspace, context.asset_key.to_user_string()
        deps = sorted(key.to_user_string() for key in context.assets_def.asset_deps[context.asset_key])
        names = [name for name in deps if name != "release_bundle"]  # that is no folder: it is in the registry
        inputs = {name: workspace.latest(context, name) for name in names}
        versions = {name: artifact.digest for name, artifact in inputs.items()}
        code_version = context.assets_def.code_versions_by_key[context.asset_key]
        work = workspace.root / "work" / stage / digest_json([code_version, versions, parameters])
        work.mkdir(parents=True, exist_ok=True)
        # The settings of this process, not the file: it may be edited while the stage waits. JSON is YAML.
        write_json(work / "workflow.yaml", workspace.settings.model_dump(mode="json"))
        with workspace.store.stage(stage) as output:
            request = {
                "stage": stage,
                "workflow_file": str(work / "workflow.yaml"),
                "rubric": str(workspace.latest(context, "rubric").path / "rubric.yaml"),
                "inputs": {name: str(artifact.path) for name, artifact in inputs.items()},
                "output": str(output),
                "work": str(work),
                "progress": str(workspace.progress_file),
                "names": self._names(versions),
                "parameters": parameters,
            }
            write_json(work / "request.json", request)
            self._launch(context, stage, work)
            artifact = workspace.store.commit(stage, output)
        shutil.rmtree(work.parent)
        return artifact

    def _names(self, versions: Mapping[str, str]) -> dict[str, str]:
        """What run records call the models: the name of the workflow file, and the digest that tells builds apart."""
        workflow = self.workspace.settings.workflow
        models = {
            "baseline": (workflow.baseline, "sft_checkpoint"),
            "reward_model": (workflow.reward_model, "reward_model"),
            "candidate": (workflow.policy_training, "ppo_policy"),
        }
        return {
            part: version_name(name, versions[asset]) for part, (name, asset) in models.items() if asset in versions
        }

    def _launch(self, context: dg.AssetExecutionContext, stage: str, work: Path) -> None:
        errors = work / "stderr.log"
        process = Forked(fill, work / "request.json", errors)
        try:
            while (heard := process.read())[0] == "said":
                context.log.info(f"{stage} runs as process {heard[1]}")
            if heard[0] == "failed":
                raise dg.Failure(str(heard[1])) from None
        except EOFError:
            lines = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()]
            said = "\n".join(lines[-_STDERR_LINES:])
            raise dg.Failure(f"{stage} ended without a word: was it killed?\n{said}".rstrip()) from None
        finally:
            process.end()
            if errors.exists():
                sys.stderr.write(errors.read_text(errors="replace"))


def _digest_of(source: Path) -> str | None:
    """Of a file or a folder; None where there is none."""
    return digest_tree(source) if source.is_dir() else digest_file(source) if source.is_file() else None


@functools.cache
def _settings(path: Path) -> Settings:
    return load_settings(path)


@functools.cache
def _source_code(cache: Path) -> SourceCode:
    return SourceCode(by_name=OWN_PACKAGES, leave_out=AROUND, cache=cache)


def write_dagster_yaml(home: Path) -> Path:
    """Makes the folder of Dagster's own history below the state folder and returns it (DAGSTER_HOME)."""
    folder = home / "dagster"
    if not (folder / "dagster.yaml").exists():
        write_atomic(folder / "dagster.yaml", _DAGSTER_YAML)
    return folder


_DAGSTER_YAML = """\
# Written by AgentRL when this state folder was made; yours to change.
telemetry:
  enabled: false
# No box over the first page that asks for an address.
nux:
  enabled: false
# A run whose process was killed is noticed, and started again once.
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 10
run_retries:
  enabled: true
  max_retries: 1
  retry_on_asset_or_op_failure: false
# The pools `warehouse` and `training` let one step in at a time.
concurrency:
  pools:
    default_limit: 1
python_logs:
  python_log_level: INFO
"""
