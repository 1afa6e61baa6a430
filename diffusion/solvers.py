"""Solvers as coefficient tables: one step is one linear combination, and its coefficients are data.

A step from level k to level k - 1 of a grid reads

    x'   = c_x x + c_x0 x0 + c_eps eps + c_base base + c_p x0_prev + c_pp x0_prev2 + c_z z      (next)
    base'= the same over the columns before z                                                   (corrected, UniPC)

where x0 and eps are what the network's prediction says about x, x0_prev and x0_prev2 are its x0 one and two steps
ago, base is the corrected state that the last step started from, and z is fresh noise. Row k of a table holds the
coefficients of the step that starts at level k; row 0 (clean) is never used. Order ramps are zeros in the table.

Notation: a = alpha, s = sigma, lam = ln(a / s), h = lam' - lam > 0; a prime marks the target level.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .grids import Grid

COLUMNS = ("x", "x0", "eps", "base", "x0_prev", "x0_prev2", "z")
X, X0, EPS, BASE, PREV, PREV2, Z = range(7)


@dataclass(frozen=True)
class Table:
    """`next`: [S + 1, 7]; `corrected`: [S + 1, 7] or None where the step starts from x itself. float64."""

    next: np.ndarray
    corrected: np.ndarray | None = None

    def uses(self, column: int) -> bool:
        """Whether any step of the table needs this column."""
        tables = [self.next] if self.corrected is None else [self.next, self.corrected]
        return any(t[:, column].any() for t in tables)


def ddpm(grid: Grid, eta: float = 1.0) -> Table:
    """DDPM with the small posterior variance (`fixed_small`): Ho et al. 2020, equations 6 and 7, to any lower level.

    alpha = ab / ab', beta = 1 - alpha; mean = sqrt(ab') beta / (1 - ab) x0 + sqrt(alpha) (1 - ab') / (1 - ab) x;
    variance = (1 - ab') / (1 - ab) beta.
    """
    table = np.zeros((grid.steps + 1, 7))
    for k in range(1, grid.steps + 1):
        ab, ab_next = grid.alpha[k] ** 2, grid.alpha[k - 1] ** 2
        alpha = ab / ab_next
        table[k, X0] = np.sqrt(ab_next) * (1 - alpha) / (1 - ab)
        table[k, X] = np.sqrt(alpha) * (1 - ab_next) / (1 - ab)
        table[k, Z] = np.sqrt((1 - ab_next) / (1 - ab) * (1 - alpha))
    return Table(table)


def ddim(grid: Grid, eta: float = 0.0) -> Table:
    """DDIM: x' = a' x0 + sqrt(s'^2 - d^2) eps + d z with d = eta s'/s sqrt(1 - (a / a')^2) (Song et al. 2021,
    equations 12 and 16). eps is the network's own, also where x0 was clipped."""
    table = np.zeros((grid.steps + 1, 7))
    for k in range(1, grid.steps + 1):
        a, s, a_next, s_next = grid.alpha[k], grid.sigma[k], grid.alpha[k - 1], grid.sigma[k - 1]
        d = eta * s_next / s * np.sqrt(max(0.0, 1 - (a / a_next) ** 2)) if eta else 0.0
        table[k, X0], table[k, EPS], table[k, Z] = a_next, np.sqrt(s_next**2 - d**2), d
    return Table(table)


def euler(grid: Grid, eta: float = 0.0) -> Table:
    """Euler's step along the straight path of flow matching: x' = x + (s' - s) v with v = eps - x0."""
    table = np.zeros((grid.steps + 1, 7))
    step = grid.sigma[:-1] - grid.sigma[1:]
    table[1:, X], table[1:, EPS], table[1:, X0] = 1.0, step, -step
    return Table(table)


def dpmpp(grid: Grid, eta: float = 0.0) -> Table:
    """DPM-Solver++(2M): x' = (s'/s) x - a' (e^-h - 1) D, D = (1 + 1/2r) x0 - 1/2r x0_prev, r = h_prev / h
    (Lu et al. 2022, algorithm 2); plain x0 on the first step and on the step to clean."""
    lam = grid.log_snr
    table = np.zeros((grid.steps + 1, 7))
    for k in range(1, grid.steps + 1):
        a, s, a_next, s_next = grid.alpha[k], grid.sigma[k], grid.alpha[k - 1], grid.sigma[k - 1]
        gain = a_next - s_next * a / s  # -a' (e^-h - 1), finite also where lam is not
        slope = 0.0
        if 1 < k < grid.steps and np.isfinite(lam[k + 1]):
            slope = 0.5 * (lam[k - 1] - lam[k]) / (lam[k] - lam[k + 1])  # 1 / 2r
        table[k, X], table[k, X0], table[k, PREV] = s_next / s, gain * (1 + slope), -gain * slope
    return Table(table)


def unipc(grid: Grid, eta: float = 0.0) -> Table:
    """UniPC-2, B(h) = e^h - 1 ("bh2"), predictor and corrector in x0 form (Zhao et al. 2023, algorithms 1 and 2).

    The corrector redoes the last step once x0 at its target is known, which costs no network call; the stored x0 is
    the one predicted at the uncorrected point. First order on the first step and on the step to clean.
    """
    S, lam = grid.steps, grid.log_snr
    corrected, table = np.zeros((S + 1, 7)), np.zeros((S + 1, 7))
    for k in range(S, 0, -1):
        if k == S:
            corrected[k, X] = 1.0
        else:
            corrected[k] = _unipc_corrector(grid, lam, k)
        a, s, a_next, s_next = grid.alpha[k], grid.sigma[k], grid.alpha[k - 1], grid.sigma[k - 1]
        gain = a_next - s_next * a / s
        step = s_next / s * corrected[k]
        step[X0] += gain
        if 1 < k < S and np.isfinite(lam[k + 1]):
            slope = 0.5 * (lam[k - 1] - lam[k]) / (lam[k + 1] - lam[k])  # 1 / 2 r0, r0 < 0
            step[PREV] += gain * slope
            step[X0] -= gain * slope
        table[k] = step
    return Table(table, corrected)


def _unipc_corrector(grid: Grid, lam: np.ndarray, k: int) -> np.ndarray:
    """[7] coefficients that give the corrected state at level k from base (at level k + 1) and three x0."""
    row = np.zeros(7)
    a, s, a_from, s_from = grid.alpha[k], grid.sigma[k], grid.alpha[k + 1], grid.sigma[k + 1]
    gain = a - s * a_from / s_from  # -a (e^-h - 1)
    row[BASE], row[PREV] = s / s_from, gain
    order_two = k + 2 <= grid.steps and np.isfinite(lam[k + 2])
    rho = (0.0, 0.5)
    if order_two:
        hh = lam[k + 1] - lam[k]  # -h
        r0 = (lam[k + 2] - lam[k + 1]) / -hh
        b = np.expm1(hh)
        phi = b / hh - 1
        rho = np.linalg.solve([[1, 1], [r0, 1]], [phi / b, 2 * (phi / hh - 0.5) / b])
        row[PREV2] += gain * rho[0] / r0
        row[PREV] -= gain * rho[0] / r0
    row[X0] += gain * rho[1]
    row[PREV] -= gain * rho[1]
    return row


SOLVERS: dict[str, Callable[[Grid, float], Table]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp": dpmpp,
    "unipc": unipc,
    "euler": euler,
}


SINGLE_STEP = ("ddpm", "ddim", "euler")  # a step reads nothing of those before, so it may go to any lower level


def jump_table(name: str, grid: Grid, levels: int, eta: float = 0.0, gamma: float = 1.0) -> Table:
    """Row k of [S + 1, 7]: the solver's step from level k >= levels straight to k - levels, its own function on a grid
    of these two; rows below, which have not so many levels left, are zero. levels 1 is `solver_table`. Raises
    InputError for a multistep solver, whose memory is of steps of one level."""
    if name not in SINGLE_STEP:
        raise InputError(f"solver {name} remembers its last steps and cannot jump levels; use {', '.join(SINGLE_STEP)}")
    table = np.zeros((grid.steps + 1, 7))
    for k in range(levels, grid.steps + 1):
        ends = [k - levels, k]
        table[k] = SOLVERS[name](Grid(grid.alpha[ends], grid.sigma[ends], grid.label[ends]), eta).next[1]
    table[:, Z] *= gamma
    return Table(table)


def solver_table(name: str, grid: Grid, eta: float | None = None, gamma: float = 1.0) -> Table:
    """The coefficient table of a solver by name; `eta` is DDIM's share of fresh noise, `gamma` scales what fresh noise
    there is, and nothing else (Clemente et al. 2025: few steps sample better with less of it)."""
    if name not in SOLVERS:
        raise InputError(f"unknown solver {name!r}; known: {', '.join(SOLVERS)}")
    if eta and name != "ddim":
        raise InputError(f"eta {eta} was given to solver {name!r}; only ddim has one")
    table = SOLVERS[name](grid, eta or 0.0)
    if gamma != 1 and not table.uses(Z):
        raise InputError(f"gamma {gamma} scales fresh noise, and solver {name} adds none here")
    table.next[:, Z] *= gamma
    return table
