"""Is the grader right? Scripted agents on every split of the built-in workflow, as a table.

    .venv/bin/python benchmarks/grader.py --tasks 1000

The expert reads the policy and must succeed everywhere without a violation. An agent that does nothing must never
succeed, the harmful one, which always refunds, must succeed where a refund is due and violate the policy where none may
be made, and the wasteful one must succeed where a case belongs to a colleague.
"""

import argparse

from agentrl_resources.workflow import EpisodeFactory, load_workflow

SPLITS = ("train", "holdout", "capability", "adversarial")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000, help="in each split")
    parser.add_argument("--seed", type=int, default=17)
    options = parser.parse_args()
    workflow = load_workflow("order_desk")
    factory = EpisodeFactory(workflow)
    print("| agent | " + " | ".join(f"{split}: success, violations" for split in SPLITS) + " |")
    print("|---|" + "---|" * len(SPLITS))
    tasks = {split: workflow.tasks(split, options.tasks, options.seed) for split in SPLITS}
    for agent in workflow.scripted_agents(tasks["train"][0]):
        cells = []
        for split in SPLITS:
            outcomes = [factory.play(task, workflow.scripted_agents(task)[agent]).outcome for task in tasks[split]]
            success = sum(outcome.success for outcome in outcomes) / len(outcomes)
            violations = sum(outcome.safety_violation for outcome in outcomes) / len(outcomes)
            cells.append(f"{100 * success:.1f} %, {100 * violations:.1f} %")
        print(f"| {agent} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
