import os
import signal

import numpy as np
import pytest

from ontick.runtime.clock import WallClock
from ontick.runtime.robots import Limits, RobotFault, Waypoint
from ontick.runtime.robots import link as link_module
from ontick.runtime.robots.link import FarEnd, Link
from ontick.runtime.robots.refusals import refuse_bad

CLOCK = WallClock()
LIMITS = Limits(low=[-1, -1], high=[1, 1], speed=[1, 1], acceleration=[1, 1], jerk=[1, 1])


def point(time_s=1.0, position=(0.0, 0.0), velocity=(0.0, 0.0)) -> Waypoint:
    return Waypoint(time_s, np.array(position), np.array(velocity))


class Nobody:
    """A parent that wants nothing."""

    def wants_end(self, rest_s: float) -> bool:
        return False


@pytest.fixture
def ends():
    """Both ends of a link, in this process."""
    link = Link("arm", 2, 2)
    yield link, FarEnd(link._rings, link._wake, Nobody())  # type: ignore[arg-type]
    link.end()


def test_the_newest_measurement_is_given_as_a_copy(ends):
    link, far = ends
    far.measured([1.0, 2.0], CLOCK.now())
    link.newest()[0][:] = 0
    assert link.newest()[0].tolist() == [1.0, 2.0] and link.newest()[0].dtype == np.float32


def test_a_gap_is_no_fault_the_old_measurement_is_given_with_its_old_stamp(ends):
    link, far = ends
    far.measured([1.0, 2.0], CLOCK.now() - 60.0)
    values, stamp_s = link.newest()
    assert values.tolist() == [1.0, 2.0] and CLOCK.now() - stamp_s >= 60.0
    far.broke("cable out")
    with pytest.raises(RobotFault, match="arm: cable out"):
        link.newest()


@pytest.mark.parametrize(
    "values", [[np.nan, 0.0], [None, 1.0], [1.0], "ab", [[1.0, 2.0]], [{}, 1.0], [10**400, 1.0], [1e300, 1.0]]
)
def test_what_is_no_measurement_is_left_out_and_counted(ends, values):
    link, far = ends
    far.measured([1.0, 2.0], CLOCK.now())
    far.measured(values, CLOCK.now())
    assert link.newest()[0].tolist() == [1.0, 2.0]
    assert link.report()["bad_measurements"] == 1 and link.report()["measurements"] == 1


def test_of_the_commands_not_yet_taken_the_newest_is_given_once_and_whole(ends):
    link, far = ends
    link.order([point(1.0)])
    link.order([point(2.0, (0.1, 0.2), (0.3, 0.4)), Waypoint(3.0, np.zeros(2), np.ones(2), 7)])
    first, second = far.orders(0.0)
    assert first.time_s == 2.0 and first.position.tolist() == [0.1, 0.2] and first.velocity.tolist() == [0.3, 0.4]
    assert second.time_s == 3.0 and second.episode == 7
    start_s = CLOCK.now()
    assert far.orders(0.05) is None and CLOCK.now() - start_s >= 0.04


def test_a_command_that_is_half_there_waits_for_its_other_half(ends):
    link, far = ends
    link.order([point(1.0), point(2.0)])
    records = link._rings[1].take()
    link._rings[1].take = lambda: [records.pop(0)] if records else []
    assert far.orders(0.0) is None
    assert [waypoint.time_s for waypoint in far.orders(0.0)] == [1.0, 2.0]


def test_a_command_of_too_many_waypoints_is_refused(ends):
    with pytest.raises(RobotFault, match="257 waypoints, wanted at most 256"):
        ends[0].order([point(float(k)) for k in range(257)])


def echo(far: FarEnd) -> None:
    """A robot that is where it was told to be."""
    far.measured([0.0, 0.0], far.clock.now())
    while far.is_alive:
        if orders := far.orders(0.05):
            far.measured(orders[-1].position, far.clock.now())
            far.count("sent")


def fail(far: FarEnd, error: Exception) -> None:
    far.measured([1.0, 2.0], far.clock.now())
    raise error


def hang(far: FarEnd) -> None:
    far.measured([1.0, 2.0], far.clock.now())
    far.clock.sleep_until(far.clock.now() + 60.0)


def started(live, *arguments) -> Link:
    link = Link("arm", 2, 2)
    link.start(live, *arguments)
    link.wait_for_first()
    return link


def until_broken(link: Link) -> None:
    until_s = CLOCK.now() + 5.0
    while CLOCK.now() < until_s:
        link.newest()


def test_a_robot_lives_in_another_process_and_what_it_counted_is_told_after_its_end():
    link = started(echo)
    link.order([point(1.0, (0.25, 0.5))])
    until_s = CLOCK.now() + 2.0
    while link.newest()[0].tolist() != [0.25, 0.5]:
        assert CLOCK.now() < until_s
    assert link._child is not None and link._child.process.pid != os.getpid()
    for _ in range(2):
        link.end()
    told = {"commands": 1, "measurements": 2, "bad_measurements": 0, "sent": 1, "clipped": 0}
    assert link.report() == told


@pytest.mark.parametrize(
    ("error", "said"), [(OSError("cable out"), "OSError: cable out"), (RobotFault("no torque"), "no torque")]
)
def test_what_the_process_raises_breaks_the_link_and_is_what_the_caller_hears(error, said):
    link = Link("arm", 2, 2)
    link.start(fail, error)
    with pytest.raises(RobotFault, match=f"^arm.*: {said}$"):
        link.wait_for_first()
        until_broken(link)
    with pytest.raises(RobotFault, match=f"^arm: {said}$"):
        link.order([point()])
    link.end()


def test_a_process_that_was_killed_is_a_broken_link():
    link = started(echo)
    assert link._child is not None
    os.kill(link._child.process.pid, signal.SIGKILL)
    with pytest.raises(RobotFault, match="its process ended with -9"):
        until_broken(link)
    link.end()


def test_a_process_that_hangs_is_killed_at_the_end(monkeypatch):
    monkeypatch.setattr(link_module, "STOP_S", 0.2)
    link = started(hang)
    assert link._child is not None
    process, start_s = link._child.process, CLOCK.now()
    link.end()
    assert CLOCK.now() - start_s < 2.0 and not process.is_alive()


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
