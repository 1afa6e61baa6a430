"""What a dataset holds, in a few lines that a person can check before training on it."""

import numpy as np

from .demonstrations import Demonstrations, Statistics

LISTED = 32  # characters of a list of numbers, the rest is counted
NAMED = 60  # characters of a name
STILL = 1e-4  # a number that varies less is as good as constant; the normaliser thinks so too


def report(demonstrations: Demonstrations) -> list[str]:
    """Lines: episodes and their lengths; shape and range of observations and of actions, and what looks odd in them."""
    lengths, attributes = demonstrations.lengths, demonstrations.attributes
    steps = f"{lengths.min()} to {lengths.max()}" if len(lengths) > 1 else "all"
    statistics = demonstrations.statistics
    actions = statistics["actions"]
    lines = [
        f"{len(demonstrations)} episodes of {_named(attributes.get('task'))}, {lengths.sum()} steps ({steps} in one)",
        _line("observations", statistics["observations"]),
        _line("actions", actions) + _beyond(actions),
    ]
    return [*lines, *(f"left out: the attribute {told}" for told in attributes.get("left_out") or ())]


def _named(task: str | None) -> str:
    name = " ".join((task or "an unnamed task").split())
    return name if len(name) <= NAMED else f"{name[:NAMED]}..."


def _line(name: str, of: Statistics) -> str:
    still = np.flatnonzero(of.high - of.low < STILL)
    odd = f"; never change: {_listed(still)}" if len(still) else ""
    return f"{name}: {len(of.low)} numbers, from {of.low.min():.4g} to {of.high.max():.4g}{odd}"


def _beyond(of: Statistics) -> str:
    beyond = np.flatnonzero((of.low < -1) | (of.high > 1))
    return f"; beyond [-1, 1]: {_listed(beyond)}" if len(beyond) else ""


def _listed(numbers: np.ndarray) -> str:
    """Indices, neighbours joined, many cut short: 0-2, 7 and 5,310 more."""
    shown, told = "", 0
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
        joined = f"{shown}, " * bool(shown) + (f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}")
        if len(joined) > LISTED:
            return f"{shown} and {len(numbers) - told:,} more"
        shown, told = joined, told + len(run)
    return shown
