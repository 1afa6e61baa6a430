"""Charging time: in simulation the world moves on while an answer is computed, by a recorded latency."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .budget import LatencyBudget


class Charge:
    """Which latency each answer is charged: drawn from recorded ones by (seed, chunk), never by the clock.

    The same seed and chunk cost the same on every run, whatever the batching or the number of workers.
    """

    def __init__(self, latencies_s: Sequence[float] | np.ndarray = ()):
        self._latencies_s = np.asarray(latencies_s, dtype=np.float64).ravel()
        if not (np.isfinite(self._latencies_s).all() and (self._latencies_s >= 0).all()):
            raise InputError("got latencies to charge that are negative or not finite, wanted seconds: measure again")

    @classmethod
    def none(cls) -> Charge:
        """Answers cost nothing: the world waits for them."""
        return cls()

    @property
    def is_free(self) -> bool:
        """Whether nothing is charged."""
        return self._latencies_s.size == 0

    @property
    def told(self) -> str:
        """What answers are charged, in words."""
        return "charged latencies"

    def latency_s(self, seed: int, chunk_index: int) -> float:
        """Seconds that the `chunk_index`-th answer of the episode `seed` takes."""
        if self.is_free:
            return 0.0
        # Python's own hash() changes from process to process.
        digest = hashlib.blake2b(f"{int(seed)}:{int(chunk_index)}".encode(), digest_size=8).digest()
        return float(self._latencies_s[int.from_bytes(digest, "little") % self._latencies_s.size])

    def of(self, seed: int, chunk_index: int, share: float, budget: LatencyBudget) -> tuple[float, int]:
        """Seconds that an answer takes which costs `share` of the usual one, and the ticks before it can be played."""
        latency_s = self.latency_s(seed, chunk_index) * share
        return latency_s, delay_ticks(latency_s, budget)


class FixedDelay(Charge):
    """Every answer takes `ticks` ticks of a budget, whatever its deadline."""

    def __init__(self, ticks: int, budget: LatencyBudget):
        if ticks < 0:
            raise InputError(f"got a delay of {ticks} ticks, wanted 0 or more")
        super().__init__([ticks * budget.period_s] if ticks else [])
        self.ticks = ticks

    @property
    def told(self) -> str:
        return f"a delay of {self.ticks} ticks"

    def of(self, seed: int, chunk_index: int, share: float, budget: LatencyBudget) -> tuple[float, int]:
        return self.ticks * budget.period_s, self.ticks


def delay_ticks(latency_s: float, budget: LatencyBudget) -> int:
    """Ticks that pass before an answer can be played: 0 within the deadline, else the periods it takes, rounded up."""
    # In whole nanoseconds, so that 60 ms of 20 ms periods are 3 ticks whatever the rounding of their quotient.
    latency_ns, period_ns = round(latency_s * 1e9), round(budget.period_s * 1e9)
    if latency_ns <= round(budget.deadline_s * 1e9):
        return 0
    return -(-latency_ns // period_ns)
