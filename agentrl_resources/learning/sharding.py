"""Networks whose weights are split over the ranks that train together (FSDP2): of each tensor every rank keeps a part.

Gradients and what the optimizer remembers are split with them. A layer's weights are gathered for as long as it
computes, so every rank has to make the same forward and backward passes in the same order: `evened` sees to that, and
no batch's beginning is read in a pass of its own (`beginnings.py`). Gradients are summed on the way back, as losses are
sums divided by the number of all ranks together. What is written is always whole, and does not tell how it was made.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from agentrl_resources.learning.ranks import ALONE, Ranks

T = TypeVar("T")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Split:
    """`shape`: the network as it was, with weights that hold no numbers."""

    ranks: Ranks
    shape: Any


_SPLIT: MutableMapping[Any, _Split] = WeakKeyDictionary()


def sharers(network: Any) -> Ranks:
    """The ranks that a network is split over; one that is whole has none to ask."""
    return _SPLIT[network].ranks if network in _SPLIT else ALONE


def shard(network: Any, ranks: Ranks) -> Any:
    """Leaves each rank its part of a network of transformers' that all of them have whole, in place.

    Layer by layer it goes to the device that the rank trains on, which so never holds more than one of them whole.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
    from transformers.modeling_layers import GradientCheckpointingLayer

    empty = {
        id(weights): torch.nn.Parameter(weights.detach().to("meta"), requires_grad=weights.requires_grad)
        for weights in network.parameters()
    }
    _SPLIT[network] = _Split(ranks, copy.deepcopy(network, empty))
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (ranks.count,))
    for layer in [one for one in network.modules() if isinstance(one, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh)
    # also what follows the last layer is given back after each pass: else a pass without gradient would leave it whole
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    network.as_one_pass = _call
    register_fsdp_forward_method(network, "as_one_pass")
    return network


def as_one_pass(network: Any, work: Callable[[], Answer]) -> Answer:
    """The result of `work`, which asks parts of a network, such as trunk and head, in one forward pass."""
    return work() if sharers(network) is ALONE else network.as_one_pass(work)


def evened(network: Any, passes: Sequence[T], idle: T) -> Iterator[tuple[T, float]]:
    """The passes that this rank has to make through a network, each with what it counts: 1.

    Who has fewer than others of those that the network is split over goes on with `idle`, for nothing: 0.
    """
    ranks = sharers(network)
    for place in range(ranks.most(len(passes))):
        yield (passes[place], 1.0) if place < len(passes) else (idle, 0.0)


def whole(network: Any) -> Any:
    """The network in one piece, in the processor's memory, where this is the first of its ranks, and None elsewhere.

    Each of them has to ask. A network that is not split is itself.
    """
    if network not in _SPLIT:
        return network
    ranks, shape = _SPLIT[network].ranks, _SPLIT[network].shape
    gathered = together(dict(network.named_parameters()), ranks)
    if gathered is None:
        return None
    import torch

    weights = {
        id(empty): torch.nn.Parameter(gathered[name], requires_grad=empty.requires_grad)
        for name, empty in shape.named_parameters()
    }
    return copy.deepcopy(shape, weights)


def together(state: Any, ranks: Ranks) -> Any:
    """Dictionaries and lists of tensors with all that are split in one piece: for the first rank, None for the others.

    Each of them has to ask; where nothing is split, the first rank is given what stands there.
    """
    if isinstance(state, Mapping):
        parts = {name: together(part, ranks) for name, part in state.items()}
        return parts if ranks.number == 0 else None
    if isinstance(state, list):
        items = [together(part, ranks) for part in state]
        return items if ranks.number == 0 else None
    if is_split(state):
        gathered = full(state.detach())
        return gathered.cpu() if ranks.number == 0 else None
    return state if ranks.number == 0 else None


def full(tensor: Any) -> Any:
    """A tensor in one piece. Each of the ranks that it is split over has to ask."""
    return tensor.full_tensor() if is_split(tensor) else tensor


def is_split(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")


def split_like(tensor: Any, other: Any) -> Any:
    """This rank's part of a whole tensor, where another one, of the same shape, is split; else the tensor itself."""
    if not is_split(other) or is_split(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # every rank has the whole of it, so nobody needs to be told
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def into_optimizer(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Gives an optimizer the state that `together` told of."""
    learn = [weights for group in optimizer.param_groups for weights in group["params"]]
    parts = {
        place: {
            name: split_like(value, learn[place]) if getattr(value, "shape", None) == learn[place].shape else value
            for name, value in entries.items()
        }
        for place, entries in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _call(work: Callable[[], Answer]) -> Answer:
    return work()
