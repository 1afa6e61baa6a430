"""Levels of a training window: which noise each frame is trained with, so that one network serves every sampler.

A kind of drawing is a function (generator, B, N, T) -> [B, N] int64 trained levels, 0 being clean.

independent  every frame its own (Diffusion Forcing, Chen et al. 2024)
shared       one level for all (FVDM, Liu et al. 2024, mixes it with independent ones)
context      a clean or slightly noised beginning, of any length, and one level for the rest: what a window that goes on
             from its past is asked; the noise on the past is what errors of its own making look like (GameNGen)
fopp         non-decreasing, a frame's level uniform, the others uniform among all that fit (AR-Diffusion, Sun et al.)
rolling      the levels of a rolling window, or, for a tenth, of its beginning (Rolling Diffusion, Ruhe et al. 2024)

Legend: B windows, N frames, T trained levels.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError

BOUNDARY = 0.1  # rolling windows that are still beginning
CONTEXT_NOISE = 0.1  # the most noise on a context, as a share of the levels
Draw = Callable[[torch.Generator, int, int, int], Tensor]


def independent(generator: torch.Generator, B: int, N: int, T: int) -> Tensor:
    return torch.randint(T, (B, N), generator=generator)


def shared(generator: torch.Generator, B: int, N: int, T: int) -> Tensor:
    return torch.randint(T, (B, 1), generator=generator).expand(-1, N)


def context(generator: torch.Generator, B: int, N: int, T: int) -> Tensor:
    known = torch.randint(N, (B, 1), generator=generator)
    level = torch.randint(1, T, (B, 1), generator=generator)
    noise = torch.randint(max(1, int(T * CONTEXT_NOISE)), (B, 1), generator=generator)
    noise = noise * (torch.rand(B, 1, generator=generator) < 0.5)
    return torch.where(torch.arange(N) < known, noise, level)


def rolling(generator: torch.Generator, B: int, N: int, T: int) -> Tensor:
    """Local times clip((w - n + t) / (N - n), 0, 1) after n clean frames; beginning, clip(w / (N - n) + t)."""
    known = torch.randint(max(1, N // 2), (B, 1), generator=generator)
    t = torch.rand(B, 1, generator=generator)
    place, window = torch.arange(N) - known, N - known
    begins = torch.rand(B, 1, generator=generator) < BOUNDARY
    time = torch.where(begins, place / window + t, (place + t) / window)
    time = torch.where(place < 0, torch.zeros_like(time), time.clamp(0, 1))
    return (time * (T - 1)).round().long()


def fopp(generator: torch.Generator, B: int, N: int, T: int) -> Tensor:
    """AR-Diffusion's sampler: a frame and its level uniformly, then the frames before it from the right and those after
    it from the left, each with probability proportional to the number of ways to complete the row."""
    onward, before = (torch.from_numpy(table) for table in _ways(N, T))
    frame, level = torch.randint(N, (B,), generator=generator), torch.randint(T, (B,), generator=generator)
    rows = torch.zeros(B, N, dtype=torch.int64)
    rows[torch.arange(B), frame] = level
    for j in range(N - 2, -1, -1):
        fits = torch.arange(T) <= rows[:, j + 1, None]
        rows[:, j] = torch.where(j < frame, _drawn(generator, before[j] * fits), rows[:, j])
    for j in range(1, N):
        fits = torch.arange(T) >= rows[:, j - 1, None]
        rows[:, j] = torch.where(j > frame, _drawn(generator, onward[j] * fits), rows[:, j])
    return rows


def _drawn(generator: torch.Generator, weights: Tensor) -> Tensor:
    """[B] by weights [B, T]; rows without weight give 0."""
    total = weights.cumsum(1)
    u = torch.rand(len(weights), 1, generator=generator, dtype=torch.float64) * total[:, -1:]
    return torch.searchsorted(total, u, right=True)[:, 0].clamp(max=weights.shape[1] - 1)


@functools.lru_cache(maxsize=8)
def _ways(N: int, T: int):
    """Numbers of non-decreasing rows, float64 [N, T] each, a frame's largest scaled to 1: onward[f, t], how many ways
    frames after f go on from level t; before[f, t], how many ways frames before f lead to it."""
    import numpy as np

    onward, before = np.ones((N, T)), np.ones((N, T))
    for f in range(N - 2, -1, -1):
        onward[f] = np.cumsum(onward[f + 1][::-1])[::-1]
        onward[f] /= onward[f].max()
    for f in range(1, N):
        before[f] = np.cumsum(before[f - 1])
        before[f] /= before[f].max()
    return onward, before


DRAWS: dict[str, Draw] = {
    "independent": independent,
    "shared": shared,
    "context": context,
    "fopp": fopp,
    "rolling": rolling,
}


def mixed(mixture: dict[str, float], generator: torch.Generator, B: int, N: int, T: int) -> Tensor:
    """[B, N]: each window by a kind that is drawn by its share. Shares need not sum to 1."""
    check_mixture(mixture)
    names = list(mixture)
    share = torch.tensor([float(mixture[name]) for name in names])
    which = torch.multinomial(share, B, replacement=True, generator=generator)
    drawn = torch.stack([DRAWS[name](generator, B, N, T) for name in names])
    return drawn[which, torch.arange(B)]


def check_mixture(mixture: dict[str, float]) -> None:
    """Raises InputError where it is no mixture of known kinds."""
    unknown = [name for name in mixture if name not in DRAWS]
    if unknown:
        raise InputError(f"unknown levels {', '.join(unknown)}; known: {', '.join(DRAWS)}")
    fits = all(isinstance(share, int | float) and 0 <= share < float("inf") for share in mixture.values())
    if not fits or not sum(mixture.values()) > 0:
        raise InputError(f"levels are shares of 0 or more, one above 0 at least; got {mixture}")
