"""What each stage will need of a base's memory, before any of it is loaded: an estimate from the sizes in its files.

For each stage, with w the bytes of the base's weights and l those of the weights that learn, all or the adapter's:

    networks       w each, or w once where all of them are adapters on it
    learning       3 l each: a gradient and AdamW's two moments; with `ppo.version_lag` 2 l for the policy before
    activations    tokens of a pass x layers x (17 hidden + 3 inner) numbers: what a layer keeps for its backward pass
                   (Korthikanti et al. 2022 count 17 numbers of the hidden size with attention that keeps no scores; a
                   gated layer keeps its gate, its other half and their product, each of the inner size); with gradient
                   checkpointing that of one layer, and the hidden size for each of the others
    logits         2 x what the head makes at once
    cache          tokens of all conversations at once x layers x 2 x key heads x their size; a server has its own

With `compute.sharded` a process that trains has its share of networks, each with a base of its own, and of what learns,
and beside them what a pass gathers: embeddings and head, and two layers.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.learning.adapters import folder_of
from agentrl_resources.learning.batching import LOGITS_AT_ONCE, TOKENS_PER_BATCH
from agentrl_resources.settings import Settings

GIB = 2**30
HEADROOM = 0.9
"""Share of the memory that is free which a stage may use."""


CHARACTERS_A_TOKEN = 3
"""At least, in the texts and calls of a conversation."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a causal language model, as its folder tells them."""

    parameters: int
    linear: int
    """Rows and columns of its linear layers, added up: an adapter has rank times as many weights."""
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    key_numbers: int
    """Key heads times their size."""
    bytes_each: int


def base_in(place: str, dtype: str | None) -> Sizes:
    """Reads configuration and the heads of the weight files, not the weights.

    Raises:
        AgentRLError: there is no such folder, or its configuration names no sizes.
    """
    from safetensors import safe_open
    from transformers import AutoConfig

    folder = folder_of(place)
    try:
        config: Any = AutoConfig.from_pretrained(folder).get_text_config()
    except (OSError, ValueError) as error:
        raise AgentRLError(f"base `{place}`: its config.json cannot be read: {error}") from error
    shapes: dict[str, list[int]] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as weights:
            shapes |= {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    linear = sum(sum(shape) for name, shape in shapes.items() if len(shape) == 2 and name.endswith("proj.weight"))
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Sizes(
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        linear=linear,
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        layers=config.num_hidden_layers,
        key_numbers=(getattr(config, "num_key_value_heads", None) or heads) * size,
        bytes_each=2 if dtype == "bfloat16" else 4,
    )


def needed(base: Sizes, settings: Settings) -> dict[str, float]:
    """GiB that a process of each stage needs at most, by the stage's name."""
    longest = settings.preferences.max_characters // CHARACTERS_A_TOKEN
    weights = base.parameters * base.bytes_each
    adapters = settings.policy.adapter == "lora"
    learning = settings.policy.rank * base.linear * base.bytes_each if adapters else weights
    a_pass = max(TOKENS_PER_BATCH, longest)
    a_layer = 17 * base.hidden + 3 * base.inner
    kept = a_layer + base.layers * base.hidden if settings.policy.gradient_checkpointing else base.layers * a_layer
    activations = a_pass * kept * base.bytes_each
    logits = 2 * min(LOGITS_AT_ONCE, a_pass * base.vocabulary) * 4

    def cache(conversations: int) -> int:
        if settings.engine.kind != "local":
            return 0
        return conversations * longest * base.layers * 2 * base.key_numbers * base.bytes_each

    def networks(count: int) -> int:
        return weights if adapters else count * weights

    def trained(count: int, learns: int) -> float:
        if not settings.compute.sharded:
            return networks(count) + learns * learning
        gathered = (2 * base.vocabulary * base.hidden + 2 * base.parameters / base.layers) * base.bytes_each
        return (count * weights + learns * learning) / settings.compute.training_processes + gathered

    lag = 2 * settings.ppo.version_lag
    stages = {
        "sft_checkpoint": trained(1, 3) + activations + logits,
        "reward_model": trained(1, 3) + activations,
        "ppo_policy": trained(4, 6 + lag) + activations + max(logits, cache(settings.ppo.episodes)),
        "rl_alternatives": networks(2) + cache(settings.evaluation.concurrency),
        "offline_eval_suite": networks(2) + 2 * cache(settings.evaluation.concurrency),
    }
    return {stage: needs / GIB for stage, needs in stages.items()}


def refuse_what_does_not_fit(stage: str, settings: Settings, free: float) -> str:
    """What a stage will need of the base that the settings name, in words, beside what is free (GiB).

    Raises:
        AgentRLError: it needs more than there is. It names the setting that would make it fit, if one would.
    """
    if settings.model.base is None:
        return ""
    base = base_in(settings.model.base, settings.model.dtype)
    needs = needed(base, settings)
    if stage not in needs:
        return ""
    if needs[stage] <= HEADROOM * free:
        largest = max(needs, key=lambda name: needs[name])
        return f"needs about {needs[stage]:.1f} of {free:.1f} GiB ({largest}, the largest stage: {needs[largest]:.1f})"
    helps = "Take a smaller base, or a machine with more memory"
    for what, changes in _WAYS_OUT.items():
        sections = {name: getattr(settings, name).model_copy(update=change) for name, change in changes.items()}
        less = needed(base, settings.model_copy(update=sections))[stage]
        if less <= HEADROOM * free:
            helps = f"With `{what}` it would be {less:.1f} GiB"
            break
    raise AgentRLError(
        f"model.base: {stage} would need about {needs[stage]:.1f} GiB, and {free:.1f} GiB are free here. {helps}"
    )


_WAYS_OUT: dict[str, dict[str, dict[str, Any]]] = {
    "policy.adapter: lora": {"policy": {"adapter": "lora"}},
    "policy.gradient_checkpointing: true": {"policy": {"gradient_checkpointing": True}},
    "ppo.episodes: 16": {"ppo": {"episodes": 16}},
    "evaluation.concurrency: 16": {"evaluation": {"concurrency": 16}},
}


def free_memory() -> float:
    """GiB that this process may still use, of the accelerator's where there is one."""
    import psutil  # type: ignore[import-untyped]
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0]) / GIB
    free = int(psutil.virtual_memory().available)
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (most := limit.read_text().strip()).isdigit():  # a container may have less than the machine
        free = min(free, int(most) - int(used.read_text()))
    return free / GIB
