"""What stands side by side in a bench: plans of ours and peers, each a way to answer an observation.

An answer is a chunk from noise, or, for plans that go on from what they have, what one answer costs in steady state:

    rti-K       a warm chunk, from the previous one, shifted by the actions that were used
    draft-K     a draft of a bank or a regression of the shipped size, found and polished
    anchored-K  a chunk from every anchor of a network with anchors, and the pick of one
    diagonal-H  one tick of a full queue

Legend: T rows, Da, To observation steps, Do; K anchors, H rows of a block.
"""

import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from .. import accel
from ..diffusion import Chunk, Inputs, Plan, Program, State, load_plan, run_chunk, run_scored_chunk, shifted
from ..errors import InputError
from ..policy import ActionNetwork, AnchoredConfig, AnchoredDecoder, StreamingTransformer, TransformerForDiffusion
from ..policy.diagonal_policy import refuse_longer, refuse_other_queues
from ..policy.drafts import Drafts
from .counting import chunk_bytes, chunk_flops, flops_of, tick_flops, weight_bytes
from .stock import StockTransformer, ddim_scheduler, ddpm_scheduler, sample

SEED = torch.tensor([7])
ANCHORED_PRESET = Path(__file__).resolve().parent.parent / "configs" / "training" / "anchored.yaml"


class Contestant(ABC):
    """One row. `answer` is what is timed; `at_noise` is its chunk at the keyed noise of a birth."""

    name: str
    backend: str = "eager"
    precision: str = "fp32"
    calls: int
    refreshes: float | None  # of a block in an answer; None: decided as it runs
    rounds: bool = True  # whether it differs from the plain sampler by rounding alone
    sampler: Plan  # the plain plan of the same grid, solver and noise
    executed: int  # actions that one answer gives
    first: int  # row of `at_noise` that is the first of them

    def gate(self) -> dict[str, float] | None:
        """calls and host_syncs of a chunk, the mean so far, of a program that decides them as it runs."""
        return None

    def twin(self, network: TransformerForDiffusion, device: torch.device) -> "Contestant | None":
        """The same sampler on the plain network, which errors are taken from; None: errors would say nothing."""
        return Ours("twin", self.sampler, network, device)

    @abstractmethod
    def answer(self, obs: Tensor, birth: int) -> Tensor:
        """obs: [1, To, Do] on the device -> [1, T, Da], all of it computed when the device is waited for."""

    @abstractmethod
    def at_noise(self, obs: Tensor, birth: int) -> Tensor: ...

    @abstractmethod
    def work(self, obs: Tensor) -> dict[str, int]:
        """flops and bytes_read of an answer."""


class Ours(Contestant):
    """A plan of ours on one network."""

    endless = False

    def __init__(self, name: str, plan: Plan, network: ActionNetwork, device: torch.device) -> None:
        c = network.config
        self.name, self.precision, self.network, self.plan = name, plan.precision, network, plan
        self.first, self.executed = network.first_row, plan.execute or c.n_action_steps
        if self.executed > c.horizon - self.first:
            most = c.horizon - self.first
            raise InputError(f"plan {name!r} executes {self.executed} actions of {most} that are predicted")
        positions = None if self.endless else c.horizon
        self.program = accel.build(network, plan, (c.action_dim,), positions, device=str(device))
        self.backend = self.program.backend
        self.calls = self.program.calls_per_tick if self.endless else self.program.calls
        self.refreshes = self.calls if self.program.refreshes is None else self.program.refreshes
        if self.program.dynamic:
            self.refreshes = None
        self.rounds = accel.only_rounds(plan)
        self.sampler = plan.plain()

    def gate(self) -> dict[str, float] | None:
        counts = getattr(self.program.rewritten, "counts", None)
        if counts is None or not counts.calls:
            return None
        chunks = (counts.calls + counts.skips) / self.program.grid.steps
        return {"calls": counts.calls / chunks, "host_syncs": counts.host_syncs / chunks}

    def answer(self, obs: Tensor, birth: int) -> Tensor:
        return run_chunk(self.program, self.program.prepare(obs), SEED, torch.tensor([birth]), device=obs.device)

    def at_noise(self, obs: Tensor, birth: int) -> Tensor:
        return self.answer(obs, birth)

    def work(self, obs: Tensor) -> dict[str, int]:
        return {"flops": chunk_flops(self.program, obs), "bytes_read": chunk_bytes(self.program)}


