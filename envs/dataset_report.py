"""What a dataset holds, in a few lines that a person can check before training on it."""

import numpy as np

from .demonstrations import Demonstrations, Statistics

STILL = 1e-4  # a number that varies less is as good as constant; the normaliser thinks so too


def report(demonstrations: Demonstrations) -> list[str]:
    """Lines: episodes and their lengths; shape and range of observations and of actions, and what looks odd in them."""
    lengths, attributes = demonstrations.lengths, demonstrations.attributes
    steps = f"{lengths.min()} to {lengths.max()}" if len(lengths) > 1 else "all"
    statistics = demonstrations.statistics
    actions = statistics["actions"]
    lines = [
        f"{len(demonstrations)} episodes of {attributes.get('task', 'an unnamed task')}, {lengths.sum()} steps "
        f"({steps} in one)",
        _line("observations", statistics["observations"]),
        _line("actions", actions) + _beyond(actions),
    ]
    return lines


def _line(name: str, of: Statistics) -> str:
    still = np.flatnonzero(of.high - of.low < STILL)
    odd = f"; never change: {_listed(still)}" if len(still) else ""
    return f"{name}: {len(of.low)} numbers, from {of.low.min():.4g} to {of.high.max():.4g}{odd}"


def _beyond(of: Statistics) -> str:
    beyond = np.flatnonzero((of.low < -1) | (of.high > 1))
    return f"; beyond [-1, 1]: {_listed(beyond)}" if len(beyond) else ""


def _listed(numbers: np.ndarray) -> str:
    """Indices, neighbours joined: 0-2, 7."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
