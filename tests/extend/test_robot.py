"""The driver of docs/extend/robot.md is made from its file, keeps the contract and refuses what it must."""

import pickle

import numpy as np
import pytest
import yaml

from ontick.commands.robot_terms import terms_of
from ontick.runtime.robots import RobotFault, Waypoint
from ontick.runtime.robots.finding import make_robot, robot_kinds


@pytest.fixture(scope="module")
def turntable(installed):
    return installed("robot", "ontick_turntable")


@pytest.fixture
def file(page, tmp_path):
    path = tmp_path / "turntable.yaml"
    path.write_text(page("robot")["turntable.yaml"])
    return path


@pytest.fixture
def connected(turntable, file):
    robot = make_robot(file)
    robot.connect()
    yield robot
    robot.stop()


def test_the_page_s_driver_keeps_the_contract(turntable, page):
    names: dict = {}
    exec(compile(page("robot")["test_turntable.py"], "test_turntable.py", "exec"), names)
    names["test_the_turntable_keeps_the_contract"]()


def test_the_page_s_file_names_it_and_it_can_be_sent_to_another_process(turntable, file):
    assert "turntable" in robot_kinds()
    robot = pickle.loads(pickle.dumps(make_robot(file)))
    assert isinstance(robot, turntable.TurntableRobot)
    assert robot.connect().period_s == yaml.safe_load(file.read_text())["period_s"]


def test_the_page_s_file_says_all_that_a_policy_must_know(turntable, file):
    terms = terms_of(str(file))
    terms.check_fit(observation_dim=1, action_dim=1)
    assert terms.period_s == 0.05 and terms.actions.kind == "delta"


def test_a_command_beyond_the_limits_is_refused(connected):
    beyond = Waypoint(connected.table.clock.now() + 0.02, np.array([1.6]), np.zeros(1))
    with pytest.raises(RobotFault, match="beyond"):
        connected.command([beyond])


def test_without_commands_it_stops_by_itself_and_says_so(connected, turntable):
    connected.command([Waypoint(connected.table.clock.now() + 0.02, np.array([0.1]), np.zeros(1))])
    connected.last_command_s -= 2 * turntable.WATCHDOG_S
    with pytest.raises(RobotFault, match="stopped by itself"):
        connected.observe()
    with pytest.raises(RobotFault, match="not connected"):
        connected.observe()
