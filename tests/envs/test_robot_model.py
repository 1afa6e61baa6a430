import pickle

import numpy as np
import pytest

from ontick.envs.robot_model import RobotModel
from ontick.errors import InputError

SERVO = '<position joint="shoulder" gear="2" ctrlrange="-4 4"/><position joint="elbow" ctrlrange="-2 2"/>'
BOX = {"low": [-1.0, -1.0, -0.1], "high": [2.0, 2.0, 0.1]}
RATES = ([1.0, 2.0], [4.0, 4.0], [40.0, 40.0])

URDF = """<robot name="arm"><link name="base"/>
<link name="upper">{0}</link><link name="fore">{0}</link>
<joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 0 1"/>
<limit lower="-3" upper="1" effort="1" velocity="1"/></joint>
<joint name="elbow" type="revolute"><parent link="upper"/><child link="fore"/><origin xyz="1 0 0"/><axis xyz="0 0 1"/>
<limit lower="-2" upper="2" effort="1" velocity="1"/></joint></robot>""".format(
    '<inertial><mass value="1"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>'
)


def arm(tmp_path, actuators=SERVO, joint="hinge", ranged='range="-3 3"'):
    """Two links of 1 m in a plane; the second has a free-running pulley, which nobody commands, on its way."""
    path = tmp_path / "arm.xml"
    path.write_text(
        f"""<mujoco><compiler angle="radian"/><worldbody>
        <body name="upper"><joint name="shoulder" type="{joint}" axis="0 0 1" {ranged}/><geom size="0.1"/>
        <body name="fore" pos="1 0 0"><joint name="elbow" axis="0 0 1" range="-2.5 2.5"/><geom size="0.1"/>
        <site name="tool" pos="1 0 0"/></body></body>
        </worldbody><actuator>{actuators}</actuator></mujoco>"""
    )
    return path


def model(path, **more) -> RobotModel:
    return RobotModel(path, **{"site": "tool", **BOX, **more})


def planar(shoulder: float, elbow: float) -> list[float]:
    upper, fore = np.exp(1j * shoulder), np.exp(1j * (shoulder + elbow))
    return [(upper + fore).real, (upper + fore).imag, 0.0]


def test_the_site_is_where_the_arms_geometry_says(tmp_path):
    found = model(arm(tmp_path, actuators=""))
    for angles in np.random.default_rng(0).uniform(-3, 3, (50, 2)):
        assert np.allclose(found.place(angles), planar(*angles))


def test_commands_are_in_the_order_of_the_actuators_and_divided_by_their_gear(tmp_path):
    turned = '<position joint="elbow"/><position joint="shoulder" gear="2"/>'
    found = model(arm(tmp_path, actuators=turned))
    assert np.allclose(found.place(np.array([0.3, 2.0])), planar(1.0, 0.3))


def test_it_is_inside_exactly_where_the_site_lies_in_the_box(tmp_path):
    found = model(arm(tmp_path))
    for angles in np.random.default_rng(1).uniform(-3, 3, (200, 2)):
        place = np.array(planar(*angles))
        assert found.inside(angles * [2, 1]) is bool(((place >= BOX["low"]) & (place <= BOX["high"])).all())
    for angles in ([np.nan, 0.0], [0.0, np.inf]):
        assert found.inside(np.array(angles)) is False


def test_a_body_will_do_and_a_urdf_too(tmp_path):
    (tmp_path / "arm.urdf").write_text(URDF)
    found = model(tmp_path / "arm.urdf", site=None, body="fore")
    assert np.allclose(found.place(np.array([0.5, 1.0])), [np.cos(0.5), np.sin(0.5), 0])
    limits = found.limits(*RATES)
    assert np.allclose(limits.low, [-3, -2]) and np.allclose(limits.high, [1, 2]) and limits.speed.tolist() == [1, 2]


def test_limits_are_those_of_the_actuators_where_there_are_some(tmp_path):
    limits = model(arm(tmp_path)).limits(1.0, *RATES[1:])
    assert limits.low.tolist() == [-4, -2] and limits.high.tolist() == [4, 2] and limits.speed.tolist() == [1, 1]


