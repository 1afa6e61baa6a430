"""Schedules by evolution: the Pareto front of predicted milliseconds against action error.

    front = evolve(error, cost, kinds, [uniform, bac], generations=30, population=32, seed=0)
    front.refresh[i], front.ms[i], front.error[i]          cheapest first

NSGA-II (Deb et al. 2002) on the two costs, as ECAD evolves schedules, with the set-level crossover of EVO and with the
error at common noise in the place of rollouts. Steps move and mix as wholes at least as often as single branches: few
steps with a refresh are faster than many, and blocks refreshed together do not see each other's stale features.

Legend: P individuals, b blocks, K steps. A tick here is a step at which something is refreshed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from .costs import CostModel
from .evaluator import ActionError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Front:
    """refresh [P, b, K] bool, ms [P] predicted, error [P]: none is beaten in both, by ascending ms."""

    refresh: np.ndarray
    ms: np.ndarray
    error: np.ndarray

    def within(self, budget_ms: float) -> np.ndarray:
        """[b, K], the one with the least error that costs at most so much. Raises InputError where there is none."""
        fits = np.flatnonzero(self.ms <= budget_ms)
        if not len(fits):
            raise InputError(f"the cheapest schedule takes {self.ms[0]:.3g} ms, wanted at most {budget_ms:.3g}")
        return self.refresh[fits[-1]]


def evolve(
    error: ActionError,
    cost: CostModel,
    kinds: Sequence[str],
    seeds_population: Sequence[np.ndarray],
    generations: int,
    population: int,
    seed: int,
    progress: Progress | None = None,
) -> Front:
    """seeds_population: [b, K] bool each, all of them kept as a start; population: how many live, the rest of the first
    ones drawn at random with whole ticks; progress: called with the generation and how many were measured.

    All that was ever measured takes part in the front, so at no seed's cost it is worse than that seed. Equal
    arguments give an equal front. Raises InputError.
    """
    if population < 4 or generations < 0:
        raise InputError(f"population {population} and generations {generations}, wanted at least 4 and 0")
    rng = np.random.default_rng(seed)
    shape = (error.blocks, error.steps)
    world = _World(error, cost, kinds)
    first = [_checked(each, shape) for each in seeds_population]
    first += [_random(shape, rng) for _ in range(population - len(first))]
    alive = world.add(first)
    for generation in range(generations):
        rank, crowding = _ranked(world.ms[alive], world.error[alive])
        parents = [alive[_tournament(rank, crowding, rng)] for _ in range(2 * population)]
        children = [
            _mutated(_crossed(world.refresh[a], world.refresh[b], rng), rng)
            for a, b in zip(parents[::2], parents[1::2], strict=True)
        ]
        alive = np.union1d(alive, world.add(children))
        alive = alive[_survivors(world.ms[alive], world.error[alive], population)]
        if progress is not None:
            progress(generation + 1, len(world.refresh))
    return world.front()


class _World:
    """All that was measured, each schedule once."""

    def __init__(self, error: ActionError, cost: CostModel, kinds: Sequence[str]) -> None:
        self._error, self._cost, self._kinds = error, cost, kinds
        self._place: dict[bytes, int] = {}
        self.refresh: list[np.ndarray] = []
        self.ms, self.error = np.zeros(0), np.zeros(0)

    def add(self, schedules: Sequence[np.ndarray]) -> np.ndarray:
        """Measure what is new; places of all of them, each once."""
        signatures = [np.packbits(s).tobytes() for s in schedules]
        new = {key: s for key, s in zip(signatures, schedules, strict=True) if key not in self._place}
        if new:
            stacked = np.stack(list(new.values()))
            self._place.update((key, len(self.refresh) + i) for i, key in enumerate(new))
            self.refresh += list(stacked)
            self.ms = np.append(self.ms, self._cost(stacked, self._kinds))
            self.error = np.append(self.error, self._error(stacked))
        return np.unique([self._place[key] for key in signatures])

    def front(self) -> Front:
        order = np.lexsort((self.error, self.ms))
        best = np.minimum.accumulate(np.append(np.inf, self.error[order]))[:-1]
        order = order[self.error[order] < best]
        return Front(np.stack([self.refresh[i] for i in order]), self.ms[order], self.error[order])


# -- who lives and who breeds -----------------------------------------------------------------------------------------


def _ranked(ms: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """rank [P]: 0 is beaten by nobody, 1 by those of rank 0 alone, and so on; crowding [P]: how far the neighbours in
    a rank are, infinite at its ends."""
    values = np.stack([ms, error], 1)
    beats = np.all(values[:, None] <= values, axis=2) & np.any(values[:, None] < values, axis=2)
    rank, crowding = np.full(len(ms), -1), np.full(len(ms), np.inf)
    while (rank < 0).any():
        left = rank < 0
        members = np.flatnonzero(left & ~np.any(beats[left], axis=0))
        rank[members] = rank.max() + 1
        order = members[np.lexsort((error[members], ms[members]))]
        span = np.maximum(np.ptp(values[members], 0), 1e-12)
        crowding[order[1:-1]] = (np.abs(values[order[2:]] - values[order[:-2]]) / span).sum(1)
    return rank, crowding


def _survivors(ms: np.ndarray, error: np.ndarray, count: int) -> np.ndarray:
    rank, crowding = _ranked(ms, error)
    return np.lexsort((-crowding, rank))[:count]


def _tournament(rank: np.ndarray, crowding: np.ndarray, rng: np.random.Generator) -> int:
    a, b = rng.integers(len(rank), size=2)
    return int(min((a, b), key=lambda i: (rank[i], -crowding[i])))


# -- new schedules ----------------------------------------------------------------------------------------------------


def _random(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Whole ticks: how many is drawn evenly in its logarithm, where with a random crowding towards the clean end."""
    K = shape[1]
    count = round(np.exp(rng.uniform(np.log(2), np.log(max(3, K / 3)))))
    steps = ((K - 1) * rng.random(count) ** rng.uniform(0.25, 1)).round().astype(int)
    refresh = np.zeros(shape, dtype=bool)
    refresh[:, [0, K - 1, *steps]] = True
    return refresh


