"""What a cache schedule costs in time: a linear model of its parts, fitted to measured chunks.

    ms = base + tick K + active (steps that compute anything) + sum over kinds of block[kind] (refreshes of the kind)
         + run (pieces that are added)

At a step that computes anything, each maximal run of reused blocks is one piece, added as one tensor; at a step that
computes nothing all blocks are one piece, which is part of its tick.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...errors import InputError
from ...settings import checked


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Predicted milliseconds of a chunk. Where no block costs less than a piece, no refresh makes it cheaper; `fit`
    gives such a model, since a computed branch is added too."""

    base_ms: float = 0.0
    tick_ms: float = 0.0
    active_ms: float = 0.0
    run_ms: float = 0.0
    block_ms: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {"base": self.base_ms, "tick": self.tick_ms, "active": self.active_ms, "run": self.run_ms}
        for name, value in {**values, **self.block_ms}.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise InputError(f"cost of {name} is {value!r}, wanted milliseconds from 0; measure it again")

    def __call__(self, refresh: np.ndarray, kinds: Sequence[str]) -> Any:
        """refresh: [b, K] or [C, b, K] bool; kinds: [b] -> milliseconds, a float or [C]. Raises InputError for a kind
        that was not measured."""
        counts, names = _counts(refresh, kinds)
        missing = [name for name in names if name not in self.block_ms]
        if missing:
            raise InputError(f"no cost of {', '.join(missing)}; measured: {', '.join(self.block_ms) or 'none'}")
        weights = [self.base_ms, self.tick_ms, self.active_ms, self.run_ms, *(self.block_ms[name] for name in names)]
        ms = counts @ np.array(weights)
        return ms if np.ndim(refresh) == 3 else float(ms[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` undoes it."""
        return {**asdict(self), "block_ms": dict(self.block_ms)}

    @classmethod
    def from_dict(cls, data: Any) -> "CostModel":
        """Raises InputError where `data` is not what `to_dict` gives."""
        return cls(**checked(cls, data, "cost model"))


def fit(schedules: Sequence[np.ndarray], kinds: Sequence[str], measured_ms: Sequence[float]) -> CostModel:
    """The model nearest to what was measured, in least squares, with no cost below 0 and no block's below a piece's.

    schedules: [b, K] bool each, of any K: base and tick can be told apart where K differs; measured_ms: one each.
    """
    if not len(schedules) or len(schedules) != len(measured_ms):
        raise InputError(f"{len(schedules)} schedules and {len(measured_ms)} times, wanted one each and at least one")
    rows, names = zip(*(_counts(schedule, kinds) for schedule in schedules), strict=True)
    counts = np.concatenate(rows)
    counts[:, 3] += counts[:, 4:].sum(1)  # so that a block's weight is what it costs beyond a piece
    base, tick, active, run, *blocks = _nonnegative(counts, np.asarray(measured_ms, dtype=float)).tolist()
    beyond = dict(zip(names[0], (run + block for block in blocks), strict=True))
    return CostModel(base_ms=base, tick_ms=tick, active_ms=active, run_ms=run, block_ms=beyond)


def _counts(refresh: np.ndarray, kinds: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """[C, 4 + kinds]: 1, K, active steps, pieces, refreshes of each kind; and the kinds."""
    refresh = np.asarray(refresh, dtype=bool)
    if refresh.ndim == 2:
        refresh = refresh[None]
    if refresh.ndim != 3 or refresh.shape[1] != len(kinds):
        raise InputError(f"a schedule is {list(refresh.shape)}, wanted [{len(kinds)} blocks, steps] or many of them")
    active = refresh.any(1)
    begins = ~refresh
    begins[:, 1:] &= refresh[:, :-1]
    pieces = (begins.sum(1) * active).sum(1)
    names = list(dict.fromkeys(kinds))
    kind = np.asarray(kinds)
    blocks = [refresh[:, kind == name].sum((1, 2)) for name in names]
    ones = np.ones(len(refresh))
    return np.stack([ones, ones * refresh.shape[2], active.sum(1), pieces, *blocks], 1).astype(float), names


def _nonnegative(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """argmin over x >= 0 of |a x - y|: a [m, p], y [m] -> [p]. The active-set method of Lawson and Hanson (1974)."""
    scale = np.linalg.norm(a, axis=0)
    scale[scale == 0] = 1
    a = a / scale
    x, free = np.zeros(a.shape[1]), np.zeros(a.shape[1], dtype=bool)
    for _ in range(10 * len(x)):
        gradient = np.where(free, -np.inf, a.T @ (y - a @ x))
        if gradient.max() <= 1e-10 * max(1.0, float(np.abs(y).max())):
            break
        free[gradient.argmax()] = True
        while free.any():
            solved = np.zeros_like(x)
            solved[free] = np.linalg.lstsq(a[:, free], y, rcond=None)[0]
            below = free & (solved <= 0)
            if not below.any():
                x = solved
                break
            x = x + (x[below] / (x[below] - solved[below])).min() * (solved - x)  # as far as the first zero
            free &= x > 1e-12
            x[~free] = 0
    return x / scale
