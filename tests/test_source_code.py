"""Digests of code: what an edit makes out of date, and what it does not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl_assets.project import stage_code
from agentrl_resources import source_code
from agentrl_resources.dagster_resources import AROUND, OWN_PACKAGES
from agentrl_resources.source_code import SourceCode
from agentrl_resources.stages import STAGES

ROOT = Path(__file__).parents[1]
PLACES = {
    **{stage: stage_code(stage) for stage in STAGES},
    **{
        place.partition(":")[2]: (f"agentrl_assets.{place}",)
        for place in (
            "preference_data:rubric",
            "preference_data:raw_preference_data",
            "preference_data:cleaned_preference_data",
            "evaluation:eval_suite",
            "gates:gate_evidence",
            "release:release_bundle",
            "brief:reliability_brief",
            "reliability:reliability_score",
            "telemetry:agent_runs",
        )
    },
    "workflow": ("agentrl_resources.workflow.order_desk",),
}
SERVING = {"rollback_drill", "canary_rollout"}
SAMPLING = {"sft_checkpoint", "on_policy_preference_data", "ppo_policy", "offline_eval_suite", "rl_alternatives"}
LEARNING = SAMPLING | {"reward_model"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the packages, each test's edits undone after it."""
    folder = tmp_path_factory.mktemp("copy")
    for package in OWN_PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def edit(copy):
    before: dict[Path, str] = {}

    def replace(file: str, old: str, new: str) -> None:
        path = copy / file
        text = before.setdefault(path, path.read_text())
        assert old in text, f"{file} does not hold {old!r} any more: the test edits something else"
        path.write_text(path.read_text().replace(old, new))

    yield replace
    for path, text in before.items():
        path.write_text(text)


def digests(folder: Path, cache: Path | None = None) -> dict[str, str | None]:
    code = SourceCode(OWN_PACKAGES, AROUND, path=[str(folder)], cache=cache)
    return {name: code.digest(*places) for name, places in PLACES.items()}


@pytest.fixture(scope="module")
def unedited(copy):
    return digests(copy)


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("learning/ppo.py", "1 + settings.clip", "1 + 2 * settings.clip", {"ppo_policy"}),
        ("learning/ppo.py", "MAX_SAMPLER_MISMATCH = 0.015", "MAX_SAMPLER_MISMATCH = 0.15", {"ppo_policy"}),
        ("learning/sft.py", '"adam_beta2": 0.98', '"adam_beta2": 0.99', {"sft_checkpoint", "reward_model"}),
        ("learning/muon.py", "MOMENTUM = 0.95", "MOMENTUM = 0.9", {"sft_checkpoint", "reward_model"}),
        ("learning/reward.py", "SCALE = 10.0", "SCALE = 9.0", {"reward_model", "ppo_policy", "rl_alternatives"}),
        ("learning/rollout.py", "COMPACT_BELOW = 0.8", "COMPACT_BELOW = 0.7", SAMPLING),
        ("families/gpt_oss/sinks.py", 'NAME = "fused_with_sinks"', 'NAME = "fused"', LEARNING | SERVING),
        ("engines/local.py", "rows: int = 64", "rows: int = 32", SERVING | SAMPLING),
        ("stages/reward.py", "ENOUGH = 30", "ENOUGH = 20", {"reward_model"}),
        ("stages/__init__.py", "repeatable(request.settings.seed)", "repeatable(0)", {*STAGES}),
        ("preferences/duplicates.py", "    return", "    0\n    return", {"cleaned_preference_data"}),
        ("workflow/order_desk/tasks.py", "    return", "    0\n    return", {"workflow"}),
        ("workflow/order_desk/annotators.py", "TIE_MARGIN = 0.015", "TIE_MARGIN = 0.1", {"workflow"}),
        ("settings.py", "def settings_reference", "def another", set()),
        ("plotting.py", '"font.size": 9', '"font.size": 8', set()),
        ("dagster_resources.py", "_STDERR_LINES = 20", "_STDERR_LINES = 30", set()),
        ("learning/ppo.py", "import math", "import math  # a comment\n\n", set()),
        ("learning/ppo.py", '"""Trains a policy on a reward model.', '"""Trains a policy.', set()),
        ("learning/ppo.py", '"""Largest KL between', '"""The largest KL between', set()),
    ],
)  # fmt: skip
def test_an_edit_changes_what_uses_it_and_nothing_else(copy, edit, unedited, file, old, new, changed):
    edit(f"agentrl_resources/{file}", old, new)
    assert {name for name, digest in digests(copy).items() if digest != unedited[name]} == changed


def test_every_place_exists_and_has_a_digest_of_its_own(unedited):
    assert None not in unedited.values()
    assert len({*unedited.values()}) == len(unedited)


def test_a_query_of_the_brief_is_part_of_it(copy, edit, unedited):
    edit("agentrl_resources/brief/queries/score.sql", "simulated", "true as simulated")
    assert {name for name, digest in digests(copy).items() if digest != unedited[name]} == {"reliability_brief"}


