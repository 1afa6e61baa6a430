import numpy as np
import pytest

from ontick.runtime.clock import WallClock
from ontick.runtime.robots import Limits, RobotFault, Waypoint
from ontick.runtime.robots.link import Link
from ontick.runtime.robots.refusals import refuse_bad

CLOCK = WallClock()
LIMITS = Limits(low=[-1, -1], high=[1, 1], speed=[1, 1], acceleration=[1, 1], jerk=[1, 1])


def point(time_s=1.0, position=(0.0, 0.0), velocity=(0.0, 0.0)) -> Waypoint:
    return Waypoint(time_s, np.array(position), np.array(velocity))


def test_the_newest_measurement_is_given_as_a_copy():
    link = Link("arm", 2)
    link.measured([1.0, 2.0], CLOCK.now())
    link.newest()[0][:] = 0
    assert link.newest()[0].tolist() == [1.0, 2.0] and link.newest()[0].dtype == np.float32


@pytest.mark.parametrize(
    "values", [[np.nan, 0.0], [None, 1.0], [1.0], "ab", [[1.0, 2.0]], [{}, 1.0], [10**400, 1.0], [1e300, 1.0]]
)
def test_what_is_no_measurement_is_left_out_and_counted(values):
    link = Link("arm", 2)
    link.measured([1.0, 2.0], CLOCK.now())
    link.measured(values, CLOCK.now())
    assert link.newest()[0].tolist() == [1.0, 2.0] and link.bad == 1


def test_of_the_commands_not_yet_taken_the_newest_is_given_once():
    link = Link("arm", 2)
    link.order([point(1.0)])
    link.order([point(2.0)])
    taken = link.orders(0.0)
    assert taken is not None and taken[0].time_s == 2.0 and link.orders(0.01) is None


def test_what_a_thread_raises_breaks_the_link_and_is_what_the_caller_hears():
    link = Link("arm", 2)
    link.measured([1.0, 2.0], CLOCK.now())

    def body() -> None:
        raise OSError("cable out")

    link.run(body)
    link.end()
    for call in (link.newest, lambda: link.order([point()])):
        with pytest.raises(RobotFault, match="arm: OSError: cable out"):
            call()


def test_the_end_of_a_link_wakes_whoever_waits_for_commands():
    link = Link("arm", 2)
    link.run(lambda: link.orders(60.0) and None)
    start_s = CLOCK.now()
    link.end()
    assert CLOCK.now() - start_s < 2.0 and not any(thread.is_alive() for thread in link._threads)


@pytest.mark.parametrize(
    ("waypoints", "reason"),
    [
        ([], "without a waypoint"),
        ([point(position=(np.nan, 0.0))], "finite"),
        ([point(velocity=(0.0, np.inf))], "finite"),
        ([point(time_s=np.nan)], "finite"),
        ([point(position=(0.0,))], "shapes"),
        ([point(position=(1.1, 0.0))], "beyond the robot's limits"),
        ([point(2.0), point(1.0)], "out of order"),
    ],
)
def test_no_driver_passes_on_a_bad_waypoint(waypoints, reason):
    with pytest.raises(RobotFault, match=reason):
        refuse_bad(waypoints, LIMITS)


def test_a_waypoint_on_the_limit_is_no_offence():
    refuse_bad([point(1.0, (1.0 + 1e-7, -1.0)), point(2.0)], LIMITS)
