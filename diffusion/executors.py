"""Executors: ways to run a program. Here is the eager one, plain torch, one operation after another; others stand in
`ontick.accel` and run the same three parts:

    start = begin(program, context, seed, birth)      what a chunk starts from, all noise included
    chunk = unroll(program, start)                    the steps, tensors alone: what a graph can record
    run_chunk(program, context, seed, birth)          both, through the program's own executor
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .programs import Inputs, Program
from .solvers import Z
from .steps import empty_history, solver_step


class Start(NamedTuple):
    """What a chunk starts from.

    x: [B, N, D...] as born; noise: [S, B, N, D...], entry k for the step that ends at level k (drawn when asked where
    the executor wants that), or None; context: from `prepare`; index: [B, N] position ids; guess: [B, N, D...] that the
    chunk was run with, or None
    """

    x: Tensor
    noise: "Tensor | NoiseByStep | None"
    context: Any
    index: Tensor
    guess: Tensor | None = None


class Chunk(NamedTuple):
    """x: [B, N, D...], clean; score: [B], the lanes' confidence at the last call, of a network that has one."""

    x: Tensor
    score: Tensor | None = None


class Spent(NamedTuple):
    """What each lane of a chunk took, [B] int64 each, on the host. iterations: network calls, one after another;
    evaluations: the network at one state, of which a call may have many."""

    iterations: Tensor
    evaluations: Tensor


class NoiseByStep:
    """The noise of a chunk's steps, by the level at which a step ends."""

    def __init__(self, program: Program, seed: Tensor, birth: Tensor, index: Tensor, device: torch.device) -> None:
        self._draw = lambda level: program.noise(seed, birth, index, level, device)
        self._steps, self._shape = program.grid.steps, index.shape

    def __getitem__(self, level: int) -> Tensor:
        return self._draw(torch.full(self._shape, level))

    def all(self) -> Tensor:
        """[S, B, N, D...] at once."""
        return self._draw(torch.arange(self._steps)[:, None, None].expand(-1, *self._shape))


class Executor(ABC):
    """Runs all positions of a program whose positions move together, from birth to clean.

    noise_first: whether `begin` draws all noise before the loop; else each step draws its own when it asks.
    dynamic: whether it decides from the data how often the network is called, at most `Program.calls` times
    spent: what the last chunk took, of a dynamic one; else None
    """

    name: str
    noise_first: bool = True
    dynamic: bool = False
    spent: Spent | None = None

    @abstractmethod
    def chunk(self, program: Program, start: Start) -> Chunk:
        """May reuse its memory for the next chunk, so the caller copies what it keeps."""


class Eager(Executor):
    """The default. `fused`: the solver step as one expression, accumulated in place; equal up to rounding."""

    name = "eager"

    def __init__(self, fused: bool = False, noise_first: bool = True) -> None:
        self.fused, self.noise_first = fused, noise_first

    def chunk(self, program: Program, start: Start) -> Chunk:
        return unroll(program, start, self.fused)


EAGER = Eager()


def run_chunk(
    program: Program, context: Any, seed: Tensor, birth: Tensor, guess: Tensor | None = None, device: Any = "cpu"
) -> Tensor:
    """All positions of a finite program, from birth to clean: [B, N, D...]. See `run_scored_chunk`."""
    return run_scored_chunk(program, context, seed, birth, guess, device).x


def run_scored_chunk(
    program: Program, context: Any, seed: Tensor, birth: Tensor, guess: Tensor | None = None, device: Any = "cpu"
) -> Chunk:
    """All positions of a finite program, from birth to clean, and the confidence of a network that has one.

    seed, birth: [B] int64, host; guess: [B, N, D...] on `device`, for births that start from one. Where all positions
    move together this is the tick unrolled, with every level known beforehand and all noise drawn before the loop;
    run eagerly, the bits are the same as tick by tick.
    """
    if program.endless:
        raise InputError(f"plan {program.plan.name!r} was built without an end; run it with run_stream")
    if not program.moves_together:
        state = program.start(seed, birth, guess, device)
        for _ in range(program.ticks):
            state, _ = program.tick(state, Inputs(context, guess))
        return Chunk(state.x)
    executor = program.executor or EAGER
    return executor.chunk(program, begin(program, context, seed, birth, guess, device))


def begin(
    program: Program, context: Any, seed: Tensor, birth: Tensor, guess: Tensor | None = None, device: Any = "cpu"
) -> Start:
    """Births and all noise of a chunk, drawn on the host and sent to the device at once."""
    state = program.start(seed, birth, guess, device)
    index = program.index(state.tick)
    noise = None
    if program.table.uses(Z):
        noise = NoiseByStep(program, seed, birth, index, state.x.device)
        if (program.executor or EAGER).noise_first:
            noise = noise.all()
    return Start(state.x, noise, context, index.to(state.x.device), guess)


def unroll(program: Program, start: Start, fused: bool = False) -> Chunk:
    """All steps of a chunk, from `start` to clean. No branch in it depends on data."""
    x, history, carry = start.x, empty_history(program.table, start.x), None
    for step in range(program.grid.steps, 0, -1):
        out, carry = program.look(x, step, start.context, start.index, carry)
        z = None if start.noise is None else start.noise[step - 1]
        x, history = solver_step(x, out, history, z, program.uniform[step], program.denoiser.clip, fused)
    return Chunk(x, carry if program.denoiser.scores else None)


def run_stream(
    program: Program, inputs: Inputs, seed: Tensor, birth: Tensor, positions: int, device: Any = "cpu"
) -> Iterator[Tensor]:
    """The first `positions` positions of an endless program, in order: yields [B, D...] one position at a time."""
    if not program.endless:
        raise InputError(f"plan {program.plan.name!r} was built for {program.rows} positions; run it with run_chunk")
    state = program.start(seed, birth, inputs.guess, device)
    given = 0
    while given < positions:
        state, out = program.tick(state, inputs)
        ready = out.clean[0].nonzero()[:, 0]
        for row in ready[out.index[0, ready].argsort()]:
            if given < positions:
                yield out.x[:, row]
            given += 1
