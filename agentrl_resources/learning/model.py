"""The networks: a small one built from settings, or weights the user has."""

from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import network_of, new_network
from agentrl_resources.settings import ModelSettings


def new_model(settings: ModelSettings, tokenizer: Any) -> Any:
    """The model that SFT starts from: `settings.base`, or a built-in one with random weights (float32)."""
    if settings.base is not None:
        return load_policy(settings.base)
    return _made_ours(new_network(settings, tokenizer))


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
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for each of a gateway's policies is no news on its terminal
    try:
        network = network_of(AutoConfig.from_pretrained(place).model_type)
        if network is not None:
            arguments["attn_implementation"] = network.attention()
        model = model_class.from_pretrained(place, **arguments)
    except (OSError, ValueError) as error:  # the latter: a kind of model that transformers does not know
        raise AgentRLError(
            f"model `{place}` cannot be loaded: {error}. Name a folder, or a hub id whose weights this machine has."
        ) from error
    return _made_ours(model)


def _made_ours(model: Any) -> Any:
    """The same network on this machine's device, with what its family computes in a way of ours."""
    network = network_of(model.config.model_type)
    return (model if network is None else network.adopt(model)).to(device())
