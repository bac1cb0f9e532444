"""GPT-OSS attention through PyTorch's fused kernels, sinks and their gradient included.

A sink is one more key whose score is a learned number and whose value is zero. All that it changes is the sum that the
weights are divided by, so attention without sinks is computed by the kernel, which tells that sum's logarithm, and
scaled (`_WithSinks`). In the backward pass the kernel is given the scaled output and the larger sum: its formula

    dS_ij = P_ij (dP_ij - D_i),   D_i = dO_i . O_i

is then that of attention with sinks, and what is left is the sink's own gradient, - sum_i P_ih D_i with P_ih the weight
of the sink. Nothing is approximated, and no key is added.
"""

from typing import Any

import torch

NAME = "fused_with_sinks"


def register() -> str:
    """Makes the attention known to transformers and returns its name, for `attn_implementation`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask_for)
    return NAME


def mask_for(
    q_length: int,
    kv_length: int,
    attention_mask: Any = None,
    allow_is_causal_skip: bool = True,
    local_size: int | None = None,
    **rest: Any,
) -> Any:
    """Transformers' mask interface: an additive mask, or None for whole sequences that see all before them."""
    from transformers.masking_utils import eager_mask

    whole = attention_mask is None and q_length == kv_length and (local_size is None or kv_length <= local_size)
    if whole and allow_is_causal_skip:
        return None
    if local_size is not None:
        rest["local_size"] = local_size
    return eager_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **rest)


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
        attention_mask: additive, (batch or 1, 1, queries, keys). With None a query sees every key up to its own place;
            a single one sees them all.
        scaling: factor of the scores.
        dropout: of the attention weights.

    Returns:
        (batch, queries, heads, size), and None in place of the weights.
    """
    if query.shape[2] == 1:
        return _one_query(module, query, key, value, attention_mask, scaling), None
    sinks = module.sinks.to(query.dtype)
    causal = module.is_causal and query.shape[2] == key.shape[2]
    if query.device.type == "cpu" and dropout == 0:
        # told of it beside the mask, the kernel leaves out what lies ahead
        output = _WithSinks.apply(query, key, value, sinks, attention_mask, causal, scaling)
    else:
        if causal and attention_mask is None:
            attention_mask = query.new_full((query.shape[2],) * 2, float("-inf")).triu(1)[None, None]
        output = _with_a_key_more(query, key, value, sinks, attention_mask, scaling, dropout)
    return output.transpose(1, 2).contiguous(), None


class _WithSinks(torch.autograd.Function):
    """Attention by the CPU's fused kernel, which takes fewer key heads than heads as they are."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, sinks: Any, mask: Any, causal: bool, scaling: float) -> Any:
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, log_sum = attend(query, key, value, 0.0, causal, attn_mask=mask, scale=scaling)
        with_sink = torch.logaddexp(log_sum, sinks[:, None].to(log_sum.dtype))
        output = output * (log_sum - with_sink).exp().unsqueeze(-1).to(output.dtype)
        ctx.save_for_backward(query, key, value, output, with_sink, sinks, mask)
        ctx.causal, ctx.scaling = causal, scaling
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        query, key, value, output, with_sink, sinks, mask = ctx.saved_tensors
        back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        gradient = gradient.contiguous()
        of_inputs = back(
            gradient, query, key, value, output, with_sink, 0.0, ctx.causal, attn_mask=mask, scale=ctx.scaling
        )
        sink_weights = (sinks[:, None] - with_sink).exp()
        of_sinks = -(sink_weights * (gradient * output).sum(-1)).sum((0, 2))
        return *of_inputs, of_sinks.to(sinks.dtype), None, None, None


def _with_a_key_more(
    query: Any, key: Any, value: Any, sinks: Any, attention_mask: Any, scaling: float, dropout: float
) -> Any:
    """The same on any device and with dropout: a constant 1 is appended to every query and a 0 to every key, and one
    key holds the sink in that place, through which its gradient comes. (Its other way in, the additive mask, has no
    gradient in the fused kernel.)
    """
    from torch.nn.functional import pad, scaled_dot_product_attention

    batch, heads, size = query.shape[0], query.shape[1], query.shape[3]
    if (groups := heads // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    last = (sinks / scaling).reshape(1, heads, 1, 1).expand(batch, -1, -1, -1)
    sink_key = torch.cat([query.new_zeros(batch, heads, 1, size), last], dim=-1)
    output = scaled_dot_product_attention(
        torch.cat([query, torch.ones_like(query[..., :1])], dim=-1),
        torch.cat([pad(key, (0, 1)), sink_key], dim=2),
        pad(value, (0, 1, 0, 1)),
        attn_mask=None if attention_mask is None else pad(attention_mask, (0, 1)),
        dropout_p=dropout,
        scale=scaling,
    )
    return output[..., :size]


def _one_query(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float) -> Any:
    """The same for a single query, as when decoding: without a copy of the cached keys and values."""
    batch, heads, _, size = query.shape
    key_heads = key.shape[1]
    grouped = query.reshape(batch, key_heads, heads // key_heads, size)
    scores = grouped @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    sinks = module.sinks.to(scores.dtype).reshape(1, key_heads, -1, 1).expand(batch, -1, -1, -1)
    weights = torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[..., :-1]
    return (weights @ value).reshape(batch, 1, heads, size)
