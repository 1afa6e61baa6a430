import json
import multiprocessing
import threading

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime.clock import WallClock
from ontick.runtime.robots import Limits, RobotFault, Waypoint
from ontick.runtime.robots import link as link_module
from ontick.runtime.robots.conformance import check_robot
from ontick.runtime.robots.rosbridge import STATES, TRAJECTORY, RosbridgeRobot

serve = pytest.importorskip("websockets.sync.server").serve

CLOCK = WallClock()
JOINTS = ("shoulder", "elbow")
LIMITS = Limits(low=[-3, -2], high=[3, 2], speed=[2, 2], acceleration=[10, 10], jerk=[200, 200])


class Bridge:
    """rosbridge before a robot that is at once where it is told to be, its joints in another order than asked for."""

    def __init__(self) -> None:
        self.at = {"elbow": 0.5, "gripper": 0.0, "shoulder": -0.25}
        self.said: list[dict] = []
        self.extra: list[str] = []
        self.is_silent = False
        self._sockets = []
        self._server = serve(self._talk, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.cut()
        self._server.shutdown()
        self._thread.join(5)

    def cut(self) -> None:
        for socket in self._sockets:
            socket.close()

    def ops(self, op: str) -> list[dict]:
        return [said for said in self.said if said["op"] == op]

    def _talk(self, socket) -> None:
        self._sockets.append(socket)
        listener = threading.Thread(target=self._listen, args=(socket,))
        listener.start()
        try:
            while listener.is_alive():
                if self.ops("subscribe") and not self.is_silent:
                    for text in [*self.extra, self._state()]:
                        socket.send(text)
                CLOCK.sleep_until(CLOCK.now() + 0.01)
        except Exception:
            pass  # the client has left
        listener.join()

    def _state(self) -> str:
        names, positions = zip(*self.at.items(), strict=True)
        stamp = {"sec": 12, "nanosec": 0}  # of a clock that is not ours
        state = {"header": {"stamp": stamp}, "name": names, "position": positions, "velocity": [], "effort": []}
        return json.dumps({"op": "publish", "topic": STATES, "msg": state})

    def _listen(self, socket) -> None:
        try:
            for text in socket:
                said = json.loads(text)
                self.said.append(said)
                if said["op"] == "publish" and "points" in said["msg"]:
                    places = said["msg"]["points"][-1]["positions"]
                    self.at |= dict(zip(said["msg"]["joint_names"], places, strict=True))
        except Exception:
            pass


@pytest.fixture
def bridge():
    bridge = Bridge()
    yield bridge
    bridge.close()


def driver(bridge: Bridge, **settings) -> RosbridgeRobot:
    return RosbridgeRobot(bridge.url, JOINTS, limits=LIMITS, period_s=0.02, **settings)


def wait_for(condition, seconds: float = 3.0) -> None:
    until_s = CLOCK.now() + seconds
    while not condition():
        assert CLOCK.now() < until_s, "it did not come"
        CLOCK.sleep_until(CLOCK.now() + 0.005)


def test_it_keeps_the_contract(bridge):
    assert "a waypoint is approached" in check_robot(lambda: driver(bridge))


def test_joints_are_found_by_name_and_stamped_on_arrival(bridge):
    robot = driver(bridge)
    before_s = CLOCK.now()
    robot.connect()
    observed = robot.observe()
    assert np.allclose(observed.values, [-0.25, 0.5]) and before_s < observed.stamps_s[0] <= CLOCK.now()
    robot.stop()


@pytest.mark.parametrize(
    ("ros", "spelled", "typed"),
    [
        (1, {"secs", "nsecs"}, "trajectory_msgs/JointTrajectory"),
        (2, {"sec", "nanosec"}, "trajectory_msgs/msg/JointTrajectory"),
    ],
)
def test_a_command_is_a_trajectory_from_now_on_as_each_ros_spells_it(bridge, ros, spelled, typed):
    robot = driver(bridge, ros=ros)
    robot.connect()
    robot.command([Waypoint(CLOCK.now() + 0.5, np.array([0.1, 0.2]), np.array([0.3, 0.4]))])
    wait_for(lambda: bridge.ops("publish"))
    said = bridge.ops("publish")[0]
    [point] = said["msg"]["points"]
    assert said["topic"] == TRAJECTORY and said["msg"]["joint_names"] == list(JOINTS)
    assert point["positions"] == [0.1, 0.2] and point["velocities"] == [0.3, 0.4]
    seconds, nanoseconds = point["time_from_start"].values()
    assert set(point["time_from_start"]) == spelled and 0.3 < seconds + nanoseconds * 1e-9 <= 0.5
    assert bridge.ops("advertise")[0]["type"] == typed
    robot.stop()


def test_positions_alone_can_be_published(bridge):
    robot = driver(bridge, message="positions", command_topic="/forward/commands")
    robot.connect()
    now_s = CLOCK.now()
    points = [Waypoint(now_s - 1, np.zeros(2), np.zeros(2)), Waypoint(now_s + 1, np.array([0.1, 0.2]), np.zeros(2))]
    robot.command(points)
    wait_for(lambda: bridge.ops("publish"))
    robot.stop()
    assert bridge.ops("publish")[0]["msg"]["data"] == [0.1, 0.2]
    assert bridge.ops("advertise")[0]["type"] == "std_msgs/msg/Float64MultiArray"


def test_stop_brakes_within_the_limits_and_takes_its_leave(bridge):
    robot = driver(bridge)
    robot.connect()
    robot.command([Waypoint(CLOCK.now() + 0.02, np.array([0.0, 0.0]), np.array([1.0, -2.0]))])
    wait_for(lambda: bridge.ops("publish"))
    robot.stop()
    wait_for(lambda: bridge.ops("unsubscribe") and bridge.ops("unadvertise"))
    [point] = bridge.ops("publish")[-1]["msg"]["points"]
    assert np.allclose(point["positions"], [1.0**2 / 20, -(2.0**2) / 20]) and point["velocities"] == [0.0, 0.0]


def test_other_nodes_joints_and_what_is_no_message_are_passed_over(bridge):
    other = {"op": "publish", "topic": STATES, "msg": {"name": ["wheel"], "position": [9.0]}}
    odd = [
        None,
        3,
        [],
        {},
        {"name": 1, "position": 2},
        {"name": [{}, []], "position": [1]},
        {"name": [], "position": {}},
    ]
    bridge.extra = [json.dumps(other), "not json", "[1]", "[" * 10_000, '{"op": []}', json.dumps({"op": "publish"})]
    bridge.extra += [json.dumps({"op": "publish", "topic": STATES, "msg": message}) for message in odd]
    robot = driver(bridge)
    robot.connect()
    assert np.allclose(robot.observe().values, [-0.25, 0.5])
    robot.stop()


def test_joint_states_that_are_no_numbers_are_counted_and_the_last_good_one_is_kept(bridge):
    robot = driver(bridge)
    robot.connect()
    bridge.at |= {"elbow": None}  # as rosbridge writes a NaN
    wait_for(lambda: robot.report()["bad_measurements"] > 3)
    assert np.allclose(robot.observe().values, [-0.25, 0.5])
    robot.stop()


def test_a_gap_is_no_fault_what_was_measured_grows_old_until_it_is_over(bridge):
    robot = driver(bridge)
    robot.connect()
    bridge.is_silent = True
    CLOCK.sleep_until(CLOCK.now() + 1.2)
    seen = robot.observe()
    robot.command([Waypoint(CLOCK.now() + 0.02, seen.position, np.zeros(2))])
    assert CLOCK.now() - seen.stamps_s[0] > 1.0
    bridge.is_silent = False
    wait_for(lambda: CLOCK.now() - robot.observe().stamps_s[0] < 0.1)
    robot.stop()


def test_what_it_counted_is_told_also_after_stop(bridge):
    robot = driver(bridge)
    assert robot.report() == {}
    robot.connect()
    robot.command([Waypoint(CLOCK.now() + 0.02, np.zeros(2), np.zeros(2))])
    wait_for(lambda: robot.report()["sent"])
    robot.stop()
    told = robot.report()
    assert told["commands"] == told["sent"] == 1 and told["measurements"] > 0 and not told["bad_measurements"]


def hold_and_die(url: str, connected) -> None:
    robot = RosbridgeRobot(url, JOINTS, limits=LIMITS, period_s=0.02)
    robot.connect()
    robot.command([Waypoint(CLOCK.now() + 0.02, np.zeros(2), np.array([1.0, -2.0]))])
    connected.send(True)
    CLOCK.sleep_until(CLOCK.now() + 60)


def test_a_robot_whose_controller_was_killed_is_braked_all_the_same(bridge):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    controller = context.Process(target=hold_and_die, args=(bridge.url, theirs))
    controller.start()
    assert ours.poll(30)
    wait_for(lambda: bridge.ops("publish"))
    controller.kill()
    wait_for(lambda: bridge.ops("unsubscribe"))
    [point] = bridge.ops("publish")[-1]["msg"]["points"]
    assert np.allclose(point["positions"], [1.0**2 / 20, -(2.0**2) / 20]) and point["velocities"] == [0.0, 0.0]
    controller.join(5)


def test_a_lost_connection_is_a_fault_of_both_calls(bridge):
    robot = driver(bridge)
    robot.connect()
    bridge.cut()
    CLOCK.sleep_until(CLOCK.now() + 0.3)
    for call in (robot.observe, lambda: robot.command([Waypoint(CLOCK.now() + 1, np.zeros(2), np.zeros(2))])):
        with pytest.raises(RobotFault):
            call()
    robot.stop()


def test_what_rosbridge_reports_as_an_error_is_a_fault(bridge):
    bridge.extra = [json.dumps({"op": "status", "level": "error", "msg": "no such type"})]
    with pytest.raises(RobotFault, match="no such type"):
        driver(bridge).connect()


def test_nobody_there_and_nothing_measured_are_faults(bridge, monkeypatch):
    with pytest.raises(RobotFault, match="cannot be reached"):
        RosbridgeRobot("ws://127.0.0.1:1", JOINTS, limits=LIMITS, period_s=0.02).connect()
    monkeypatch.setattr(link_module, "CONNECT_S", 0.2)
    bridge.is_silent = True
    with pytest.raises(RobotFault, match="measured nothing within"):
        driver(bridge).connect()


def test_settings_that_cannot_be_meant_are_refused(bridge):
    for settings, reason in (({"ros": 3}, "1 or 2"), ({"message": "twist"}, "trajectory or positions")):
        with pytest.raises(InputError, match=reason):
            driver(bridge, **settings)
    with pytest.raises(InputError, match="ws://robot:9090"):
        RosbridgeRobot("http://robot", JOINTS, limits=LIMITS, period_s=0.02)
    with pytest.raises(InputError, match="as many"):
        RosbridgeRobot(bridge.url, ("shoulder",), limits=LIMITS, period_s=0.02)
