"""The suite that proves a driver against the contract of robots.

    def test_my_robot_keeps_the_contract():
        check_robot(lambda: MyRobot("/dev/arm"))

On a real robot it moves one axis by 2 % of its range, at a third of its limits; `can_move=False` leaves that out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ...errors import InputError
from ..clock import WallClock
from .contract import Observed, Robot, RobotDescription, RobotFault, Waypoint

CONNECT_S, FRESH_S = 10.0, 1.0
LOOKS = 50
MOVE_PART, SETTLE_S = 0.02, 0.5  # of the range; until the robot has come up
CLOSE_PART = 0.25  # of the move, that may be missing then


def check_robot(make: Callable[[], Robot], can_move: bool = True) -> list[str]:
    """What was proven of the robots that `make` makes, clause by clause. Raises AssertionError with the clause that
    does not hold. Two robots are made, one after the other."""
    suite = _Suite()
    suite.before_connect(make())
    robot = make()
    try:
        suite.connected(robot)
        if can_move:
            suite.moved(robot)
            suite.refuses(robot)
        suite.stopped(robot)
    finally:
        robot.stop()
    return suite.proven


class _Suite:
    def __init__(self) -> None:
        self.proven: list[str] = []
        self.clock = WallClock()
        self.description: RobotDescription = None  # type: ignore[assignment]  # what connect says

    def prove(self, clause: str, holds: object, got: str = "") -> None:
        assert holds, f"the contract of robots is broken: {clause}{': ' + got if got else ''}"
        self.proven.append(clause)

    @contextmanager
    def refused(self, clause: str, *more: type[Exception]) -> Iterator[None]:
        """What happens inside raises a RobotFault (or another of the errors) with a reason."""
        reason, got = "", "it was done"
        try:
            yield
        except (RobotFault, *more) as error:
            reason, got = str(error), "an error without a reason"
        except Exception as error:  # of a foreign driver: that it is another one is the finding
            got = f"{type(error).__name__} in place of RobotFault"
        self.prove(clause, reason, got)

    def before_connect(self, robot: Robot) -> None:
        self.prove("a driver has connect, begin, observe, command and stop", isinstance(robot, Robot))
        with self.refused("observe before connect is refused"):
            robot.observe()
        with self.refused("command before connect is refused"):
            robot.command([Waypoint(self.clock.now() + 1.0, np.zeros(1), np.zeros(1))])
        robot.stop()
        robot.stop()
        self.prove("stop before connect, and again, is no error", True)

    def connected(self, robot: Robot) -> None:
        start_s = self.clock.now()
        self.description = robot.connect()
        took_s = self.clock.now() - start_s
        self.prove("connect says what the robot is", isinstance(self.description, RobotDescription))
        self.prove("connect takes ten seconds at most", took_s <= CONNECT_S, f"{took_s:.1f} s")
        with self.refused("connecting what is connected is refused"):
            robot.connect()
        robot.begin(0)
        self.prove("begin takes ten seconds at most", self.clock.now() - start_s - took_s <= CONNECT_S)
        self.observations(robot)

    def observations(self, robot: Robot) -> None:
        seen, took_s = [], []
        for _ in range(LOOKS):
            before_s = self.clock.now()
            observed = robot.observe()
            after_s = self.clock.now()
            self.consistent(observed)
            assert (observed.stamps_s <= after_s).all(), "a measurement is stamped before it is seen, on this clock"
            assert (after_s - observed.stamps_s < FRESH_S).all(), "a measurement at rest is younger than a second"
            seen.append(observed.stamps_s)
            took_s.append(after_s - before_s)
            self.clock.sleep_until(after_s + self.description.period_s / 5)
        self.prove("observations are what the description says: shapes, types, finite", True)
        self.prove("stamps are of this host's clock, in the past, younger than a second", True)
        stamps_s = np.array(seen)
        self.prove("stamps never run backwards", (np.diff(stamps_s, axis=0) >= 0).all())
        # the median: one call in fifty may meet a machine that is busy elsewhere
        slow_s = float(np.median(took_s))
        self.prove("observe returns within a period", slow_s < self.description.period_s, f"{slow_s * 1e3:.1f} ms")
        until_s = self.clock.now() + FRESH_S
        while (robot.observe().stamps_s <= stamps_s[0]).any() and self.clock.now() < until_s:
            self.clock.sleep_until(self.clock.now() + self.description.period_s)
        self.prove("new measurements come within a second", (robot.observe().stamps_s > stamps_s[0]).all())

    def consistent(self, observed: Observed) -> None:
        description = self.description
        values, stamps_s, position, episode = observed
        assert values.shape == (description.observation_dim,) and values.dtype == np.float32, "values: float32 [Do]"
        assert stamps_s.shape == (len(description.streams),) and stamps_s.dtype == np.float64, "stamps: float64 [C]"
        assert position.shape == (description.command_dim,) and position.dtype == np.float64, "position: float64 [Dc]"
        assert np.isfinite(values).all() and np.isfinite(stamps_s).all() and np.isfinite(position).all(), "finite"
        assert isinstance(episode, int), "the episode is a number"

    def moved(self, robot: Robot) -> None:
        """There, on a smooth path well within the limits, and wait."""
        limits, period_s = self.description.limits, self.description.period_s
        observed = robot.observe()
        start, axis = observed.position, int(np.argmin(limits.switches))
        if limits.switches.all():
            return
        reach = limits.high[axis] - limits.low[axis]
        by = np.zeros_like(start)
        by[axis] = MOVE_PART * reach * (1 if start[axis] < limits.low[axis] + reach / 2 else -1)
        size = abs(by[axis])
        # the least duration of a minimum-jerk move within each limit, threefold
        speed_s, acceleration_s = 1.875 * size / limits.speed[axis], (5.77 * size / limits.acceleration[axis]) ** 0.5
        move_s = 3 * max(speed_s, acceleration_s, (60 * size / limits.jerk[axis]) ** (1 / 3))
        begun_s = at_s = self.clock.now()
        worst = 0.0
        took_s = []
        while at_s < begun_s + move_s + SETTLE_S:
            part = min(1.0, (at_s + period_s - begun_s) / move_s)
            place = part**3 * (10 - 15 * part + 6 * part**2)
            rate = 30 * part**2 * (1 - part) ** 2 / move_s
            before_s = self.clock.now()
            robot.command([Waypoint(at_s + period_s, start + by * place, by * rate, observed.episode)])
            took_s.append(self.clock.now() - before_s)
            position = robot.observe().position
            worst = max(worst, float(np.max(np.maximum(limits.low - position, position - limits.high) / reach)))
            at_s += period_s
            self.clock.sleep_until(at_s)
        slow_s = float(np.median(took_s))
        self.prove("command returns within a period", slow_s < period_s, f"{slow_s * 1e3:.1f} ms")
        left = float(np.abs(robot.observe().position - start - by)[axis] / size)
        self.prove("a waypoint is approached", left <= CLOSE_PART, f"{100 * left:.0f} % of the way was left")
        self.prove("positions stay within the limits", worst <= MOVE_PART, f"{100 * worst:.1f} % beyond")

    def refuses(self, robot: Robot) -> None:
        observed = robot.observe()
        here, soon_s = observed.position, self.clock.now() + self.description.period_s
        bad = {
            "a NaN": Waypoint(soon_s, np.full_like(here, np.nan), np.zeros_like(here), observed.episode),
            "an infinite velocity": Waypoint(soon_s, here, np.full_like(here, np.inf), observed.episode),
            "a position of another shape": Waypoint(soon_s, np.append(here, 0.0), np.append(here, 0.0) * 0),
            "a time that is no number": Waypoint(np.nan, here, np.zeros_like(here), observed.episode),
        }
        for what, waypoint in bad.items():
            with self.refused(f"a waypoint with {what} is refused", InputError):
                robot.command([waypoint])

    def stopped(self, robot: Robot) -> None:
        robot.stop()
        robot.stop()
        self.prove("stop, and again, is no error", True)
        for name, call in (
            ("observe", robot.observe),
            ("command", lambda: robot.command([Waypoint(self.clock.now() + 1.0, np.zeros(1), np.zeros(1))])),
            ("begin", lambda: robot.begin(0)),
        ):
            with self.refused(f"{name} after stop is refused"):
                call()
