import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime.clock import WallClock
from ontick.runtime.robots import Limits, RobotFault, Waypoint
from ontick.runtime.robots.conformance import check_robot
from ontick.runtime.robots.lerobot import LeRobot, LeRobotRobot, _due, make_lerobot

CLOCK = WallClock()
KEYS = ("shoulder_pan.pos", "elbow_flex.pos", "gripper.pos")
LIMITS = Limits(low=[-90, -90, 0], high=[90, 90, 100], speed=[180] * 3, acceleration=[2000] * 3, jerk=[20000] * 3)


class Arm:
    """LeRobot's interface: motors that go where they are told, on a line that takes 5 ms a question. What became of it
    stands in the file `log`, for it lives in another process."""

    def __init__(self, **settings) -> None:
        usual = {"serial_s": 0.005, "calibrated": True, "clip": False, "breaks_after": 10**9, "nan_after": 10**9}
        self.settings = {**usual, "log": None, **settings}
        self.at = dict.fromkeys(KEYS, 10.0)
        self.looks = 0

    observation_features = {**dict.fromkeys(KEYS, float), "front": (480, 640, 3)}  # noqa: RUF012  LeRobot's own form
    action_features = dict.fromkeys(KEYS, float)

    @property
    def is_calibrated(self) -> bool:
        return self.settings["calibrated"]

    def connect(self, calibrate: bool = True) -> None:
        assert not calibrate, "nobody is there to move the arm"
        self._say("connected")

    def get_observation(self):
        self._line()
        self.looks += 1
        if self.looks > self.settings["breaks_after"]:
            raise ConnectionError("no status packet")
        if self.looks > self.settings["nan_after"]:
            return dict.fromkeys(KEYS, float("nan"))
        return {**self.at, "front": np.zeros((480, 640, 3), np.uint8)}

    def send_action(self, action):
        self._line()
        self._say("sent", action)
        self.at = {key: min(value, 20.0) if self.settings["clip"] else value for key, value in action.items()}
        return dict(self.at)

    def disconnect(self) -> None:
        self._say("disconnected")

    def _line(self) -> None:
        self._say("used")
        CLOCK.sleep_until(CLOCK.now() + self.settings["serial_s"])

    def _say(self, what, about=None) -> None:
        if self.settings["log"] is not None:
            with open(self.settings["log"], "a") as file:
                file.write(json.dumps([what, os.getpid(), threading.get_ident(), about]) + "\n")


def driver(arm: Callable[[], LeRobot] = Arm, **settings) -> LeRobotRobot:
    settings = {"keys_observation": KEYS, "keys_action": KEYS, "limits": LIMITS, "period_s": 0.02, **settings}
    return LeRobotRobot(arm, **settings)


def log_of(path) -> list[list]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for(condition, seconds: float = 3.0) -> None:
    until_s = CLOCK.now() + seconds
    while not condition():
        assert CLOCK.now() < until_s, "it did not come"
        CLOCK.sleep_until(CLOCK.now() + 0.005)


def there(robot: LeRobotRobot, target: list[float]) -> None:
    robot.command([Waypoint(CLOCK.now() + 0.02, np.array(target), np.zeros(3))])
    wait_for(lambda: np.allclose(robot.observe().position, target, atol=1e-3))


def test_it_keeps_the_contract():
    assert "a waypoint is approached" in check_robot(driver)


def test_the_line_is_used_by_one_process_alone_and_let_go_at_the_end(tmp_path):
    robot = driver(partial(Arm, log=tmp_path / "log"))
    robot.connect()
    there(robot, [11.0, 12.0, 13.0])
    assert log_of(tmp_path / "log")[-1][0] != "disconnected"
    robot.stop()
    log = log_of(tmp_path / "log")
    assert len({(pid, thread) for _, pid, thread, _ in log}) == 1 and log[0][1] != os.getpid()
    assert log[-1][0] == "disconnected"


