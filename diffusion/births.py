"""Births: what a position holds when it enters the grid."""

import torch
from torch import Tensor

from ..errors import InputError


def born(birth: str, z: Tensor, guess: Tensor | None, alpha: float, sigma: float) -> Tensor:
    """x at the entry level. z: standard normal [B, N, D...]; guess: the same shape, for births that start from one.

    noise   z, whatever the entry level: what the networks of the field were sampled with
    noised  alpha guess + sigma z: an anchor, a draft or an incoming frame at the entry's own level
    guess   the guess as it is: a warm start without noise
    """
    if birth == "noise":
        return z
    if guess is None:
        raise InputError(f"birth {birth!r} starts from a guess, and none was given")
    return guess.clone() if birth == "guess" else alpha * guess + sigma * z


def shifted(chunk: Tensor, rows: int) -> Tensor:
    """[..., N, D] -> row i holds what row i + rows held: what is left of a chunk of which `rows` were used, its last
    row repeated. The guess of a warm start."""
    if rows < 0:
        raise InputError(f"chunks are shifted by {rows} rows, wanted 0 or more")
    left = (torch.arange(chunk.shape[-2]) + rows).clamp(max=chunk.shape[-2] - 1)
    return chunk[..., left.to(chunk.device), :]
