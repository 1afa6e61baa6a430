"""What no driver passes on, whoever commands: waypoints that are no numbers, or lie where the robot must not be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .contract import Limits, RobotFault, Waypoint

SLACK = 1e-6  # of a dimension's range: rounding is no offence


def refuse_bad(waypoints: Sequence[Waypoint], limits: Limits) -> None:
    """Raise RobotFault unless each waypoint has Dc finite positions and velocities, in order of time, and its position
    lies within the limits. The positive form is tested, which a NaN fails."""
    if not waypoints:
        raise RobotFault("got a command without a waypoint, wanted one or more")
    shape, slack = limits.low.shape, SLACK * (limits.high - limits.low)
    before_s = -np.inf
    for time_s, position, velocity, _ in waypoints:
        position, velocity = np.asarray(position, np.float64), np.asarray(velocity, np.float64)
        if position.shape != shape or velocity.shape != shape:
            raise RobotFault(f"got a waypoint of shapes {position.shape} and {velocity.shape}, wanted {shape}")
        if not (np.isfinite(position).all() and np.isfinite(velocity).all() and np.isfinite(time_s)):
            raise RobotFault(f"got the waypoint {position.tolist()} at {time_s} s, wanted finite numbers")
        if not ((position >= limits.low - slack) & (position <= limits.high + slack)).all():
            raise RobotFault(f"got the waypoint {position.tolist()}, which lies beyond the robot's limits")
        if not time_s > before_s:
            raise RobotFault("got waypoints out of order, wanted each later than the one before")
        before_s = time_s
