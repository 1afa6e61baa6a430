"""Demonstrations in memory, whatever file they came from.

Legend: T steps in all episodes together, E episodes, Do observation numbers, Da action numbers.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Demonstrations:
    """Episodes laid end to end; episode i is rows `episode_ends[i-1]` to `episode_ends[i]`. Checked when made."""

    observations: np.ndarray  # float32 [T, Do]
    actions: np.ndarray  # float32 [T, Da]
    episode_ends: np.ndarray  # int64 [E], exclusive and rising
    attributes: dict[str, Any] = field(default_factory=dict)  # task, versions, seeds, expert, noise, success_steps

    def __post_init__(self) -> None:
        observations, actions, ends = self.observations, self.actions, self.episode_ends
        if observations.ndim != 2 or actions.ndim != 2 or ends.ndim != 1:
            shapes = f"{observations.shape}, {actions.shape}, {ends.shape}"
            raise InputError(f"got demonstrations of shapes {shapes}, wanted [T, Do], [T, Da], [E]: collect them anew")
        if len(ends) == 0 or ends[0] <= 0 or (np.diff(ends) <= 0).any():
            raise InputError("got episode ends that do not rise, wanted each episode to end after the one before it")
        if not len(observations) == len(actions) == ends[-1]:
            lengths = f"{len(observations)} observations, {len(actions)} actions and a last end of {ends[-1]}"
            raise InputError(f"got {lengths}, wanted three equal numbers: collect the demonstrations anew")
        for name, rows in (("observations", observations), ("actions", actions)):
            if not np.isfinite(rows).all():
                row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
                raise InputError(f"got {name} with a NaN or infinity in row {row}, wanted finite numbers")

    def __len__(self) -> int:
        return len(self.episode_ends)

    def episode(self, index: int) -> slice:
        """The rows of one episode."""
        start = self.episode_ends[index - 1] if index else 0
        return slice(int(start), int(self.episode_ends[index]))

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, int64 [E]."""
        return np.diff(self.episode_ends, prepend=0)
