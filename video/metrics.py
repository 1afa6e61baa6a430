"""How good a made video is, without a pretrained network: errors by horizon, ensembles, drift and the use of actions.

Videos are float arrays [N, T, H, W, C]: N videos of T frames, in a range of values that the caller knows.
The distances between sets of videos are in `spectra`, and are named here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .spectra import check_videos, floor, spatial_distance, temporal_distance

__all__ = [
    "Estimate",
    "action_shuffle_ratio",
    "bootstrap_interval",
    "crps",
    "drift",
    "error_ratio_db",
    "floor",
    "mse_by_horizon",
    "paired_difference",
    "psnr_by_horizon",
    "repeat_last",
    "spatial_distance",
    "spread_skill",
    "temporal_distance",
]

MOST_DB = 100.0  # what identical frames score


class Estimate(NamedTuple):
    """A mean over videos and its 95 % bootstrap interval, all in the unit of the values."""

    mean: float
    low: float
    high: float


def mse_by_horizon(truth: np.ndarray, made: np.ndarray) -> np.ndarray:
    """[T] mean squared error of the t-th frame, over videos, pixels and channels, in squared units of the values.

    `truth` and `made` are floats [N, T, H, W, C]. Raises InputError where they differ in shape, or are not float or
    not finite. Report it beside that of `repeat_last`.
    """
    return _frame_mse(truth, made).mean(0)


def psnr_by_horizon(truth: np.ndarray, made: np.ndarray, peak: float = 1.0) -> np.ndarray:
    """[T] peak signal-to-noise ratio of the t-th frame in dB: 10 log10(peak^2 / MSE) of each video, at most 100.

    It is the mean over videos of the dB, not the dB of the mean error, which is never above it. `truth` and `made` are
    floats [N, T, H, W, C]; `peak` is the width of the range of values (1 for 0..1, 2 for -1..1). Identical frames score
    100 dB. Raises InputError as `mse_by_horizon`, and for a peak that is not above 0.
    """
    if not 0 < peak < np.inf:
        raise InputError(f"got the peak {peak}, wanted a width above 0: use 1 for values in 0..1, 2 for -1..1")
    share = _frame_mse(truth, made) / peak**2
    return -10 * np.log10(np.maximum(share, 10 ** (-MOST_DB / 10))).mean(0)


def repeat_last(last: np.ndarray, frames: int) -> np.ndarray:
    """[N, frames, H, W, C]: the last known frames `last` [N, H, W, C], held. What any prediction has to beat.

    Raises InputError for another number of dimensions and for frames < 1.
    """
    if last.ndim != 4 or frames < 1:
        got = f"got last of shape {tuple(last.shape)} for {frames} frames"
        raise InputError(f"{got}, wanted [N, H, W, C] and 1 or more: pass truth[:, t]")
    return np.repeat(last[:, None], frames, axis=1)


def crps(ensemble: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[T] continuous ranked probability score of the t-th frame, in units of the values; lower is better, 0 is perfect.

    `ensemble` [M, N, T, ...] holds M >= 2 members x of the `truth` y [N, T, ...]. The fair estimator is taken, whose
    expectation does not depend on M:
    mean_i |x_i - y| - 1 / (2 M (M - 1)) sum_ij |x_i - x_j|,
    for each value on its own, then the mean over videos and pixels. It can be below 0 by chance. Raises InputError
    for M < 2, shapes that do not match and values that are not finite.
    """
    members = _check_ensemble(ensemble, truth)
    # Of sorted members, sum_ij |x_i - x_j| = 2 sum_i (2 i - M - 1) x_(i), i = 1..M.
    rank = (2.0 * np.arange(1, members + 1) - members - 1) / (members * (members - 1))
    scores = []
    for video in range(len(truth)):
        error = np.sort(ensemble[:, video].astype(np.float64) - truth[video], axis=0)
        scores.append(_by_frame(np.abs(error).mean(0) - np.tensordot(rank, error, axes=1)))
    return np.mean(scores, axis=0)


