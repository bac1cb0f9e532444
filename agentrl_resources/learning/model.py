"""The networks: a small one built from settings, or weights the user has."""

import copy
import functools
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import network_of, new_network
from agentrl_resources.learning import sharding
from agentrl_resources.learning.adapters import (
    Base,
    add_adapter,
    base_of,
    has_adapter,
    is_adapter,
    load_adapter,
    save_adapter,
    shared_copy,
)
from agentrl_resources.learning.ranks import Ranks
from agentrl_resources.settings import ModelSettings, PolicySettings


def new_model(settings: ModelSettings, tokenizer: Any, policy: PolicySettings | None = None, seed: int = 0) -> Any:
    """The model that SFT starts from: `settings.base`, or a built-in one with random weights (float32).

    With a base and `policy.adapter: lora` the base stays as it is, and an adapter on it learns; `seed` is of its random
    first weights.
    """
    if settings.base is None:
        return _made_ours(new_network(settings, tokenizer))
    local = Path(settings.base)
    base = Base(str(local.resolve()) if local.is_dir() else settings.base, settings.dtype or _dtype_here())
    if policy is None or policy.adapter == "full":
        return _language_model(base.place, dtype=base.dtype)
    network = add_adapter(shared_copy(_base(base)), policy, seed)
    _STANDS_ON[network] = base
    return network


def load_policy(place: str | Path) -> Any:
    """A causal language model from a folder or a hub id, in the precision that the folder has."""
    if not is_adapter(place):
        return _language_model(place)
    base = base_of(Path(place))
    network = load_adapter(shared_copy(_base(base)), Path(place))
    _STANDS_ON[network] = base
    return network


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

    if not is_adapter(place):
        scorer = _load(AutoModelForTokenClassification, place, num_labels=1)
    else:
        base = base_of(Path(place))
        scorer = load_adapter(_scorer_on(_base(base)), Path(place))
        _STANDS_ON[scorer] = base
    scorer.config.output_router_logits = False
    return scorer


def precision_of(place: str | Path) -> str:
    """The precision that `load_policy` gives a policy, by torch's name; no weights are read."""
    from transformers import AutoConfig

    base = base_of(Path(place)) if is_adapter(place) else Base(str(place), "auto")
    if base.dtype != "auto":
        return base.dtype
    stored = AutoConfig.from_pretrained(base.place).get_text_config().dtype
    return str(stored or "float32").removeprefix("torch.")


def recomputed(network: Any, policy: PolicySettings) -> Any:
    """The same network, whose layers are computed once more in the backward pass if the settings say so; in place."""
    if policy.gradient_checkpointing:
        network.activation_checkpointing_enable({"use_reentrant": False})
    return network


def recompute_from_here(network: Any) -> None:
    """Has a network that is `recomputed` do so in the passes that follow, also where its dropout is off.

    transformers asks the mode of each layer, which whoever samples from the network sets anew.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    for layer in network.modules():
        if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
            layer.training = True  # this module's own flag: what is inside stays as it is


def in_parts(make: Callable[[], Any], ranks: Ranks) -> Any:
    """The network that `make` gives, split over the ranks where these are to split it.

    They make it one after the other, in the processor's memory, which so holds one whole network at a time.
    """
    if not ranks.sharded:
        return make()
    for number in range(ranks.count):
        if number == ranks.number:
            with _on_processor():
                network = sharding.shard(make(), ranks)
            _base.cache_clear()  # of which the network has its part now
        ranks.wait()
    return network


def whole(network: Any, ranks: Ranks) -> Any:
    """A network of ranks in one piece, for the first of them to write, and None for the others; all of them ask."""
    one = sharding.whole(network) if ranks.sharded or ranks.number == 0 else None
    if one is not None and network in _STANDS_ON:
        _STANDS_ON[one] = _STANDS_ON[network]
    return one


def save_network(network: Any, folder: Path) -> None:
    """Writes a network so that `load_policy` or `load_scorer` gives it back: all of it, or its adapter."""
    if has_adapter(network):
        save_adapter(network, folder, _STANDS_ON[network])
    else:
        network.save_pretrained(folder)


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


_STANDS_ON: MutableMapping[Any, Base] = WeakKeyDictionary()
_WHOLE_HERE: ContextVar[str | None] = ContextVar("whole_here", default=None)
"""Where networks are loaded to, if it is not the device that computes."""


@contextmanager
def _on_processor() -> Iterator[None]:
    token = _WHOLE_HERE.set("cpu")
    try:
        yield
    finally:
        _WHOLE_HERE.reset(token)


@functools.lru_cache(maxsize=1)
def _base(base: Base) -> Any:
    """A base, of which a process has one."""
    return _language_model(base.place, dtype=base.dtype)


def _dtype_here() -> str:
    """Processors compute in float32, accelerators as the weights are stored."""
    return "float32" if device().type == "cpu" else "auto"


def _language_model(place: str | Path, **arguments: Any) -> Any:
    from transformers import AutoModelForCausalLM

    model = _load(AutoModelForCausalLM, place, **arguments)
    model.config.output_router_logits = False
    return model


def _scorer_on(base: Any) -> Any:
    """A token classifier with one output around a copy of a language model's trunk, which shares its weights."""
    import torch
    from transformers import AutoModelForTokenClassification

    config = copy.deepcopy(base.config)
    config.num_labels = 1
    with torch.device("meta"):
        scorer = AutoModelForTokenClassification.from_config(config)
    setattr(scorer, scorer.base_model_prefix, shared_copy(base.base_model))
    scorer.score.to_empty(device=base.device)
    for tensor in scorer.score.parameters():
        torch.nn.init.zeros_(tensor)
    return scorer


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
    return (model if network is None else network.adopt(model)).to(_WHOLE_HERE.get() or device())
