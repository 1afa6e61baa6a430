"""Seeds of episodes. Evaluation takes even numbers and demonstrations odd ones, so the two never meet."""

from ..errors import InputError

SEEDS_PER_BASE = 10**6
MAX_BASE = 10**9  # keeps every seed below 2**53, which JSON and HDF5 attributes hold exactly


def evaluation_seeds(base: int, n: int) -> list[int]:
    """The first `n` evaluation seeds of `base`: even, and distinct from those of every other base."""
    return [2 * k for k in _block(base, n)]


def demonstration_seeds(base: int, n: int) -> list[int]:
    """The first `n` demonstration seeds of `base`: odd, and distinct from those of every other base."""
    return [2 * k + 1 for k in _block(base, n)]


def _block(base: int, n: int) -> range:
    if not 0 <= base <= MAX_BASE:
        raise InputError(f"got base seed {base}, wanted 0 to {MAX_BASE}: choose another seed")
    if not 0 <= n <= SEEDS_PER_BASE:
        raise InputError(f"got a count of {n} seeds, wanted 0 to {SEEDS_PER_BASE}: split the work over several bases")
    return range(base * SEEDS_PER_BASE, base * SEEDS_PER_BASE + n)
