"""Noise schedules: how much signal and noise each trained level holds.

A trained schedule is a table over training indices t = 0..T-1 with x_t = alpha_t x_0 + sigma_t eps and
alpha^2 + sigma^2 = 1. Flow matching has no table: x_t = (1 - t) x_0 + t eps for any t in [0, 1].
All arithmetic is float64.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Schedule:
    """A trained noise schedule. `alpha_bar`: [T] float64, the cumulative product of 1 - beta; empty for flow."""

    name: str
    alpha_bar: np.ndarray

    @property
    def train_levels(self) -> int:
        return len(self.alpha_bar)

    @property
    def is_flow(self) -> bool:
        return self.name == "flow"


def cosine_betas(train_levels: int) -> np.ndarray:
    """`squaredcos_cap_v2`: beta_i = min(1 - A((i+1)/T) / A(i/T), 0.999), A(u) = cos^2((u + 0.008) / 1.008 * pi / 2)
    (Nichol and Dhariwal 2021, equation 17)."""
    u = np.arange(train_levels + 1) / train_levels
    a = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - a[1:] / a[:-1], 0.999)


def linear_betas(train_levels: int) -> np.ndarray:
    """`linear`: Ho et al. 2020."""
    return np.linspace(1e-4, 0.02, train_levels)


def scaled_linear_betas(train_levels: int) -> np.ndarray:
    """`scaled_linear`: linear in the square root of beta (latent diffusion)."""
    return np.linspace(1e-4**0.5, 0.02**0.5, train_levels) ** 2


BETAS = {"squaredcos_cap_v2": cosine_betas, "linear": linear_betas, "scaled_linear": scaled_linear_betas}


def schedule(name: str, train_levels: int = 100) -> Schedule:
    """A schedule by its field name: squaredcos_cap_v2, linear, scaled_linear, or flow (which ignores the count)."""
    if name == "flow":
        return Schedule("flow", np.empty(0))
    if name not in BETAS:
        raise InputError(f"unknown noise schedule {name!r}; known: {', '.join([*BETAS, 'flow'])}")
    if train_levels < 1:
        raise InputError(f"a noise schedule needs at least 1 level, got {train_levels}")
    return Schedule(name, np.cumprod(1 - BETAS[name](train_levels)))
