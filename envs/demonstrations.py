"""Demonstrations in memory, whatever file they came from: one contract for zarr and HDF5.

Legend: T steps in all episodes together, E episodes, Do observation numbers, Da action numbers, Ds numbers of a
simulator's state.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError

ROBOSUITE_TYPE = 1  # robomimic's EnvType
# Attributes that are read again, and what they are; what else a file tells is kept as it is.
KINDS: dict[str, type] = dict.fromkeys(("seeds", "failed_seeds", "success_steps", "modes", "observation_keys"), list)
KINDS |= {"task": str, "versions": dict, "env_args": dict, "left_out": list}
WORDS = {str: "text", dict: "an object", list: "a list"}
COLUMNS = 64  # that are copied at once: pictures are thousands
TOLD = 40  # characters of a value in a message


@dataclass(frozen=True)
class Statistics:
    """Of each number of some rows [T, D], over all steps: float64 [D] each."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @staticmethod
    def of(rows: np.ndarray) -> "Statistics":
        blocks = (rows[:, i : i + COLUMNS].astype(np.float64) for i in range(0, rows.shape[1], COLUMNS))
        parts = [(block.min(0), block.max(0), block.mean(0), block.std(0)) for block in blocks]
        return Statistics(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def recorded_versions(attributes: dict[str, Any]) -> dict[str, str]:
    """The packages whose physics some demonstrations were recorded in, where their file tells: ours, or robomimic's."""
    versions = attributes.get("versions")
    if versions is None:
        env_args = attributes.get("env_args")
        if isinstance(env_args, dict) and env_args.get("type") == ROBOSUITE_TYPE:
            versions = {"robosuite": env_args.get("env_version")}
    told = versions.items() if isinstance(versions, dict) else ()
    return {package: version for package, version in told if isinstance(version, str) and version}


def misfits(attributes: dict[str, Any]) -> dict[str, str]:
    """Of attributes as a file tells them, those that are not what their name says: {name: "task is 3, wanted text"}."""
    found = {}
    for name, kind in KINDS.items():
        value = attributes.get(name)
        if value is not None and not isinstance(value, kind):
            found[name] = f"{name} is {repr(value)[:TOLD]}, wanted {WORDS[kind]}"
    return found


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
        It is random access for what trains outside of this package, the same for every format; `ontick train` takes
        the same windows, all at once. With 2 observations and a horizon of 16, the first window of episode 0 is

            seen, acted = read_demonstrations("reach.zarr").window(0, -1, 16)

        and the network is shown `seen[:2]`. Raises InputError for an episode that is not there.
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
