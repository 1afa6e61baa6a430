"""Births: what a position holds when it enters the grid."""

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
