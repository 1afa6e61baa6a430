"""Inpainting by guidance: a chunk is pulled towards rows that are known, at every step of its denoising.

Real-time chunking (Black et al. 2025, equations 2 to 5) in x0 form. With x = a x0 + s eps, known rows Y and weights W,

    x0' = x0 + s min(beta, s / (a r^2)) J^T W (Y - x0),      r^2 = s^2 / (a^2 + s^2),      J = d x0 / d x

for normalised actions of deviation 1; with (a, s) = (tau, 1 - tau) it is theirs. J is the network's, by one
vector-Jacobian product a step, or the identity, which needs no autograd and runs on any network. Rows of weight 1 are
set, x0' = Y: in a causal network no gradient leads from them to the rows that follow, which see them all the same.

Legend: B lanes, N positions, D... the shape of one.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .executors import EAGER
from .programs import Look, Program

BETA = 5.0  # the paper's clip of the weight


class Guidance(NamedTuple):
    """The context of a guided chunk. known: [B, N, D...]; weight: [B, N], 0 where nothing is known."""

    context: Any
    known: Tensor
    weight: Tensor


def guided(program: Program, true_jacobian: bool) -> Program:
    """A program that takes a `Guidance` for its context. It runs eagerly, on whatever network `program` looks at.

    true_jacobian: autograd through that network; else the identity in its place.
    """
    return dataclasses.replace(program, rewritten=GuidedLook(program, true_jacobian), executor=EAGER)


def soft_mask(rows: int, left: int, fixed: int) -> np.ndarray:
    """[rows] weights of an answer's rows, of which `left` are known and `fixed` will have been played (RTC, equation
    5): 1 where fixed, then falling to nothing at the end of what is known."""
    i = np.arange(rows)
    c = (left - i) / max(left - fixed + 1, 1)
    return np.where(i < min(fixed, left), 1.0, np.where(i < left, c * np.expm1(c) / np.expm1(1.0), 0.0))


class GuidedLook:
    """What a program asks at a step, moved so that its x0 is pulled towards what is known."""

    def __init__(self, program: Program, true_jacobian: bool) -> None:
        self.look: Look = program.look
        self.grid, self.steps = program.grid, program.uniform
        self.true_jacobian = true_jacobian

    def __call__(self, x: Tensor, step: int, told: Guidance, index: Tensor, carry: Any) -> tuple[Tensor, Any]:
        from_x, from_out = (weight or 0.0 for weight in self.steps[step].x0)
        a, s = float(self.grid.alpha[step]), float(self.grid.sigma[step])
        gain = min(BETA, (a * a + s * s) / (a * s)) if a else BETA
        with torch.set_grad_enabled(self.true_jacobian):
            x = x.detach().requires_grad_(self.true_jacobian)
            out, carry = self.look(x, step, told.context, index, carry)
            x0 = from_x * x + from_out * out
            weight = told.weight.reshape(*told.weight.shape, *[1] * (x.dim() - 2))
            pull = weight * (told.known - x0.detach())
            if self.true_jacobian:
                [pull] = torch.autograd.grad(x0, x, pull)
        carry = carry.detach() if isinstance(carry, Tensor) else carry
        x, out, x0 = x.detach(), out.detach(), x0.detach()
        moved = torch.where(weight < 1, x0 + s * gain * pull, told.known)
        return out + (moved - x0) / from_out, carry