def _crossed(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What both refresh, and of what one of them does a half: by steps, by blocks, before and after a step, or each
    branch by itself."""
    b, K = one.shape
    way = rng.integers(4)
    if way == 0:
        mine = rng.random((1, K)) < 0.5
    elif way == 1:
        mine = np.arange(K)[None] < rng.integers(1, K + 1)
    elif way == 2:
        mine = rng.random((b, 1)) < 0.5
    else:
        mine = rng.random((b, K)) < 0.5
    return np.where(mine, one, other)


def _mutated(refresh: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three changes; step 0 stays whole."""
    refresh = refresh.copy()
    for _ in range(rng.integers(1, 4)):
        _CHANGES[rng.integers(len(_CHANGES))](refresh, rng)
    refresh[:, 0] = True
    return refresh


def _move_tick(refresh: np.ndarray, rng: np.random.Generator) -> None:
    """A tick goes to a step near it; two that meet become one."""
    ticks, K = _ticks(refresh), refresh.shape[1]
    if len(ticks) and K > 1:
        k = rng.choice(ticks)
        to = np.clip(k + rng.choice([-8, -4, -2, -1, 1, 2, 4, 8]), 1, K - 1)
        column = refresh[:, k].copy()
        refresh[:, k] = False
        refresh[:, to] |= column


def _toggle_tick(refresh: np.ndarray, rng: np.random.Generator) -> None:
    """A step is refreshed whole; or a tick is left out, as often as not."""
    ticks = _ticks(refresh)
    if len(ticks) and rng.random() < 0.5:
        refresh[:, rng.choice(ticks)] = False
    else:
        refresh[:, rng.integers(refresh.shape[1])] = True


def _toggle_blocks(refresh: np.ndarray, rng: np.random.Generator) -> None:
    """One to four branches of a tick change."""
    ticks = _ticks(refresh)
    if len(ticks):
        blocks = rng.choice(len(refresh), min(len(refresh), rng.integers(1, 5)), replace=False)
        refresh[blocks, rng.choice(ticks)] ^= True


def _toggle_row(refresh: np.ndarray, rng: np.random.Generator) -> None:
    """A block is refreshed at all ticks, or left out of half of them."""
    ticks, block = _ticks(refresh), rng.integers(len(refresh))
    refresh[block, ticks] = True if rng.random() < 0.5 else rng.random(len(ticks)) < 0.5


_CHANGES = (_move_tick, _move_tick, _toggle_tick, _toggle_blocks, _toggle_row)


def _ticks(refresh: np.ndarray) -> np.ndarray:
    return np.flatnonzero(refresh[:, 1:].any(0)) + 1


def _checked(refresh: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    refresh = np.asarray(refresh)
    if refresh.shape != shape or refresh.dtype != bool or not refresh[:, 0].all():
        raise InputError(f"a seed is {refresh.dtype} {list(refresh.shape)}, wanted bool {list(shape)}, step 0 all true")
    return refresh
