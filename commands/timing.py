"""How long a policy's answers take at batch 1."""

from __future__ import annotations

import itertools

import numpy as np

from ..runtime import InpaintingPolicy, Policy, measure_latency

WARM_UP = 3


def answer_latencies(
    policy: Policy,
    windows: np.ndarray,
    seconds: float,
    least: int,
    most: int,
    inpaints: bool = False,
) -> np.ndarray:
    """[n] s: as many answers as take about `seconds`, from `least` to `most`, to windows [m, To, Do] in turn.

    inpaints: each is told to agree with the answer before, as beside execution. Rounded to the microsecond, as a trace
    keeps them, so that a run charged now and one charged from its trace are equal.
    """
    policy.reset([0], [0])
    following, last = itertools.cycle(windows[:, None]), None

    def answer() -> None:
        nonlocal last
        if inpaints and last is not None and isinstance(policy, InpaintingPolicy):
            policy.inpaint([0], [last[0, 1:]], [1])
        last = policy.predict_with_tail(next(following), [0])

    once = float(np.median(measure_latency(answer, n=3, warmup=WARM_UP)))
    n = int(np.clip(seconds / max(once, 1e-6), least, most))
    return np.round(measure_latency(answer, n=n, warmup=2) * 1e3, 3) * 1e-3
