"""Schedulers: at which of its K steps a block is computed, chosen from how alike its outputs are.

    refresh = bac(maps, M=10)          [blocks, K] bool, column 0 all true; column 0 is the noisiest step

Every budget M counts refreshes with step 0 among them, so that schedulers compare at equal cost; what a scheduler adds
to it by design (the last step, a bubbling union) it says.

uniform, uniform_last   evenly spaced, looking at nothing; the second is FORA's (Selvaraju et al. 2024)
power                   crowded towards the clean end, looking at nothing
acs, unified_acs        the adaptive caching scheduler of BAC (Ji et al., "Block-wise Adaptive Caching", 2026): a
                        dynamic program over segments of steps, for every block or one for all
bubbling_union          BAC's cure for errors that surge where a feed-forward block is refreshed
bac                     all of it

Legend: b blocks, K steps, M refreshes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from .features import adjacent

if TYPE_CHECKING:
    from .features import Maps

FEED_FORWARD = "feed_forward"
FORMS = ("pairwise", "adjacent")
POWER = 0.4


# -- looking at nothing ------------------------------------------------------------------------------------------------


def uniform(blocks: int, steps: int, M: int) -> np.ndarray:
    """[b, K] bool: steps floor(i K / M), i < M. The last ones are stale: compare with `uniform_last` too."""
    _check_budget(M, steps)
    return _marked(blocks, steps, np.arange(M) * steps // M)


def uniform_last(blocks: int, steps: int, M: int) -> np.ndarray:
    """[b, K] bool: FORA's, whose interval is counted from the last step. Steps K - 1 - floor(j K / M), j < M, and
    step 0, where nothing is cached yet: M + 1 refreshes, where M < K."""
    _check_budget(M, steps)
    return _marked(blocks, steps, np.append(steps - 1 - np.arange(M) * steps // M, 0))


def power(blocks: int, steps: int, M: int) -> np.ndarray:
    """[b, K] bool: steps (K - 1) (i / (M - 1))^0.4, i < M, moved apart where they meet. What is computed late is
    used by few steps and undone by none, so that is where refreshes are worth most; the power is the best round one
    on the shipped policies."""
    _check_budget(M, steps)
    return _marked(blocks, steps, crowded(steps, M, POWER))


def crowded(steps: int, M: int, power: float) -> np.ndarray:
    """[M] different steps from 0 to K - 1, rising: even where power is 1, towards the end where it is less. Those that
    would fall together move towards the start."""
    taken = np.round((steps - 1) * (np.arange(M) / max(1, M - 1)) ** power).astype(int)
    for i in range(M - 2, -1, -1):
        taken[i] = min(taken[i], taken[i + 1] - 1)
    return np.maximum(taken, np.arange(M))


UNCALIBRATED = {"uniform": uniform, "uniform-last": uniform_last, "power": power}  # by their names in a plan


def with_tail(refresh: np.ndarray) -> np.ndarray:
    """The same, with every block computed at the last step, whose output is executed: at most one refresh more."""
    refresh = refresh.copy()
    refresh[:, -1] = True
    return refresh


# -- adaptive caching scheduler ----------------------------------------------------------------------------------------


def segment_dp(S: Any, M: int, maximise: bool = True) -> list[int]:
    """Where the M segments start that cover steps 0..K-1 best; the first starts at 0.

    S: [K, K], S[a, t] the score of step t where it reuses step a: BAC's pairwise form. With w(a, i) = sum_{t=a..i}
    S[a, t], its own step included,

        D_1[i] = w(0, i);    D_m[i] = max_{0 < a <= i} D_{m-1}[a - 1] + w(a, i);    answer D_M[K - 1]

    which is ordered clustering with a segment's first step as its representative. `maximise` false: S is a cost. Of
    equally good segmentations the one is taken whose last segment starts first, then its last but one, and so on.
    """
    S = _checked_scores(S, 2)
    _check_budget(M, len(S))
    return _best_segments(_segment_scores(S if maximise else -S), M)


def adjacent_dp(s: Any, M: int) -> list[int]:
    """Where M segments start, by the form that BAC prints: from similarities to the step before alone.

    s: [K], s[k] the similarity of steps k and k - 1 (s[0] is not read). With phi(i, j) = sum_{k=i+1..j} s_k from prefix
    sums, c_0 = 0 and c_M = K, the sum over m of phi(c_m, c_{m+1} - 1) is maximised over c_1 < .. < c_{M-1}; c_0 is
    counted in M here, and not in print. (Its recursion is printed with phi(i, j); that telescopes to the same value for
    every choice, so the objective's phi(i, j - 1) is what is used.)

    Kept as a variant. The objective is sum_k s_k - sum_m s_{c_m}, so it refreshes at the M - 1 steps least like the one
    before, however long it reuses in between; `segment_dp` has no such blindness. Ties as there.
    """
    s = _checked_scores(s, 1)
    _check_budget(M, len(s))
    prefix = np.cumsum(np.append(0.0, s[1:]))  # prefix[j] = s_1 + .. + s_j
    return _best_segments(prefix[None, :] - prefix[:, None], M)


def acs(similarity: Any, M: int, form: str = "pairwise") -> np.ndarray:
    """[b, K, K] similarity -> [b, K] bool: every block by itself, M refreshes each."""
    similarity = _checked_scores(similarity, 3)
    blocks, steps = similarity.shape[:2]
    refresh = np.zeros((blocks, steps), bool)
    for row, S in zip(refresh, similarity, strict=True):
        row[_starts(S, M, form)] = True
    return refresh


def unified_acs(similarity: Any, M: int, form: str = "pairwise") -> np.ndarray:
    """[b, K, K] similarity -> [b, K] bool: the schedule of block 0, the first self-attention, for all blocks."""
    similarity = _checked_scores(similarity, 3)
    blocks, steps = similarity.shape[:2]
    return _marked(blocks, steps, _starts(similarity[0], M, form))


def _starts(S: np.ndarray, M: int, form: str) -> list[int]:
    if form not in FORMS:
        raise InputError(f"form is {form!r}, wanted one of {', '.join(FORMS)}")
    return segment_dp(S, M) if form == "pairwise" else adjacent_dp(adjacent(S), M)


def _segment_scores(S: np.ndarray) -> np.ndarray:
    """w: [K, K], entry [a, i] the score of a segment from a to i."""
    return np.cumsum(np.triu(S), 1)


def _best_segments(w: np.ndarray, M: int) -> list[int]:
    """Starts of M segments with the largest sum of w: [K, K], of which [a, i] with a <= i is read. O(M K^2)."""
    K = len(w)
    w = np.where(np.arange(K)[:, None] <= np.arange(K), w, -np.inf)
    best, back = w[0], []
    for _ in range(1, M):
        before = np.append(-np.inf, best[:-1])  # before[a]: the best of what ends at a - 1
        scores = before[:, None] + w
        back.append(scores.argmax(0))  # the first of equals
        best = scores.max(0)
    starts, end = [], K - 1
    for choice in reversed(back):
        starts.append(int(choice[end]))
        end = starts[-1] - 1
    return [0, *reversed(starts)]


# -- bubbling union ----------------------------------------------------------------------------------------------------


def reuse_scores(l1: Any) -> np.ndarray:
    """[b, K, K] mean L1 differences -> [b]: their mean over pairs of steps i < j, the error that reuse itself makes."""
    l1 = _checked_scores(l1, 3)
    pairs = np.triu_indices(l1.shape[1], 1)
    return l1[:, *pairs].mean(1) if len(pairs[0]) else np.zeros(len(l1))


def top_n(scores: Any, n: int) -> tuple[int, ...]:
    """The n blocks with the largest scores [b], in the network's order; of equals the first."""
    scores = _checked_scores(scores, 1)
    if not 0 <= n <= len(scores):
        raise InputError(f"n is {n}, and there are {len(scores)} blocks; give 0 to {len(scores)}")
    return tuple(sorted(np.argsort(-scores, kind="stable")[:n].tolist()))


def bubbling_union(refresh: np.ndarray, kinds: Sequence[str], layers: Sequence[int], l1: Any, n: int) -> np.ndarray:
    """BAC's Bubbling Union Algorithm: the n blocks with the largest reuse error are also refreshed wherever a
    feed-forward block of their layer or a deeper one is, so that what is computed there stands on fresh input.

    refresh: [b, K] bool; kinds, layers: of the blocks, in order; l1: [b, K, K], see `reuse_scores`; n of 0 changes
    nothing. Unions are of the sets as they came in; one after another in any order would give the same, since what lies
    deeper than a deeper block is deeper.
    """
    _check_blocks(refresh, kinds, layers, l1)
    if n and FEED_FORWARD not in kinds:
        got = ", ".join(sorted(set(kinds)))
        raise InputError(f"no block is of kind {FEED_FORWARD!r} (they are {got}), so a union adds nothing; give n 0")
    feed_forward, layer = np.array([kind == FEED_FORWARD for kind in kinds]), np.array(layers)
    result = refresh.copy()
    for u in top_n(reuse_scores(l1), n):
        result[u] |= refresh[feed_forward & (layer >= layer[u])].any(0)
    return result


def bac(maps: "Maps", M: int, n: int = 5, tail: bool = True, form: str = "pairwise") -> np.ndarray:
    """[b, K] bool: block-wise ACS, the bubbling union over n blocks (all, where there are fewer) and, with `tail`, the
    last step of every block. Both add to the M refreshes a block: see `CacheSchedule.refreshes`."""
    blocks = len(maps.kinds)
    refresh = bubbling_union(acs(maps.cosine, M, form), maps.kinds, maps.layers, maps.l1, min(n, blocks))
    return with_tail(refresh) if tail else refresh


# -- checks ------------------------------------------------------------------------------------------------------------


def _marked(blocks: int, steps: int, chosen: Any) -> np.ndarray:
    """[b, K] bool: the chosen steps in every block."""
    return np.repeat(np.isin(np.arange(steps), chosen)[None], blocks, 0)


def _check_budget(M: int, steps: int) -> None:
    if not 1 <= M <= steps:
        raise InputError(
            f"M is {M}, and there are {steps} steps; give 1 to {steps} refreshes, the first step's among them"
        )


def _checked_scores(scores: Any, dims: int) -> np.ndarray:
    """float64; [K], [K, K] or [b, K, K] by `dims`. Sums of float32 would break ties by rounding."""
    scores = np.asarray(scores, np.float64)
    square = dims == 1 or (scores.ndim == dims and scores.shape[-1] == scores.shape[-2])
    if scores.ndim != dims or not square or not scores.size:
        wanted = {1: "[K]", 2: "[K, K]", 3: "[blocks, K, K]"}[dims]
        raise InputError(f"scores have shape {list(scores.shape)}, wanted {wanted}")
    if not np.isfinite(scores).all():
        raise InputError("scores are not all finite; look for what diverged in the calibration")
    return scores


def _check_blocks(refresh: np.ndarray, kinds: Sequence[str], layers: Sequence[int], l1: Any) -> None:
    counts = {"refresh": len(refresh), "kinds": len(kinds), "layers": len(layers), "l1": len(l1)}
    if len(set(counts.values())) != 1:
        got = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"all must tell of the same blocks, got {got}")
