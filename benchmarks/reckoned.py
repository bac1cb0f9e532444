"""What a run of larger models would need on accelerators, reckoned from their sizes. Nothing here is measured.

    .venv/bin/python benchmarks/reckoned.py

Memory is what a stage reckons before it loads anything (agentrl_resources/learning/memory.py), with the settings of
examples/models. Time is a roofline: what moves through memory and what is computed, whichever takes longer.

    a pass of B conversations   max((weights + B x cache) / bandwidth, 2 x active x B / peak), in seconds
    reading a token             2 x active / (peak x utilisation)
    learning from a token       (2 forward + 2 back, + 2 where all weights learn) x active / (peak x utilisation)

`weights` are those that B tokens ask for together: of a mixture's experts a share of 1 - (1 - k / n)^B, when k of n see
a token and each is as likely as the other. `active` are those that a token is multiplied with. Eight accelerators are
reckoned as if they divided all conversations and batches among them, and told one another nothing.
"""

import dataclasses
from pathlib import Path

from agentrl_resources.learning.memory import GIB, Sizes, needed
from agentrl_resources.settings import Settings, load_settings

EXAMPLES = Path(__file__).parents[1] / "examples" / "models"
BANDWIDTH, PEAK = 3.35e12, 989e12
"""Bytes and half-precision operations a second of an H100 SXM (its data sheet, without sparsity)."""
UTILISATION = 0.4
"""Share of the peak that reading and learning reach: an assumption."""
PRICE = 2.5
"""EUR for an hour of one accelerator: an assumption."""
SHARED, PROMPT, WRITTEN = 800, 1_400, 150
"""Tokens of an episode: those that all begin with, all that it reads, and those that it writes: an assumption."""


@dataclasses.dataclass(frozen=True)
class Model:
    """Sizes as the model's published configuration gives them; `active` parameters multiply each token."""

    file: str
    sizes: Sizes
    active: float
    experts: float = 0.0
    """Parameters of all experts, of which `chosen` see a token."""
    chosen: float = 1.0


def _rows_and_columns(layers: int, *shapes: tuple[int, int]) -> int:
    return layers * sum(rows + columns for rows, columns in shapes)


MODELS = {
    "Qwen3-4B": Model(
        "qwen3_4b.yaml",
        Sizes(
            parameters=4_022_000_000,
            linear=_rows_and_columns(
                36, (2560, 4096), (2560, 1024), (2560, 1024), (4096, 2560), (2560, 9728), (2560, 9728), (9728, 2560)
            ),
            vocabulary=151_936,
            hidden=2560,
            inner=9728,
            layers=36,
            key_numbers=8 * 128,
            bytes_each=2,
        ),
        active=4.02e9,
    ),
    "gpt-oss-20b": Model(
        "gpt_oss_20b.yaml",
        Sizes(
            parameters=20_900_000_000,
            linear=_rows_and_columns(24, (2880, 4096), (2880, 512), (2880, 512), (4096, 2880)),
            vocabulary=201_088,
            hidden=2880,
            inner=4 * 2880,  # four experts see a token
            layers=24,
            key_numbers=8 * 64,
            bytes_each=2,
        ),
        active=3.6e9,
        experts=19.1e9,  # 24 layers of 32 experts: 3 x 2880 x 2880 each
        chosen=4 / 32,
    ),
}


def cache_bytes(sizes: Sizes) -> float:
    """Keys and values of one whole conversation."""
    return (PROMPT + WRITTEN) * sizes.layers * 2 * sizes.key_numbers * sizes.bytes_each


def tokens_a_second(model: Model, conversations: int) -> float:
    asleep = model.experts * (1 - model.chosen) ** conversations
    weights = (model.sizes.parameters - asleep) * model.sizes.bytes_each
    moving = (weights + conversations * cache_bytes(model.sizes)) / BANDWIDTH
    return conversations / max(moving, 2 * model.active * conversations / PEAK)


def minutes(model: Model, settings: Settings, devices: int) -> dict[str, float]:
    """Minutes of each kind of work in a run."""
    evaluation, ppo = settings.evaluation, settings.ppo
    of_arm = evaluation.capability_tasks + evaluation.adversarial_tasks + 2 * evaluation.greedy_tasks
    sampled = {
        "on-policy pairs": (settings.on_policy.tasks + settings.on_policy.holdout_tasks)
        * settings.on_policy.samples_per_task,
        "rollouts": (ppo.iterations + 1) * ppo.episodes,
        "evaluation": 2 * of_arm,
    }
    train = settings.preferences.pairs * (1 - settings.preferences.holdout_percent / 100)
    pairs = settings.reward.history_pairs + settings.on_policy.tasks * settings.on_policy.samples_per_task / 2
    # a row's beginning is read once for those of its pass
    row = PROMPT - SHARED + WRITTEN
    learned = {
        "SFT": train * settings.sft.epochs * row,
        "reward model": 2 * pairs * settings.reward.epochs * row,
        "PPO updates": 2 * ppo.iterations * ppo.episodes * ppo.epochs * row,
    }
    judged = 3 * (ppo.iterations + 1) * ppo.episodes * row  # by policy, reference and critic
    full = settings.policy.adapter == "full"
    reading = 2 * model.active / (PEAK * UTILISATION)
    learning = (6 if full else 4) * model.active / (PEAK * UTILISATION)
    at_once = evaluation.concurrency
    spent = {
        what: episodes * (WRITTEN / tokens_a_second(model, at_once) + (PROMPT - SHARED) * reading)
        for what, episodes in sampled.items()
    }
    spent |= {what: tokens * learning for what, tokens in learned.items()}
    spent["PPO updates"] += judged * reading
    return {what: seconds / 60 / devices for what, seconds in spent.items()}


def main() -> None:
    for name, model in MODELS.items():
        settings = load_settings(EXAMPLES / model.file)
        sizes = model.sizes
        print(f"\n{name} ({model.file}), reckoned\n\n| part | GiB |\n|---|--:|")
        print(f"| weights, once | {sizes.parameters * sizes.bytes_each / GIB:.1f} |")
        print(f"| adapter, its gradient and moments | {4 * settings.policy.rank * sizes.linear * 2 / GIB:.2f} |")
        print(f"| keys and values of a conversation | {cache_bytes(sizes) / GIB:.3f} |")
        for stage, gib in needed(sizes, settings).items():
            print(f"| `{stage}` | {gib:.1f} |")
        recomputed = {"policy": settings.policy.model_copy(update={"gradient_checkpointing": True})}
        less = needed(sizes, settings.model_copy(update=recomputed))
        print(f"| `sft_checkpoint` with `gradient_checkpointing` | {less['sft_checkpoint']:.1f} |")
        print("\n| conversations at once | tokens a second, at most |\n|--:|--:|")
        for conversations in (1, 8, 32, 128):
            print(f"| {conversations} | {tokens_a_second(model, conversations):,.0f} |")
        print("\n| minutes | one | eight, divided evenly |\n|---|--:|--:|")
        one, eight = (minutes(model, settings, devices) for devices in (1, 8))
        for what in one:
            print(f"| {what} | {one[what]:.1f} | {eight[what]:.1f} |")
        total = [sum(one.values()), sum(eight.values())]
        print(f"| all | {total[0]:.0f} | {total[1]:.0f} |")
        print(f"| EUR | {total[0] / 60 * PRICE:.2f} | {8 * total[1] / 60 * PRICE:.2f} |")


if __name__ == "__main__":
    main()
