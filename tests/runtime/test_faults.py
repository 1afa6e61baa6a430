import numpy as np
import pytest

from ontick.runtime.controller import FIRST, HOLDING, MOVING, STARVED
from ontick.runtime.faults import FAULTS, end_state

p = 0.02
DTYPE = np.dtype([("time_s", "f8"), ("state", "u1"), ("why", "u1"), ("at_rest", "?")])


def ticks(*parts):
    """parts: (how many periods, state, why, at rest)."""
    rows = [part[1:] for part in parts for _ in range(part[0])]
    return np.array([(i * p, *row) for i, row in enumerate(rows)], DTYPE)


def test_holding_begins_when_the_robot_has_come_to_rest():
    seen = ticks((50, MOVING, 0, False), (5, HOLDING, STARVED, False), (50, HOLDING, STARVED, True))
    state, after_s = end_state(seen, 0.5, 2.0, p)
    assert state == "holding" and after_s == pytest.approx(55 * p - 0.5)


def test_motion_that_never_ceased_was_reached_at_once():
    assert end_state(ticks((100, MOVING, 0, False)), 0.5, 2.0, p) == ("moving", 0.0)


def test_a_hold_in_between_is_not_hidden():
    seen = ticks((50, MOVING, 0, False), (20, HOLDING, STARVED, True), (50, MOVING, 0, False))
    state, after_s = end_state(seen, 0.5, 2.4, p)
    assert state == "moving" and after_s == pytest.approx(70 * p - 0.5)


def test_the_wait_for_an_episode_s_first_answer_is_left_out_if_it_is_short():
    short = ticks((50, MOVING, 0, False), (5, HOLDING, FIRST, True), (50, MOVING, 0, False))
    assert end_state(short, 0.5, 2.0, p) == ("moving", 0.0)
    long = ticks((50, MOVING, 0, False), (60, HOLDING, FIRST, True))
    assert end_state(long, 0.5, 2.2, p)[0] == "holding"


def test_no_command_after_the_fault_is_a_stop():
    assert end_state(ticks((10, MOVING, 0, False)), 0.5, 2.0, p)[0] == "stopped"


def test_every_fault_of_the_interface_has_a_declared_end():
    names = (
        "server-killed server-hung late-reply reorder duplicate nan-action inf-action wrong-shape beyond-limits "
        "stale-observation frozen-camera clock-step gc-pause cpu-hog disk-full device-oom driver-raises interrupt"
    )
    assert set(FAULTS) == set(names.split())
    assert {fault.end for fault in FAULTS.values()} <= {"moving", "holding", "stopped"}
