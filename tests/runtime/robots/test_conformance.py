import numpy as np
import pytest

from ontick.runtime.clock import WallClock
from ontick.runtime.robots import Limits, Observed, RobotDescription, RobotFault
from ontick.runtime.robots.conformance import check_robot
from ontick.runtime.robots.refusals import refuse_bad

CLOCK = WallClock()
LIMITS = Limits(low=[-1, -1], high=[1, 1], speed=[9, 9], acceleration=[900, 900], jerk=[90000, 90000])


class Good:
    """A robot that is at once where it is told to be."""

    period_s = 0.005

    def __init__(self) -> None:
        self.at: np.ndarray | None = None

    def connect(self) -> RobotDescription:
        if self.at is not None:
            raise RobotFault("connected already")
        self.at = np.zeros(2)
        return RobotDescription(
            name="good", observation_dim=2, limits=LIMITS, period_s=self.period_s, streams=(("all", 0, 2),)
        )

    def begin(self, seed: int) -> None:
        self._here()

    def observe(self) -> Observed:
        here = self._here()
        return Observed(here.astype(np.float32), np.array([self._stamp_s()]), here.copy())

    def command(self, waypoints) -> None:
        self._here()
        refuse_bad(waypoints, LIMITS)
        self.at = np.array(waypoints[-1].position)

    def stop(self) -> None:
        self.at = None

    def _stamp_s(self) -> float:
        return CLOCK.now()

    def _here(self) -> np.ndarray:
        if self.at is None:
            raise RobotFault("not connected")
        return self.at


class ConnectsTwice(Good):
    def connect(self) -> RobotDescription:
        self.at = None
        return super().connect()


class StampsAhead(Good):
    def _stamp_s(self) -> float:
        return CLOCK.now() + 1.0


class StampsOfAnotherClock(Good):
    def _stamp_s(self) -> float:
        return CLOCK.now() - 1e6


class RunsBackwards(Good):
    def _stamp_s(self) -> float:
        now_s = CLOCK.now()
        return now_s - now_s * 7 % 0.5


class StandsStill(Good):
    def command(self, waypoints) -> None:
        refuse_bad(waypoints, LIMITS)
        self._here()


class ObeysNaN(Good):
    def command(self, waypoints) -> None:
        self._here()
        self.at = np.array(waypoints[-1].position)


class FailsOtherwise(Good):
    def _here(self) -> np.ndarray:
        if self.at is None:
            raise ValueError("no connection")
        return self.at


class Blocks(Good):
    def observe(self) -> Observed:
        CLOCK.sleep_until(CLOCK.now() + 0.006)
        return super().observe()


class GivesDoubles(Good):
    def observe(self) -> Observed:
        observed = super().observe()
        return observed._replace(values=observed.values.astype(np.float64))


class WorksAfterStop(Good):
    def stop(self) -> None:
        pass


def test_a_good_robot_proves_every_clause():
    proven = check_robot(Good)
    assert len(proven) == len(set(proven)) and len(proven) > 15


def test_a_robot_that_must_not_move_is_not_commanded():
    assert not any("waypoint" in clause for clause in check_robot(StandsStill, can_move=False))


@pytest.mark.parametrize(
    ("robot", "clause"),
    [
        (ConnectsTwice, "connecting what is connected is refused"),
        (StampsAhead, "before it is seen"),
        (StampsOfAnotherClock, "younger than a second"),
        (RunsBackwards, "never run backwards"),
        (StandsStill, "a waypoint is approached"),
        (ObeysNaN, "a NaN is refused"),
        (FailsOtherwise, "ValueError in place of RobotFault"),
        (Blocks, "observe returns within a period"),
        (GivesDoubles, "float32"),
        (WorksAfterStop, "after stop is refused"),
    ],
)
def test_the_suite_names_the_clause_that_a_robot_breaks(robot, clause):
    with pytest.raises(AssertionError, match=clause):
        check_robot(robot)
