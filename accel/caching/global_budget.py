"""A schedule for a budget of milliseconds: which branches, at which steps, bring the actions nearest to the dense ones.

    refresh = global_schedule(error, cost, kinds, steps, budget_of(cost, 10, len(kinds), steps, kinds))

What is minimised is the error of the actions themselves, measured on whole trajectories, and what is spent are
milliseconds, shared by all blocks and steps: nothing is assumed of how much a feature's change matters. The error here
is the mean over samples of each one's RMS: the RMS over all is ruled by the few samples that a small change turns to
another mode, and those are not the same ones next time.

    start     whole steps, crowded towards the clean end by several powers; and a greedy choice, step by step
    shift     a step's refreshes move to another step, while the error falls
    exchange  the refreshes whose loss does the least harm a millisecond are dropped, and what is freed is spent again

Legend: b blocks, K steps. A tick here is a step at which something is refreshed.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ...errors import InputError
from .costs import CostModel
from .evaluator import ActionError
from .schedulers import crowded

Progress = Callable[[int, float], None]

POWERS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2)  # of how steps crowd: 1 is even
PLACES = 24  # steps that are tried for a new tick
SHIFTS = (1, 2, 4, 8)
TOGETHER = (2, 3, 4, 6, 8, 12)  # ticks that move at once
FREED = (1, 2, 4)  # whole ticks that an exchange pays for
DROPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # refreshes that are left out at once
LEAST_GAIN = 1e-3  # of the error: below it a change is not worth its evaluations
SURE_GAIN = 2e-2  # the same for exchanges: there are so many that the best one by luck is better by some


def budget_of(cost: CostModel, M: int, blocks: int, steps: int, kinds: Sequence[str]) -> float:
    """Predicted milliseconds of M full refreshes, all blocks at the same steps."""
    if not 1 <= M <= steps:
        raise InputError(f"{M} refreshes of {steps} steps, wanted 1 to {steps}")
    return float(cost(np.repeat(np.arange(steps)[None] < M, blocks, 0), kinds))


def sensitivity(error: ActionError, refresh: np.ndarray) -> np.ndarray:
    """[b, K]: how much the error grows when that one refresh is left out, all others as they are; 0 where there is
    none, and at step 0. Below 0 where the refresh does harm."""
    return _harm(lambda candidates: error.per_sample(np.stack(candidates)).mean(1), refresh)


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
    measured and the error so far. The samples are those in `error`: of fewer than 16, exchanges fit the noise.
    Raises InputError where the budget does not allow for the first step and one more.
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

    def __init__(
        self,
        error: ActionError,
        cost: CostModel,
        kinds: Sequence[str],
        budget_ms: float,
        evaluations: int,
        progress: Progress | None,
    ) -> None:
        self.error, self.cost, self.kinds = error, cost, kinds
        self.budget_ms, self.most_ms = budget_ms, budget_ms * (1 + 1e-9)  # sums of equal costs differ by rounding
        self.left, self.progress = evaluations, progress
        self.measured: dict[bytes, np.ndarray] = {}
        self.refresh, self.value = _ticks(error.blocks, error.steps, [0]), np.inf

    # -- measuring ------------------------------------------------------------------------------------------------

    def samples(self, candidates: Sequence[np.ndarray]) -> np.ndarray:
        """[C, n] errors; what was measured before is not measured again."""
        new = {key: c for c in candidates if (key := np.packbits(c).tobytes()) not in self.measured}
        if new:
            self.measured.update(zip(new, self.error.per_sample(np.stack(list(new.values()))), strict=True))
            self.left -= len(new)
        return np.stack([self.measured[np.packbits(c).tobytes()] for c in candidates])

    def errors(self, candidates: Sequence[np.ndarray]) -> np.ndarray:
        """[C], means over the samples."""
        return self.samples(candidates).mean(1)

    def affordable(self, candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not candidates:
            return []
        fits = self.cost(np.stack(candidates), self.kinds) <= self.most_ms
        return [candidate for candidate, fit in zip(candidates, fits, strict=True) if fit]

    def take(self, candidates: Sequence[np.ndarray], gain: float = LEAST_GAIN) -> bool:
        """Go on from the affordable candidate that is best on the worse half of the samples, if it is better there by
        that share: of many candidates some are better by luck, but seldom on both halves."""
        candidates = self.affordable(candidates)
        if not candidates:
            return False
        samples = self.samples(candidates)
        ratios = _halves(samples) / np.maximum(_halves(self.samples([self.refresh])), 1e-9)
        best = ratios.max(1).argmin()
        if not ratios[best].max() < 1 - gain:
            return False
        self.refresh, self.value = candidates[best], float(samples[best].mean())
        if self.progress is not None:
            self.progress(len(self.measured), self.value)
        return True

    # -- moves ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Whole ticks: the best of the powers, and of a greedy choice."""
        b, K = self.refresh.shape
        M = max(M for M in range(1, K + 1) if budget_of(self.cost, M, b, K, self.kinds) <= self.most_ms)
        self.value = float(self.errors([self.refresh])[0])
        self.take([_ticks(b, K, crowded(K, M, power)) for power in POWERS])
        self.take([self.grown(_ticks(b, K, [0, K - 1]))])

    def grown(self, refresh: np.ndarray) -> np.ndarray:
        """`refresh` with whole ticks added while there is money, each where it lowers the error most."""
        while self.left > 0:
            added = self.affordable([_tick(refresh, place) for place in _places(refresh)])
            if not added:
                break
            refresh = added[self.errors(added).argmin()]
        return refresh

    def shift(self) -> bool:
        """Ticks move, one by one and then those together that gain by themselves, while the error falls."""
        gained = False
        while self.left > 0:
            moves = [(k, k + way * by) for k in _active(self.refresh) for by in SHIFTS for way in (-1, 1)]
            moves = [(k, to) for k, to in moves if self._free(to)]
            candidates = [_moved(self.refresh, [move]) for move in moves]
            if not candidates:
                return gained
            best = self._best_moves(moves, self.value - self.errors(candidates))
            together = [_moved(self.refresh, best[:count]) for count in TOGETHER if count <= len(best)]
            if not self.take(candidates + together):
                return gained
            gained = True
        return gained

    def exchange(self) -> bool:
        """Drop what does the least harm a millisecond, spend what that frees on whole ticks, and keep it if the error
        falls; or drop what does harm, and keep the money."""
        gained = False
        full_ms = self.cost(np.ones((len(self.kinds), 2), dtype=bool), self.kinds)
        full_ms -= self.cost(np.arange(2)[None].repeat(len(self.kinds), 0) < 1, self.kinds)
        while self.left > 0:
            order = self._cheapest_losses()
            dropped = [_without(self.refresh, order[:count]) for count in DROPS if count <= len(order)]
            thinned = [self._freed(order, freed * full_ms) for freed in FREED]
            grown = [self.grown(each) for each in thinned if each is not None]
            if not self.take(dropped + grown, SURE_GAIN):
                return gained
            gained = True
        return gained

    # -- parts ----------------------------------------------------------------------------------------------------

    def _free(self, step: int) -> bool:
        return 0 < step < self.refresh.shape[1] and not self.refresh[:, step].any()

    def _best_moves(self, moves: Sequence[tuple[int, int]], gain: np.ndarray) -> list[tuple[int, int]]:
        """Of those that gain by themselves one a tick, no two to the same step, best first."""
        best: dict[int, int] = {}
        for i in np.argsort(-gain, kind="stable"):
            k, to = moves[i]
            if gain[i] > 0 and k not in best and to not in best.values():
                best[k] = to
        return list(best.items())

    def _cheapest_losses(self) -> list[tuple[int, int]]:
        """(block, step) of the refreshes after step 0, in the order of their harm for each millisecond."""
        at = _refreshed(self.refresh)
        if not at:
            return []
        less = np.stack([_without(self.refresh, [place]) for place in at])
        saved = self.cost(self.refresh, self.kinds) - self.cost(less, self.kinds)
        harm = _harm(self.errors, self.refresh)
        rate = [harm[place] / max(ms, 1e-9) for place, ms in zip(at, saved, strict=True)]
        return [at[i] for i in np.argsort(rate, kind="stable")]

    def _freed(self, order: Sequence[tuple[int, int]], ms: float) -> np.ndarray | None:
        """The schedule less the first of `order`, until it leaves at least `ms` of the budget; None: it cannot."""
        for count in range(len(order) + 1):
            thinned = _without(self.refresh, order[:count])
            if self.cost(thinned, self.kinds) <= self.budget_ms - ms:
                return thinned
        return None


