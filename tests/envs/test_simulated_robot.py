import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ontick.envs import simulated_robot
from ontick.envs.simulated_robot import SimulatedRobot
from ontick.errors import InputError
from ontick.runtime.clock import WallClock
from ontick.runtime.robots import Observed, Robot, RobotFault, Waypoint
from ontick.runtime.robots.conformance import check_robot

CLOCK = WallClock()
PERIOD_S = 0.02


def shared_memory() -> set[str]:
    place = Path("/dev/shm")
    return {path.name for path in place.iterdir()} if place.is_dir() else set()


def wait(seconds: float) -> None:
    CLOCK.sleep_until(CLOCK.now() + seconds)


def hold(robot: Robot, seconds: float) -> Observed:
    """Command the present place each period, as a controller does."""
    observed = robot.observe()
    at_s = CLOCK.now()
    end_s = at_s + seconds
    while at_s < end_s:
        at_s += PERIOD_S
        robot.command([Waypoint(at_s, observed.position, np.zeros(2), observed.episode)])
        CLOCK.sleep_until(at_s)
    return robot.observe()


@pytest.fixture(scope="module")
def shared():
    robot = SimulatedRobot(watchdog_periods=10)  # tests run on busy machines
    robot.connect()
    yield robot
    robot.stop()


@pytest.fixture
def robot(shared):
    """A robot at its start, that nobody has commanded yet; it lives through the tests."""
    shared.begin(0)
    yield shared
    shared.inject(None)
    shared.begin(0)  # its watchdog waits again


@pytest.fixture
def own():
    """One that may be ill-treated."""
    robot = SimulatedRobot(watchdog_periods=10)
    robot.connect()
    yield robot
    robot.stop()


def test_it_keeps_the_contract():
    assert "a waypoint is approached" in check_robot(lambda: SimulatedRobot(watchdog_periods=10))


def test_it_is_at_rest_where_the_seed_puts_it(robot):
    starts = []
    for seed in (3, 5, 3):
        robot.begin(seed)
        starts.append(robot.observe().position)
    assert np.allclose(starts[0], starts[2]) and not np.allclose(starts[0], starts[1])


def test_each_start_is_a_new_episode(robot):
    before = robot.observe().episode
    robot.begin(1)
    assert robot.observe().episode == before + 1


def test_silence_is_answered_by_the_watchdog_which_says_how_long_it_was():
    robot = SimulatedRobot()
    robot.connect()
    try:
        wait(0.2)
        robot.observe()  # nothing was commanded yet: nothing is missed
        observed = robot.observe()
        robot.command([Waypoint(CLOCK.now() + PERIOD_S, observed.position, np.zeros(2), observed.episode)])
        wait(0.1)
        for call in (robot.observe, lambda: robot.command([Waypoint(CLOCK.now() + 1, np.zeros(2), np.zeros(2))])):
            with pytest.raises(RobotFault, match=r"^watchdog: no command for 5\d ms, wanted one every 20 ms$"):
                call()
    finally:
        robot.stop()
    assert robot.report()["watchdog_stops"] == 1 and 50 < robot.report()["longest_gap_ms"] < 60


def test_a_controller_in_time_is_left_alone_and_its_commands_are_counted(robot):
    before = robot.report()
    hold(robot, 0.5)
    report = robot.report()
    assert report["watchdog_stops"] == 0 and 24 <= report["commands"] - before["commands"] <= 26
    assert report["physics_steps"] - before["physics_steps"] >= 90 and report["scheduler"] in ("fifo", "other")


def test_stale_observations_keep_their_stamps_while_the_robot_goes_on_to_obey(robot):
    robot.inject("stale-observation")
    hold(robot, 0.1)
    first = robot.observe().stamps_s
    assert np.array_equal(hold(robot, 0.1).stamps_s, first)
    robot.inject(None)
    assert (hold(robot, 0.1).stamps_s > first).all()


def test_a_frozen_camera_has_fresh_stamps_and_old_values(robot):
    robot.inject("frozen-camera")
    first = hold(robot, 0.1)
    second = hold(robot, 0.1)
    assert np.array_equal(first.values[4:], second.values[4:]) and (first.values[:4] != second.values[:4]).any()
    assert (second.stamps_s > first.stamps_s).all()
    robot.inject(None)
    assert (hold(robot, 0.1).values[4:] != second.values[4:]).any()


def test_unknown_faults_tasks_and_seeds_are_refused(robot):
    with pytest.raises(InputError, match="stale-observation"):
        robot.inject("earthquake")
    with pytest.raises(InputError, match="0 or more"):
        robot.begin(-1)
    with pytest.raises(InputError, match=r"ontick/Avoid-v0"):
        SimulatedRobot("metaworld/reach-v3")
    with pytest.raises(InputError, match="period"):
        SimulatedRobot(period_s=0.0)


def test_a_killed_robot_is_a_fault_and_leaves_nothing(own):
    os.kill(own._child.process.pid, signal.SIGKILL)
    own._child.process.join(5)
    with pytest.raises(RobotFault, match="died"):
        own.observe()
    with pytest.raises(RobotFault, match="died"):
        own.command([Waypoint(CLOCK.now(), np.zeros(2), np.zeros(2))])


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system that can suspend a process")
def test_a_hung_robot_is_a_fault_and_can_be_stopped(own, monkeypatch):
    monkeypatch.setattr(simulated_robot, "HUNG_S", 0.3)
    monkeypatch.setattr(simulated_robot, "STOP_S", 0.3)
    os.kill(own._child.process.pid, signal.SIGSTOP)
    wait(0.4)
    with pytest.raises(RobotFault, match="hangs"):
        own.observe()
    own.stop()
    assert len([child for child in multiprocessing.active_children() if child.name == "ontick-robot"]) <= 1  # shared


def test_after_stop_it_can_be_connected_again(own):
    hold(own, 0.1)
    names = {ring.name.lstrip("/") for ring in own._rings}
    own.stop()
    assert not shared_memory() & names, "shared memory was left behind"
    assert own.report()["commands"] > 0
    own.connect()
    assert own.observe().episode == 0 and own.report()["commands"] == 0


def test_before_connect_it_can_be_given_to_another_process():
    robot = pickle.loads(pickle.dumps(SimulatedRobot(period_s=0.05)))
    assert robot.period_s == 0.05 and robot.report()["commands"] == 0


def runs(pid: str) -> bool:
    """Whether a process is there and no zombie: an orphan's is its new parent's to bury."""
    try:
        return Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


DRIVER = """
import os, signal, sys
from ontick.envs.simulated_robot import SimulatedRobot

def tell():
    print(robot._child.process.pid, *(ring.name.lstrip("/") for ring in robot._rings), flush=True)

def interrupt(*_):
    tell()
    raise KeyboardInterrupt

if __name__ == "__main__":
    robot, end = SimulatedRobot(), sys.argv[1]
    if end == "early":
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
    robot.connect()
    tell()
    if end.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, end))
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.slow
def test_however_a_controller_ends_neither_a_process_nor_memory_is_left(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    drivers = {
        end: subprocess.Popen(
            [sys.executable, str(tmp_path / "driver.py"), end],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for end in ("none", "early", "SIGINT", "SIGKILL")
    }
    for end, driver in drivers.items():
        out, error = driver.communicate(timeout=60)
        pid, *names = out.splitlines()[0].split()
        until_s = CLOCK.now() + 5
        while (runs(pid) or shared_memory() & set(names)) and CLOCK.now() < until_s:
            wait(0.02)
        assert len(names) == 3 and not runs(pid) and not shared_memory() & set(names), end
        assert "leaked" not in error, end
