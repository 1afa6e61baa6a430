"""One step as a module of tensors alone, so that a compiler can take it: network call and solver step together.

All that differs between steps is data: a level's place in the grid, a vector of its label and solver coefficients, the
noise, and what a multistep solver remembers. The place is an integer of its own: a compiler that computes in bf16 would
round it.

Legend: B lanes, N positions, D width of a position, S grid levels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...diffusion import Chunk, Denoiser, History, Program, Rows, Start
from ...diffusion.solvers import Z
from ...diffusion.steps import Coefficient, coefficients, empty_history, solver_step


class Step(nn.Module):
    """(x, place, level, noise?, history..., context...) -> (x one level lower, history..., confidence?)."""

    denoiser: Denoiser
    index: Tensor

    def __init__(self, program: Program, context: Any) -> None:
        super().__init__()
        self.denoiser, self.clip = program.denoiser, program.denoiser.clip
        self._context_is_tuple = isinstance(context, tuple)
        self._uses_noise, self._corrects = program.table.uses(Z), program.table.corrected is not None
        self._used = program.stacked[1:].any(0).tolist()
        self._kept = [h is not None for h in empty_history(program.table, torch.zeros(1))]
        index = program.index(torch.zeros(1, dtype=torch.int64))
        self.register_buffer("index", index.to(program.stacked.device))

    def forward(self, x: Tensor, place: Tensor, level: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """x: [B, N, D]; place: [1] int64; level: [19], label first."""
        tensors = list(rest)
        z = tensors.pop(0) if self._uses_noise else None
        history = History(*(tensors.pop(0) if kept else None for kept in self._kept))
        context = tuple(tensors) if self._context_is_tuple else tensors[0]
        label = level[0].expand(x.shape[:2])
        rows = Rows(self.index.expand(x.shape[0], -1), step=place)
        out, score = self.denoiser.predict(x, label, context, rows)
        values: list[Coefficient] = [level[1 + i] if used else None for i, used in enumerate(self._used)]
        x, history = solver_step(x, out.float(), history, z, coefficients(values, self._corrects), self.clip)
        return (x, *(h for h in history if h is not None), *([score] if self.denoiser.scores else []))  # type: ignore[list-item]


class Levels(NamedTuple):
    """What a step is told of its level: place [S + 1, 1] int64; vector [S + 1, 1 + 18] float32, label and solver
    coefficients."""

    place: Tensor
    vector: Tensor


def levels_of(program: Program, device: torch.device) -> Levels:
    place = torch.arange(program.grid.steps + 1)[:, None]
    label = torch.from_numpy(program.grid.label).float()[:, None]
    return Levels(place.to(device), torch.cat([label, program.stacked.cpu()], 1).to(device))


def step_inputs(program: Program, start: Start, levels: Levels) -> list[Tensor]:
    """What a step is called with first, in order: an example for compilers."""
    noise = [start.noise[0]] if start.noise is not None else []
    top = [levels.place[program.grid.steps], levels.vector[program.grid.steps]]
    return [start.x, *top, *noise, *_remembered(program, start), *context_tensors(start.context)]


def run_steps(program: Program, start: Start, levels: Levels, step: Any) -> Chunk:
    """All steps by calls of `step`; tensors alone, so that a graph can record it."""
    score = None
    x, history, context = start.x, _remembered(program, start), context_tensors(start.context)
    for k in range(program.grid.steps, 0, -1):
        noise = [start.noise[k - 1]] if start.noise is not None else []
        x, *history = step(x, levels.place[k], levels.vector[k], *noise, *history, *context)
        score = history.pop() if program.denoiser.scores else None
    return Chunk(x, score)


def context_tensors(context: Any) -> Sequence[Tensor]:
    return context if isinstance(context, tuple) else (context,)


def _remembered(program: Program, start: Start) -> list[Tensor]:
    return [h for h in empty_history(program.table, start.x) if h is not None]
