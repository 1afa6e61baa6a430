"""One dimension of a motion: where it is, how it stops, and the steps that leave a way to stop."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, NamedTuple

from ...errors import InputError
from .stop import State, Stop

# Limits are kept with this share to spare, so that round-off never breaks one; more where positions are coarse.
SPARE = 1e-6
MOST_SPARE = 0.01
# Shares of the range: a stop that ends so near the target is on target, and how far inside an outsider is led.
NEAR = 1e-7
NUDGE = 1e-6
FASTEST = 0.99  # of the speed, for a target to be caught up with


class Way(NamedTuple):
    """A state, and how it comes to rest: it lies `since_s` along a stop."""

    state: State
    stop: Stop
    since_s: float = 0.0

    def later(self, time_s: float) -> Way:
        since_s = self.since_s + time_s
        return Way(self.stop.at(since_s), self.stop, since_s)

    @property
    def at_rest(self) -> bool:
        return self.since_s >= self.stop.duration_s


class Axis:
    """A dimension that moves. `way` is where it is and how it would stop from there, always within the limits.

    low, high, speed, acceleration, jerk: the limits, finite. counts: where what could not be obeyed is counted.
    Raises InputError where round-off at this period is coarser than the limits.
    """

    def __init__(
        self,
        low: float,
        high: float,
        speed: float,
        acceleration: float,
        jerk: float,
        period_s: float,
        counts: Counter[str],
    ) -> None:
        self.low, self.high, self._period_s, self._counts = low, high, period_s, counts
        coarse = sys.float_info.epsilon * max(abs(low), abs(high), high - low)
        spare = [
            SPARE + 8 * 2**order * coarse / (limit * period_s**order)
            for order, limit in enumerate((speed, acceleration, jerk), start=1)
        ]
        if not max(spare) < MOST_SPARE:
            raise InputError(
                f"limits of a dimension in [{low:g}, {high:g}] cannot be kept every {period_s:g} s: float64 is coarser"
                " than its jerk; wanted a longer period or higher limits"
            )
        # Steps are planned within these, and checked against ones a little wider.
        self._speed, self._acceleration, self._jerk = (
            limit * (1 - share) for limit, share in zip((speed, acceleration, jerk), spare, strict=True)
        )
        self._most = tuple(
            limit * (1 - share / 2) for limit, share in zip((speed, acceleration, jerk), spare, strict=True)
        )
        self._ruckig, self._asked, self._planned = _solver(self._acceleration, self._jerk)
        self.begin(low)

    def begin(self, position: float) -> None:
        """At rest at `position`."""
        self.way = Way(State(position), self._stop(State(position)))
        self._floor, self._ceiling = min(self.low, position), max(self.high, position)
        self._line: float | None = None  # the velocity asked last, of a target that moves

    @property
    def is_outside(self) -> bool:
        return not self.low <= self.way.state.position <= self.high

    def held(self) -> Way:
        """One period on, towards rest."""
        return self.way.later(self._period_s)

    def towards(self, target: float, velocity: float) -> Way:
        """One period on, towards `target`, both finite; towards rest where that would leave no way to stop within the
        limits. A dimension that began outside them is led in."""
        if self.is_outside:
            nudge = NUDGE * (self.high - self.low)
            target, velocity = min(max(target, self.low + nudge), self.high - nudge), 0.0
        target = min(max(target, self.low), self.high)
        velocity = min(max(velocity, -FASTEST * self._speed), FASTEST * self._speed)
        if velocity and not self._contains(self._stop(State(target, velocity))):
            velocity = 0.0
        before, self._line = self._line, velocity
        if not velocity and abs(self.way.stop.end - target) <= NEAR * (self.high - self.low):
            return self.held()  # the way to rest is the way to the target
        state = self._solved(target, velocity, before)
        if state is None:
            self._counts["motion_unsolved"] += 1
            return self.held()
        stop = self._stop(state)
        if not self._contains(stop):
            return self.held()  # at the edge of the limits the way to rest is the way along it
        return Way(state, stop)

    def take(self, way: Way) -> None:
        """Move on to a state that `held` or `towards` gave."""
        self.way = way
        position = way.state.position
        self._floor = min(self.low, max(self._floor, position))
        self._ceiling = max(self.high, min(self._ceiling, position))

    def _stop(self, state: State) -> Stop:
        return Stop(state, self._acceleration, self._jerk)

    def _contains(self, stop: Stop) -> bool:
        return self._floor <= stop.low and stop.high <= self._ceiling and stop.peak <= self._most[0]

    def _solved(self, target: float, velocity: float, before: float | None) -> State | None:
        """The state one period on, on the quickest way to a target; None where no way within the limits is found."""
        return self._followed(self._matched(target, velocity, before)) or self._followed(self._jerks(target, velocity))

    def _matched(self, target: float, velocity: float, before: float | None) -> list[tuple[float, float]]:
        """Three jerks, a third of a period each, that end on the target with its velocity and acceleration, which is
        taken from the velocity asked before: what keeps to a smooth line. They are within the limits near it alone.

        They solve three equations, of the changes of acceleration, velocity and position, in units of a third.
        """
        period_s, third_s = self._period_s, self._period_s / 3
        position, now, push = self.way.state
        wanted = 0.0 if before is None else (velocity - before) / period_s
        a = (wanted - push) / third_s
        v = (velocity - now - push * period_s) / third_s**2
        p = (target - position - now * period_s - push * period_s**2 / 2) / third_s**3
        first = p - v + a / 3
        second = v - a / 2 - 2 * first
        return [(third_s, first), (third_s, second), (third_s, a - first - second)]

    def _jerks(self, target: float, velocity: float) -> list[tuple[float, float]]:
        """What Ruckig would do: for how long which jerk; nothing where it has no answer.

        It is asked for the way to rest in a frame that moves with the target, so that a line is caught up with, not
        waylaid: in this frame the limits of speed are others, those of acceleration and jerk the same.
        """
        asked, (position, now, acceleration) = self._asked, self.way.state
        asked.current_position = [position - (target - velocity * self._period_s)]
        asked.current_velocity, asked.current_acceleration = [now - velocity], [acceleration]
        asked.min_velocity, asked.max_velocity = [-self._speed - velocity], [self._speed - velocity]
        try:
            if self._ruckig.calculate(asked, self._planned) < 0:
                return []
        except Exception:  # it raises for what it cannot solve; a motion goes on, whatever it is
            return []
        profile = self._planned.profiles[0][0]
        brake = profile.brake
        return [*zip(brake.t, brake.j, strict=True), *zip(profile.t, profile.j, strict=True)]

    def _followed(self, jerks: list[tuple[float, float]]) -> State | None:
        """Where jerks lead in one period, None where beyond a limit. Only jerks are taken from Ruckig, so that the
        motion is smooth whatever it answers."""
        begin = state = self.way.state
        left_s = self._period_s
        most_speed, most_acceleration, most_jerk = self._most
        for time_s, jerk in jerks:
            if not (time_s >= 0 and abs(jerk) <= most_jerk):
                return None
            state = state.after(min(time_s, left_s), jerk)
            left_s -= min(time_s, left_s)
            if not abs(state.acceleration) <= most_acceleration:
                return None
            if left_s <= 0:
                break
        state = state.after(left_s, 0.0)
        fits = jerks and abs(state.position - begin.position) <= most_speed * self._period_s
        return state if fits else None


def _solver(acceleration: float, jerk: float) -> tuple[Any, Any, Any]:
    """Ruckig for one dimension, what it is asked and where it answers."""
    try:
        import ruckig
    except ModuleNotFoundError:
        raise InputError("no ruckig, which moves robots within limits; pip install 'ontick[drive]'") from None
    asked = ruckig.InputParameter(1)
    asked.max_acceleration, asked.max_jerk = [acceleration], [jerk]
    asked.target_position = [0.0]
    return ruckig.Ruckig(1), asked, ruckig.Trajectory(1)
