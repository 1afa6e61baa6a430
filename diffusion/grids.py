"""Grids: the table of levels that one position visits, from its entry down to clean.

    entry   0       1      ...   S
    level   clean   ...          entry of the chunk
    alpha   1                    signal
    sigma   0                    noise
    label   0                    what the network is told

A step goes from level k to level k - 1, so the target of every step is explicit. The label is what the network was
trained with: an integer index of a trained schedule, or the continuous time of flow matching.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .schedules import Schedule

SPACINGS = ("leading", "trailing", "linspace", "logsnr")


@dataclass(frozen=True)
class Grid:
    """`alpha`, `sigma`, `label`: [S + 1] float64, clean first."""

    alpha: np.ndarray
    sigma: np.ndarray
    label: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.alpha) - 1

    @property
    def log_snr(self) -> np.ndarray:
        """lambda = ln(alpha / sigma), [S + 1]; infinite where sigma is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha) - np.log(self.sigma)


def at_indices(schedule: Schedule, indices: np.ndarray, told: np.ndarray | None = None) -> Grid:
    """The custom grid: any ascending training indices, [S] ints; the first step above clean comes first. told: what the
    network is told at each in its place, where that differs."""
    indices = np.asarray(indices, dtype=np.int64)
    top = schedule.train_levels
    if len(indices) == 0 or indices[0] < 0 or indices[-1] >= top or np.any(np.diff(indices) <= 0):
        raise InputError(f"a grid needs ascending training indices in 0..{top - 1}, got {indices.tolist()}")
    labels = indices if told is None else np.asarray(told)
    if len(labels) != len(indices):
        raise InputError(f"a grid of {len(indices)} levels tells the network as many labels, got {len(labels)}")
    if labels.min() < 0 or labels.max() >= top:
        raise InputError(f"a network is told training indices in 0..{top - 1}, got {labels.tolist()}")
    alpha_bar = schedule.alpha_bar[indices]
    return Grid(
        np.concatenate([[1.0], np.sqrt(alpha_bar)]),
        np.concatenate([[0.0], np.sqrt(1 - alpha_bar)]),
        np.concatenate([[0.0], labels.astype(np.float64)]),
    )


def spaced(schedule: Schedule, steps: int, spacing: str = "leading", entry: int | None = None, end: int = 0) -> Grid:
    """`steps` of the trained levels end..entry (all of them by default): DDPM-K, DDIM-K, and grids truncated at the
    noisy side (entry) or at the clean one (end), from which the last step goes to clean.

    leading   0, T//K, 2 (T//K), ...: ends next to clean, starts below the top (diffusers' default)
    trailing  T-1 downwards in steps of T/K: starts at the top, ends far from clean
    linspace  evenly from 0 to the top, both included; one step: the top
    logsnr    evenly in log(alpha/sigma); starts one below the top of a full schedule, whose last level is singular
    """
    top = schedule.train_levels if entry is None else entry + 1
    if not 1 <= top <= schedule.train_levels:
        raise InputError(f"entry level {entry} is not one of the {schedule.train_levels} trained levels")
    if not 0 <= end < top:
        raise InputError(f"end level {end} is not one of the levels 0..{top - 1}")
    top -= end  # the levels to divide, counted from `end`
    if not 1 <= steps <= top:
        raise InputError(f"{steps} steps asked of {top} trained levels; wanted 1 to {top}")
    if spacing == "leading":
        indices = np.arange(steps) * (top // steps)
    elif spacing == "trailing":
        indices = np.round(np.arange(top, 0, -top / steps))[:steps][::-1] - 1
    elif spacing == "linspace":
        indices = np.round(np.linspace(0, top - 1, steps)) if steps > 1 else np.array([top - 1])
    elif spacing == "logsnr":
        last = top - 1 if entry is not None else max(top - 2, 0)
        indices = _even_in_log_snr(schedule.alpha_bar[end:], steps, last)
    else:
        raise InputError(f"unknown spacing {spacing!r}; known: {', '.join(SPACINGS)}")
    return at_indices(schedule, indices + end)


def _even_in_log_snr(alpha_bar: np.ndarray, steps: int, entry: int) -> np.ndarray:
    """[steps] ascending indices, nearest to an even division of the log-SNR between index 0 and `entry`; where the
    table is too coarse for that near clean, the next free index above is taken."""
    if steps > entry + 1:
        raise InputError(f"{steps} log-SNR steps asked of {entry + 1} levels; wanted at most {entry + 1}")
    log_snr = 0.5 * np.log(alpha_bar / (1 - alpha_bar))
    if steps == 1:
        return np.array([entry])
    targets = np.linspace(log_snr[0], log_snr[entry], steps)
    nearest = np.abs(log_snr[None, : entry + 1] - targets[:, None]).argmin(1)
    for i in range(1, steps):
        nearest[i] = max(nearest[i], nearest[i - 1] + 1)
    for i in range(steps - 1, -1, -1):  # never past the entry
        nearest[i] = min(nearest[i], entry - (steps - 1 - i))
    return nearest


def flow(steps: int, shift: float = 1.0) -> Grid:
    """Flow matching: alpha = 1 - t, sigma = t, label t, for t from 1 to 0; `shift` moves levels towards noise."""
    if steps < 1 or shift <= 0:
        raise InputError(f"a flow grid needs at least 1 step and a positive shift, got {steps} and {shift}")
    t = np.linspace(0, 1, steps + 1)
    t = shift * t / (1 + (shift - 1) * t)
    return Grid(1 - t, t, t)
