"""The quickest way to rest from where one dimension is: what must lie within the limits for a motion to be safe."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple


class State(NamedTuple):
    """One dimension at one time."""

    position: float
    velocity: float = 0.0
    acceleration: float = 0.0

    def after(self, time_s: float, jerk: float) -> State:
        """Where a constant jerk leads in `time_s`."""
        position, velocity, acceleration = self
        return State(
            position + time_s * (velocity + time_s * (acceleration / 2 + time_s * jerk / 6)),
            velocity + time_s * (acceleration + time_s * jerk / 2),
            acceleration + time_s * jerk,
        )


class Stop:
    """From `state` to rest in the least time, with at most this acceleration and jerk.

    Acceleration is ramped against the velocity that is left when it is gone, kept there, and ramped back to none:
    three pieces of constant jerk. Then the position rests, exactly.

    low, high: between these the position stays, the start included; peak: most speed on the way; end: where it rests.
    """

    def __init__(self, state: State, acceleration: float, jerk: float) -> None:
        self._pieces: list[tuple[float, State, float]]  # when each begins, where, and its jerk
        position, velocity, now = state
        if velocity == 0 and now == 0:
            self._pieces, self.duration_s, self.end = [], 0.0, position
            self.low = self.high = position
            self.peak = 0.0
            return
        left = velocity + now * abs(now) / (2 * jerk)  # velocity, once the acceleration is gone
        sign = -1.0 if left > 0 else 1.0
        start = sign * now
        needed = -sign * velocity  # velocity to be gained in the direction of the push
        top = sqrt(max(0.0, jerk * needed + start * start / 2))
        top = max(min(top, acceleration), start)
        flat_s = max(0.0, (needed - (top * top - start * start / 2) / jerk) / top) if top > 0 else 0.0
        times_s = (top - start) / jerk, flat_s, top / jerk
        begins_s, pieces, at = 0.0, [], state
        for time_s, push in zip(times_s, (sign * jerk, 0.0, -sign * jerk), strict=True):
            pieces.append((begins_s, at, push))
            at, begins_s = at.after(time_s, push), begins_s + time_s
        self._pieces, self.duration_s, self.end = pieces, begins_s, at.position
        ends = [position, self.end]
        if velocity * left < 0:
            # It moves away from where it will be braked, and turns while the first ramp begins.
            turn_s = 2 * abs(velocity) / (abs(now) + sqrt(max(0.0, now * now - 2 * jerk * abs(velocity))))
            ends.append(state.after(turn_s, sign * jerk).position)
        self.low, self.high = min(ends), max(ends)
        self.peak = max(abs(velocity), abs(left))

    def at(self, time_s: float) -> State:
        """The state `time_s` after the start."""
        if time_s >= self.duration_s:
            return State(self.end)
        begins_s, state, push = next(piece for piece in reversed(self._pieces) if time_s >= piece[0])
        position, velocity, acceleration = state.after(time_s - begins_s, push)
        return State(min(max(position, self.low), self.high), velocity, acceleration)  # round-off aside, it is there
