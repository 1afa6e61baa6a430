import time

import numpy as np
import pytest

from ontick.runtime.channel import FINE, FULL, LATE
from ontick.runtime.controller import FIRST, HOLDING, MOVING, STARVED
from ontick.runtime.faults import (
    AGE_S,
    CLOCK,
    CLOCK_STEP_S,
    FAULTS,
    REST_S,
    FaultyRobot,
    Seen,
    end_state,
    longest_hold_s,
    proof_of,
)

p, T, CHUNK_S = 0.02, 0.05, 0.8
DTYPE = np.dtype([("time_s", "f8"), ("state", "u1"), ("why", "u1"), ("at_rest", "?")])
SEEN = np.dtype([("time_s", "f8"), ("age_s", "f8"), ("observation", "f4", 6)])
ANSWER = np.dtype([("time_s", "f8"), ("latency_s", "f8"), ("state", "u1"), ("rung", "i4")])


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


def test_bounds_are_numbers_and_coming_to_rest_is_part_of_a_hold():
    bounds = {name: fault.bound_s(CHUNK_S, T) for name, fault in FAULTS.items()}
    assert bounds["server-killed"] == bounds["nan-action"] == pytest.approx(CHUNK_S + 2 * T + REST_S)
    assert bounds["beyond-limits"] == pytest.approx(12 * T + CHUNK_S + REST_S)
    assert bounds["stale-observation"] == pytest.approx(AGE_S + T + REST_S)
    assert FAULTS["frozen-camera"].bound_s(CHUNK_S, T, age_s=0.5) == pytest.approx(0.5 + T + REST_S)
    assert bounds["device-oom"] == bounds["driver-raises"] == 2 * T and bounds["interrupt"] == 1.0
    moving = [name for name, fault in FAULTS.items() if fault.end == "moving" and name != "device-oom"]
    assert {bounds[name] for name in moving} == {T}


def test_a_promise_is_the_state_and_the_time():
    fault = FAULTS["server-hung"]
    bound_s = fault.bound_s(CHUNK_S, T)
    assert fault.is_kept("holding", bound_s, 5.0, bound_s, T)
    assert not fault.is_kept("holding", bound_s + 0.001, 5.0, bound_s, T)
    assert not fault.is_kept("moving", 0.0, 0.0, bound_s, T)


def test_motion_goes_on_where_no_hold_lasted_a_period_wherever_it_lay():
    fault = FAULTS["late-reply"]
    assert fault.is_kept("moving", 3.0, 2 * p, T, T)
    assert not fault.is_kept("moving", 0.0, 3 * p, T, T)
    assert not fault.is_kept("holding", 0.0, 0.0, T, T)


def test_the_longest_hold_in_the_middle_is_told_and_a_first_answer_waited_for_is_none():
    seen = ticks((50, MOVING, 0, False), (20, HOLDING, STARVED, True), (9, MOVING, 0, False), (5, HOLDING, FIRST, True))
    assert longest_hold_s(seen, 0.5, 9.0, p) == pytest.approx(20 * p)
    assert longest_hold_s(seen, 1.5, 9.0, p) == 0.0
    seen = ticks((9, MOVING, 0, False), (60, HOLDING, FIRST, True), (9, MOVING, 0, False))
    assert longest_hold_s(seen, 0.0, 9.0, p) == pytest.approx(60 * p)


def test_memory_that_is_full_is_a_hold_where_there_is_no_other_plan():
    fault = FAULTS["device-oom"]
    assert fault.with_rungs(2) is fault and fault.with_rungs(1).end == "holding"
    assert FAULTS["cpu-hog"].with_rungs(1).end == "moving"


def seen(**more):
    """From 1 s to 2 s; a fault that was not made."""
    steps = np.arange(150)
    rows = np.zeros(150, SEEN)
    rows["time_s"], rows["age_s"], rows["observation"] = steps * p, 0.01, steps[:, None]
    answers = np.array([(t, 0.01, FINE, 0) for t in np.arange(0, 3, 0.1)], ANSWER)
    told = {"fault": None, "stopped_s": 3.2, "discarded": 0, "unanswered": {}, "gate": {}}
    usual = {"ticks": rows, "answers": answers, "fault_s": 1.0, "until_s": 2.0, "ended_s": 3.0, "told": told}
    return Seen(**{**usual, "camera": (4, 6), "cores": 2, **more})


def changed(records, name, value, start_s=1.0, end_s=2.0):
    records = records.copy()
    which = (records["time_s"] >= start_s) & (records["time_s"] < end_s)
    records[name][which] = value
    return records


def test_what_did_not_happen_is_not_proven():
    for name in FAULTS:
        assert not proof_of(name, seen())[1], name


def frozen():
    records = seen().ticks.copy()
    records["observation"][50:100, 4:] = 7.0
    return records


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("server-killed", {"answers": changed(seen().answers, "state", LATE)}),
        ("late-reply", {"wire": {"late-reply": 3}, "told": {"discarded": 2}}),
        ("nan-action", {"wire": {"nan-action": 3}, "told": {"unanswered": {"refused": 3}}}),
        ("beyond-limits", {"wire": {"beyond-limits": 3}, "told": {"gate": {"clamped": 3}}}),
        ("stale-observation", {"ticks": changed(seen().ticks, "age_s", 0.3)}),
        ("frozen-camera", {"ticks": frozen()}),
        ("clock-step", {"robot": {"time_of_day_stepped_s": CLOCK_STEP_S}}),
        ("gc-pause", {"answers": changed(seen().answers, "latency_s", 0.03)}),
        ("cpu-hog", {"busy_s": 1.0}),
        ("disk-full", {"recording": {"failed": "disk full"}}),
        ("device-oom", {"answers": changed(seen().answers, "rung", 1)}),
        ("device-oom", {"answers": changed(seen().answers, "state", FULL)}),
        ("driver-raises", {"told": {"fault": "the driver was told to fail"}}),
        ("interrupt", {"told": {"stopped_s": 1.3}}),
    ],
)
def test_what_happened_is_proven_by_numbers(name, more):
    made, is_made = proof_of(name, seen(**more))
    assert is_made and made


def test_another_reason_to_stop_proves_no_driver_that_raises():
    assert not proof_of("driver-raises", seen(told={"fault": "watchdog: no command for 51 ms"}))[1]


def test_replies_that_were_spoiled_and_never_noticed_prove_nothing():
    assert not proof_of("reorder", seen(wire={"reorder": 3}))[1]
    assert not proof_of("server-hung", seen(answers=changed(seen().answers, "state", LATE, 1.0, 4.0)))[1]


def test_the_step_of_the_time_of_day_is_measured_where_it_is_made(monkeypatch):
    monkeypatch.setattr(time, "time", time.time)  # undone afterwards
    robot = FaultyRobot(object())
    assert robot.report() == {}
    robot.make(CLOCK)
    assert robot.report()["time_of_day_stepped_s"] == pytest.approx(CLOCK_STEP_S, abs=2)
