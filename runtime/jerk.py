"""How smooth a sequence of actions is."""

from __future__ import annotations

import numpy as np


def jerk(actions: np.ndarray, kind: str = "delta") -> float:
    """RMS third difference of the commanded position, in action units per tick^3.

    `actions` [T, D]: with kind "absolute" they are positions; with "delta" they are first differences of positions,
    so two more differences are taken. The square is summed over the D coordinates and averaged over time.
    An episode too short for the differences has no jerk: 0.0.
    """
    if kind not in ("delta", "absolute"):
        raise ValueError(f"got the kind {kind!r}, wanted 'delta' or 'absolute'")
    actions = np.asarray(actions, dtype=np.float64)
    third = np.diff(actions, n=2 if kind == "delta" else 3, axis=0) if actions.size else actions
    if third.size == 0:
        return 0.0
    return float(np.sqrt(np.mean(np.sum(third.reshape(len(third), -1) ** 2, axis=1))))
