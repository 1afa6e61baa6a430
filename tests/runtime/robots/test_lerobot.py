import pickle
import sys
import threading
from functools import partial

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime.clock import WallClock
from ontick.runtime.robots import Limits, RobotFault, Waypoint
from ontick.runtime.robots import link as link_module
from ontick.runtime.robots.conformance import check_robot
from ontick.runtime.robots.lerobot import LeRobotRobot, _due, make_lerobot

CLOCK = WallClock()
KEYS = ("shoulder_pan.pos", "elbow_flex.pos", "gripper.pos")
LIMITS = Limits(low=[-90, -90, 0], high=[90, 90, 100], speed=[180] * 3, acceleration=[2000] * 3, jerk=[20000] * 3)


class Arm:
    """LeRobot's interface: motors that go where they are told, on a line that takes 5 ms a question."""

    def __init__(self, **settings) -> None:
        self.settings = {"serial_s": 0.005, "calibrated": True, "clip": False, "breaks_after": 10**9, **settings}
        self.at = dict.fromkeys(KEYS, 10.0)
        self.sent: list[dict[str, float]] = []
        self.users: set[int] = set()
        self.is_connected = False
        self.looks = 0

    observation_features = {**dict.fromkeys(KEYS, float), "front": (480, 640, 3)}  # noqa: RUF012  LeRobot's own form
    action_features = dict.fromkeys(KEYS, float)

    @property
    def is_calibrated(self) -> bool:
        return self.settings["calibrated"]

    def connect(self, calibrate: bool = True) -> None:
        assert not calibrate, "nobody is there to move the arm"
        self.is_connected = True

    def get_observation(self):
        self._line()
        self.looks += 1
        if self.looks > self.settings["breaks_after"]:
            raise ConnectionError("no status packet")
        return {**self.at, "front": np.zeros((480, 640, 3), np.uint8)}

    def send_action(self, action):
        self._line()
        self.sent.append(action)
        self.at = {key: min(value, 20.0) if self.settings["clip"] else value for key, value in action.items()}
        return dict(self.at)

    def disconnect(self) -> None:
        self.is_connected = False

    def _line(self) -> None:
        self.users.add(threading.get_ident())
        CLOCK.sleep_until(CLOCK.now() + self.settings["serial_s"])


def driver(arm: Arm, **settings) -> LeRobotRobot:
    settings = {"keys_observation": KEYS, "keys_action": KEYS, "limits": LIMITS, "period_s": 0.02, **settings}
    return LeRobotRobot(lambda: arm, **settings)


def there(robot: LeRobotRobot, target: list[float]) -> None:
    robot.command([Waypoint(CLOCK.now() + 0.02, np.array(target), np.zeros(3))])
    until_s = CLOCK.now() + 2.0
    while not np.allclose(robot.observe().position, target, atol=1e-3) and CLOCK.now() < until_s:
        CLOCK.sleep_until(CLOCK.now() + 0.005)


def test_it_keeps_the_contract():
    assert "a waypoint is approached" in check_robot(lambda: driver(Arm()))


def test_the_line_is_used_by_one_thread_alone_and_let_go_at_the_end():
    arm = Arm()
    robot = driver(arm)
    robot.connect()
    there(robot, [11.0, 12.0, 13.0])
    assert arm.is_connected
    robot.stop()
    assert len(arm.users) == 1 and threading.get_ident() not in arm.users and not arm.is_connected


def test_a_command_is_sent_by_the_names_of_its_keys():
    arm = Arm()
    robot = driver(arm)
    robot.connect()
    there(robot, [1.0, 2.0, 3.0])
    robot.stop()
    assert arm.sent[-1] == dict(zip(KEYS, [1.0, 2.0, 3.0], strict=True))


def test_neither_call_waits_for_a_slow_line():
    robot = driver(Arm(serial_s=0.1))
    robot.connect()
    start_s = CLOCK.now()
    for _ in range(20):
        robot.observe()
        robot.command([Waypoint(CLOCK.now() + 0.02, np.full(3, 5.0), np.zeros(3))])
    assert CLOCK.now() - start_s < 0.1
    robot.stop()


def test_a_measurement_is_stamped_when_it_was_asked_for():
    robot = driver(Arm(serial_s=0.05))
    robot.connect()
    assert CLOCK.now() - robot.observe().stamps_s[0] >= 0.05
    robot.stop()


def test_of_several_waypoints_the_first_that_lies_ahead_is_due():
    points = [Waypoint(float(k), np.zeros(3), np.zeros(3)) for k in range(3)]
    assert _due(points, -1.0) is points[0] and _due(points, 0.5) is points[1] and _due(points, 9.0) is points[2]
    assert _due([], 0.0) is None


