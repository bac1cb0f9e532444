"""The networks: a small GPT-OSS model built from settings, or weights the user has; loading and saving them."""

from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.settings import ModelSettings


def new_model(settings: ModelSettings, tokenizer: Any) -> Any:
    """The model that SFT starts from: `settings.base`, or a GPT-OSS model with random weights (float32)."""
    from transformers import GptOssConfig, GptOssForCausalLM

    from agentrl_resources.learning import attention, experts

    if settings.base is not None:
        return load_policy(settings.base)
    config = GptOssConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.expert_width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.head_dim,
        num_local_experts=settings.experts,
        num_experts_per_tok=settings.experts_per_token,
        sliding_window=settings.sliding_window,
        initializer_range=settings.initial_spread,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation=attention.register(),
    )
    model = GptOssForCausalLM(config)
    model.set_experts_implementation(experts.register())
    return model.to(device())


def load_policy(place: str | Path) -> Any:
    """A causal language model from a folder or a hub id, in float32 on CPU and as stored on an accelerator."""
    from transformers import AutoModelForCausalLM

    model = _load(AutoModelForCausalLM, place)
    model.config.output_router_logits = False
    return model


def new_scorer(place: str | Path) -> Any:
    """A token classifier with one output on top of the language model in `place`. It says 0 of every token yet."""
    import torch

    scorer = load_scorer(place)
    torch.nn.init.zeros_(scorer.score.weight)
    torch.nn.init.zeros_(scorer.score.bias)
    return scorer


def load_scorer(place: str | Path) -> Any:
    """A token classifier with one output."""
    from transformers import AutoModelForTokenClassification

    scorer = _load(AutoModelForTokenClassification, place, num_labels=1)
    scorer.config.output_router_logits = False
    return scorer


def load_tokenizer(place: str | Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place)


def repeatable(seed: int) -> None:
    """From here on the same work gives the same bits, on the same kind of processor with the same number of threads.

    Without it, gradients of an indexed tensor are added up by whichever thread comes first: two trainings of the same
    seed then part within some steps, and ended 5 points of success apart. Where an accelerator has no repeatable way to
    do something, torch warns and goes on.
    """
    import torch

    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it costs a third of the time, and nothing reads it


def device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _load(model_class: Any, place: str | Path, **arguments: Any) -> Any:
    from transformers.utils import logging

    from agentrl_resources.learning import attention, experts

    logging.disable_progress_bar()  # a bar for each of a gateway's policies is no news on its terminal
    try:
        model = model_class.from_pretrained(place, attn_implementation=attention.register(), **arguments)
    except OSError as error:
        raise AgentRLError(
            f"model `{place}` cannot be loaded: {error}. Name a folder, or a hub id whose weights this machine has."
        ) from error
    model.set_experts_implementation(experts.register())
    return model.to(device())
