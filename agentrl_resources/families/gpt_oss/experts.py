"""How the experts of a small mixture are computed: one by one where gradients are needed, all at once where not.

Transformers' default sorts tokens by expert, which pays where there are many. With few of them a training step is
shorter when each expert takes its tokens, as the model's own code does it. Decoding has few tokens a pass and spends
its time on handing out work, so every expert reads every token there, and the router's weights, which are 0 for those
that were not chosen, decide afterwards (benchmarks/training_step.py).
"""

from typing import Any

NAME = "few_experts"
FEW = 8
"""Experts up to which this pays on two cores."""


def register() -> str:
    """Makes the experts known to transformers and returns its name, for `experts_implementation`."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, experts)
    return NAME


def experts(module: Any, hidden: Any, chosen: Any, weights: Any) -> Any:
    """Transformers' experts interface, for experts stored (experts, inputs, outputs) with a bias, as GPT-OSS's are.

    Args:
        module: the experts of a layer.
        hidden: (tokens, width).
        chosen: (tokens, k), the experts of each token.
        weights: (tokens, k), what each one's answer counts.

    Returns:
        (tokens, width).
    """
    import torch
    from transformers.integrations.moe import grouped_mm_experts_forward

    if module.num_experts > FEW:
        return grouped_mm_experts_forward(module, hidden, chosen, weights)
    all_at_once = module.has_gate and module.has_bias and module.is_transposed and not torch.is_grad_enabled()
    if not all_at_once:
        return type(module).forward.__wrapped__(module, hidden, chosen, weights)  # the model's own code
    tokens, width = hidden.shape
    by_expert = weights.new_zeros(tokens, module.num_experts).scatter(1, chosen, weights)
    into = module.gate_up_proj.transpose(0, 1).reshape(width, -1)
    inner = torch.addmm(module.gate_up_proj_bias.reshape(-1), hidden, into).view(tokens, module.num_experts, -1)
    gated = module._apply_gate(inner) * by_expert[..., None]
    bias = by_expert @ module.down_proj_bias
    return torch.addmm(bias, gated.reshape(tokens, -1), module.down_proj.reshape(-1, width))