def spread_skill(ensemble: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[T] ratio of an ensemble's spread to the error of its mean: 1 is calibrated, below 1 is overconfident.

    sqrt((M + 1) / M) * sqrt(mean variance) / RMSE of the ensemble's mean, of `ensemble` [M, N, T, ...] with M >= 2 and
    `truth` [N, T, ...]; variances are unbiased, means are over videos and pixels. NaN where both are 0, infinity where
    the error alone is. Raises InputError as `crps`.
    """
    members = _check_ensemble(ensemble, truth)
    variance, error = [], []
    for video in range(len(truth)):
        made = ensemble[:, video].astype(np.float64)
        variance.append(_by_frame(made.var(axis=0, ddof=1)))
        error.append(_by_frame(np.square(made.mean(axis=0) - truth[video])))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((members + 1) / members * np.mean(variance, axis=0) / np.mean(error, axis=0))


def drift(values: np.ndarray, frames: int, seed: int = 0) -> Estimate:
    """How far a measure has moved by the end: mean of the last `frames` less mean of the first `frames`.

    `values` [N, T] is one number for each frame of N >= 2 videos, of any unit; the result is in that unit, its mean and
    95 % interval over videos (`bootstrap_interval`). Raises InputError for frames < 1, 2 * frames > T and N < 2.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not 1 <= frames <= values.shape[1] // 2:
        got = f"got values of shape {values.shape} and {frames} frames"
        raise InputError(f"{got}, wanted [N, T] and 1 to T / 2: choose ends that do not overlap")
    return _estimate(values[:, -frames:].mean(1) - values[:, :frames].mean(1), seed)


def bootstrap_interval(values: np.ndarray, seed: int, draws: int = 2000) -> tuple[float, float]:
    """(low, high): the 95 % percentile bootstrap interval of the mean of `values` [N], in their unit.

    `draws` resamples of N with replacement, keyed by `seed`. A percentile interval is too narrow for few values: about
    90 % at N = 10 and 84 % at N = 5, of normal values. Raises InputError for N < 2, draws < 1
    and values that are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or draws < 1:
        got = f"got values of shape {values.shape} and {draws} draws"
        raise InputError(f"{got}, wanted [N] with N of 2 or more, and 1 draw or more: an interval needs more videos")
    if not np.isfinite(values).all():
        raise InputError("got NaN or infinity to average, wanted finite values: look for the video that broke")
    picked = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(values[picked].mean(1), [0.025, 0.975])
    return float(low), float(high)


def paired_difference(a: np.ndarray, b: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of a - b with its 95 % bootstrap interval over pairs; `a` and `b` [N] are of the same videos, in order.

    Raises InputError where their shapes differ, for N < 2 and values that are not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise InputError(f"got {a.shape} and {b.shape} values, wanted pairs of one video each: score the same videos")
    return _estimate(a - b, seed)


def error_ratio_db(worse: np.ndarray, better: np.ndarray, seed: int = 0, draws: int = 2000) -> Estimate:
    """10 log10(mean worse / mean better) of squared errors [N] of the same videos, with its 95 % bootstrap interval
    over videos: the difference of two PSNRs, each of the error's mean. Raises InputError as `paired_difference`."""
    worse, better = (np.maximum(np.asarray(part, dtype=np.float64), 10 ** (-MOST_DB / 10)) for part in (worse, better))
    paired_difference(worse, better, seed)  # checks both
    picked = np.random.default_rng(seed).integers(len(worse), size=(draws, len(worse)))
    low, high = np.quantile(10 * np.log10(worse[picked].mean(1) / better[picked].mean(1)), [0.025, 0.975])
    return Estimate(float(10 * np.log10(worse.mean() / better.mean())), float(low), float(high))


def action_shuffle_ratio(
    loss: Callable[[np.ndarray], float], actions: np.ndarray, permutations: int = 8, seed: int = 0
) -> float:
    """Loss with the actions of other videos, over the loss with their own: above 1 where actions are used, 1 if not.

    `loss(actions)` is the model's error on fixed videos given `actions` [N, T, Da]; it must draw the same noise every
    time. mean over derangements p of loss(actions[p]) / loss(actions): no video keeps its own actions, and the
    `permutations` derangements are keyed by `seed`. Where videos share their actions the ratio is 1 for any model.
    Raises InputError for N < 2, Da = 0, permutations < 1, and a true loss that is not finite and above 0.
    """
    if actions.ndim != 3 or len(actions) < 2 or actions.shape[2] == 0 or permutations < 1:
        got = f"got actions of shape {tuple(actions.shape)} and {permutations} permutations"
        raise InputError(f"{got}, wanted [N, T, Da] with N > 1 and Da > 0, and 1 or more: use videos with actions")
    own = float(loss(actions))
    if not 0 < own < np.inf:
        raise InputError(f"got a loss of {own} at the true actions, wanted a finite one above 0: check the loss")
    rng = np.random.default_rng(seed)
    return float(np.mean([loss(actions[_derangement(len(actions), rng)]) for _ in range(permutations)])) / own


def _derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """[n] a permutation without fixed points, uniform among them: one draw in e is."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).all():
            return order


def _estimate(values: np.ndarray, seed: int) -> Estimate:
    low, high = bootstrap_interval(values, seed)
    return Estimate(float(values.mean()), low, high)


def _frame_mse(truth: np.ndarray, made: np.ndarray) -> np.ndarray:
    """[N, T]; a video at a time, in double precision."""
    check_videos("truth", truth)
    check_videos("made", made)
    if truth.shape != made.shape:
        raise InputError(f"got truth {truth.shape} and made {made.shape}, wanted one shape: cut them to one length")
    pairs = zip(truth, made, strict=True)
    return np.stack([np.square(y.astype(np.float64) - x).mean(axis=(1, 2, 3)) for y, x in pairs])


def _by_frame(values: np.ndarray) -> np.ndarray:
    """[T] means of `values` [T, ...]."""
    return values.reshape(len(values), -1).mean(1)


def _check_ensemble(ensemble: np.ndarray, truth: np.ndarray) -> int:
    """The number of members."""
    if truth.ndim < 2 or 0 in truth.shape or ensemble.shape[1:] != truth.shape:
        got = f"got an ensemble {tuple(ensemble.shape)} of the truth {tuple(truth.shape)}"
        raise InputError(f"{got}, wanted [M, N, T, ...] and [N, T, ...], none of them 0: stack members in front")
    if len(ensemble) < 2:
        raise InputError(f"got {len(ensemble)} members, wanted 2 or more: make more of them from other noise")
    if not (np.isfinite(ensemble).all() and np.isfinite(truth).all()):
        raise InputError("got NaN or infinity in an ensemble or its truth, wanted finite values: look where it broke")
    return len(ensemble)
