"""How long a policy's answers take at batch 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeGuard
from unittest import mock

import numpy as np
from torch import Tensor

from ..policy import CameraConfig, DiffusionPolicy
from ..runtime import InpaintingPolicy, Ledger, Policy, WallClock, measure_latency

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


def sees(policy: Policy) -> TypeGuard[DiffusionPolicy]:
    """Whether a policy looks at pictures."""
    config = policy.checkpoint.network.config if isinstance(policy, DiffusionPolicy) else None
    return isinstance(config, CameraConfig) and bool(config.cameras)


def timed(prepare: Callable[[Tensor], Any], seconds: list[float]) -> Callable[[Tensor], Any]:
    """`Denoiser.prepare`, which adds what each call takes to `seconds`."""
    from ..benchmarks.counting import wait

    clock = WallClock()

    def timed_prepare(obs: Tensor) -> Any:
        start_s = clock.now()
        context = prepare(obs)
        wait(obs.device)
        seconds.append(clock.now() - start_s)
        return context

    return timed_prepare


def stage_latencies(policy: Policy, windows: np.ndarray, n: int) -> dict[str, Any] | None:
    """{"encode", "denoise"}: n, p50, p99, p99.9 and max [ms] of each in n answers to windows [m, To, Do] in turn.

    encode: what is computed once an observation (`Denoiser.prepare`), its cameras above all; denoise: the rest of the
    answer. None for a policy without cameras, whose encoding is next to nothing.
    """
    if not sees(policy):
        return None
    network, clock, ledger = policy.program.denoiser, WallClock(), Ledger()
    encoded_s: list[float] = []

    def answer() -> dict[str, float]:
        encoded_s.clear()
        start_s = clock.now()
        policy.predict_with_tail(next(following), [0])
        whole_s = clock.now() - start_s
        return {"encode": sum(encoded_s), "inference": whole_s - sum(encoded_s)}

    policy.reset([0], [0])
    following = itertools.cycle(windows[:, None])
    with mock.patch.object(network, "prepare", timed(network.prepare, encoded_s)):
        measure_latency(answer, n, WARM_UP, clock, ledger)
    return {"encode": ledger.stage("encode").summary_ms(), "denoise": ledger.stage("inference").summary_ms()}
