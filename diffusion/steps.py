"""One solver step, the only arithmetic of the engine.

Its coefficients are either Python floats (all positions at one level, known when the program is built) or tensors
[B, N, 1...] gathered by level (positions at their own levels). The expression is the same, so are the bits.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .grids import Grid
from .predictions import Conversion
from .solvers import BASE, COLUMNS, EPS, PREV, PREV2, Table, jump_table

Coefficient = float | Tensor | None  # None: the term is left out


class Coefficients(NamedTuple):
    """What one step needs: output -> x0, output -> eps, and the solver's rows (corrected is None where unused)."""

    x0: tuple[Coefficient, Coefficient]
    eps: tuple[Coefficient, Coefficient]
    next: tuple[Coefficient, ...]
    corrected: tuple[Coefficient, ...] | None


class History(NamedTuple):
    """What a multistep solver remembers of each position; None where the solver does not use it."""

    base: Tensor | None
    x0_prev: Tensor | None
    x0_prev2: Tensor | None


def columns(table: Table, convert: Conversion) -> np.ndarray:
    """[S + 1, 18] float64: x0 (2), eps (2), next (7), corrected (7)."""
    corrected = np.zeros_like(table.next) if table.corrected is None else table.corrected
    pairs = np.stack([convert.x0_x, convert.x0_out, convert.eps_x, convert.eps_out], 1)
    return np.concatenate([pairs, table.next, corrected], 1)


def jump_columns(solver: str, grid: Grid, eta: float, gamma: float, convert: Conversion, most: int) -> Tensor:
    """[(most + 1) (S + 1), 18] float32: row d (S + 1) + k is the step from level k to k - d; with d = 0, and where
    k < d, the solver's part is zero. Raises InputError for a multistep solver."""
    tables = [jump_table(solver, grid, d, eta, gamma) for d in range(1, most + 1)]
    none = Table(np.zeros((grid.steps + 1, len(COLUMNS))))
    return torch.from_numpy(np.concatenate([columns(table, convert) for table in (none, *tables)])).float()


def coefficients(values: list[Coefficient], corrects: bool) -> Coefficients:
    """18 values in the order of `columns` as named coefficients."""
    n = 4 + len(COLUMNS)
    corrected = tuple(values[n:]) if corrects else None
    return Coefficients((values[0], values[1]), (values[2], values[3]), tuple(values[4:n]), corrected)


def uniform_coefficients(table: Table, convert: Conversion) -> list[Coefficients]:
    """[S + 1] entries of floats: row k is the step from level k, its zero terms left out."""
    rows = columns(table, convert)
    return [coefficients([float(v) or None for v in row], table.corrected is not None) for row in rows]


def gathered_coefficients(stacked: Tensor, level: Tensor, x: Tensor, corrects: bool) -> Coefficients:
    """Coefficients of mixed levels: stacked [S + 1, 18] float32 and level [B, N] int64, both on the host -> tensors
    [B, N, 1...] beside x [B, N, D...]; columns that are zero at every level are left out. Of `jump_columns` `level` is
    the row."""
    picked = stacked[level].to(x.device)
    shape = (*level.shape, *([1] * (x.dim() - 2)))
    used = stacked[1:].any(0).tolist()
    return coefficients([picked[..., i].reshape(shape) if u else None for i, u in enumerate(used)], corrects)


def solver_step(
    x: Tensor,
    out: Tensor,
    history: History,
    z: Tensor | None,
    c: Coefficients,
    clip: float | None,
    fused: bool = False,
) -> tuple[Tensor, History]:
    """x, out, z: [B, N, D...] at fp32 -> (x one level lower, history for the next step).

    x0 is clamped before it is used or remembered; eps stays the network's own, as diffusers' default has it.
    `fused`, for float coefficients: each sum is accumulated in place, a weight being a factor of the addition; half
    the operations, the same to fp32 rounding.
    """
    total = _accumulated if fused else _sum
    x0 = total(c.x0, (x, out))
    if clip is not None:
        x0 = x0.clamp(-clip, clip)
    eps = total(c.eps, (x, out)) if c.next[EPS] is not None else None
    terms = (x, x0, eps, *history, z)
    after = total(c.next, terms)
    base = history.base
    if base is not None:
        base = total(c.corrected, terms) if c.corrected is not None else base
    prev = None if history.x0_prev is None else x0
    prev2 = None if history.x0_prev2 is None else history.x0_prev
    return after, History(base, prev, prev2)


def empty_history(table: Table, x: Tensor) -> History:
    """Zeros for what the table reads, None for the rest."""
    keep = [torch.zeros_like(x) if table.uses(column) else None for column in (BASE, PREV, PREV2)]
    return History(*keep)


def _sum(weights, terms) -> Tensor:
    total = None
    for weight, term in zip(weights, terms, strict=True):
        if weight is not None:
            part = term if isinstance(weight, float) and weight == 1.0 else weight * term
            total = part if total is None else total + part
    assert total is not None, "a step with no terms"
    return total


def _accumulated(weights, terms) -> Tensor:
    """A sum of its own: no term is written to."""
    total = None
    for weight, term in zip(weights, terms, strict=True):
        if weight is not None:
            total = term * weight if total is None else total.add_(term, alpha=weight)
    assert total is not None, "a step with no terms"
    return total
