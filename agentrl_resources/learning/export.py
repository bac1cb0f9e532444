"""A policy as a folder that other people's software reads: weights in one, tokenizer, template, model card.

What is written is proven before it has its name: transformers loads it as it loads anybody's model, without anything of
ours, and must give every token of some prompts the probability that our policy gives it. So must vLLM, where an
environment with it is named, to what it samples itself.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl_resources.engines import launched
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import full_disk_is_told, sync_tree, write_atomic
from agentrl_resources.learning.adapters import merged
from agentrl_resources.learning.model import load_policy, load_tokenizer, precision_of
from agentrl_resources.learning.published import Probe, probe

MAX_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.5}
"""Largest difference of a log-probability, in nats. Two ways to add up float32 part by some 1e-5; bfloat16 keeps eight
bits, and vLLM and transformers were seen to part by 0.69 at most where both use it."""

VLLM_PATIENCE = 600.0
"""Seconds for vLLM to load the folder."""
VLLM_CONTEXT = 4096
"""Tokens that it is told to make room for: a model's own maximum can ask for more memory than there is."""


@dataclass(frozen=True)
class Agreement:
    """How far the log-probabilities of the exported model and of the policy are apart, in nats."""

    tokens: int
    largest: float
    mean: float


def export_policy(
    policy: Path,
    folder: Path,
    card: str,
    prompts: Sequence[Sequence[int]],
    turn_ends: Sequence[int],
    temperature: float,
    vllm: str | None = None,
) -> tuple[Agreement, Probe | None]:
    """Writes a policy to `folder`, which must not exist or be empty, and proves it.

    Args:
        policy: its folder, whole weights or an adapter.
        folder: where it goes; it is there complete or not at all.
        card: the text of README.md.
        prompts: token ids to compare on.
        turn_ends: tokens at which generation stops.
        temperature: that it is used at.
        vllm: the interpreter of an environment that has vLLM, which is then asked too.

    Returns:
        What transformers makes of the folder, and what vLLM does if it was asked.

    Raises:
        AgentRLError: the folder is not empty, the disk is full, vLLM does not load it, or what was exported says
            something else than the policy.
    """
    from transformers import GenerationConfig

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AgentRLError(f"{folder} is not empty: name a folder that is not there yet")
    ours = load_policy(policy).eval()
    tokenizer = load_tokenizer(policy)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with full_disk_is_told(folder):
            partial.mkdir(parents=True)
            whole = merged(ours)
            whole.generation_config = GenerationConfig(
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                eos_token_id=list(turn_ends),
                pad_token_id=tokenizer.pad_token_id,
            )
            whole.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            write_atomic(partial / "README.md", card)
            found = agreement(ours, partial, prompts)
            served = None if vllm is None else _served(vllm, ours, partial, prompts[0], turn_ends)
            sync_tree(partial)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found, served


def _served(python: str, ours: Any, folder: Path, prompt: Sequence[int], turn_ends: Sequence[int]) -> Probe:
    """What vLLM makes of the folder; its log stays beside it when it fails."""
    log = folder.with_name(f"{folder.name.removesuffix('.partial').lstrip('.')}.vllm.log")
    log.unlink(missing_ok=True)
    context = min(VLLM_CONTEXT, ours.config.get_text_config().max_position_embeddings)
    arguments = ["--dtype", precision_of(folder), "--enforce-eager", "--max-model-len", str(context)]
    with launched(python, str(folder), arguments, log, False, 1, VLLM_PATIENCE) as server:
        found = probe(lambda: server.engine(server.capabilities().model, turn_ends), ours, prompt)
    log.unlink()
    return found


def agreement(ours: Any, folder: Path, prompts: Sequence[Sequence[int]]) -> Agreement:
    """Compares a policy with a folder, token by token, as transformers computes it.

    Raises:
        AgentRLError: they part by more than rounding.
    """
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").to(ours.device).eval()
    differences = []
    with torch.inference_mode():
        for ids in prompts:
            tokens = torch.tensor([ids], device=ours.device)
            said = [
                torch.log_softmax(model(input_ids=tokens, use_cache=False).logits[0, :-1].float(), -1).gather(
                    -1, tokens[0, 1:, None]
                )[:, 0]
                for model in (ours, theirs)
            ]
            differences.append((said[0] - said[1]).abs())
    apart = torch.cat(differences)
    found = Agreement(len(apart), float(apart.max()), float(apart.mean()))
    allowed = MAX_DIFFERENCE.get(str(ours.dtype).removeprefix("torch."), MAX_DIFFERENCE["bfloat16"])
    if not found.largest <= allowed:
        raise AgentRLError(
            f"the exported model is not the policy: a log-probability differs by {found.largest:.2g} nats, rounding "
            f"explains {allowed:g}. Nothing was written"
        )
    return found