def _harm(errors: Callable[[Sequence[np.ndarray]], np.ndarray], refresh: np.ndarray) -> np.ndarray:
    """`sensitivity`, by a function that measures candidates."""
    harm, at = np.zeros(refresh.shape), _refreshed(refresh)
    if at:
        base, *without = errors([refresh, *(_without(refresh, [place]) for place in at)])
        harm[tuple(np.transpose(at))] = np.array(without) - base
    return harm


def _refreshed(refresh: np.ndarray) -> list[tuple[int, int]]:
    """(block, step) of the refreshes after step 0."""
    return [(int(b), int(k) + 1) for b, k in np.argwhere(refresh[:, 1:])]


def _halves(samples: np.ndarray) -> np.ndarray:
    """[C, n] -> [C, 2] means of the even samples and of the odd ones."""
    return np.stack([samples[:, ::2].mean(1), samples[:, 1::2].mean(1) if samples.shape[1] > 1 else samples[:, 0]], 1)


def _ticks(b: int, K: int, steps: Sequence[int] | np.ndarray) -> np.ndarray:
    refresh = np.zeros((b, K), dtype=bool)
    refresh[:, steps] = True
    return refresh


def _active(refresh: np.ndarray) -> np.ndarray:
    """Steps with a refresh, without step 0."""
    return np.flatnonzero(refresh[:, 1:].any(0)) + 1


def _places(refresh: np.ndarray) -> list[int]:
    """Up to PLACES steps without a refresh, spread over the gaps between ticks: midpoints first, then quarters."""
    edges = [0, *_active(refresh).tolist(), refresh.shape[1]]
    places: dict[int, None] = {}
    parts = 2
    while len(places) < PLACES and parts <= refresh.shape[1] * 2:
        for low, high in pairwise(edges):
            for i in range(1, parts, 2):
                place = low + (high - low) * i // parts
                if low < place < high:
                    places[place] = None
        parts *= 2
    return list(places)[: max(PLACES, len(edges))]


def _tick(refresh: np.ndarray, step: int) -> np.ndarray:
    refresh = refresh.copy()
    refresh[:, step] = True
    return refresh


def _without(refresh: np.ndarray, places: Sequence[tuple[int, int]]) -> np.ndarray:
    refresh = refresh.copy()
    for place in places:
        refresh[place] = False
    return refresh


def _moved(refresh: np.ndarray, moves: Sequence[tuple[int, int]]) -> np.ndarray:
    """Columns moved to other steps, which hold nothing."""
    moved = refresh.copy()
    for k, _ in moves:
        moved[:, k] = False
    for k, to in moves:
        moved[:, to] |= refresh[:, k]
    return moved
