"""Linear maps at the precision of a plan, and norms merged into the map after them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import Affine


class Linear(nn.Module):
    """x W^T + b, W laid out as it is read: [in, out] where `laid_out`; as int8 with a scale an output channel."""

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None

    def __init__(self, affine: Affine, precision: str, laid_out: bool) -> None:
        super().__init__()
        weight: Tensor = affine.weight
        scale: Tensor | None = None
        self.laid_out = laid_out and precision != "int8"
        if precision == "int8":
            scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
            weight = (weight / scale).round().to(torch.int8)
        self.register_buffer("scale", scale)
        self.register_buffer("weight", weight.t().contiguous() if self.laid_out else weight)
        self.register_buffer("bias", affine.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is not None:
            return F.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)
        if not self.laid_out:
            return F.linear(x, self.weight, self.bias)
        flat = x.reshape(-1, x.shape[-1])
        y = flat @ self.weight if self.bias is None else torch.addmm(self.bias, flat, self.weight)
        return y.view(*x.shape[:-1], -1)


class Normed(nn.Module):
    """A layer norm and the linear map after it; `scale`, `shift` None where they are merged into the map."""

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, linear: Linear, scale: Tensor | None, shift: Tensor | None) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.layer_norm(x, x.shape[-1:], self.scale, self.shift))


def normed_linear(norm: Affine, affine: Affine, precision: str, merge: bool) -> Normed:
    """linear(scale * n + shift) = (W scale) n + (b + W shift)."""
    if not merge:
        return Normed(Linear(affine, precision, False), norm.weight, norm.bias)
    merged = Affine(affine.weight * norm.weight, affine.bias + affine.weight @ norm.bias)
    return Normed(Linear(merged, precision, True), None, None)
