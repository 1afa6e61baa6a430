"""What stands side by side in a bench: plans of ours and peers, each a way to answer an observation with a chunk."""

from abc import ABC, abstractmethod
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from .. import accel
from ..diffusion import Plan, Program, load_plan, run_chunk
from ..policy import TransformerForDiffusion
from .counting import chunk_bytes, chunk_flops, flops_of, weight_bytes
from .stock import StockTransformer, ddim_scheduler, ddpm_scheduler, sample

SEED = torch.tensor([7])


class Contestant(ABC):
    """One row. `answer` is what is timed; `at_noise` is its chunk at the keyed noise of a birth."""

    name: str
    backend: str = "eager"
    precision: str = "fp32"
    calls: int
    refreshes: float | None  # of a block in a chunk; None: decided as it runs
    rounds: bool = True  # whether it differs from the plain sampler by rounding alone
    sampler: Plan  # the plain plan of the same grid, solver and noise

    def gate(self) -> dict[str, float] | None:
        """calls and host_syncs of a chunk, the mean so far, of a program that decides them as it runs."""
        return None

    @abstractmethod
    def answer(self, obs: Tensor, birth: int) -> Tensor:
        """obs: [1, To, Do] on the device -> [1, T, Da], all of it computed when the device is waited for."""

    @abstractmethod
    def at_noise(self, obs: Tensor, birth: int) -> Tensor: ...

    @abstractmethod
    def work(self, obs: Tensor) -> dict[str, int]:
        """flops and bytes_read of a chunk."""


class Ours(Contestant):
    """A plan of ours on one network."""

    def __init__(self, name: str, plan: Plan, network: TransformerForDiffusion, device: torch.device) -> None:
        shape, positions = (network.config.action_dim,), network.config.horizon
        self.name, self.precision = name, plan.precision
        self.program = accel.build(network, plan, shape, positions, device=str(device))
        self.backend, self.calls = self.program.backend, self.program.calls
        self.refreshes = self.calls if self.program.refreshes is None else self.program.refreshes
        if getattr(self.program.rewritten, "dynamic", False):
            self.refreshes = None
        exact = all(accel.find_accelerator(accelerator).exact for accelerator in plan.accelerators)
        self.rounds = exact and plan.precision == "fp32"
        self.sampler = plan.plain()

    def gate(self) -> dict[str, float] | None:
        counts = getattr(self.program.rewritten, "counts", None)
        if counts is None or not counts.calls:
            return None
        chunks = (counts.calls + counts.skips) / self.program.grid.steps
        return {"calls": counts.calls / chunks, "host_syncs": counts.host_syncs / chunks}

    def answer(self, obs: Tensor, birth: int) -> Tensor:
        return run_chunk(self.program, self.program.prepare(obs), SEED, torch.tensor([birth]), device=obs.device)

    at_noise = answer

    def work(self, obs: Tensor) -> dict[str, int]:
        return {"flops": chunk_flops(self.program, obs), "bytes_read": chunk_bytes(self.program)}


class Peer(Contestant):
    """torch.nn.TransformerDecoder, sampled by the scheduler of diffusers, at the same weights: what users run today."""

    def __init__(self, solver: str, steps: int, network: TransformerForDiffusion, plain: Program) -> None:
        c = network.config
        self.sampler, self.calls, self.refreshes = load_plan(f"{solver}-{steps}"), steps, steps
        self.name = f"peer-{solver}-{steps}"
        self._solver, self._plain = solver, plain
        self._scheduler = {"ddpm": ddpm_scheduler, "ddim": ddim_scheduler}[solver](c.train_levels)
        device = network.pos_emb.device
        twin = StockTransformer(c.action_dim, c.observation_dim, c.horizon, c.n_obs_steps, c.width, c.layers, c.heads)
        twin.load_state_dict(network.state_dict(), strict=True)
        self._network = twin.eval().requires_grad_(False).to(device)

    def answer(self, obs: Tensor, birth: int) -> Tensor:
        noise = torch.randn((1, self._plain.rows, *self._plain.shape), device=obs.device)
        return sample(self._network, self._scheduler, obs, noise, self.calls)

    def at_noise(self, obs: Tensor, birth: int) -> Tensor:
        """The scheduler is handed the keyed noise of our plain plan, step by step."""
        levels = iter(range(self.calls - 1, -1, -1))

        def draw(*_: Any, **__: Any) -> Tensor:
            return self._noise(birth, next(levels), obs.device)

        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", draw):
            return sample(self._network, self._scheduler, obs, self._noise(birth, self.calls, obs.device), self.calls)

    def work(self, obs: Tensor) -> dict[str, int]:
        x, label = self._noise(0, self.calls, obs.device), torch.zeros((), device=obs.device)
        flops = flops_of(lambda: self._network(x, label, obs)) * self.calls
        return {"flops": flops, "bytes_read": weight_bytes(self._network) * self.calls}

    def _noise(self, birth: int, level: int, device: torch.device) -> Tensor:
        index = self._plain.index(torch.zeros(1, dtype=torch.int64))
        return self._plain.noise(SEED, torch.tensor([birth]), index, torch.full_like(index, level), device)
