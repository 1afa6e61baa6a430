"""The staircase: which position has done how many solver steps after each tick.

With S steps a position, stagger s and blocks of b positions, block i has done, after tick m,

    n_i(m) = clip(m - i * min(s, S), 0, S)

steps. Stagger 0 denoises all blocks together, s >= S one after another, and what lies between is a diagonal:

    S = 6, s = 2, four blocks:   1000 2000 3100 4200 5310 6420 6531 6642 6653 6664 6665 6666
"""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Staircase:
    """`steps` S >= 1 solver steps a position, `stagger` s >= 0, `block` b >= 1 positions that move together."""

    steps: int
    stagger: int = 0
    block: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.stagger < 0 or self.block < 1:
            raise InputError(f"a staircase needs steps >= 1, stagger >= 0, block >= 1; got {self}")

    @property
    def lag(self) -> int:
        """Ticks that a block lags behind the one before it: min(s, S)."""
        return min(self.stagger, self.steps)

    @property
    def blocks_in_flight(self) -> int:
        """W = ceil(S / s): the most blocks that move in one tick of an endless stream."""
        if self.lag == 0:
            raise InputError("stagger 0 has no endless stream: all positions move together")
        return math.ceil(self.steps / self.lag)

    def ticks(self, positions: int) -> int:
        """Ticks until `positions` positions are clean: S + s (blocks - 1)."""
        return self.steps + self.lag * (math.ceil(positions / self.block) - 1)

    def done(self, tick, position):
        """n_i(m), steps done after `tick` ticks; arrays or tensors that broadcast. Positions before the
        stream's first are clean by definition."""
        before = position < 0
        return (tick - position // self.block * self.lag).clip(0, self.steps) * ~before + self.steps * before

    def table(self, positions: int) -> np.ndarray:
        """[ticks, positions] steps done after each tick of a finite program."""
        ticks = np.arange(1, self.ticks(positions) + 1)
        return self.done(ticks[:, None], np.arange(positions)[None])

    def finished(self, tick: int) -> int:
        """Positions of an endless stream that are clean after `tick` ticks."""
        return max(0, (tick - self.steps) // self.lag + 1) * self.block
