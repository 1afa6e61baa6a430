"""The suites `policy-cpu` and `policy-gpu`: one answer at batch 1, plans of ours beside what users run today.

Cases: `published`, the shape of Diffusion Policy's low-dimensional transformer (E 256, 8 layers, Tp 16, To 2, Ta 8),
with the shipped drawer-open weights on observations of its task; `large` (E 768, 12 layers), with random weights.

All rows of a case are timed in one process in turn (A B C A B C ...), so that whatever else the machine does falls on
all alike, after a warm-up that is not counted, each waiting for its device.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from .. import accel
from ..accel.caching import with_schedules
from ..diffusion import Plan, load_plan
from ..errors import InputError, RunFailed
from ..policy import TransformerConfig, TransformerForDiffusion, load_checkpoint
from ..runtime import LatencyBudget, WallClock
from .contestants import Contestant, Peer, ours
from .counting import PeakMemory, product_rate, read_bandwidth, wait

HERE = Path(__file__).resolve().parent
TRAINED = HERE.parent / "assets" / "diffusion-transformer" / "metaworld-drawer-open-v3"
OBSERVATIONS = HERE / "drawer-open-observations.safetensors"
PEER = "peer-ddpm-100"
PEERS = {PEER: ("ddpm", 100), "peer-ddim-10": ("ddim", 10)}

# name: (plan, changes to it)
PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm-100": ("ddpm-100", {}),
    "ddim-10": ("ddim-10", {}),
    "exact": ("exact", {}),
    "exact-eager": ("exact", {"backend": "eager"}),
    "exact-compile": ("exact", {"backend": "compile"}),
    "tf32": ("exact", {"precision": "tf32"}),
    "bf16": ("bf16", {}),
    "bf16-compile": ("bf16", {"backend": "compile"}),
    "int8": ("int8", {}),
}
SCHEDULERS = ("uniform", "uniform-last", "power", "bac", "global")
QUICK = (*PEERS, "exact", "exact-ddim-10", "bf16", "int8", "uniform-last-10")
CACHED = ("uniform-last-10", "bac-10", "global-10")
EXACT = ("exact", "exact-ddim-10")
FEW = ("exact-rti-3", "exact-anchored-2", "exact-diagonal-1")
ROWS = {
    "policy-cpu": (*PEERS, "ddpm-100", "ddim-10", "exact-eager", *EXACT, "bf16", "int8", *CACHED, *FEW),
    "policy-gpu": (*PEERS, *PLANS, "exact-ddim-10", *(f"{s}-{m}" for s in SCHEDULERS for m in (5, 10, 20)), *FEW),
}
CASES = ("published", "large")


def rows_of(suite: str, case: str, quick: bool) -> tuple[str, ...]:
    """The rows that are timed; on a CPU a large chunk takes seconds, so there the ones that a reader needs."""
    if case == "large":  # its weights are random, so nothing is calibrated for them
        rows = QUICK if quick or suite == "policy-cpu" else ROWS[suite]
        return tuple(row for row in rows if not row.startswith(("bac", "global")))
    return QUICK if quick else ROWS[suite]


def compared(case: str, quick: bool) -> int:
    """How many chunks `action_error` is taken over."""
    return 2 if quick or case == "large" else 16


def run_case(
    case: str,
    names: Iterable[str],
    budget: LatencyBudget,
    device: torch.device,
    n: int,
    tick: Callable[[], Any],
    chunks: int = 2,
) -> dict[str, Any]:
    """{"rows": one dictionary a name, "left_out": {name: why it cannot run here}, "fp32_flops_per_s": of a large
    product}; `tick` is called once a round. chunks: see `compared`."""
    network, observations = subject(case, device)
    contestants, peaks, left_out = _set_up(names, network, observations, device)
    errors = action_errors(contestants, network, observations[:chunks])
    times = interleaved(contestants, observations, device, n, tick)
    work = {c.name: c.work(observations[0]) for c in contestants}
    rates = _rates(work, contestants, device)
    p50 = {c.name: float(np.median(times[c.name])) for c in contestants}
    per_action = {c.name: p50[c.name] / c.executed for c in contestants}
    rows = [
        {
            "case": case,
            "plan": c.name,
            "backend": c.backend,
            "precision": c.precision,
            "ms": percentiles(times[c.name]),
            "ratio_to_peer": p50[c.name] / p50[PEER],
            "executed": c.executed,
            "per_action_ms": per_action[c.name] * 1e3,
            "per_action_ratio_to_peer": per_action[c.name] / per_action[PEER],
            **errors[c.name],
            "calls": c.calls,
            "refreshes": c.refreshes,
            "gate": c.gate(),
            **work[c.name],
            "peak_bytes": peaks[c.name],
            "bytes_floor_ms": work[c.name]["bytes_read"] / rates[c.name] * 1e3,
            "budget": {"name": budget.name, "met": budget.met(times[c.name])},
            "samples_ms": np.round(times[c.name] * 1e3, 3).tolist(),
        }
        for c in contestants
    ]
    return {"rows": rows, "left_out": left_out, "fp32_flops_per_s": product_rate(device)}


def percentiles(seconds: np.ndarray) -> dict[str, float | int | None]:
    """p50, p99 (a measured value; None below 50 samples, which cannot tell) and n."""
    ms = np.sort(seconds * 1e3)
    p99 = float(ms[int(np.ceil(0.99 * len(ms))) - 1]) if len(ms) >= 50 else None
    return {"p50": float(np.median(ms)), "p99": p99, "n": len(ms)}


# -- what is timed ----------------------------------------------------------------------------------------------------


def subject(case: str, device: torch.device) -> tuple[TransformerForDiffusion, list[Tensor]]:
    """A case's network and its normalised observations, [1, To, Do] each."""
    if case == "published":
        checkpoint = load_checkpoint(TRAINED, device)
        raw = load_file(OBSERVATIONS)["observations"].to(device)
        normalised = checkpoint.normaliser.normalise("obs", raw)
        assert isinstance(checkpoint.network, TransformerForDiffusion), "it is the shipped one"
        return checkpoint.network, list(normalised[:, None])
    shape = TransformerConfig(action_dim=7, observation_dim=32, width=768, layers=12, heads=12)
    generator = torch.Generator().manual_seed(0)
    network = TransformerForDiffusion(shape).eval().requires_grad_(False)
    for parameter in network.parameters():  # of a size that keeps activations near one
        if parameter.dim() == 2:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 / parameter.shape[1] ** 0.5)
    observations = torch.rand(8, 1, shape.n_obs_steps, shape.observation_dim, generator=generator) * 2 - 1
    return network.to(device), list(observations.to(device))