def test_what_lerobot_clips_is_counted():
    robot = driver(Arm(clip=True))
    robot.connect()
    there(robot, [11.0, 12.0, 13.0])
    assert robot.clipped == 0
    robot.command([Waypoint(CLOCK.now(), np.array([30.0, 0, 0]), np.zeros(3))])
    until_s = CLOCK.now() + 2.0
    while not robot.clipped and CLOCK.now() < until_s:
        CLOCK.sleep_until(CLOCK.now() + 0.005)
    robot.stop()
    assert robot.clipped == 1


def test_a_line_that_breaks_is_a_fault_that_says_why():
    robot = driver(Arm(breaks_after=3))
    robot.connect()
    CLOCK.sleep_until(CLOCK.now() + 0.3)
    with pytest.raises(RobotFault, match="no status packet"):
        robot.observe()
    with pytest.raises(RobotFault, match="no status packet"):
        robot.command([Waypoint(CLOCK.now(), np.zeros(3), np.zeros(3))])
    robot.stop()


def test_a_line_that_falls_silent_is_a_fault(monkeypatch):
    monkeypatch.setattr(link_module, "SILENT_S", 0.1)
    arm = Arm()
    robot = driver(arm)
    robot.connect()
    arm.at = dict.fromkeys(KEYS, float("nan"))
    CLOCK.sleep_until(CLOCK.now() + 0.3)
    with pytest.raises(RobotFault, match=r"measured nothing .* were no 3 finite numbers"):
        robot.observe()
    robot.stop()


def test_an_uncalibrated_arm_and_one_with_other_motors_are_refused():
    with pytest.raises(RobotFault, match="lerobot-calibrate"):
        driver(Arm(calibrated=False)).connect()
    with pytest.raises(RobotFault, match=r"wants to be told gripper\.pos"):
        driver(
            Arm(),
            keys_action=KEYS[:2],
            limits=Limits(low=[-1] * 2, high=[1] * 2, speed=[1] * 2, acceleration=[1] * 2, jerk=[1] * 2),
        ).connect()
    with pytest.raises(RobotFault, match=r"no observation wrist\.pos"):
        driver(Arm(), keys_observation=(*KEYS, "wrist.pos")).connect()


def test_limits_and_keys_must_fit_each_other():
    with pytest.raises(InputError, match="3 dimensions for 2"):
        driver(Arm(), keys_action=KEYS[:2])
    with pytest.raises(InputError, match="not observed"):
        driver(Arm(), keys_observation=KEYS[:2])


def test_it_can_be_given_to_another_process():
    robot = LeRobotRobot(
        partial(make_lerobot, {"type": "so101_follower", "port": "/dev/ttyACM0"}),
        keys_observation=KEYS,
        keys_action=KEYS,
        limits=LIMITS,
        period_s=0.02,
    )
    assert pickle.loads(pickle.dumps(robot)).keys_action == KEYS


LEROBOT = {
    "draccus.py": "def decode(kind, settings): return kind(**settings)",
    "lerobot/__init__.py": "",
    "lerobot/robots/__init__.py": """
TYPES = {}
class RobotConfig:
    def __init__(self, type, **settings):
        self.type, self.settings = type, settings
def make_robot_from_config(config):
    return TYPES[config.type](**config.settings)
""",
    "lerobot/robots/arm/__init__.py": """
from lerobot.robots import TYPES
TYPES["arm"] = dict
""",
    "lerobot/robots/hand/__init__.py": "import a_package_of_that_hand_alone",
}


@pytest.fixture
def lerobot(tmp_path, monkeypatch):
    """A package of LeRobot's layout: types are known once their modules were imported, some of which cannot be."""
    for name, text in LEROBOT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = set(sys.modules)
    for name in [name for name in sys.modules if name.split(".")[0] in ("lerobot", "draccus")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("lerobot", "draccus"):
            del sys.modules[name]


@pytest.mark.usefixtures("lerobot")
def test_a_robot_is_made_from_lerobots_own_settings():
    assert make_lerobot({"type": "arm", "port": "/dev/ttyACM0"}) == {"port": "/dev/ttyACM0"}
    with pytest.raises(InputError, match="LeRobot makes no robot of"):
        make_lerobot({"type": "hand"})


def test_without_the_package_it_says_what_to_install(monkeypatch):
    for name in ("draccus", "lerobot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"ontick\[lerobot\]"):
        make_lerobot({"type": "arm"})
