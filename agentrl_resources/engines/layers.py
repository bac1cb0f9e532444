"""What is asked of a model by those who sample from it: its size, its kinds of attention, and their masks."""

from collections.abc import Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError

FULL, SLIDING = KINDS = ("full_attention", "sliding_attention")
"""Kinds of attention that the caches of this process know, by transformers' names."""


def layer_kinds(config: Any) -> list[str]:
    """The kind of attention of each layer.

    Raises:
        AgentRLError: a layer is of another kind: its past is no list of keys and values.
    """
    found = getattr(config, "layer_types", None)
    if not found:
        # models without a list have one kind throughout; what names a window uses it, unless it says otherwise
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        found = [SLIDING if window else FULL] * config.num_hidden_layers
    if unknown := sorted(set(found) - set(KINDS)):
        raise AgentRLError(
            f"a model with layers of {', '.join(unknown)} ({config.model_type}) cannot be sampled in this process, "
            f"which knows {' and '.join(KINDS)}: take another base model"
        )
    return list(found)


def masks_for(config: Any, masks: Mapping[str, Any]) -> Any:
    """A mask for each kind of attention, as a model with this configuration takes them: by kind where it has several,
    and else the one that counts."""
    kinds = set(layer_kinds(config))
    if getattr(config, "layer_types", None) and SLIDING in kinds:
        return dict(masks)
    return masks[kinds.pop()]


SMALL = 10_000_000
"""Parameters up to which a model is small: a pass costs handing out work, more than computing it."""


def is_small(model: Any) -> bool:
    return sum(weights.numel() for weights in model.parameters()) <= SMALL


def upcast(tensor: Any) -> Any:
    """Half precision as float32, which sums over tokens and vocabularies need; what is as fine or finer as it is."""
    return tensor.float() if tensor.element_size() < 4 else tensor
