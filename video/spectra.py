"""Frechet distances between the spectra of two sets of videos, in space and in time. No network, no weights.

Neither is the FVD of papers. They are units of their own: compare them only with their `floor`, and with each other at
the same videos, frames, resolution and range of values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from ..errors import InputError

RIDGE = 1e-6  # added to both covariances' diagonals
FAINTEST = 1e-10  # added to powers before the logarithm

Distance = Callable[[np.ndarray, np.ndarray], float]


def spatial_distance(real: np.ndarray, made: np.ndarray) -> float:
    """Frechet distance between the spatial spectra of frames; 0 for equal sets.

    `real` [N, T, H, W, C] and `made` [N', T', H, W, C] are floats in one range of values; features are those of
    `spatial_features`, a sample a frame. With Gaussians (m, S) fitted to each set and S + 1e-6 I for S:
    |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)).
    It sees blur, noise and grids, and is blind to time (a frozen or shuffled video scores well), to where things are
    and to the mean brightness: report `temporal_distance` and an error by horizon beside it.

    With n samples it is biased upwards, by an amount that falls as 1 / n and grows with the number of features d.
    Frames of one video are alike and count for less than a sample each, so videos matter more than frames. It warns
    where n <= d: the covariance is then singular but for the ridge. Report `floor` and N beside it. Raises InputError
    for arrays that are not float, not finite or of other shapes, and for fewer than 2 frames.
    """
    _check_pair(real, made)
    return frechet(spatial_features(real), spatial_features(made))


def temporal_distance(real: np.ndarray, made: np.ndarray, window: int = 16) -> float:
    """Frechet distance between the temporal spectra of windows of frames; 0 for equal sets.

    As `spatial_distance`, with `temporal_features`, a sample a window: real [N, T, H, W, C], made [N', T', H, W, C].
    It sees freezing, flicker and wrong speed, and is blind to where in the frame things happen. There are few windows,
    N * (T // window), so its bias is the larger of the two. Raises InputError, besides, where T or T' < window,
    window < 2, or there are fewer than 2 windows.
    """
    _check_pair(real, made)
    return frechet(temporal_features(real, window), temporal_features(made, window))


def floor(distance: Distance, real: np.ndarray, seed: int, splits: int = 8) -> float:
    """What `distance` is between real videos and real videos: its mean over random halves of `real` [N, T, H, W, C].

    Halves hold N // 2 whole videos each (one is left out where N is odd), never two parts of one video. The bias of a
    Frechet distance falls as 1 / N, so the floor of halves lies above that of N real videos against N others: a
    distance under it is not told from real, and a little above it need not be meaningful. To compare at equal numbers,
    make N // 2 videos. `distance(a, b)` is any of this module; pass a lambda for another window. Raises InputError for
    N < 2 or splits < 1.
    """
    check_videos("real", real)
    n = len(real)
    if n < 2 or splits < 1:
        raise InputError(f"floor: got {n} videos and {splits} splits, wanted 2 or more and 1 or more: add videos")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(n) for _ in range(splits)]
    half = n // 2
    return float(np.mean([distance(real[order[:half]], real[order[half : 2 * half]]) for order in orders]))


def spatial_features(videos: np.ndarray) -> np.ndarray:
    """[N * T, C * K] log spectra of the frames of `videos` [N, T, H, W, C], with K = min(H, W) // 2.

    P(k) = mean of |FFT2|^2 / (H W) over the shell round(|k|) = k, in cycles a frame, k = 1..K; the feature is
    log(P + 1e-10). Channels are concatenated. Raises InputError for frames under 2 x 2.
    """
    check_videos("videos", videos)
    height, width = videos.shape[2:4]
    if min(height, width) < 2:
        raise InputError(f"got frames of {height} x {width} pixels, wanted 2 x 2 or more: use larger frames")
    return np.concatenate([_shell_log_power(video) for video in videos])


def temporal_features(videos: np.ndarray, window: int = 16) -> np.ndarray:
    """[N * (T // window), C * (window // 2 + 1)] log spectra in time of `videos` [N, T, H, W, C].

    Windows follow each other without overlap; the T % window last frames are left out. P(f) = mean over pixels of
    |rFFT over time|^2 / window, f = 0..window // 2 cycles a window; the feature is log(P + 1e-10). Channels are
    concatenated. Raises InputError for window < 2 and T < window.
    """
    check_videos("videos", videos)
    frames = videos.shape[1]
    if not 2 <= window <= frames:
        raise InputError(f"got a window of {window} frames, wanted 2 to {frames}, the videos' length: change it")
    starts = range(0, frames - window + 1, window)
    return np.stack([_window_log_power(video[start : start + window]) for video in videos for start in starts])


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to `first` [n, D] and `second` [n', D] (see `spatial_distance`).

    tr (S S')^(1/2) is taken from the eigenvalues of S^(1/2) S' S^(1/2), which are real. Warns for n <= D or n' <= D.
    Raises InputError for n < 2 or n' < 2.
    """
    samples, features = min(len(first), len(second)), first.shape[1]
    if samples < 2:
        raise InputError(f"got {samples} sample for a Frechet distance, wanted 2 or more: add videos or frames")
    if samples <= features:
        said = f"{samples} samples of {features} features: the Frechet distance is biased upwards; compare with `floor`"
        warnings.warn(said, stacklevel=3)
    (mean, covariance), (other_mean, other) = _gaussian(first), _gaussian(second)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(min=0)).sum()
    apart = np.square(mean - other_mean).sum()
    return max(0.0, float(apart + np.trace(covariance) + np.trace(other) - 2 * cross))


def check_videos(name: str, videos: np.ndarray) -> None:
    """Raises InputError unless `videos` is a finite float array [N, T, H, W, C] with something in it."""
    if videos.ndim != 5 or 0 in videos.shape:
        raise InputError(f"{name}: got shape {tuple(videos.shape)}, wanted [N, T, H, W, C], none of them 0: reshape it")
    if not np.issubdtype(videos.dtype, np.floating):
        raise InputError(f"{name}: got {videos.dtype}, wanted floats: convert it (uint8 / 255 is in 0..1)")
    if not np.isfinite(videos).all():
        raise InputError(f"{name}: got NaN or infinity, wanted finite values: look for where the video broke")


def _check_pair(real: np.ndarray, made: np.ndarray) -> None:
    check_videos("real", real)
    check_videos("made", made)
    if real.shape[2:] != made.shape[2:]:
        got = f"got frames {real.shape[2:]} and {made.shape[2:]}"
        raise InputError(f"{got} in real and made, wanted one [H, W, C]: resize one of them")


def _shell_log_power(video: np.ndarray) -> np.ndarray:
    """[T, C * K] of one video [T, H, W, C]."""
    height, width = video.shape[1:3]
    down, across = np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width)
    shell = np.rint(np.hypot(down[:, None], across[None])).astype(int).ravel()
    shells = np.arange(1, min(height, width) // 2 + 1)
    members = (shell[:, None] == shells).astype(float)
    planes = np.moveaxis(video.astype(np.float64), -1, 1)  # [T, C, H, W]
    power = np.abs(np.fft.fft2(planes)) ** 2 / (height * width)
    means = power.reshape(*power.shape[:2], -1) @ (members / members.sum(0))  # [T, C, K]
    return np.log(means + FAINTEST).reshape(len(video), -1)


def _window_log_power(frames: np.ndarray) -> np.ndarray:
    """[C * F] of one window [T, H, W, C]."""
    power = np.abs(np.fft.rfft(frames.astype(np.float64), axis=0)) ** 2 / len(frames)
    return np.log(power.mean(axis=(1, 2)) + FAINTEST).T.ravel()


def _gaussian(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and unbiased covariance [D, D], ridge included, of `samples` [n, D]."""
    covariance = np.atleast_2d(np.cov(samples, rowvar=False))
    return samples.mean(0), covariance + RIDGE * np.eye(samples.shape[1])
