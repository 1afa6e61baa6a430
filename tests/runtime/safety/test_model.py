"""Limits from a robot's model."""

import numpy as np
import pytest

from ontick.envs.rendering import import_mujoco
from ontick.errors import InputError
from ontick.runtime.safety import limits_from_mujoco

mujoco = import_mujoco()


def model(actuators, joint='range="-1 2" limited="true"'):
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco><compiler angle="radian"/><worldbody><body><joint name="j" type="hinge" {joint}/>
        <geom size="0.1"/></body></worldbody><actuator>{actuators}</actuator></mujoco>"""
    )


def test_control_ranges_come_first():
    limits = limits_from_mujoco(model('<position joint="j" ctrlrange="-0.5 0.5" ctrllimited="true"/>'), 1, 4, 40)
    assert (limits.low.tolist(), limits.high.tolist()) == ([-0.5], [0.5])
    assert (limits.speed.tolist(), limits.acceleration.tolist(), limits.jerk.tolist()) == ([1], [4], [40])


def test_where_they_are_unlimited_the_joints_range_is_taken_times_its_gear():
    limits = limits_from_mujoco(model('<position joint="j"/><position joint="j" gear="-2"/>'), [1, 2], 4, 40)
    assert (limits.low.tolist(), limits.high.tolist()) == ([-1, -4], [2, 2])
    assert limits.speed.tolist() == [1, 2]


def test_what_is_unlimited_is_refused_by_name():
    with pytest.raises(InputError, match="actuator free has no limits"):
        limits_from_mujoco(model('<position name="free" joint="j"/>', joint=""), 1, 4, 40)


def test_a_model_without_actuators_and_rates_of_another_width_are_refused():
    with pytest.raises(InputError, match="no actuators"):
        limits_from_mujoco(model(""), 1, 4, 40)
    with pytest.raises(InputError, match="speed"):
        limits_from_mujoco(model('<position joint="j"/>'), np.ones(2), 4, 40)