def plan_of(name: str) -> Plan:
    """A row's plan, by the row's name: one of PLANS, or any plan, its cache schedule taken from beside the weights of
    the published case."""
    base, changes = PLANS.get(name, (name, {}))
    return with_schedules(dataclasses.replace(load_plan(base), name=name, **changes), TRAINED)


def _set_up(
    names: Iterable[str], network: TransformerForDiffusion, observations: list[Tensor], device: torch.device
) -> tuple[list[Contestant], dict[str, int | None], dict[str, str]]:
    """Contestants, each with the memory that building it and its first chunk took, and why others cannot run here."""
    contestants: list[Contestant] = []
    peaks: dict[str, int | None] = {}
    left_out: dict[str, str] = {}
    for name in names:
        memory = PeakMemory(device)
        memory.start()
        try:
            contestant = _contestant(name, network, device)
            contestant.answer(observations[0], 0)
            wait(device)
        except (RuntimeError, InputError) as error:  # a compiler that is missing must not lose the other rows
            if name == PEER:
                raise
            left_out[name] = " ".join(str(error).split())[:300]
            continue
        peaks[name] = memory.stop()
        contestants.append(contestant)
    return contestants, peaks, left_out


def _contestant(name: str, network: TransformerForDiffusion, device: torch.device) -> Contestant:
    if name not in PEERS:
        return ours(name, plan_of(name), network, device)
    solver, steps = PEERS[name]
    plain = accel.build(network, load_plan(f"{solver}-{steps}"), (network.config.action_dim,), network.config.horizon)
    return Peer(solver, steps, network, plain)


# -- measures ---------------------------------------------------------------------------------------------------------


def action_errors(
    contestants: list[Contestant], network: TransformerForDiffusion, observations: list[Tensor]
) -> dict[str, dict[str, float | None]]:
    """For each the largest and the RMS difference of the executed actions, in the network's units of [-1, 1], from the
    plain network with the same grid, solver and noise in fp32: what rewriting, caching, precision or another
    implementation changed. None where there is nothing to compare with."""
    plain: dict[str, Tensor] = {}
    errors: dict[str, dict[str, float | None]] = {}
    for contestant in contestants:
        twin = contestant.twin(network, observations[0].device)
        if twin is None:
            errors[contestant.name] = {"action_error": None, "action_rms": None}
            continue
        sampler = json.dumps({**contestant.sampler.to_dict(), "name": type(twin).__name__})
        if sampler not in plain:
            plain[sampler] = _executed(twin, observations)
        difference = (_executed(contestant, observations) - plain[sampler]).double()
        largest = difference.abs().max().item()
        if not largest <= (accel.ROUNDING if contestant.rounds else 2.0):  # nor NaN
            raise RunFailed(f"{contestant.name} is {largest:g} away from its plain sampler, which is no rounding")
        errors[contestant.name] = {"action_error": largest, "action_rms": difference.pow(2).mean().sqrt().item()}
    return errors


def _executed(contestant: Contestant, observations: list[Tensor]) -> Tensor:
    """[observations, lanes, Ta, Da] at keyed noise."""
    rows = slice(contestant.first, contestant.first + contestant.executed)
    return torch.stack([contestant.at_noise(obs, i)[:, rows] for i, obs in enumerate(observations)])


def interleaved(
    contestants: list[Contestant], observations: list[Tensor], device: torch.device, n: int, tick: Callable[[], Any]
) -> dict[str, np.ndarray]:
    """Seconds of n answers each, taken in turn, after one round that is not counted."""
    clock = WallClock()
    times: dict[str, list[float]] = {c.name: [] for c in contestants}
    for i in range(1 + n):
        obs = observations[i % len(observations)]
        for contestant in contestants:
            wait(device)
            start = clock.now()
            contestant.answer(obs, i)
            wait(device)
            if i:
                times[contestant.name].append(clock.now() - start)
        tick()
    return {name: np.array(values) for name, values in times.items()}


def _rates(work: dict[str, dict[str, int]], contestants: list[Contestant], device: torch.device) -> dict[str, float]:
    """Bytes a second at which the weights of one call can be read over and over, for each row's own size."""
    sizes = {c.name: max(4, work[c.name]["bytes_read"] // c.calls) for c in contestants}
    measured = {size: read_bandwidth(size, device) for size in set(sizes.values())}
    return {name: measured[size] for name, size in sizes.items()}
