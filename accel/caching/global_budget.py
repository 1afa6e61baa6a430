"""A schedule for a budget of milliseconds: which branches, at which steps, bring the actions nearest to the dense ones.

    refresh = global_schedule(error, cost, kinds, steps, budget_of(cost, 10, len(kinds), steps, kinds))

What is minimised is the error of the actions themselves, measured on whole trajectories, and what is spent are
milliseconds, shared by all blocks and steps: nothing is assumed of how much a feature's change matters.

    start     whole steps, crowded towards the clean end by several powers; and a greedy choice, step by step
    shift     a step's refreshes move to another step, while the error falls
    exchange  the refreshes whose loss does the least harm a millisecond are dropped, and what is freed is spent again

Legend: b blocks, K steps. A tick here is a step at which something is refreshed.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ...errors import InputError
from .costs import CostModel
from .evaluator import ActionError

Progress = Callable[[int, float], None]

POWERS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2)  # of how steps crowd: 1 is even
PLACES = 24  # steps that are tried for a new tick
SHIFTS = (1, 2, 4, 8)
FREED = (1.0, 2.0, 0.5, 4.0)  # of a full tick's cost, what an exchange spends again
LEAST_GAIN = 1e-3  # relative: below it a change is not worth its evaluations


def budget_of(cost: CostModel, M: int, blocks: int, steps: int, kinds: Sequence[str]) -> float:
    """Predicted milliseconds of M full refreshes, all blocks at the same steps."""
    if not 1 <= M <= steps:
        raise InputError(f"{M} refreshes of {steps} steps, wanted 1 to {steps}")
    return float(cost(np.repeat(np.arange(steps)[None] < M, blocks, 0), kinds))


def sensitivity(error: ActionError, refresh: np.ndarray) -> np.ndarray:
    """[b, K]: how much the error grows when that one refresh is left out, all others as they are; 0 where there is
    none, and at step 0. Below 0 where the refresh does harm."""
    return _Search(error, None, (), np.inf, None, None).sensitivity(refresh)


def global_schedule(
    error: ActionError,
    cost: CostModel,
    kinds: Sequence[str],
    steps: int,
    budget_ms: float,
    progress: Progress | None = None,
    evaluations: int = 3000,
) -> np.ndarray:
    """[b, K] bool, the best schedule found that costs at most `budget_ms`. The same arguments, the same schedule.

    kinds: of the blocks, as `cost` knows them; evaluations: candidates to measure, about; progress: called with those
    measured and the error so far. The samples are the ones in `error`: too few, and it fits their noise. Raises
    InputError where the budget does not allow for the first step and one more.
    """
    if (len(kinds), steps) != (error.blocks, error.steps):
        raise InputError(f"{len(kinds)} kinds and {steps} steps for {error.blocks} blocks and {error.steps} steps")
    if budget_ms < budget_of(cost, min(2, steps), len(kinds), steps, kinds):
        raise InputError(f"{budget_ms:.3g} ms do not pay for two full refreshes; give more, or use fewer steps")
    search = _Search(error, cost, kinds, budget_ms, evaluations, progress)
    search.start()
    gained = True
    while gained and search.left > 0:
        gained = search.shift()
        gained |= search.exchange()
    return search.refresh


class _Search:
    """The best schedule so far, its error, and the moves that better it."""

    def __init__(self, error, cost, kinds, budget_ms, evaluations, progress) -> None:
        self.error, self.cost, self.kinds, self.budget_ms = error, cost, kinds, budget_ms
        self.left, self.progress = evaluations, progress
        self.measured: dict[bytes, float] = {}
        self.refresh, self.value = np.ones((error.blocks, error.steps), dtype=bool), np.inf

    # -- measuring ------------------------------------------------------------------------------------------------

    def errors(self, candidates: Sequence[np.ndarray]) -> np.ndarray:
        """[C]; what was measured before is not measured again."""
        new = {key: c for c in candidates if (key := np.packbits(c).tobytes()) not in self.measured}
        if new:
            self.measured.update(zip(new, self.error(np.stack(list(new.values()))).tolist(), strict=True))
            if self.left is not None:
                self.left -= len(new)
        return np.array([self.measured[np.packbits(c).tobytes()] for c in candidates])

    def affordable(self, candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not len(candidates):
            return []
        return [c for c, ms in zip(candidates, self.cost(np.stack(candidates), self.kinds), strict=True)
                if ms <= self.budget_ms * (1 + 1e-9)]  # fmt: skip

    def take(self, candidates: Sequence[np.ndarray]) -> bool:
        """Go on from the best affordable candidate, if it is better by more than rounding."""
        candidates = self.affordable(candidates)
        if not candidates:
            return False
        errors = self.errors(candidates)
        if not errors.min() < self.value * (1 - LEAST_GAIN):
            return False
        self.refresh, self.value = candidates[errors.argmin()], float(errors.min())
        if self.progress is not None:
            self.progress(len(self.measured), self.value)
        return True

    def sensitivity(self, refresh: np.ndarray) -> np.ndarray:
        b, k = np.nonzero(refresh[:, 1:])
        harm = np.zeros(refresh.shape)
        if len(b):
            dropped = [_with(refresh, block, step, False) for block, step in zip(b, k + 1, strict=True)]
            harm[b, k + 1] = self.errors(dropped) - self.errors([refresh])[0]
        return harm

    # -- moves ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Whole ticks: the best of the powers, and of a greedy choice."""
        b, K = self.refresh.shape
        full = [M for M in range(1, K + 1) if budget_of(self.cost, M, b, K, self.kinds) <= self.budget_ms * (1 + 1e-9)]
        M = full[-1]
        self.take([_ticks(b, K, _crowded(K, M, power)) for power in POWERS])
        self.take([self.grown(_ticks(b, K, [0, K - 1]), [np.ones(b, dtype=bool)])])

    def grown(self, refresh: np.ndarray, patterns: Sequence[np.ndarray]) -> np.ndarray:
        """`refresh` with ticks added while there is money: each time the place and pattern [b] of blocks that lower the
        error most for a millisecond."""
        value = float(self.errors([refresh])[0])
        spent = self.cost(refresh, self.kinds)
        while True:
            added = [_tick(refresh, place, p) for place in _places(refresh) for p in patterns]
            added = self.affordable([c for c in added if (c != refresh).any()])
            if not added:
                return refresh
            errors = self.errors(added)
            rate = (value - errors) / np.maximum(self.cost(np.stack(added), self.kinds) - spent, 1e-9)
            if rate.max() <= 0:
                return refresh
            refresh, value = added[rate.argmax()], float(errors[rate.argmax()])
            spent = self.cost(refresh, self.kinds)

    def shift(self) -> bool:
        """Ticks move, one by one and then those together that gain by themselves, while the error falls."""
        gained = False
        while self.left > 0:
            moves = [(k, k + way * by) for k in _active(self.refresh) for by in SHIFTS for way in (-1, 1)]
            moves = [(k, to) for k, to in moves if self._free(to)]
            candidates = [_moved(self.refresh, [move]) for move in moves]
            if not candidates:
                return gained
            gain = self.value - self.errors(candidates)
            order = [moves[i] for i in np.argsort(-gain, kind="stable") if gain[i] > 0]
            best = list({k: (k, to) for k, to in reversed(order)}.values())[::-1]  # each tick's best move
            best.sort(key=lambda move: order.index(move))
            together = [_moved(self.refresh, _apart(best[:count])) for count in (2, 3, 4, 6, 8, 12) if count <= len(best)]
            if not self.take(candidates + together):
                return gained
            gained = True
        return gained

    def exchange(self) -> bool:
        """Drop what does the least harm a millisecond, spend what that frees, and keep it if the error falls."""
        gained = False
        b, K = self.refresh.shape
        patterns = self._patterns()
        while self.left > 0:
            before = self.value
            order = self._cheapest_losses()
            halves = [self._without(order[:count]) for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if count <= len(order)]
            self.take(halves)
            tick_ms = self.cost(_ticks(b, K, [0, K - 1]), self.kinds) - self.cost(_ticks(b, K, [0]), self.kinds)
            origin = self.refresh
            for freed in FREED:
                thinned = self._freed(origin, order, freed * tick_ms)
                if thinned is not None and self.left > 0 and self.take([self.grown(thinned, patterns)]):
                    break
            if self.value >= before:
                return gained
            gained = True
        return gained

    # -- parts ----------------------------------------------------------------------------------------------------

    def _free(self, step: int) -> bool:
        return 0 < step < self.refresh.shape[1] and not self.refresh[:, step].any()

    def _patterns(self) -> list[np.ndarray]:
        """Which blocks a new tick may refresh: all, or those of some kinds."""
        kind = np.asarray(self.kinds)
        patterns = [np.ones(len(kind), dtype=bool)] + [kind == name for name in dict.fromkeys(self.kinds)]
        patterns += [kind != name for name in dict.fromkeys(self.kinds)]
        return [np.array(p) for p in dict.fromkeys(tuple(p.tolist()) for p in patterns) if any(p)]

    def _cheapest_losses(self) -> list[tuple[int, int]]:
        """(block, step) of the refreshes after step 0, in the order of their harm for each millisecond."""
        harm = self.sensitivity(self.refresh)
        at = [(int(b), int(k) + 1) for b, k in np.argwhere(self.refresh[:, 1:])]
        saved = self.cost(self.refresh, self.kinds) - self.cost(
            np.stack([_with(self.refresh, *place, False) for place in at]), self.kinds
        ) if at else np.zeros(0)  # fmt: skip
        rate = [harm[place] / max(ms, 1e-9) for place, ms in zip(at, saved, strict=True)]
        return [at[i] for i in np.argsort(rate, kind="stable")]

    def _without(self, places: Sequence[tuple[int, int]], refresh: np.ndarray | None = None) -> np.ndarray:
        refresh = (self.refresh if refresh is None else refresh).copy()
        for place in places:
            refresh[place] = False
        return refresh

    def _freed(self, refresh: np.ndarray, order: Sequence[tuple[int, int]], ms: float) -> np.ndarray | None:
        """`refresh` less the first of `order`, until it leaves at least `ms` of the budget; None: it cannot."""
        for count in range(len(order) + 1):
            thinned = self._without(order[:count], refresh)
            if self.cost(thinned, self.kinds) <= self.budget_ms - ms:
                return thinned
        return None


