"""GPT-OSS attention through PyTorch's fused kernel, sinks and their gradient included.

A sink is one more key whose score is a learned number and whose value is zero. So it is given to the kernel as such:
a constant 1 is appended to every query and a 0 to every key, and one key holds the sink in that place. Nothing is
approximated, and the gradient reaches the sink through the key. (Its other way in, the additive mask, has no gradient
in the fused kernel.)
"""

from typing import Any

NAME = "fused_with_sinks"


def register() -> str:
    """Makes the attention known to transformers and returns its name, for `attn_implementation`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME


def attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Any, None]:
    """Transformers' attention interface.

    Args:
        module: the attention layer; its `sinks` has one number a head.
        query: (batch, heads, queries, size).
        key: (batch, key heads, keys, size).
        value: like `key`.
        attention_mask: additive, (batch or 1, 1, queries, keys), or None when everything is seen.
        scaling: factor of the scores.
        dropout: of the attention weights.

    Returns:
        (batch, queries, heads, size), and None in place of the weights.
    """
    import torch
    from torch.nn.functional import pad, scaled_dot_product_attention

    if query.shape[2] == 1:
        return _one_query(module, query, key, value, attention_mask, scaling), None
    groups = module.num_key_value_groups
    batch, heads, size = query.shape[0], query.shape[1], query.shape[3]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    sinks = (module.sinks / scaling).to(query.dtype).reshape(1, heads, 1, 1).expand(batch, -1, -1, -1)
    sink_key = torch.cat([query.new_zeros(batch, heads, 1, size), sinks], dim=-1)
    output = scaled_dot_product_attention(
        torch.cat([query, torch.ones_like(query[..., :1])], dim=-1),
        torch.cat([pad(key, (0, 1)), sink_key], dim=2),
        pad(value, (0, 1, 0, 1)),
        attn_mask=None if attention_mask is None else pad(attention_mask, (0, 1)),
        dropout_p=dropout,
        scale=scaling,
    )
    return output[..., :size].transpose(1, 2).contiguous(), None


def _one_query(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float) -> Any:
    """The same for a single query, as when decoding: without a copy of the cached keys and values."""
    import torch

    batch, heads, _, size = query.shape
    key_heads = key.shape[1]
    grouped = query.reshape(batch, key_heads, heads // key_heads, size)
    scores = grouped @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    sinks = module.sinks.to(scores.dtype).reshape(1, key_heads, -1, 1).expand(batch, -1, -1, -1)
    weights = torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[..., :-1]
    return (weights @ value).reshape(batch, 1, heads, size)
