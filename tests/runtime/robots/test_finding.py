import pickle
from importlib.metadata import EntryPoint

import pytest
import yaml

from ontick.errors import InputError
from ontick.runtime.robots import Robot, finding
from ontick.runtime.robots.finding import GROUP, make_robot, robot_kinds
from ontick.runtime.robots.lerobot import LeRobotRobot
from ontick.runtime.robots.rosbridge import RosbridgeRobot

LIMITS = {"low": [-3, -2], "high": [3, 2], "speed": [1, None], "acceleration": [4, None], "jerk": [40, None]}
ROSBRIDGE = {"kind": "rosbridge", "url": "ws://robot:9090", "joints": ["a", "b"], "period_s": 0.02, "limits": LIMITS}
LEROBOT = {
    "kind": "lerobot",
    "robot": {"type": "so101_follower", "port": "/dev/ttyACM0"},
    "observation": ["a.pos", "b.pos"],
    "action": ["a.pos", "b.pos"],
    "period_s": 0.03,
    "limits": LIMITS,
}


def written(tmp_path, data) -> str:
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


@pytest.mark.parametrize(("data", "kind"), [(ROSBRIDGE, RosbridgeRobot), (LEROBOT, LeRobotRobot)])
def test_a_file_names_a_driver_that_can_be_given_to_another_process(tmp_path, data, kind):
    robot = pickle.loads(pickle.dumps(make_robot(written(tmp_path, data))))
    assert isinstance(robot, kind) and isinstance(robot, Robot)
    assert robot.period_s == data["period_s"] and robot.limits.switches.tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "teapot"}, "got the kind 'teapot', wanted one of lerobot, rosbridge"),
        ({"colour": "red"}, "unknown colour"),
        ({"url": None}, "url is None"),
        ({"period_s": 50}, "wanted 0.001 to 1"),
        ({"limits": {"low": [0]}}, "limits: wanted low, high"),
        ({"limits": {**LIMITS, "low": ["a", "b"]}}, "limits: wanted lists of numbers"),
        ({"joints": "a"}, "joints is 'a'"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_the_reason(tmp_path, change, reason):
    with pytest.raises(InputError, match=reason):
        make_robot(written(tmp_path, {**ROSBRIDGE, **change}))


def test_a_file_that_says_too_little_is_refused(tmp_path):
    with pytest.raises(InputError, match="lacks url, joints"):
        make_robot(written(tmp_path, {"kind": "rosbridge", "period_s": 0.02, "limits": LIMITS}))
    with pytest.raises(InputError, match="with a kind: lerobot, rosbridge"):
        make_robot(written(tmp_path, {"url": "ws://robot"}))


def test_what_is_no_robot_file_is_refused_in_one_line(tmp_path):
    for text in ("kind: [", "\x00", "- 1"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError) as refused:
            make_robot(tmp_path / "bad.yaml")
        assert "\n" not in str(refused.value)
    for source in ("nosuch", str(tmp_path)):
        with pytest.raises(InputError, match="wanted sim or a YAML file"):
            make_robot(source)


def other_packages_robot(data):
    if "explode" in data:
        raise KeyError("fuse")
    return data["made"] if "made" in data else make_robot_of(data)


def make_robot_of(data):
    return RosbridgeRobot("ws://other", ["a", "b"], limits=finding.Limits.from_dict(LIMITS), period_s=data["period_s"])


def test_another_package_can_enter_a_kind(tmp_path, monkeypatch):
    point = EntryPoint("other", f"{__name__}:other_packages_robot", GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: other_packages_robot)
    monkeypatch.setattr(finding, "entry_points", lambda group: [point] if group == GROUP else [])
    assert robot_kinds() == ["lerobot", "other", "rosbridge"]
    assert make_robot(written(tmp_path, {"kind": "other", "period_s": 0.5})).period_s == 0.5  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="KeyError: 'fuse'"):
        make_robot(written(tmp_path, {"kind": "other", "explode": True}))
    with pytest.raises(InputError, match="made a int, wanted a Robot"):
        make_robot(written(tmp_path, {"kind": "other", "made": 3}))