def test_a_command_is_sent_by_the_names_of_its_keys(tmp_path):
    robot = driver(partial(Arm, log=tmp_path / "log"))
    robot.connect()
    there(robot, [1.0, 2.0, 3.0])
    robot.stop()
    [sent] = [about for what, *_, about in log_of(tmp_path / "log") if what == "sent"]
    assert sent == dict(zip(KEYS, [1.0, 2.0, 3.0], strict=True))


def test_neither_call_waits_for_a_slow_line():
    robot = driver(partial(Arm, serial_s=0.1))
    robot.connect()
    start_s = CLOCK.now()
    for _ in range(20):
        robot.observe()
        robot.command([Waypoint(CLOCK.now() + 0.02, np.full(3, 5.0), np.zeros(3))])
    assert CLOCK.now() - start_s < 0.1
    robot.stop()


def test_a_measurement_is_stamped_when_it_was_asked_for():
    robot = driver(partial(Arm, serial_s=0.05))
    robot.connect()
    assert CLOCK.now() - robot.observe().stamps_s[0] >= 0.05
    robot.stop()


def test_of_several_waypoints_the_first_that_lies_ahead_is_due():
    points = [Waypoint(float(k), np.zeros(3), np.zeros(3)) for k in range(3)]
    assert _due(points, -1.0) is points[0] and _due(points, 0.5) is points[1] and _due(points, 9.0) is points[2]
    assert _due([], 0.0) is None


def test_what_lerobot_clips_is_counted_and_told_also_after_stop():
    robot = driver(partial(Arm, clip=True))
    assert robot.report() == {}
    robot.connect()
    there(robot, [11.0, 12.0, 13.0])
    assert robot.report()["clipped"] == 0
    robot.command([Waypoint(CLOCK.now(), np.array([30.0, 0, 0]), np.zeros(3))])
    wait_for(lambda: robot.report()["clipped"])
    robot.stop()
    told = robot.report()
    assert told["clipped"] == 1 and told["sent"] == told["commands"] == 2 and told["measurements"] > 2


def test_a_line_that_breaks_is_a_fault_that_says_why():
    robot = driver(partial(Arm, breaks_after=3))
    robot.connect()
    CLOCK.sleep_until(CLOCK.now() + 0.3)
    with pytest.raises(RobotFault, match="no status packet"):
        robot.observe()
    with pytest.raises(RobotFault, match="no status packet"):
        robot.command([Waypoint(CLOCK.now(), np.zeros(3), np.zeros(3))])
    robot.stop()


def test_a_line_that_falls_silent_gives_the_last_measurement_with_its_age():
    robot = driver(partial(Arm, nan_after=3))
    robot.connect()
    wait_for(lambda: robot.report()["bad_measurements"] > 3)
    seen = robot.observe()
    assert np.allclose(seen.values, 10.0) and CLOCK.now() - seen.stamps_s[0] > 0.05
    robot.stop()


def test_an_uncalibrated_arm_and_one_with_other_motors_are_refused():
    with pytest.raises(RobotFault, match="lerobot-calibrate"):
        driver(partial(Arm, calibrated=False)).connect()
    with pytest.raises(RobotFault, match=r"wants to be told gripper\.pos"):
        driver(
            keys_action=KEYS[:2],
            limits=Limits(low=[-1] * 2, high=[1] * 2, speed=[1] * 2, acceleration=[1] * 2, jerk=[1] * 2),
        ).connect()
    with pytest.raises(RobotFault, match=r"no observation wrist\.pos"):
        driver(keys_observation=(*KEYS, "wrist.pos")).connect()


def test_limits_and_keys_must_fit_each_other():
    with pytest.raises(InputError, match="3 dimensions for 2"):
        driver(keys_action=KEYS[:2])
    with pytest.raises(InputError, match="not observed"):
        driver(keys_observation=KEYS[:2])


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
