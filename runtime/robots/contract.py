"""The robot contract: connect, observe, command, stop. A driver is one class that keeps it.

    robot.connect()                         # -> what it is, and what it must never be asked
    robot.begin()                           # at a start, where the robot knows how to go to one
    every command period:
        seen = robot.observe()              # what the sensors said last, and when
        robot.command([waypoint])           # where to be, and when
    robot.stop()                            # from any state, as often as one likes

All times are seconds of this host's monotonic clock (`WallClock`), whatever the robot's own clock says: a driver
translates. `runtime.robots.conformance.check_robot` proves a driver against this page.

Legend: Do observation numbers, Dc of a command, C streams (sensors that an observation is put together from).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from ...errors import InputError


class RobotFault(Exception):
    """The robot cannot be moved, or has stopped itself, and why. The controller stops, says so and ends."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a robot may be commanded, in the units of its command, all float64 [Dc].

    low, high: of a position. speed, acceleration, jerk: most of it, a second, a second^2, a second^3; infinite in
    dimensions that switch, such as grippers, which are clamped to [low, high] and then obeyed at once.

    Raises InputError where they are not numbers of one shape with low < high and the others above 0.
    """

    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray

    def __post_init__(self) -> None:
        for name in ("low", "high", "speed", "acceleration", "jerk"):
            object.__setattr__(self, name, np.atleast_1d(np.asarray(getattr(self, name), np.float64)))
        shapes = {part.shape for part in self._parts()}
        if len(shapes) > 1 or self.low.ndim != 1:
            raise InputError(
                f"limits have shapes {sorted(shapes)}, wanted one number a dimension of the command in each"
            )
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.low < self.high).all()):
            raise InputError("limits: wanted finite low < high in every dimension; see the robot's data sheet")
        rates = np.stack(self._parts()[2:])
        if not (rates > 0).all():  # a NaN is not above 0
            raise InputError("limits: wanted speed, acceleration and jerk above 0; see the robot's data sheet")
        if not (np.isinf(rates).all(0) | np.isfinite(rates).all(0)).all():
            raise InputError(
                "limits: speed, acceleration and jerk of a dimension are all finite, or all infinite: it switches"
            )

    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.low, self.high, self.speed, self.acceleration, self.jerk

    @property
    def switches(self) -> np.ndarray:
        """[Dc] bool: dimensions that have no motion between two commands."""
        return np.isinf(self.speed)

    def within(self, other: Limits) -> Limits:
        """The tighter of the two in every dimension. Raises InputError where nothing is left, or the shapes differ."""
        if other.low.shape != self.low.shape:
            raise InputError(f"got limits of {len(other.low)} dimensions for a robot of {len(self.low)}")
        low, high = np.maximum(self.low, other.low), np.minimum(self.high, other.high)
        rates = (np.minimum(a, b) for a, b in zip(self._parts()[2:], other._parts()[2:], strict=True))
        speed, acceleration, jerk = rates
        return Limits(low=low, high=high, speed=speed, acceleration=acceleration, jerk=jerk)

    def to_dict(self) -> dict[str, list[float | None]]:
        """As JSON and YAML data; None stands for infinite."""
        names = ("low", "high", "speed", "acceleration", "jerk")
        return {
            name: [float(value) if np.isfinite(value) else None for value in part]
            for name, part in zip(names, self._parts(), strict=True)
        }

    @classmethod
    def from_dict(cls, data: dict[str, Sequence[float | None]], origin: str = "limits") -> Limits:
        """Undo `to_dict`. Raises InputError that starts with `origin`."""
        names = ("low", "high", "speed", "acceleration", "jerk")
        if not isinstance(data, dict) or set(data) != set(names):
            raise InputError(f"{origin}: wanted {', '.join(names)}, a list of numbers each")
        try:
            parts = {
                name: np.array([np.inf if value is None else float(value) for value in data[name]]) for name in names
            }
            return cls(**parts)
        except (TypeError, ValueError):
            raise InputError(f"{origin}: wanted lists of numbers, null where a dimension switches") from None


@dataclass(frozen=True, kw_only=True)
class RobotDescription:
    """What a controller must know of a robot.

    period_s: how often it wants a command. streams: for each sensor, its name and the part [start, end) of an
    observation that it gives; together they cover all Do numbers once, in order.
    """

    name: str
    observation_dim: int
    limits: Limits
    period_s: float
    streams: tuple[tuple[str, int, int], ...]

    def __post_init__(self) -> None:
        ends = [0, *(end for _, _, end in self.streams)]
        if [start for _, start, _ in self.streams] != ends[:-1] or ends[-1] != self.observation_dim:
            got = ", ".join(f"{name} [{start}, {end})" for name, start, end in self.streams) or "none"
            wanted = f"wanted parts that cover all {self.observation_dim} numbers of an observation once, in order"
            raise InputError(f"robot {self.name}: streams are {got}, {wanted}")

    @property
    def command_dim(self) -> int:
        return len(self.limits.low)


class Observed(NamedTuple):
    """values: float32 [Do]; stamps_s: float64 [C], when each stream measured its part; position: float64 [Dc], where
    the robot is, in the units of its command; episode: counts up whenever the robot was put back to a start, so that
    nothing from before it is meant any more."""

    values: np.ndarray
    stamps_s: np.ndarray
    position: np.ndarray
    episode: int = 0


class Waypoint(NamedTuple):
    """Where to be at `time_s`, and how fast: position and velocity float64 [Dc]. `episode`: of the observation that it
    answers; a robot that has been put back since ignores it."""

    time_s: float
    position: np.ndarray
    velocity: np.ndarray
    episode: int = 0


@runtime_checkable
class Robot(Protocol):
    """A driver.

    Whatever goes wrong is raised as `RobotFault` with a reason: no connection, a lost one, a watchdog, a refused
    command. No call blocks for longer than `description.period_s`, but for `connect`, `begin` and `stop`, which may
    take ten seconds. A driver keeps the last waypoint when no other comes for a period; after its own watchdog's time
    it stops by itself and its next call raises.
    """

    def connect(self) -> RobotDescription:
        """Reach the robot. Raises RobotFault where that fails. Nothing moves."""
        ...

    def begin(self, seed: int) -> None:
        """Go to a start, where the robot has one (`seed` says which); else nothing. Raises RobotFault."""
        ...

    def observe(self) -> Observed:
        """What the sensors said last; never waits for a new measurement. Raises RobotFault before `connect`."""
        ...

    def command(self, waypoints: Sequence[Waypoint]) -> None:
        """One waypoint or more, in order of time; they replace those that were commanded before and lie later."""
        ...

    def stop(self) -> None:
        """Come to rest and let go of the robot; in any state, again is no error, and it raises nothing."""
        ...
