"""The graph as a whole: its shape, its layers, its cost to import."""

import ast
import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agentrl_assets.definitions import defs

ROOT = Path(__file__).parents[1]
SNAPSHOT = Path(__file__).with_name("graph_snapshot.json")
TEAMS = {"team:ml", "team:platform", "team:product"}


def test_the_graph_is_the_one_in_the_snapshot():
    """When a change of the graph is meant: AGENTRL_SNAPSHOT=write pytest tests/test_assets_graph.py"""
    graph = defs.resolve_asset_graph()
    found = {
        "assets": {
            key.to_user_string(): {
                "inputs": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
                "group": graph.get(key).group_name,
                "owners": graph.get(key).owners,
                "pools": sorted(graph.get(key).pools),
                "partitions": str(graph.get(key).partitions_def) if graph.get(key).partitions_def else None,
            }
            for key in graph.get_all_asset_keys()
        },
        "checks": {
            f"{key.asset_key.to_user_string()}:{key.name}": {
                "blocking": graph.get_check_spec(key).blocking,
                "owner": graph.get_check_spec(key).metadata["owner"],
            }
            for key in graph.asset_check_keys
        },
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
            for job in defs.resolve_all_job_defs()
            if not job.name.startswith("__")
        },
        "schedules": {one.name: one.cron_schedule for one in defs.schedules or ()},
        "sensors": {one.name: one.minimum_interval_seconds for one in defs.sensors or ()},
    }
    if os.environ.get("AGENTRL_SNAPSHOT") == "write":
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(SNAPSHOT.read_text())


def test_every_asset_and_check_has_an_owner_and_says_what_it_is():
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert set(node.owners) & TEAMS, key
        assert node.description, key
        assert node.code_version, key
        assert node.kinds, key
    for key in graph.asset_check_keys:
        assert graph.get_check_spec(key).metadata["owner"] in TEAMS, key
        assert graph.get_check_spec(key).description, key


def test_whatever_writes_duckdb_or_learns_does_so_alone():
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        if node.group_name == "telemetry":
            assert node.pools == {"warehouse"}, key
        if node.group_name == "training":
            assert node.pools == {"training"}, key


def test_importing_the_code_location_imports_nothing_heavy():
    heavy = "torch transformers trl datasets great_expectations pandas duckdb scipy matplotlib numpy tokenizers"
    code = f"import sys, agentrl_assets.definitions; print([name for name in '{heavy}'.split() if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


STARTERS = ROOT / "agentrl_resources" / "starters"  # what a user's own folder begins with
OWN_FILES = [file for file in (ROOT / "agentrl_resources").rglob("*.py") if STARTERS not in file.parents]


@pytest.mark.parametrize("file", sorted(OWN_FILES), ids=str)
def test_only_what_faces_dagster_knows_it_and_siblings_keep_to_what_they_export(file: Path):
    """Who may import whom at all stands in pyproject.toml (tests/test_layers.py)."""
    place = file.relative_to(ROOT / "agentrl_resources")
    package = place.parts[0] if len(place.parts) > 1 else None
    faces_dagster = package is None and (place.name.startswith("dagster_") or place.name == "worker.py")
    for module in _imports(file):
        parts = module.split(".")
        assert faces_dagster or parts[0] not in ("dagster", "dagster_pipes"), f"{place} imports {module}"
        if parts[0] == "agentrl_resources" and len(parts) > 2:
            inside = parts[1] == package
            assert inside or place.name == "worker.py", f"{place} reaches into {module}: import what {parts[1]} exports"
        if package is not None and parts[0] == "agentrl_resources" and len(parts) > 1:
            assert not parts[1].startswith("dagster_"), f"{place} imports {module}"


def _imports(file: Path) -> list[str]:
    """Every module that a file imports, at the top or inside a function; `from a import b` counts as `a`."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.append(node.module or "")
    return found


def test_the_workspace_file_leads_here_and_nothing_wins_over_it():
    import yaml

    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert importlib.import_module(entry["python_module"]["module_name"]).defs is defs
    assert "dagster" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"], "it wins silently"