class Steady(Ours):
    """An answer that goes on from something: its error is told against the same plan, plain, on the same network."""

    def twin(self, network: TransformerForDiffusion, device: torch.device) -> Contestant | None:
        if self.plan == self.sampler:
            return None
        return type(self)("twin", self.sampler, self.network, device)


class Warm(Steady):
    """A warm start: the previous answer, shifted by the executed actions, and the plan's few levels."""

    def __init__(self, name: str, plan: Plan, network: ActionNetwork, device: torch.device) -> None:
        super().__init__(name, plan, network, device)
        c = network.config
        self._cold = accel.build(network, load_plan(plan.guess.cold), (c.action_dim,), c.horizon, device=str(device))
        self._previous: Tensor | None = None

    def answer(self, obs: Tensor, birth: int) -> Tensor:
        if self._previous is None:  # in the round that is not counted
            self._previous = self._from_noise(obs, birth)
        self._previous = self._from(self._previous, obs, birth)
        return self._previous

    def at_noise(self, obs: Tensor, birth: int) -> Tensor:
        """From the cold plan's answer to the same observation."""
        return self._from(self._from_noise(obs, birth), obs, birth)

    def work(self, obs: Tensor) -> dict[str, int]:
        guess = obs.new_zeros(1, self.program.rows, *self.program.shape)
        return {"flops": chunk_flops(self.program, obs, guess), "bytes_read": chunk_bytes(self.program)}

    def _from(self, previous: Tensor, obs: Tensor, birth: int) -> Tensor:
        guess = shifted(previous[0], self.executed)[None]
        return run_chunk(self.program, self.program.prepare(obs), SEED, torch.tensor([birth]), guess, obs.device)

    def _from_noise(self, obs: Tensor, birth: int) -> Tensor:
        return run_chunk(self._cold, self._cold.prepare(obs), SEED, torch.tensor([birth]), device=obs.device)


class Draft(Steady):
    """A draft, found in a bank or by a regression, noised and polished."""

    def __init__(self, name: str, plan: Plan, network: ActionNetwork, device: torch.device) -> None:
        super().__init__(name, plan, network, device)
        drafts = Drafts.random(network.config).to(device)
        self._drafted = drafts.nearest if plan.guess.source == "nearest" else drafts.regressed

    def answer(self, obs: Tensor, birth: int) -> Tensor:
        context = self.program.prepare(obs)
        return run_chunk(self.program, context, SEED, torch.tensor([birth]), self._drafted(obs), obs.device)

    def work(self, obs: Tensor) -> dict[str, int]:
        return {"flops": chunk_flops(self.program, obs, self._drafted(obs)), "bytes_read": chunk_bytes(self.program)}


class Anchored(Steady):
    """Every anchor a lane, and the chunk of the highest confidence."""

    network: AnchoredDecoder

    def answer(self, obs: Tensor, birth: int) -> Tensor:
        chunk = self._chunks(obs, birth)
        assert chunk.score is not None, "the network has confidences"
        best = int(chunk.score.softmax(0).argmax())
        return chunk.x[best : best + 1]

    def at_noise(self, obs: Tensor, birth: int) -> Tensor:
        """[K, T, Da]: all of them, because rounding may change the pick of one."""
        return self._chunks(obs, birth).x

    def work(self, obs: Tensor) -> dict[str, int]:
        return {"flops": chunk_flops(self.program, obs, self._guess()), "bytes_read": chunk_bytes(self.program)}

    def _guess(self) -> Tensor:
        """[K, T, Da]; a plan with a warm anchor has one more lane, here another anchor."""
        anchors = self.network.anchors
        return torch.cat([anchors, anchors[:1]]) if self.plan.guess.warm else anchors

    def _chunks(self, obs: Tensor, birth: int) -> Chunk:
        guess = self._guess()
        K, context = len(guess), self.program.prepare(obs)
        return run_scored_chunk(self.program, context, SEED.expand(K), birth * K + torch.arange(K), guess, obs.device)


