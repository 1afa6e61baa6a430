"""Views: which positions one network call sees, and which of its results are kept.

All calls of a tick look at the same snapshot, so they are independent of each other. FIFO-Diffusion's latent
partitions and lookahead denoising (Kim et al. 2024) are two of them.
"""

from typing import NamedTuple

from ..errors import InputError


class Call(NamedTuple):
    """One network call: it sees window positions [start, stop) and its results from `keep` on are kept."""

    start: int
    stop: int
    keep: int


def calls(view: str, window: int, pieces: int = 1) -> tuple[Call, ...]:
    """The calls of one tick over a window of `window` positions, cleanest first. Together they keep every position
    that moves, once.

    lookahead over S + f/2 positions, f = S / pieces: call r sees [r f/2, r f/2 + f) and keeps its noisier half, so
    that each position is denoised with f/2 cleaner neighbours in sight; the first f/2 are clean context.
    """
    if view == "all":
        return (Call(0, window, 0),)
    if view == "partitions":
        if window % pieces:
            raise InputError(f"a window of {window} positions cannot be cut into {pieces} equal partitions")
        size = window // pieces
        return tuple(Call(i * size, (i + 1) * size, i * size) for i in range(pieces))
    half = lookahead_context(window, pieces, with_context=True)
    return tuple(Call(r * half, (r + 2) * half, (r + 1) * half) for r in range(2 * pieces))


def shown_call(shown: slice, window: int) -> Call:
    """The one call that sees the window positions of a slice of step 1 and keeps them all. Raises InputError for
    another step, and where nothing is left."""
    start, stop, step = shown.indices(window)
    if step != 1 or start >= stop:
        raise InputError(
            f"{shown} of a window of {window} positions was shown, wanted a slice of step 1 with some of them"
        )
    return Call(start, stop, start)


def lookahead_context(window: int, pieces: int, with_context: bool = False) -> int:
    """f/2: the clean positions that lookahead keeps in sight before the window of S positions (or S + f/2)."""
    parts = 2 * pieces + 1 if with_context else 2 * pieces
    if window % parts:
        raise InputError(f"lookahead needs a window that divides by {2 * pieces}, got {window} positions")
    return window // parts
