"""The last look at a command, by differences of what was commanded alone; it knows nothing of how it was made.

Legend: Dc command numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..robots.contract import Limits
from .numbers import finite_numbers

SHARE = 1e-9  # by which a limit may be passed, beside round-off
ROUND_OFF = 4 * np.finfo(np.float64).eps


class Audit:
    """Commands a period apart, from rest; those that keep the limits become part of what the next is held against."""

    def __init__(self, limits: Limits, period_s: float) -> None:
        self._limits, self._period_s = limits, period_s
        self.begin(limits.low)

    def begin(self, position: np.ndarray) -> None:
        """At rest at `position` [Dc]."""
        limits, period_s = self._limits, self._period_s
        coarse = ROUND_OFF * np.max(np.abs([limits.low, limits.high, position]), 0)
        rates = {"speed": limits.speed, "acceleration": limits.acceleration, "jerk": limits.jerk}
        # name, most of the first, second, third difference
        self._most = [
            (name, (1 + SHARE) * rate * period_s**order + 2**order * coarse)
            for order, (name, rate) in enumerate(rates.items(), start=1)
        ]
        self._last = np.array(position, np.float64)
        self._differences = [np.zeros_like(self._last)] * 2  # the first and second of the last command

    @property
    def last(self) -> np.ndarray:
        """[Dc]: the last command that was let through."""
        return self._last.copy()

    def refuses(self, position: Any, velocity: Any) -> str | None:
        """Why a command is not to be sent, or None."""
        limits, count = self._limits, len(self._last)
        position, velocity = finite_numbers(position, count), finite_numbers(velocity, count)
        if position is None or velocity is None:
            return f"a command that is not {count} finite numbers"
        low, high = np.minimum(limits.low, self._last), np.maximum(limits.high, self._last)
        if (position < low).any() or (position > high).any():
            return f"a command outside the limits of position: {position.tolist()}"
        if (np.abs(velocity) > (1 + SHARE) * limits.speed).any():
            return f"a velocity beyond the limits: {velocity.tolist()}"
        differences = [position - self._last]
        for before in self._differences:
            differences.append(differences[-1] - before)
        for (name, most), difference in zip(self._most, differences, strict=True):
            if (np.abs(difference) > most).any():
                return f"a command beyond the limits of {name}, by differences of {difference.tolist()}"
        self._last, self._differences = position.copy(), differences[:2]
        return None