class Diagonal(Steady):
    """One tick of a full queue, which gives a block."""

    endless = True

    def __init__(self, name: str, plan: Plan, network: ActionNetwork, device: torch.device) -> None:
        refuse_other_queues(plan)
        super().__init__(name, dataclasses.replace(plan, execute=plan.block), network, device)
        self.first = 0  # of the block
        refuse_longer(self.program, network.config.horizon)
        self._state: State | None = None

    def answer(self, obs: Tensor, birth: int) -> Tensor:
        """[1, H, Da]"""
        if self._state is None:  # in the round that is not counted
            self._state = self._full(obs, birth)
        self._state, block = self._tick(self._state, obs)
        return block

    def at_noise(self, obs: Tensor, birth: int) -> Tensor:
        """The first block of a new queue."""
        return self._tick(self._full(obs, birth), obs)[1]

    def work(self, obs: Tensor) -> dict[str, int]:
        return {"flops": tick_flops(self.program, obs), "bytes_read": weight_bytes(self.network) * self.calls}

    def _full(self, obs: Tensor, birth: int) -> State:
        """A queue whose next tick gives its first block."""
        state = self.program.start(SEED, torch.tensor([birth]), device=obs.device)
        for _ in range(self.program.staircase.steps - 1):
            state, _ = self._tick(state, obs)
        return state

    def _tick(self, state: State, obs: Tensor) -> tuple[State, Tensor]:
        """-> the state after it and the rows that became clean, in the order of positions."""
        state, out = self.program.tick(state, Inputs(self.program.prepare(obs)))
        order = out.index[0].argsort()
        return state, out.x[:, order[out.clean[0, order]]]


def ours(name: str, plan: Plan, network: TransformerForDiffusion, device: torch.device) -> Ours:
    """The contestant of a plan's kind, on a case's network or one of the case's shape. Raises InputError."""
    if plan.stagger:
        return Diagonal(name, plan, streaming_of(network), device)
    if plan.guess.source == "anchors":
        return Anchored(name, plan, anchored_of(network), device)
    if plan.guess.source == "previous":
        return Warm(name, plan, network, device)
    if plan.guess.source in ("nearest", "regression"):
        return Draft(name, plan, network, device)
    if "picard" in plan.accelerators:
        reason = "takes as much work as its data ask for, and a bench tells work beforehand"
        raise InputError(f"plan {name!r}: picard {reason}; use benchmarks/picard.py")
    if plan.birth != "noise":
        got = f"a guess that is {plan.guess.source}"
        raise InputError(f"plan {name!r} starts from {got}; a bench has noise, previous answers, drafts and anchors")
    return Ours(name, plan, network, device)


def streaming_of(network: TransformerForDiffusion) -> StreamingTransformer:
    """A streaming network with these weights. What it has beside them stays zero, which takes as long as any value."""
    made = StreamingTransformer(network.config)
    made.load_state_dict(network.state_dict(), strict=False)
    return made.eval().requires_grad_(False).to(network.pos_emb.device)


def anchored_of(network: TransformerForDiffusion) -> AnchoredDecoder:
    """A decoder of the preset's shape for this network's observations and chunks; random weights, always the same."""
    import yaml

    given = {key: getattr(network.config, key) for key in ("action_dim", "observation_dim", "horizon", "n_obs_steps")}
    given["n_action_steps"] = network.config.n_action_steps
    preset = yaml.safe_load(ANCHORED_PRESET.read_text())["network"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AnchoredDecoder(AnchoredConfig(**{**preset, **given}))
        made.anchors.uniform_(-1, 1)
    return made.eval().requires_grad_(False).to(network.pos_emb.device)


class Peer(Contestant):
    """torch.nn.TransformerDecoder, sampled by the scheduler of diffusers, at the same weights: what users run today."""

    def __init__(self, solver: str, steps: int, network: TransformerForDiffusion, plain: Program) -> None:
        c = network.config
        self.sampler, self.calls, self.refreshes = load_plan(f"{solver}-{steps}"), steps, steps
        self.name = f"peer-{solver}-{steps}"
        self._solver, self._plain = solver, plain
        self.first, self.executed = network.first_row, c.n_action_steps
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
