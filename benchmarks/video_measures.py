"""What is measured of drawn videos beside the true ones, and what real videos and a held frame score.

Legend: N clips, T frames, k of the prompt, Da action numbers, H, W, C.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from ontick.video import metrics
from ontick.video.spectra import spatial_features

AT = 8  # the horizon of gains and paired differences, the span of action shuffling and of the ends of drift
WINDOW = 16  # frames of a temporal spectrum


class Held(NamedTuple):
    """Held-out clips. truth: [N, T, H, W, C] in 0..1 or standard deviations; prompt: [N, k, C, H, W] as a network sees
    it; prompt_actions: [N, k, Da]; actions: [N, T + AHEAD, Da], the last of an episode held; starts: [N], in the file;
    peak: width of the range of values."""

    truth: np.ndarray
    prompt: torch.Tensor
    prompt_actions: torch.Tensor
    actions: np.ndarray
    starts: np.ndarray
    peak: float


def errors_of_clips(truth: np.ndarray, made: np.ndarray) -> np.ndarray:
    """[N, T] mean squared errors."""
    return np.stack([metrics.mse_by_horizon(truth[i : i + 1], made[i : i + 1]) for i in range(len(truth))])


def decibels(errors: np.ndarray, peak: float) -> np.ndarray:
    """PSNR of squared errors, at most 100 dB."""
    return -10 * np.log10(np.maximum(errors / peak**2, 10 ** (-metrics.MOST_DB / 10)))


def log_power_gap(truth: np.ndarray, made: np.ndarray) -> np.ndarray:
    """[N, T, C K] dB by which the power of a frame's shells lies above that of the true frame."""
    gap = spatial_features(made) - spatial_features(truth)
    return 10 / np.log(10) * gap.reshape(*truth.shape[:2], -1)


def quality(held: Held, made: np.ndarray, still: np.ndarray, seed: int) -> dict[str, Any]:
    """Of `made` [N, T, H, W, C], beside `still` [N, T], the errors of the last known frame held. PSNR is that of the
    mean error: where nothing moves a held frame is perfect, and a mean of decibels would be ruled by such clips."""
    at, ends = min(AT, made.shape[1]) - 1, min(AT, made.shape[1] // 2)
    errors, gap = errors_of_clips(held.truth, made), log_power_gap(held.truth, made)
    error = np.abs(gap).mean(2)
    return {
        "psnr_db": decibels(errors.mean(0), held.peak),
        "psnr_mean_of_clips_db": decibels(errors, held.peak).mean(0),
        "mse": errors.mean(0),
        "errors_of_clips": errors[:, at],
        "gain_db": metrics.error_ratio_db(still[:, at], errors[:, at], seed)._asdict(),
        "spatial": metrics.spatial_distance(held.truth, made),
        "temporal": metrics.temporal_distance(held.truth, made, min(WINDOW, made.shape[1] // 2)),
        "spectral_error_db": error.mean(0),
        "power_db": gap.mean((0, 2)),
        "drift_db": metrics.drift(error, ends, seed)._asdict(),
    }


def floors(held: Held, still: np.ndarray, seed: int) -> dict[str, Any]:
    """What real videos score against real ones, and what holding the last known frame scores."""
    truth, window = held.truth, min(WINDOW, held.truth.shape[1] // 2)
    others = np.roll(truth, len(truth) // 2, 0)
    return {
        "spatial": metrics.floor(metrics.spatial_distance, truth, seed),
        "temporal": metrics.floor(lambda a, b: metrics.temporal_distance(a, b, window), truth, seed),
        "spectral_error_db": np.abs(log_power_gap(truth, others)).mean((0, 2)),
        "repeat_last": quality(held, still, errors_of_clips(truth, still), seed),
    }
