"""Does PPO beat SFT, and not by luck? The whole pipeline from scratch with several seeds, as a table.

    .venv/bin/python benchmarks/seeds.py --seeds 1 2 3 --home .agentrl-seeds > docs/seeds.md

Each seed makes its own data, tokenizer, models and evaluation tasks in a state folder of its own. Takes about as long
as `make run` for each seed. A seed that was run before is read, not run again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

AGENTRL = [sys.executable, "-m", "agentrl_assets.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--home", type=Path, default=Path(".agentrl-seeds"), help="where the seeds' state folders go")
    parser.add_argument("--workflow-file", type=Path, default=Path("workflow.yaml"))
    options = parser.parse_args()
    results = [measured(seed, options.home, options.workflow_file) for seed in options.seeds]
    print(table(results))


def measured(seed: int, home: Path, workflow_file: Path) -> dict[str, Any]:
    """Everything the table says of one seed."""
    folder = (home / f"seed-{seed}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load(workflow_file.read_text()) | {"seed": seed}
    file = folder / "workflow.yaml"
    file.write_text(yaml.safe_dump(settings))
    place = ["--home", str(folder), "--workflow-file", str(file)]
    timing = folder / "timing.json"
    if not timing.exists():
        started = time.monotonic()
        subprocess.run([*AGENTRL, "run", *place], check=True, stdout=sys.stderr, env=dict(os.environ))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        timing.write_text(json.dumps({"minutes": (time.monotonic() - started) / 60, "largest_process_gib": peak}))
    status = json.loads(output([*AGENTRL, "status", "--json", *place]))
    versions = {asset["asset"]: asset["data_version"] for asset in status["assets"]}

    def report(asset: str) -> dict[str, Any]:
        return json.loads((folder / "artifacts" / asset / versions[asset] / "report.json").read_text())

    gates = json.loads(output([*AGENTRL, "gates", "--json", *place], codes=(0, 3)))
    return {
        "seed": seed,
        **json.loads(timing.read_text()),
        "comparison": report("offline_eval_suite")["comparison"],
        "reward": report("reward_model"),
        "ppo": report("ppo_policy"),
        "gates": {gate["gate"]: gate["answer"] for gate in gates},
    }


def output(command: list[str], codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in codes:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: success of both arms for each seed, then what stands behind it."""
    lines = [
        "# Three seeds, from scratch",
        "",
        "Made by `python benchmarks/seeds.py`. Simulated customers; SFT and PPO on the same held-out tasks and seeds.",
        "p: exact McNemar. Violations: episodes with a forbidden write or disclosure, SFT to PPO.",
        "",
        "| seed | suite | decoding | n | SFT | PPO | difference (95 %) | p | violations |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for temperature in sorted(result["comparison"], key=float, reverse=True):
            decoding = "greedy (control)" if float(temperature) == 0 else f"temperature {temperature}"
            for suite, arms in sorted(result["comparison"][temperature].items(), reverse=True):
                low, high = arms["difference_interval"]
                lines.append(
                    f"| {result['seed']} | {suite} | {decoding} | {arms['n']} "
                    f"| {arms['baseline']['success_rate']:.3f} | {arms['candidate']['success_rate']:.3f} "
                    f"| {arms['difference']:+.3f} ({low:+.3f} to {high:+.3f}) | {arms['p_value']:.2g} "
                    f"| {arms['baseline']['safety_violations']} → {arms['candidate']['safety_violations']} |"
                )
    lines += [
        "",
        "| seed | reward model: accuracy where the outcome differs | AUC on SFT's own samples | ECE | KL of the policy "
        "(nats an episode) | gates | minutes | largest process (GiB) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        reward, gates = result["reward"], result["gates"]
        said = ", ".join(f"{name}: {answer}" for name, answer in gates.items())
        lines.append(
            f"| {result['seed']} | {reward['outcome_differs']['accuracy']:.3f} (n {reward['outcome_differs']['n']}) "
            f"| {reward['own_samples']['auc']:.3f} | {reward['ece']:.3f} | {result['ppo']['kl']:.1f} "
            f"| {said} | {result['minutes']:.1f} | {result['largest_process_gib']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
