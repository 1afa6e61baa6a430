"""The controller's process: whatever happens, the robot is stopped."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from ontick.errors import InputError, RunFailed
from ontick.runtime.card import PolicyCard
from ontick.runtime.channel import Asked, Told, answer_dtype, question_dtype
from ontick.runtime.driving import DriveSettings, Driving
from ontick.runtime.questions import Given
from ontick.runtime.rings import Ring
from ontick.runtime.robots import ActionMap, Limits, Observed, RobotDescription, RobotFault

pytest.importorskip("ruckig")
CARD = PolicyCard(
    n_obs_steps=1, n_action_steps=4, observation_dim=2, action_dim=2, rows=8, plans=("a",), costs_s=(0.01,)
)
ACTIONS = ActionMap(kind="delta", scale=(0.01, 0.01), low=(-1.0, -1.0), high=(1.0, 1.0))
LIMITS = Limits(low=[-1.0, -1.0], high=[1.0, 1.0], speed=[1.0] * 2, acceleration=[20.0] * 2, jerk=[1000.0] * 2)


class Toy:
    """Writes down what it is told."""

    def __init__(self, log, fails="", slow_s=0.0, period_s=0.02):
        self.log, self.fails, self.slow_s, self.period_s = Path(log), fails, slow_s, period_s
        self.position = np.zeros(2)

    def _say(self, word):
        with self.log.open("a") as file:
            file.write(word + "\n")
        if word == self.fails:
            raise RobotFault(f"{word} failed") if word != "begin" else ValueError("odd")

    def connect(self):
        self._say("connect")
        time.sleep(self.slow_s)
        return RobotDescription(
            name="toy", observation_dim=2, limits=LIMITS, period_s=self.period_s, streams=(("arm", 0, 2),)
        )

    def begin(self, seed):
        self._say("begin")

    def observe(self):
        values = np.float32(self.position + np.random.default_rng().normal(0, 1e-6, 2))
        return Observed(values, np.full(1, time.perf_counter()), self.position.copy())

    def command(self, waypoints):
        self.position = waypoints[-1].position

    def stop(self):
        self._say("stop")


@pytest.fixture
def start(tmp_path):
    made = []

    def starts(robot, **changes):
        rings = [Ring.create(question_dtype(CARD), 8), Ring.create(answer_dtype(CARD), 8)]
        made.extend(rings)
        wake = multiprocessing.get_context("spawn").Semaphore(0)
        settings = DriveSettings(
            **{"period_s": 0.05, "deadline_s": 0.4, "observation_age_s": 0.2, "chunk_age_s": 0.4, "stitch": "replace"}
            | changes
        )
        driving = Driving.start(robot, CARD, ACTIONS, *rings, wake, settings)
        driving.test_rings = rings
        made.append(driving)
        return driving

    yield starts
    for thing in reversed(made):
        thing.close()
        if isinstance(thing, Ring):
            thing.unlink()


def words(robot):
    return robot.log.read_text().split()


def test_a_drive_ends_with_the_robot_stopped_and_told(start, tmp_path):
    robot = Toy(tmp_path / "log")
    driving = start(robot)
    driving.go(0.5)
    told = driving.stop()
    assert told["fault"] is None and words(robot)[:2] == ["connect", "begin"] and words(robot)[-1] == "stop"


def test_who_never_says_go_leaves_a_stopped_robot_at_once(start, tmp_path):
    robot = Toy(tmp_path / "log")
    driving = start(robot)
    begun_s = time.monotonic()
    driving.close()
    assert time.monotonic() - begun_s < 5 and words(robot)[-1] == "stop" and not driving.process.is_alive()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_the_controller_brings_the_robot_to_rest(start, tmp_path, name):
    robot = Toy(tmp_path / "log")
    driving = start(robot)
    driving.go(None)
    time.sleep(0.5)
    os.kill(driving.process.pid, getattr(signal, name))
    driving.process.join(10)
    assert words(robot)[-1] == "stop" and driving.stop()["commands"] > 5


@pytest.mark.parametrize("word", ["connect", "begin"])
def test_a_robot_that_is_not_ready_is_stopped_and_says_why(start, tmp_path, word):
    robot = Toy(tmp_path / "log", fails=word)
    with pytest.raises(RunFailed, match="failed" if word == "connect" else "odd"):
        start(robot)
    assert words(robot)[-1] == "stop"


def test_a_robot_slower_than_the_policy_is_refused(start, tmp_path):
    robot = Toy(tmp_path / "log", period_s=0.1)
    with pytest.raises(InputError, match="too late"):
        start(robot)
    assert words(robot)[-1] == "stop"


def test_a_workspace_is_kept(start, tmp_path):
    robot = Toy(tmp_path / "log")
    with pytest.raises(RunFailed, match="workspace"):
        driving = start(robot, workspace=_nowhere)
        driving.go(0.5)
        told = driving.stop()
        raise RunFailed(told["fault"])


def _nowhere(position):
    return False


def test_answers_move_the_robot(start, tmp_path):
    robot = Toy(tmp_path / "log")
    driving = start(robot)
    driving.go(None)
    rings = driving.test_rings
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        ticks = driving.ticks.take()
        if ticks and ticks[-1]["position"][0] > 0.05:
            break
        record = rings[0].newest()
        if record is not None:
            asked = Asked.of(record)
            given = Given(np.tile(np.float32([1.0, 0.0]), (8, 1)), 4, 1, 1.0)
            rings[1].put(Told(asked.id, asked.time_s, 0.001, given=given).record(rings[1].dtype))
        time.sleep(0.02)
    else:
        raise AssertionError("it did not move")
    assert driving.stop()["rows"]["answers"] > 3