def code_versions(folder: Path, home: Path, workflow_file: Path = ROOT / "workflow.yaml") -> dict[str, str]:
    script = (
        "import json; from agentrl_assets.definitions import defs; graph = defs.resolve_asset_graph();"
        "print(json.dumps({key.to_user_string(): graph.get(key).code_version for key in graph.get_all_asset_keys()}))"
    )
    folders = {"AGENTRL_HOME": str(home), "AGENTRL_WORKFLOW_FILE": str(workflow_file)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, **folders, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_edited_ppo_makes_the_policy_out_of_date_and_keeps_the_sft_checkpoint(copy, edit, tmp_path):
    shutil.copytree(ROOT / "dbt_like_sql", copy / "dbt_like_sql", dirs_exist_ok=True)
    before = code_versions(copy, tmp_path)
    assert code_versions(copy, tmp_path) == before  # from what was remembered of the parsed files
    edit("agentrl_resources/learning/ppo.py", "1 + settings.clip", "1 + 2 * settings.clip")
    after = code_versions(copy, tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"ppo_policy"}


DESK = {
    "desk/__init__.py": "",
    "desk/main.py": "from desk.shop import Shop\nfrom . import words\nimport outside\nimport json\n\nclass Desk: ...\n",
    "desk/shop.py": "class Shop:\n    def open(self):\n        from .deep import price\n        return price\n",
    "desk/deep.py": "price = 1\n",
    "desk/words.py": "WORDS = ['please']\n",
    "desk/rules.yaml": "limit: 100\n",
    "desk/texts/hello.txt": "Hello\n",
    "desk/unused.py": "x = 1\n",
    "desk/notes.md": "Notes.\n",
    "outside.py": "import relations.family\n",
    "relations/family.py": "tree = 1\n",
    "site-packages/wheel_of.py": "x = 1\n",
}  # fmt: skip


def desk(folder: Path, files: dict[str, str]) -> str | None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    path = [str(folder), str(folder / "site-packages")]
    return SourceCode(OWN_PACKAGES, AROUND, path=path).digest("desk.main:Desk")


@pytest.mark.parametrize("name", DESK)
def test_a_workflow_of_ones_own_is_what_its_module_imports_from_its_project(tmp_path, name):
    """Also relative, inside functions, from a namespace package, and data that lie in the package."""
    files = {**DESK, "desk/main.py": DESK["desk/main.py"] + "import wheel_of\n"}
    before = desk(tmp_path, files)
    assert before is not None
    text = files[name] + ("more: 1\n" if name.endswith(".yaml") else "y = 2\n")
    unaffected = {"desk/unused.py", "desk/notes.md", "site-packages/wheel_of.py"}
    assert (desk(tmp_path, {**files, name: text}) == before) == (name in unaffected)


def test_an_edited_environment_of_ones_own_makes_its_tasks_out_of_date_and_no_other_data(tmp_path):
    desk(tmp_path, DESK)
    workflow_file = tmp_path / "workflow.yaml"
    workflow_file.write_text((ROOT / "workflow.yaml").read_text().replace("order_desk", "desk.main:Desk"))
    before = code_versions(tmp_path, tmp_path, workflow_file)
    desk(tmp_path, {"desk/deep.py": "price = 2\n"})
    after = code_versions(tmp_path, tmp_path, workflow_file)
    changed = {name for name in before if before[name] != after[name]}
    assert {"eval_suite", "cleaned_preference_data", "sft_checkpoint", "offline_eval_suite"} <= changed
    assert changed.isdisjoint({"rubric", "gate_evidence", "agent_runs", "weekly_reliability", "reliability_brief"})


@pytest.mark.parametrize(
    "addition",
    [
        "from desk.unused import *",
        "import desk.unused as u",
        "try:\n    from desk import unused\nexcept ImportError: ...",
        "if True:\n    def f():\n        import desk.unused",
    ],
)
def test_every_way_to_import_counts(tmp_path, addition):
    files = {**DESK, "desk/main.py": f"{addition}\n{DESK['desk/main.py']}"}
    before = desk(tmp_path, files)
    assert desk(tmp_path, {**files, "desk/unused.py": "x = 2\n"}) != before


def test_a_large_data_file_counts_by_its_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(source_code, "LARGE", 100)
    desk(tmp_path, {**DESK, "desk/pairs.jsonl": "x" * 100})
    before = desk(tmp_path, {})
    assert desk(tmp_path, {}) == before
    os.utime(tmp_path / "desk" / "pairs.jsonl", (1, 1))
    assert desk(tmp_path, {}) != before


def test_a_file_that_is_no_python_counts_by_its_bytes_and_a_missing_place_has_no_digest(tmp_path):
    broken = {**DESK, "desk/shop.py": "class Shop(:\n"}
    assert None is not desk(tmp_path, broken) != desk(tmp_path, {**broken, "desk/shop.py": "class Shop((:\n"})
    code = SourceCode(path=[str(tmp_path)])
    assert code.digest("desk.main:Nobody") is code.digest("desk.missing") is code.digest("nowhere:At") is None


def test_what_is_remembered_of_a_file_changes_nothing(tmp_path, copy, unedited):
    cache = tmp_path / "code.json"
    assert digests(copy, cache) == unedited
    remembered = cache.read_bytes()
    assert digests(copy, cache) == unedited
    assert cache.read_bytes() == remembered
    for damaged in (b"", b"{", b"\xff", b"[]", b'{"a": 1}', remembered[:-100]):
        cache.write_bytes(damaged)
        assert digests(copy, cache) == unedited
    assert digests(copy, tmp_path / "no folder" / "code.json") == unedited