def _ticks(b: int, K: int, steps: Sequence[int]) -> np.ndarray:
    refresh = np.zeros((b, K), dtype=bool)
    refresh[:, list(steps)] = True
    return refresh


def _crowded(K: int, M: int, power: float) -> list[int]:
    """M different steps from 0 to K - 1, evenly spread where power is 1, towards the end where it is less."""
    steps = np.round((K - 1) * (np.arange(M) / max(M - 1, 1)) ** power).astype(int)
    for i in range(M - 2, -1, -1):  # those that fall together move towards the start
        steps[i] = min(steps[i], steps[i + 1] - 1)
    return sorted({0, *np.maximum(steps, 0).tolist()})


def _active(refresh: np.ndarray) -> np.ndarray:
    """Steps with a refresh, without step 0."""
    return np.flatnonzero(refresh[:, 1:].any(0)) + 1


def _places(refresh: np.ndarray) -> list[int]:
    """Up to PLACES steps without a refresh, spread over the gaps between ticks: midpoints first, then quarters."""
    edges = [0, *_active(refresh).tolist(), refresh.shape[1]]
    places: dict[int, None] = {}
    parts = 2
    while len(places) < PLACES and parts <= refresh.shape[1] * 2:
        for low, high in zip(edges, edges[1:], strict=False):
            for i in range(1, parts, 2):
                place = low + (high - low) * i // parts
                if low < place < high:
                    places[place] = None
        parts *= 2
    return list(places)[: max(PLACES, len(edges))]


def _tick(refresh: np.ndarray, step: int, blocks: np.ndarray) -> np.ndarray:
    refresh = refresh.copy()
    refresh[:, step] |= blocks
    return refresh


def _with(refresh: np.ndarray, block: int, step: int, value: bool) -> np.ndarray:
    refresh = refresh.copy()
    refresh[block, step] = value
    return refresh


def _moved(refresh: np.ndarray, moves: Sequence[tuple[int, int]]) -> np.ndarray:
    """Columns moved to other steps, which hold nothing."""
    moved = refresh.copy()
    for k, _ in moves:
        moved[:, k] = False
    for k, to in moves:
        moved[:, to] |= refresh[:, k]
    return moved


def _apart(moves: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that do not end at the same step."""
    return list({to: (k, to) for k, to in reversed(moves)}.values())
