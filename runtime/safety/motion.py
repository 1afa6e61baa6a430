"""Motion within limits: a command a period that is always followed by a way to stop.

Each dimension has its own: the quickest way to the target (Ruckig), of which one period is taken if from there it could
still come to rest within the limits, and one period of the way to rest otherwise. The first way to rest, at rest, is
within the limits; so every later one is.

Legend: Dc command numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..robots.contract import Limits
from .axis import Axis, Way
from .numbers import finite_numbers

LONGEST_STOP_S = 60.0  # a workspace is looked at along the whole of a stop, every period


class Motion:
    """Commands a period apart that keep `limits`, whatever is asked of them.

    Every command is finite and lies in [low, high]; its first, second and third differences over `period_s` keep
    speed, acceleration and jerk. This holds for commands that follow `begin`, which is at rest, and up to round-off:
    a share of 1e-9, and what float64 makes of positions so large. Dimensions that switch are clipped and obeyed at
    once. `inside(position [Dc]) -> bool` is a workspace, of the whole command: every command lies in it, and all
    dimensions stop together where their ways to rest would leave it. It is asked of every command of a stop, every
    period: let it be quick. One that raises counts as left.

    counts: how often what was asked could not be had, by reason.

    Raises InputError for a period that is no number above 0, and for limits that float64 cannot keep at it.
    """

    def __init__(self, limits: Limits, period_s: float, inside: Callable[[np.ndarray], bool] | None = None) -> None:
        if not (np.isfinite(period_s) and period_s > 0):
            raise InputError(f"got a command period of {period_s} s, wanted a number above 0")
        self.counts: Counter[str] = Counter()
        self._limits, self._period_s, self._inside = limits, float(period_s), inside
        self._moving = np.flatnonzero(~limits.switches).tolist()
        self._switching = np.flatnonzero(limits.switches)
        self._axes = [self._make_axis(dim) for dim in self._moving]
        self._switched = limits.low[self._switching]
        self._begun = False

    def _make_axis(self, dim: int) -> Axis:
        part = self._limits
        low, high, speed = float(part.low[dim]), float(part.high[dim]), float(part.speed[dim])
        acceleration, jerk = float(part.acceleration[dim]), float(part.jerk[dim])
        return Axis(low, high, speed, acceleration, jerk, self._period_s, self.counts)

    def begin(self, position: Any) -> None:
        """At rest at `position` [Dc]. Outside low and high it is taken as it is, and every later command leads back in.

        Raises InputError where it is not Dc finite numbers, or outside the workspace.
        """
        begins = finite_numbers(position, len(self._limits.low))
        if begins is None:
            raise InputError(f"got {position!r} to begin at, wanted {len(self._limits.low)} finite numbers")
        if not self._is_inside(begins.copy()):
            raise InputError(f"the robot is outside its workspace, at {begins.tolist()}: move it in, and begin again")
        for axis, dim in zip(self._axes, self._moving, strict=True):
            axis.begin(float(begins[dim]))
        self._switched = begins[self._switching]
        self._begun = True

    def step(self, target: Any, velocity: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The next command, one period later: position and velocity, float64 [Dc].

        target: [Dc], where to go, at `velocity` [Dc] (none: 0) when it is reached; None, or anything that is not Dc
        finite numbers: decelerate and hold. Raises InputError before `begin`.
        """
        if not self._begun:
            raise InputError("a motion was asked for a step before begin(position): nobody knows where it is")
        dims = len(self._limits.low)
        goal = None if target is None else finite_numbers(target, dims)
        speeds = np.zeros(dims) if velocity is None else finite_numbers(velocity, dims)
        if goal is None or speeds is None:
            if target is not None:
                self.counts["motion_held"] += 1
            goal = speeds = None
        ways = [self._way(axis, dim, goal, speeds) for axis, dim in zip(self._axes, self._moving, strict=True)]
        switched = self._clipped(self.position if goal is None else goal)
        if self._inside is not None and not self._stays_inside(ways, switched):
            self.counts["motion_workspace"] += 1
            ways, switched = [axis.held() for axis in self._axes], self._switched
        for axis, way in zip(self._axes, ways, strict=True):
            axis.take(way)
        self._switched = switched
        return self.position, self.velocity

    @property
    def position(self) -> np.ndarray:
        """[Dc] float64: the last command, or where it began."""
        return self._put([axis.way.state.position for axis in self._axes], self._switched)

    @property
    def velocity(self) -> np.ndarray:
        """[Dc] float64: of the last command; 0 in dimensions that switch."""
        return self._put([axis.way.state.velocity for axis in self._axes], np.zeros(len(self._switching)))

    @property
    def rests_at(self) -> np.ndarray:
        """[Dc] float64: where it comes to rest if it stops now."""
        return self._put([axis.way.stop.end for axis in self._axes], self._switched)

    @property
    def time_to_rest_s(self) -> float:
        """How long it takes to come to rest from here."""
        return max(0.0, *(axis.way.stop.duration_s - axis.way.since_s for axis in self._axes))

    @property
    def at_rest(self) -> bool:
        return all(axis.way.at_rest for axis in self._axes)

    def _way(self, axis: Axis, dim: int, goal: np.ndarray | None, speeds: np.ndarray | None) -> Way:
        if goal is not None and speeds is not None:
            return axis.towards(float(goal[dim]), float(speeds[dim]))
        return axis.towards(axis.way.state.position, 0.0) if axis.is_outside else axis.held()

    def _clipped(self, goal: np.ndarray) -> np.ndarray:
        limits, dims = self._limits, self._switching
        return np.clip(goal[dims], limits.low[dims], limits.high[dims])

    def _put(self, moving: Sequence[float], switching: np.ndarray) -> np.ndarray:
        together = np.empty(len(self._limits.low))
        together[self._moving] = moving
        together[self._switching] = switching
        return together

    def _stays_inside(self, ways: Sequence[Way], switched: np.ndarray) -> bool:
        """Whether the commands that would follow if it were to stop from here all lie in the workspace."""
        left_s = max((way.stop.duration_s - way.since_s for way in ways), default=0.0)
        if left_s > LONGEST_STOP_S:
            return False
        for period in range(int(np.ceil(max(left_s, 0.0) / self._period_s)) + 1):
            at = [way.stop.at(way.since_s + period * self._period_s).position for way in ways]
            if not self._is_inside(self._put(at, switched)):
                return False
        return True

    def _is_inside(self, position: np.ndarray) -> bool:
        if self._inside is None:
            return True
        try:
            return bool(self._inside(position))
        except Exception:  # of the user's kinematics: a robot on its way is stopped, not let go
            self.counts["workspace_raised"] += 1
            return False
