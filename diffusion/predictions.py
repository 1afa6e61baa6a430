"""What a network's output says about x: every parameterisation turned into x0 and eps, as coefficients a level.

x = a x0 + s eps

epsilon    out = eps             x0 = (x - s out) / a
sample     out = x0              eps = (x - a out) / s
v          out = a eps - s x0    x0 = (a x - s out) / (a^2 + s^2)
velocity   out = eps - x0        x0 = (x - s out) / (a + s)       (flow matching)
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .grids import Grid


@dataclass(frozen=True)
class Conversion:
    """x0 = x0_x x + x0_out out; eps = eps_x x + eps_out out. Each [S + 1] float64; entry 0 is never used."""

    x0_x: np.ndarray
    x0_out: np.ndarray
    eps_x: np.ndarray
    eps_out: np.ndarray


def conversion(prediction: str, grid: Grid) -> Conversion:
    """The table for one parameterisation over a grid."""
    a, s = grid.alpha.copy(), grid.sigma.copy()
    a[0], s[0] = 1.0, 1.0  # clean is never denoised; keep its row finite
    one, zero = np.ones_like(a), np.zeros_like(a)
    if prediction == "epsilon":
        return Conversion(1 / a, -s / a, zero, one)
    if prediction == "sample":
        return Conversion(zero, one, 1 / s, -a / s)
    if prediction == "v":
        norm = a**2 + s**2
        return Conversion(a / norm, -s / norm, s / norm, a / norm)
    if prediction == "velocity":
        return Conversion(1 / (a + s), -s / (a + s), 1 / (a + s), a / (a + s))
    raise InputError(f"unknown prediction {prediction!r}; known: epsilon, sample, v, velocity")
