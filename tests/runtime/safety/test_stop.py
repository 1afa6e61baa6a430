"""The quickest way to rest."""

import numpy as np
import pytest
import ruckig
from hypothesis import given, settings
from hypothesis import strategies as st

from ontick.runtime.safety.stop import State, Stop

ACCELERATION, JERK = 4.0, 30.0
states = st.builds(State, st.floats(-5, 5), st.floats(-2, 2), st.floats(-ACCELERATION, ACCELERATION))

QUICK = settings(deadline=None)  # however busy the machine is


def sampled(stop):
    return [stop.at(time_s) for time_s in np.linspace(0, stop.duration_s, 400)]


def test_at_rest_it_takes_no_time_and_goes_nowhere():
    stop = Stop(State(1.5), ACCELERATION, JERK)
    assert (stop.duration_s, stop.low, stop.high, stop.end, stop.peak) == (0, 1.5, 1.5, 1.5, 0)
    assert stop.at(0) == stop.at(1) == State(1.5)


@QUICK
@given(states)
def test_it_begins_at_the_state_and_ends_at_rest(state):
    stop = Stop(state, ACCELERATION, JERK)
    assert stop.at(0) == pytest.approx(state, abs=1e-300)  # a denormal number may be lost
    before = stop.at(stop.duration_s * (1 - 1e-12))
    assert before == pytest.approx((stop.end, 0, 0), abs=1e-6)
    assert stop.at(stop.duration_s) == stop.at(1e9) == State(stop.end)


@QUICK
@given(states)
def test_acceleration_and_jerk_keep_their_limits_and_nothing_jumps(state):
    stop = Stop(state, ACCELERATION, JERK)
    positions, velocities, accelerations = np.array(sampled(stop)).T
    step_s = stop.duration_s / 399
    assert np.abs(accelerations).max() <= ACCELERATION * (1 + 1e-9)
    assert np.abs(np.diff(accelerations)).max() <= JERK * step_s + 1e-6
    assert np.abs(np.diff(velocities)).max() <= ACCELERATION * step_s + 1e-6
    assert np.abs(np.diff(positions)).max() <= np.abs(velocities).max() * step_s + 1e-6


@QUICK
@given(states)
def test_its_bounds_hold_along_the_way_and_are_reached(state):
    stop = Stop(state, ACCELERATION, JERK)
    positions, velocities, _ = np.array(sampled(stop)).T
    assert stop.low - 1e-12 <= positions.min() <= stop.low + 1e-3
    assert stop.high - 1e-3 <= positions.max() <= stop.high + 1e-12
    assert np.abs(velocities).max() <= stop.peak + 1e-12


@QUICK
@given(states)
def test_it_is_as_quick_as_ruckigs(state):
    asked = ruckig.InputParameter(1)
    asked.control_interface = ruckig.ControlInterface.Velocity
    asked.current_position, asked.current_velocity, asked.current_acceleration = ([part] for part in state)
    asked.max_velocity, asked.max_acceleration, asked.max_jerk = [10.0], [ACCELERATION], [JERK]
    planned = ruckig.Trajectory(1)
    assert ruckig.Ruckig(1).calculate(asked, planned) >= 0
    assert Stop(state, ACCELERATION, JERK).duration_s == pytest.approx(planned.duration, abs=1e-6)


@pytest.mark.parametrize("tiny", [5e-324, 1e-300, 1e-160, -1e-308])
def test_denormal_states_come_to_rest_where_they_are(tiny):
    for state in (State(1.0, tiny), State(1.0, 0.0, tiny), State(1.0, tiny, -tiny)):
        stop = Stop(state, ACCELERATION, JERK)
        assert np.isfinite([stop.low, stop.high, stop.end, stop.peak, stop.duration_s]).all()
        assert stop.end == 1.0
