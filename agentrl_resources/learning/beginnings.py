"""What the conversations of a batch begin with alike, read once for all of them where a network learns or judges.

Instructions and the schemas of tools open every conversation of a workflow, and are often most of it. Their keys and
values are the same in every row, and so is what each row's gradient says of them: the beginning is one row, which the
rows behind it look back at, and their gradients add up in it. Nothing is approximated. Nothing is asked of the
beginning itself, in which an agent has chosen nothing. A small model keeps to one pass: for it two cost more.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from agentrl_resources.engines import is_small
from agentrl_resources.learning.ranks import ALONE
from agentrl_resources.learning.sharding import sharers

WORTH_IT = 32
"""Tokens below which a beginning is read with each row: a pass of its own costs about as much."""


def alike(model: Any, rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with alike, where these are worth a pass of their own; else 0."""
    if len(rows) < 2 or not _reads_apart(model):
        return 0
    # of lists that are sorted, what the first and the last begin with alike all others do too
    ends = zip(min(rows), max(rows), strict=False)
    return _worth_it(sum(1 for _ in takewhile(lambda both: both[0] == both[1], ends)))


def beginning(model: Any, ids: Any, where: Any = None) -> int:
    """The same of a padded batch (rows, tokens), up to the first place where something is asked (`where`, of bool)."""
    if len(ids) < 2 or not _reads_apart(model):
        return 0
    ends = _first(where.any(0)) if where is not None and where.any() else ids.shape[1] - 1
    different = (ids[:, :ends] != ids[:1, :ends]).any(0)
    return _worth_it(_first(different) if different.any() else ends)


def _reads_apart(model: Any) -> bool:
    """Not a small model, and none with gradient checkpointing: layers that are computed twice keep keys for nobody. Nor
    one that is split: the keys' gradient would come when a layer's weights are given back already."""
    return not (is_small(model) or model.is_activation_checkpointing) and sharers(model) is ALONE


def _worth_it(shared: int) -> int:
    return shared if shared >= WORTH_IT else 0


def _first(flags: Any) -> int:
    """Where the first true one is."""
    return int(flags.int().argmax())


def read_behind(network: Any, ids: Any, start: int) -> Any:
    """What a network says of a batch from token `start` on, up to which all rows are alike.

    Args:
        network: a model of transformers', with a head or without.
        ids: (rows, tokens), padded on the right.
        start: 0 reads whole rows.

    Returns:
        The network's own output, of `tokens - start` tokens.
    """
    if start == 0:
        return network(input_ids=ids, use_cache=False)
    from transformers import DynamicCache

    cache = DynamicCache(config=network.config.get_text_config())
    network(input_ids=ids[:1, :start], past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        layer.keys, layer.values = (one.expand(len(ids), -1, -1, -1) for one in (layer.keys, layer.values))
    return network(input_ids=ids[:, start:], past_key_values=cache, use_cache=True)
