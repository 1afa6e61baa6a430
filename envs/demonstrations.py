"""Demonstrations in memory, whatever file they came from: one contract for zarr and HDF5.

Legend: T steps in all episodes together, E episodes, Do observation numbers, Da action numbers, Ds numbers of a
simulator's state.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError

ROBOSUITE_TYPE = 1  # robomimic's EnvType


@dataclass(frozen=True)
class Statistics:
    """Of each number of some rows [T, D], over all steps: float64 [D] each."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @staticmethod
    def of(rows: np.ndarray) -> "Statistics":
        rows = rows.astype(np.float64)
        return Statistics(rows.min(0), rows.max(0), rows.mean(0), rows.std(0))


def recorded_versions(attributes: dict[str, Any]) -> dict[str, str]:
    """The packages whose physics some demonstrations were recorded in, where their file tells: ours, or robomimic's."""
    if "versions" in attributes:
        return dict(attributes["versions"])
    env_args = attributes.get("env_args", {})
    robosuite = env_args.get("type") == ROBOSUITE_TYPE and isinstance(env_args.get("env_version"), str)
    return {"robosuite": env_args["env_version"]} if robosuite else {}


@dataclass(frozen=True)
class Demonstrations:
    """Episodes laid end to end; episode i is rows `episode_ends[i-1]` to `episode_ends[i]`. Checked when made."""

    observations: np.ndarray  # float32 [T, Do]
    actions: np.ndarray  # float32 [T, Da]
    episode_ends: np.ndarray  # int64 [E], exclusive and rising
    attributes: dict[str, Any] = field(default_factory=dict)  # task, versions, seeds, expert, noise, success_steps
    # Where the environment tells them, and the file keeps them (HDF5 does):
    states: np.ndarray | None = None  # float64 [T, Ds], before each step
    scenes: tuple[str, ...] = ()  # XML, one an episode

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
        if 0 in (observations.shape[1], actions.shape[1]):
            raise InputError("got demonstrations without numbers in a row, wanted at least one observed and one acted")
        for name, rows in (("observations", observations), ("actions", actions)):
            if not np.isfinite(rows).all():
                row, number = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
                episode = int(np.searchsorted(ends, row, side="right"))
                step = row - self.episode(episode).start
                place = f"row {row} (episode {episode}, step {step}, number {number})"
                raise InputError(f"got {name} with a NaN or infinity in {place}, wanted finite numbers")
        if self.states is not None and len(self.states) != len(actions):
            raise InputError(f"got {len(self.states)} states for {len(actions)} steps, wanted one each")
        if len(self.scenes) not in (0, len(ends)):
            raise InputError(f"got {len(self.scenes)} scenes for {len(ends)} episodes, wanted one each, or none")

    def __len__(self) -> int:
        return len(self.episode_ends)

    def episode(self, index: int) -> slice:
        """The rows of one episode."""
        start = self.episode_ends[index - 1] if index else 0
        return slice(int(start), int(self.episode_ends[index]))

    def window(self, index: int, start: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """`steps` steps of episode `index` from its step `start` on: observations [steps, Do], actions [steps, Da].

        The window may begin before the episode and end after it: its first and its last step are repeated there.
        Raises InputError for an episode that is not there.
        """
        if not 0 <= index < len(self) or steps < 1:
            raise InputError(f"got {steps} steps of episode {index}, wanted 1 or more of episode 0 to {len(self) - 1}")
        rows = self.episode(index)
        picks = np.clip(rows.start + start + np.arange(steps), rows.start, rows.stop - 1)
        return self.observations[picks], self.actions[picks]

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, int64 [E]."""
        return np.diff(self.episode_ends, prepend=0)

    @property
    def statistics(self) -> dict[str, Statistics]:
        """Of `observations` and of `actions`."""
        return {"observations": Statistics.of(self.observations), "actions": Statistics.of(self.actions)}
