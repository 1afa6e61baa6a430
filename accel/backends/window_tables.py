"""What the sliding window of `picard` knows of a program's steps before it runs: all of it scalars, by place.

Place j is the state after j steps, at level k = S - j; step j goes from place j to j + 1. Two linear models of a step
stand here, and neither decides what a chunk converges to:

    led      the truth is known to be g: x' = keep x + pull g + c_z z, the solver's step with x0 = g and
             eps = (x - a g) / s. What a state is thought to be before the network was asked there.
    slope    d x' / d x where the truth is spread around its mean by t in every dimension, so that
             d x0 / d x = a t^2 / (a^2 t^2 + s^2). What a step makes of a correction to the state it starts from.

Legend: S steps, P places of a window; a, s alpha and sigma of the level that a step starts from.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...diffusion import Program
from ...diffusion.solvers import EPS, X0, X, Z

SPREAD = 0.1  # t, in units of actions that lie in [-1, 1]; of 0, 0.05, 0.1, 0.2 and 0.3 it took the fewest iterations


class Tables(NamedTuple):
    """float32. Past the last step states stay as they are.

    carried  [S, P, P - 1]   what the residual of step j + l adds to the state after step j + i, j the window's place
    keep     [S + 1, P]      a state i places on, led: keep x + pull g + driven[j + i] - keep driven[j]
    pull     [S + 1, P]
    drives   [S + 1, S]      driven = drives @ noise, in the order of steps
    limit    [S, P - 1]      the variance of a step's noise; of solvers without noise DDPM's
    """

    carried: Tensor
    keep: Tensor
    pull: Tensor
    drives: Tensor
    limit: Tensor

    def to(self, device: torch.device | str) -> "Tables":
        return Tables(*(table.to(device) for table in self))


def window_tables(program: Program, window: int) -> Tables:
    """The tables of a program whose solver remembers nothing of earlier steps."""
    keep, pull, fresh, slope, variance = _steps(program)
    S = program.grid.steps
    carried, kept, pulled = np.zeros((S, window, window - 1)), np.ones((S + 1, window)), np.zeros((S + 1, window))
    limit, drives = np.zeros((S, window - 1)), np.zeros((S + 1, S))
    for j in range(S):
        drives[j + 1] = keep[j] * drives[j]
        drives[j + 1, j] = fresh[j]
        limit[j] = variance[j : j + window - 1]
        for i in range(1, window):
            carried[j, i, : i - 1] = slope[j + i] * carried[j, i - 1, : i - 1]
            carried[j, i, i - 1] = slope[j + i]
            kept[j, i] = keep[j + i - 1] * kept[j, i - 1]
            pulled[j, i] = keep[j + i - 1] * pulled[j, i - 1] + pull[j + i - 1]
    return Tables(*(torch.from_numpy(table).float() for table in (carried, kept, pulled, drives, limit)))


def _steps(program: Program) -> tuple[np.ndarray, ...]:
    """keep, pull, fresh, slope and variance, [2 S] each, by the place that a step starts from."""
    S, grid = program.grid.steps, program.grid
    a, s = grid.alpha[1:], grid.sigma[1:]
    a_next, s_next = grid.alpha[:-1], grid.sigma[:-1]
    c = program.table.next[1:]
    spread = a * SPREAD**2 / (a**2 * SPREAD**2 + s**2)
    steps = (
        c[:, X] + c[:, EPS] / s,
        c[:, X0] - c[:, EPS] * a / s,
        c[:, Z],
        c[:, X] + c[:, X0] * spread + c[:, EPS] * (1 - a * spread) / s,
        (s_next / s) ** 2 * (s**2 - (a / a_next * s_next) ** 2),
    )
    after = (1.0, 0.0, 0.0, 0.0, 0.0)
    return tuple(np.concatenate([value[::-1], np.full(S, rest)]) for value, rest in zip(steps, after, strict=True))
