"""Executors: ways to run a program. This is the eager one: plain torch, one operation after another."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .programs import Inputs, Program
from .solvers import Z
from .steps import empty_history, solver_step


def run_chunk(
    program: Program, context: Any, seed: Tensor, birth: Tensor, guess: Tensor | None = None, device: Any = "cpu"
) -> Tensor:
    """All positions of a finite program, from birth to clean: [B, N, D...].

    seed, birth: [B] int64, host; guess: [B, N, D...] on `device`, for births that start from one. Where all positions
    move together this is the tick unrolled, with every level known beforehand and all noise drawn before the loop;
    the bits are the same as tick by tick.
    """
    if program.endless:
        raise InputError(f"plan {program.plan.name!r} was built without an end; run it with run_stream")
    state = program.start(seed, birth, guess, device)
    if program.staircase.lag or len(program.views) > 1:
        for _ in range(program.ticks):
            state, _ = program.tick(state, Inputs(context, guess))
        return state.x
    x, history, index = state.x, empty_history(program.table, state.x), program.index(state.tick)
    noise = _step_noise(program, seed, birth, index, x.device)
    index = index.to(x.device)
    for step in range(program.grid.steps, 0, -1):
        out = program.predict_uniform(x, step, context, index)
        z = None if noise is None else noise[step - 1]
        x, history = solver_step(x, out, history, z, program.uniform[step], program.denoiser.clip)
    return x


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


def _step_noise(program: Program, seed: Tensor, birth: Tensor, index: Tensor, device) -> Tensor | None:
    """[S, B, N, D...]: entry k is the noise of the step that ends at level k; None for a deterministic solver."""
    if not program.table.uses(Z):
        return None
    level = torch.arange(program.grid.steps)[:, None, None].expand(-1, *index.shape)
    return program.noise(seed, birth, index, level, device)
