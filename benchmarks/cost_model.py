"""What a refreshed branch costs here: chunks of some schedules timed in turn, and a linear model fitted to them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..accel.caching import CacheSchedule, sampler_of
from ..accel.caching.costs import CostModel, fit
from ..diffusion import Plan
from ..policy import ChunkNetwork
from .contestants import Contestant, Ours
from .policy import interleaved

CHUNKS = 15  # of each schedule; the least counts, which other work on the machine disturbs least


def measure_costs(network: ChunkNetwork, plan: Plan, obs: Tensor, tick: Callable[[], Any] = lambda: None) -> CostModel:
    """The cost of a cached chunk of `plan` (whose own cache is not read) on its backend here, at batch 1.

    obs: [1, ...] normalised, on the device; `tick` is called `rounds` times.
    """
    steps = plan.grid.steps
    blocks = network.blocks()
    kinds = [block.kind for block in blocks]
    schedules = probes(kinds, steps)
    names = tuple(block.name for block in blocks)
    probed: list[Contestant] = []
    with torch.inference_mode():
        for i, refresh in enumerate(schedules):
            probed.append(Ours(str(i), with_schedule(plan, refresh, names), network, obs.device))
            probed[-1].answer(obs, 0)
            tick()
        times = interleaved(probed, [obs], obs.device, CHUNKS, tick)
    return fit(schedules, kinds, [times[each.name].min() * 1e3 for each in probed])


def rounds(kinds: list[str], steps: int) -> int:
    """How often `measure_costs` calls `tick`: once a schedule, and once a round of the timing."""
    return len(probes(kinds, steps)) + 1 + CHUNKS


def probes(kinds: list[str], steps: int) -> list[np.ndarray]:
    """Schedules that tell the costs apart: whole ticks, few and many; each kind alone; and without any order."""
    rng = np.random.default_rng(0)
    few, many = _ticks(steps, steps // 20), _ticks(steps, steps // 8)
    first = np.arange(steps) == 0
    of = np.asarray(kinds)[:, None]
    ones = np.ones((len(kinds), 1), bool)
    found = [ones & first, ones & few, ones & many]
    found += [ones & first | ((of == kind) & many) for kind in dict.fromkeys(kinds)]
    found.append((rng.random((len(kinds), steps)) < 0.12) | (ones & first))
    unlike = {refresh.tobytes(): refresh for refresh in found if not refresh.all()}
    return list(unlike.values())


def with_schedule(plan: Plan, refresh: np.ndarray, blocks: tuple[str, ...]) -> Plan:
    """The plan with this schedule as its cache."""
    schedule = CacheSchedule(refresh=refresh, blocks=blocks, sampler=sampler_of(plan))
    settings = {**plan.accelerators.get("cache", {}), "schedule": schedule.to_dict()}
    settings = {key: value for key, value in settings.items() if key in ("schedule", "predictor")}
    return dataclasses.replace(plan, accelerators={**plan.accelerators, "cache": settings})


def _ticks(steps: int, count: int) -> np.ndarray:
    """[S] bool, at least two of them."""
    refreshed = np.zeros(steps, bool)
    refreshed[np.linspace(0, steps - 1, max(2, count)).round().astype(int)] = True
    return refreshed
