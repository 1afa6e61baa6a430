"""How much work a plan is, in operations, bytes and memory, and what this machine can do at best."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..accel.caching import CachedLook
from ..accel.exact_network import ExactDecoder
from ..diffusion import Eager, Inputs, Program, run_chunk
from ..runtime import WallClock


def chunk_flops(program: Program, obs: Tensor, guess: Tensor | None = None) -> int:
    """2 x multiply-adds of matrix products and attention of a chunk, `prepare` included. guess: [lanes, R, D], where
    the plan's birth starts from one."""
    seed = torch.zeros(len(obs) if guess is None else len(guess), dtype=torch.int64)
    eager = dataclasses.replace(program, executor=Eager())
    return flops_of(lambda: run_chunk(eager, eager.prepare(obs), seed, seed, guess, obs.device))


def tick_flops(program: Program, obs: Tensor) -> int:
    """As `chunk_flops`, of one tick of an endless program that asks the whole network."""
    seed = torch.zeros(len(obs), dtype=torch.int64)
    eager = dataclasses.replace(program, ticked=None)
    state = eager.start(seed, seed, device=obs.device)
    return flops_of(lambda: eager.tick(state, Inputs(eager.prepare(obs))))


def chunk_bytes(program: Program) -> int:
    """Bytes of weights that a chunk reads: of the network at every call, of a cached branch where it is computed."""
    network, look = program.denoiser, program.rewritten
    if not (isinstance(look, CachedLook) and isinstance(network, ExactDecoder)):
        return weight_bytes(network) * program.calls
    branches = np.array(network.branch_bytes())
    outside = weight_bytes(network) - int(branches.sum())
    return outside * program.grid.steps + int(look.refresh.sum(1) @ branches)


def flops_of(work: Callable[[], Any]) -> int:
    """What torch counts while `work` runs."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def weight_bytes(network: Any) -> int:
    """Bytes of weights that one call of a network reads."""
    if hasattr(network, "weight_bytes"):
        return network.weight_bytes()
    return sum(p.numel() * p.element_size() for p in network.parameters())


class PeakMemory:
    """Growth of memory at its peak since `start`, in bytes: of the device's allocator on CUDA, else of the process,
    where the system tells and lets the mark be reset."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = None

    def start(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status_bytes("VmRSS")

    def stop(self) -> int | None:
        if self._before is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        peak = _status_bytes("VmHWM")
        return None if peak is None else max(0, peak - self._before)


def read_bandwidth(size: int, device: torch.device, repeats: int = 30) -> float:
    """Bytes a second at which `size` bytes are read again and again: what a step's weights could arrive at."""
    data = torch.ones(max(1, size // 4), device=device)
    return size / _best(lambda: data.sum(), device, repeats)


def product_rate(device: torch.device, repeats: int = 10) -> float:
    """fp32 operations a second of a large matrix product: what its arithmetic could run at."""
    n = 1024
    a = torch.ones(n, n, device=device)
    return 2 * n**3 / _best(lambda: a @ a, device, repeats)


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best(work, device: torch.device, repeats: int) -> float:
    clock, best = WallClock(), float("inf")
    inner = 50 if device.type == "cuda" else 1  # one launch between two waits would time the launch
    for _ in range(repeats):
        wait(device)
        start = clock.now()
        for _ in range(inner):
            work()
        wait(device)
        best = min(best, (clock.now() - start) / inner)
    return best


def _status_bytes(key: str) -> int | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None
