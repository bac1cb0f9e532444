"""What GPT-OSS does between its products, norm, rotation and gate, each with a backward pass written out.

Left to autograd, every multiplication keeps its inputs and has a backward pass of its own, and for a small model on a
processor that memory traffic is a large part of a training step (benchmarks/training_step.py). Half precision and
accelerators keep transformers' own code.
"""

from typing import Any

import torch
from transformers.models.gpt_oss import modeling_gpt_oss

_rotated_by_transformers = modeling_gpt_oss._apply_rotary_emb


def adopt(model: Any) -> Any:
    """Makes the norms and gates of a GPT-OSS model compute this way, in place; other models stay as they are."""
    modeling_gpt_oss._apply_rotary_emb = rotated
    for module in model.modules():
        if type(module) in _OURS:
            module.__class__ = _OURS[type(module)]
    return model


class Norm(modeling_gpt_oss.GptOssRMSNorm):
    """Root mean square norm: x / sqrt(mean(x²) + epsilon) * weight, over the last dimension."""

    def forward(self, hidden_states: Any) -> Any:
        if _written_out(hidden_states):
            return _Norm.apply(hidden_states, self.weight, self.variance_epsilon)
        return super().forward(hidden_states)


class Experts(modeling_gpt_oss.GptOssExperts):
    """Experts whose gate is (up + 1) * gate * sigmoid(alpha * gate), both of them clamped."""

    def _apply_gate(self, gate_up: Any) -> Any:
        if _written_out(gate_up):
            return _Gate.apply(gate_up, self.alpha, self.limit)
        return super()._apply_gate(gate_up)


_OURS = {modeling_gpt_oss.GptOssRMSNorm: Norm, modeling_gpt_oss.GptOssExperts: Experts}


def rotated(x: Any, cos: Any, sin: Any) -> Any:
    """Each pair of a head's numbers turned by its place's angle.

    Args:
        x: (batch, heads, tokens, size).
        cos: (batch, 1, tokens, size / 2); so is `sin`.

    Returns:
        Like `x`.
    """
    return _Rotation.apply(x, cos, sin) if _written_out(x) else _rotated_by_transformers(x, cos, sin)


def _written_out(tensor: Any) -> bool:
    return bool(tensor.device.type == "cpu" and tensor.element_size() >= 4)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, epsilon: float) -> Any:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = mean_square.add_(epsilon).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        normed, scale, weight = ctx.saved_tensors
        size = weight.shape[0]
        product = (gradient * normed).reshape(-1, size)
        along = (product @ weight).div_(size).view(scale.shape)  # mean of what the gradient has along the normed vector
        of_x = (gradient * weight).addcmul_(normed, along, value=-1).mul_(scale)
        return of_x, product.sum(0), None


class _Gate(torch.autograd.Function):
    """Columns alternate between gate and up."""

    @staticmethod
    def forward(ctx: Any, gate_up: Any, alpha: float, limit: float) -> Any:
        gate = gate_up[..., ::2].clamp(max=limit)
        up = gate_up[..., 1::2].clamp(-limit, limit).add_(1)
        open_by = torch.sigmoid(gate * alpha)
        gated = gate * open_by
        ctx.save_for_backward(gate_up, gate, up, open_by, gated)
        ctx.alpha, ctx.limit = alpha, limit
        return up * gated

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        gate_up, gate, up, open_by, gated = ctx.saved_tensors
        # d(gate s)/d gate = s (1 + alpha gate (1 - s)), with s the sigmoid
        slope = (1 - open_by).mul_(gate).mul_(ctx.alpha).add_(1).mul_(open_by)
        of_both = torch.empty_like(gate_up)
        of_both[..., ::2] = slope.mul_(up).mul_(gradient).masked_fill_(gate_up[..., ::2] > ctx.limit, 0)
        of_both[..., 1::2] = (gradient * gated).masked_fill_(gate_up[..., 1::2].abs() > ctx.limit, 0)
        return of_both, None, None


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, cos: Any, sin: Any) -> Any:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(gradient, cos, -sin), None, None  # back by the same angle


def _turned(x: Any, cos: Any, sin: Any) -> Any:
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half:]
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned[..., half:]).addcmul_(first, sin)
    return turned
