"""A release's policy for other people's software, and what says that training changed anything."""

from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from small_models import small_factory, small_harmony, small_model
from small_releases import Bundle

from agentrl_assets.cli import main
from agentrl_assets.export_commands import model_card
from agentrl_assets.learned import weights_moved
from agentrl_resources.settings import load_settings
from agentrl_resources.stages.request import save_with_format

WORKFLOW_FILE = Path(__file__).parents[1] / "workflow.yaml"


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A release in a state folder, whose policy is a small model of the built-in kind."""
    home = tmp_path / "home"
    home.mkdir()
    bundle = Bundle(home)
    bundle.settings = load_settings(WORKFLOW_FILE)
    harmony = small_harmony(small_factory())
    with bundle.store.stage("ppo_policy") as folder:
        save_with_format(small_model(harmony), harmony, True, folder)
        bundle.artifacts["policy"] = bundle.store.commit("ppo_policy", folder)
    bundle.release = bundle.add(bundle.artifacts, bundle.verdicts, parent=bundle.baseline)
    monkeypatch.setenv("AGENTRL_HOME", str(home))
    monkeypatch.setenv("AGENTRL_WORKFLOW_FILE", str(WORKFLOW_FILE))
    monkeypatch.setenv("PYTHONPATH", "")
    return bundle


def test_a_release_is_exported_and_proven(release, tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "exported"
    assert main(["export", release.release, str(out)]) == 0
    said = capsys.readouterr().out
    assert str(out) in said
    assert "gives" in said
    model = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template
    ends = tokenizer.convert_tokens_to_ids(["<|return|>", "<|call|>"])
    assert model.generation_config.eos_token_id == ends
    assert f"`{release.release[:16]}`" in (out / "README.md").read_text()
    assert main(["export", release.release, str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_vllm_that_is_not_there_is_named_and_nothing_is_exported(release, tmp_path, capsys):
    assert main(["export", release.release, str(tmp_path / "out"), "--vllm", str(tmp_path / "no-python")]) == 1
    assert "no-python cannot be run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_release_that_is_not_there_is_named(release, tmp_path, capsys):
    assert main(["export", "nowhere", str(tmp_path / "exported")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()


def test_the_card_says_what_the_manifest_says(release):
    manifest = release.registry.manifest(release.release)
    card = model_card(release.release, manifest)
    assert card.startswith("---\nlibrary_name: transformers\n")
    for gate in manifest["gates"]:
        assert f"| `{gate}` | GO | {manifest['verdicts'][gate]['reason']} |" in card
    for part in manifest["artifacts"].values():
        assert part["digest"][:16] in card
    assert "a baseline that no gate has judged" in model_card(
        release.baseline, release.registry.manifest(release.baseline)
    )
    based = {**manifest, "settings": {**manifest["settings"], "model": {"base": "a/base"}}}
    assert 'base_model: "a/base"' in model_card(release.release, based)


@pytest.mark.parametrize(("moved", "passed"), [(0.0, False), (0.02, True)])
def test_weights_that_never_moved_fail_their_check(moved, passed):
    workspace = SimpleNamespace(latest=lambda context, asset: SimpleNamespace(report={"moved": moved}))
    check = weights_moved("ppo_policy")
    (spec,) = check.check_specs
    assert spec.blocking
    found = check.node_def.compute_fn.decorated_fn(dg.build_asset_check_context(), workspace)
    assert found.passed == passed
