"""Which actions keep their units: as the field trains on robosuite, told by the task or by the file."""

import pytest

from ontick.envs.action_units import action_units

OLD = {"env_name": "NutAssemblySquare", "type": 1, "env_kwargs": {"controller_configs": {"control_delta": True}}}
OLD_ABSOLUTE = {**OLD, "env_kwargs": {"controller_configs": {"control_delta": False}}}
ARMS = {"right": {"input_type": "absolute"}, "left": {"input_type": "absolute"}}
NEW_ABSOLUTE = {**OLD, "env_kwargs": {"controller_configs": {"body_parts": ARMS}}}
MOTION, ROTATION = tuple(range(6)), tuple(range(3, 9))


@pytest.mark.parametrize(
    ("attributes", "width", "unfitted", "grippers"),
    [
        ({"task": "robosuite/Lift"}, 7, MOTION, (6,)),
        ({"task": "robosuite/PickPlaceCan-abs"}, 10, ROTATION, (9,)),
        ({"task": "metaworld/pick-place-v3"}, 4, (), (3,)),
        ({"env_args": OLD}, 7, MOTION, (6,)),
        ({"env_args": OLD_ABSOLUTE}, 10, ROTATION, (9,)),
        ({"env_args": NEW_ABSOLUTE}, 20, (*ROTATION, *range(13, 19)), (9, 19)),
        ({"task": "somebody/elses", "env_args": OLD}, 14, (*MOTION, *range(7, 13)), (6, 13)),
        ({"env_args": {"type": 2, "env_name": "Hopper"}}, 7, (), ()),
        ({"env_args": OLD}, 8, (), ()),
        ({"task": "robosuite/Lift"}, 4, (), ()),
        ({"task": "nobody/knows"}, 7, (), ()),
        ({}, 7, (), ()),
    ],
)
def test_units_are_those_of_the_task_or_of_robosuites_controller(attributes, width, unfitted, grippers):
    assert action_units(attributes, width) == (unfitted, grippers)
