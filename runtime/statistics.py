"""Intervals for success rates, of one plan and of two on the same seeds; how many modes a plan keeps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval (low, high) for a proportion; (0, 1) when nothing was tried.

    Wilson, J. Am. Stat. Assoc. 22 (1927): the proportions p with |successes/n - p| <= z sqrt(p (1 - p) / n).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"got {successes} successes of {n}, wanted 0 to n")
    if n == 0:
        return 0.0, 1.0
    rate, shrink = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # The ends are exact where the sample is unanimous; rounding must not take them past it.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def paired_difference(
    first: Sequence[bool | int], second: Sequence[bool | int], z: float = Z95
) -> tuple[float, float, float]:
    """(difference, low, high) of the success rates, `second` minus `first`, over equal seeds in equal order.

    Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10: Wilson's intervals of the two rates, combined
    with the correlation phi of the pairs. Unlike Wald's it does not collapse when no pair differs.
    """
    if len(first) != len(second):
        raise ValueError(f"got {len(first)} and {len(second)} outcomes, wanted one of each for every seed")
    n = len(first)
    if n == 0:
        return 0.0, -1.0, 1.0
    pairs = [(bool(a), bool(b)) for a, b in zip(first, second, strict=True)]
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    only_second, only_first = pairs.count((False, True)), pairs.count((True, False))
    rate_2, rate_1 = (both + only_second) / n, (both + only_first) / n
    low_2, high_2 = wilson_interval(both + only_second, n, z)
    low_1, high_1 = wilson_interval(both + only_first, n, z)
    phi = _correlation(both, only_second, only_first, neither)
    difference = rate_2 - rate_1
    below = _combine(rate_2 - low_2, high_1 - rate_1, phi)
    above = _combine(high_2 - rate_2, rate_1 - low_1, phi)
    return difference, difference - below, difference + above


def mode_entropy(modes: Sequence[str]) -> float:
    """Entropy [nats] of the modes that were taken: 0 for one mode, log(K) for K modes taken equally often.

    The plug-in estimate H = -sum_k p_k log p_k, with p_k the share of mode k. It is too low on average, by about
    (K - 1) / (2 n) for n draws of K possible modes (Miller 1955): compare plans at equal n. Raises ValueError where
    there are no modes.
    """
    counts = _mode_counts(modes)
    return float(_entropy(counts / counts.sum()))


def mode_entropy_interval(modes: Sequence[str], resamples: int = 2000) -> tuple[float, float]:
    """(low, high) [nats]: the 95 % percentile bootstrap interval of `mode_entropy`, of fixed seed.

    Resamples have the estimate's bias a second time, so the interval leans low; it is stretched to hold the estimate
    where it would not. It is a point where only one mode was taken, which is no proof that there are no others.
    """
    counts = _mode_counts(modes)
    n, estimate = counts.sum(), mode_entropy(modes)
    resampled = _entropy(np.random.default_rng(0).multinomial(n, counts / n, resamples) / n)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return min(float(low), estimate), max(float(high), estimate)


def _mode_counts(modes: Sequence[str]) -> np.ndarray:
    """How often each mode was taken; sorted, so that neither names nor order decide anything."""
    if not modes:
        raise ValueError("got no modes, wanted at least one")
    return np.array(sorted(Counter(modes).values()))


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Of shares [..., K] that sum to 1; [...] nats."""
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1) + 0.0  # + 0.0: no minus zero


def _correlation(both: int, only_second: int, only_first: int, neither: int) -> float:
    """Newcombe's phi: corrected for continuity where it is positive, 0 where a margin is empty."""
    n = both + only_second + only_first + neither
    margins = (both + only_second) * (only_first + neither) * (both + only_first) * (only_second + neither)
    if margins == 0:
        return 0.0
    excess = both * neither - only_second * only_first
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(margins)


def _combine(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))
