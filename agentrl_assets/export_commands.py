"""`agentrl export RELEASE FOLDER`: a release's policy for other people's software."""

import argparse
import json
from pathlib import Path
from typing import Any

from agentrl_assets.commands import this_workspace
from agentrl_resources.release import Manifest

PROMPTS = 4
"""Openings of capability tasks on which the exported model is compared with the policy."""


def add_export_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", everywhere: argparse.ArgumentParser
) -> None:
    what = "write a release's policy as a folder that transformers and vLLM load"
    added = commands.add_parser("export", help=what, description=what, parents=[everywhere])
    added.add_argument("release", metavar="RELEASE", help="digest or pointer")
    added.add_argument("folder", metavar="FOLDER", help="is made; must not be there, or be empty")
    what = "also prove it with vLLM: the interpreter of an environment that has it"
    added.add_argument("--vllm", metavar="PYTHON", help=what)
    added.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from agentrl_resources.learning import export_policy
    from agentrl_resources.settings import Settings
    from agentrl_resources.stages import load_chat
    from agentrl_resources.workflow import EpisodeFactory

    workspace = this_workspace()
    release = workspace.registry.resolve(options.release)
    manifest = workspace.registry.manifest(release)
    settings = Settings.model_validate_json(json.dumps(manifest["settings"]))
    entry = manifest["artifacts"]["policy"]
    policy = workspace.store.get(entry["kind"], entry["digest"]).path
    factory = EpisodeFactory(workspace.workflow)
    chat = load_chat(policy, factory)
    tasks = factory.workflow.tasks("capability", PROMPTS, settings.seed)
    prompts = [chat.prompt(factory.start(task).transcript.messages) for task in tasks]
    folder = Path(options.folder).absolute()
    card, temperature = model_card(release, manifest), settings.evaluation.temperature
    found, served = export_policy(policy, folder, card, prompts, chat.turn_ends, temperature, options.vllm)
    print(
        f"{folder}: the policy of release {release[:12]}. Loaded by transformers, it gives {found.tokens} tokens the "
        f"log-probabilities of the policy, {found.largest:.1e} nats apart at most ({found.mean:.1e} on average)."
    )
    if served is not None:
        print(
            f"Served by vLLM, {served.tokens} tokens that it sampled have the policy's log-probabilities, "
            f"{served.largest:.1e} nats apart at most ({served.mean:.1e} on average)."
        )
    return 0


def model_card(release: str, manifest: Manifest) -> str:
    """README.md of an exported model, made from the release's manifest alone."""
    settings = manifest["settings"]
    base, workflow = settings["model"]["base"], settings["workflow"]
    front = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [agentrl, agent, tool-use]"]
    if base:
        front.append(f"base_model: {json.dumps(base)}")
    verdicts = [f"| `{gate}` | {verdict['answer']} | {verdict['reason']} |" for gate, verdict in _verdicts(manifest)]
    parts = [f"| {name} | `{part['digest'][:16]}` |" for name, part in sorted(manifest["artifacts"].items())]
    made = "a baseline that no gate has judged" if not verdicts else f"trained with `{workflow['policy_training']}`"
    return "\n".join(
        [
            "---",
            *front,
            "---",
            "",
            f"# Policy of release `{release[:16]}`",
            "",
            f"The policy of workflow `{manifest['workflow']}`, {made}, exported by AgentRL. "
            f"{'Base: `' + base + '`. ' if base else 'A small model of its own, with random first weights. '}"
            "Whoever uses it shows it the tools of that workflow through the template in this folder, and stops at the "
            "tokens in `generation_config.json`.",
            "",
            *(["## Gates", "", "| gate | answer | why |", "|---|---|---|", *verdicts, ""] if verdicts else []),
            "## Made from",
            "",
            "| part | SHA-256 |",
            "|---|---|",
            *parts,
            "",
            f"Code: `{manifest['code']['commit'] or 'not in a repository'}`. Seed: {manifest['seeds']['seed']}. "
            "What was measured, and on what, is in the release's evidence, which its digests name.",
            "",
        ]
    )


def _verdicts(manifest: Manifest) -> list[tuple[str, dict[str, Any]]]:
    return [(gate, manifest["verdicts"][gate]) for gate in manifest["gates"]]
