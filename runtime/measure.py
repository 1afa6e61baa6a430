"""Timing answers one by one, with the warm-up kept apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .budget import LatencyBudget
from .clock import Clock, WallClock
from .ledger import Ledger


def measure_latency(
    answer: Callable[[], Mapping[str, float] | None],
    n: int = 100,
    warmup: int = 10,
    clock: Clock | None = None,
    ledger: Ledger | None = None,
    budget: LatencyBudget | None = None,
) -> np.ndarray:
    """Time `answer` n times at batch 1 -> latencies [n] in seconds, entered in the ledger as "chunk".

    `answer` computes one whole answer and waits for its device before it returns; it may return the seconds of its
    stages ({"encode": ..., "inference": ...}), which are entered too. With a budget, lateness and misses are entered,
    a miss with the stage that took longest as its cause. The first `warmup` answers go to the phase "warm-up".
    """
    clock = clock or WallClock()
    ledger = ledger if ledger is not None else Ledger()
    with ledger.phase("warm-up"):
        for _ in range(warmup):
            _time_one(answer, clock, ledger, budget)
    return np.array([_time_one(answer, clock, ledger, budget) for _ in range(n)])


def _time_one(
    answer: Callable[[], Mapping[str, float] | None], clock: Clock, ledger: Ledger, budget: LatencyBudget | None
) -> float:
    start_s = clock.now()
    stages_s = answer() or {}
    latency_s = clock.now() - start_s
    ledger.record("chunk", latency_s)
    for stage, seconds in stages_s.items():
        ledger.record(stage, seconds)
    if budget is not None:
        ledger.record("lateness", max(0.0, latency_s - budget.deadline_s))
        if latency_s > budget.deadline_s:
            ledger.miss(max(stages_s, key=lambda stage: stages_s[stage], default="chunk"))
    return latency_s