def test_an_actuator_that_moves_no_joint_leaves_the_tool_where_it_is(tmp_path):
    body = '<body name="upper">'
    path = arm(tmp_path, actuators=SERVO + '<position tendon="grip" ctrlrange="0 255"/>')
    tendon = '<tendon><fixed name="grip"><joint joint="elbow" coef="1"/></fixed></tendon><actuator>'
    path.write_text(path.read_text().replace("<actuator>", tendon))
    assert body in path.read_text()
    found = model(path)
    assert found.dims == 3 and np.allclose(found.place(np.array([1.0, 0.5, 200.0])), planar(0.5, 0.5))


def test_it_can_be_given_to_another_process_before_and_after_it_was_asked(tmp_path):
    found = model(arm(tmp_path))
    for _ in range(2):
        inside = pickle.loads(pickle.dumps(found.inside))
        assert inside(np.zeros(2)) == found.inside(np.zeros(2))


def test_a_model_of_another_width_is_refused(tmp_path):
    found = model(arm(tmp_path))
    found.check_fit(2)
    with pytest.raises(InputError, match=r"arm.xml has 2 actuators, the robot's command 3 numbers"):
        found.check_fit(3)
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        found.inside(np.zeros(3))


@pytest.mark.parametrize(
    ("settings", "more", "reason"),
    [
        ({}, {"site": "hand"}, "has no site hand; it has tool"),
        ({}, {"site": None, "body": "hand"}, "has no body hand; it has world, upper, fore"),
        ({"actuators": "", "joint": "ball", "ranged": ""}, {}, "joint shoulder is free or a ball"),
        ({"actuators": '<position joint="elbow" gear="0"/>'}, {}, "joint elbow has a gear of 0"),
        ({"actuators": '<position joint="knee"/>'}, {}, "is no model of a robot"),
    ],
)
def test_what_a_model_lacks_is_said_in_one_line(tmp_path, settings, more, reason):
    with pytest.raises(InputError, match=reason) as refused:
        model(arm(tmp_path, **settings), **more).inside(np.zeros(2))
    assert "\n" not in str(refused.value)


def test_what_cannot_be_read_or_has_no_limits_is_refused(tmp_path):
    with pytest.raises(InputError, match="no model of a robot"):
        assert model(tmp_path / "nosuch.xml").dims
    with pytest.raises(InputError, match="joint shoulder has no limits"):
        model(arm(tmp_path, actuators="", ranged="")).limits(*RATES)
    with pytest.raises(InputError, match="one rate, or one for each of 2 joints"):
        model(arm(tmp_path, actuators="")).limits([1, 1, 1], 1, 1)


def test_as_data_and_back(tmp_path):
    data = model(arm(tmp_path)).to_dict()
    assert RobotModel.from_dict(data, "arm").to_dict() == data
    assert RobotModel.from_dict({**data, "file": "arm.xml"}, "arm", tmp_path).to_dict() == data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"colour": "red"}, "arm: unknown colour"),
        ({"file": 3}, "arm: file is 3"),
        ({"workspace": {"low": [0, 0, 0]}}, "arm: a workspace wants low and high"),
        ({"workspace": {"low": [0, 0, 0], "high": [1, 0, 1]}}, "low < high"),
        ({"workspace": {"low": [0, 0, 0], "high": [1, 1, "x"]}}, "arm, workspace: high"),
        ({"workspace": {"low": [0, 0, 0], "high": [1, 1, 1], "middle": 1}}, "unknown middle"),
        ({"site": None}, "a site or of a body"),
        ({"body": "fore"}, "a site or of a body"),
    ],
)
def test_data_that_say_something_else_are_refused_with_the_reason(change, reason):
    with pytest.raises(InputError, match=reason):
        RobotModel.from_dict({"file": "arm.xml", "site": "tool", "workspace": BOX, **change}, "arm")
    with pytest.raises(InputError, match="arm: wanted a file"):
        RobotModel.from_dict({"site": "tool"}, "arm")
