"""ROS and ROS 2 robots, without ROS on this host: rosbridge's protocol, JSON over a WebSocket.

    {"op": "subscribe", "topic": "/joint_states", "type": "sensor_msgs/JointState"}
    {"op": "publish", "topic": "/joint_trajectory_controller/joint_trajectory", "msg": {...}}

What is observed are joint positions. Their stamps are of the robot's clock, which nobody compared with ours, so a
measurement is stamped when it arrives here: it is older than that by the time that it was under way.

The network can wait; the controller does not: a process of its own reads, and writes the newest command.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from ...errors import InputError
from .contract import Limits, Observed, RobotDescription, RobotFault, Waypoint
from .link import FarEnd, Link
from .refusals import refuse_bad

STATES = "/joint_states"
TRAJECTORY = "/joint_trajectory_controller/joint_trajectory"
LONGEST_BYTES = 2**20  # of a message
OPEN_S, CLOSE_S = 5.0, 1.0
IDLE_S = 0.1  # how often the writer looks whether there is anything to do

TYPES = {"trajectory": "trajectory_msgs/JointTrajectory", "positions": "std_msgs/Float64MultiArray"}


class RosbridgeRobot:
    """A `Robot`.

    url: of rosbridge, such as "ws://robot:9090". joints: the names to observe and command, in this order; Do = Dc.
    message: "trajectory" for a joint_trajectory_controller, "positions" for a forward position controller, which is
    told the first waypoint that lies ahead. ros: 1 or 2; they spell times differently.
    """

    def __init__(
        self,
        url: str,
        joints: Sequence[str],
        *,
        limits: Limits,
        period_s: float,
        command_topic: str = TRAJECTORY,
        state_topic: str = STATES,
        message: str = "trajectory",
        ros: int = 2,
    ) -> None:
        if urlsplit(url).scheme not in ("ws", "wss") or not urlsplit(url).hostname:
            raise InputError(f"got the address {url!r}, wanted rosbridge's, such as ws://robot:9090")
        if len(joints) != len(limits.low) or len(set(joints)) != len(joints):
            raise InputError(f"got joints {list(joints)} and limits of {len(limits.low)}, wanted as many, each once")
        if message not in TYPES or ros not in (1, 2):
            raise InputError(f"got message {message!r} of ros {ros!r}, wanted {' or '.join(TYPES)}, and 1 or 2")
        self.url, self.joints, self.limits, self.period_s = url, tuple(joints), limits, period_s
        self.command_topic, self.state_topic, self.message, self.ros = command_topic, state_topic, message, ros
        self._link: Link | None = None
        self._counts: dict[str, int] = {}

    def connect(self) -> RobotDescription:
        if self._link is not None:
            raise RobotFault(f"the robot at {self.url} is connected already: stop it first")
        if importlib.util.find_spec("websockets") is None:
            raise InputError('got no package websockets, wanted it: pip install "ontick[drive]"')
        count = len(self.joints)
        words = _Words(self.joints, self.limits, self.period_s, self.command_topic, self.state_topic)
        link = Link(f"the robot at {self.url}", count, count)
        self._link = link
        try:
            link.start(_live, self.url, words._replace(message=self.message, ros=self.ros))
            link.wait_for_first()
        except BaseException:
            self.stop()
            raise
        return RobotDescription(
            name=f"rosbridge {urlsplit(self.url).netloc}",
            observation_dim=count,
            limits=self.limits,
            period_s=self.period_s,
            streams=(("joints", 0, count),),
        )

    def begin(self, seed: int) -> None:
        self._connected()

    def observe(self) -> Observed:
        values, stamp_s = self._connected().newest()
        return Observed(values, np.array([stamp_s]), values.astype(np.float64))

    def command(self, waypoints: Sequence[Waypoint]) -> None:
        link = self._connected()
        refuse_bad(waypoints, self.limits)
        link.order(waypoints)

    def report(self) -> dict[str, int]:
        """What was counted since it was connected, also after `stop`: see `Link.report`; nothing is `clipped` here."""
        return self._counts if self._link is None else self._link.report()

    def stop(self) -> None:
        """Brake from the last waypoint, then leave: a trajectory's end is where a joint controller stays."""
        link, self._link = self._link, None
        if link is not None:
            link.end()
            self._counts = link.report()

    def _connected(self) -> Link:
        if self._link is None:
            raise RobotFault(f"the robot at {self.url} is not connected")
        return self._link


def _live(far: FarEnd, url: str, words: _Words) -> None:
    """What talks to rosbridge: a thread reads, this one writes. It brakes when the controller has died, too."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    try:
        socket = connect(url, open_timeout=OPEN_S, close_timeout=CLOSE_S, max_size=LONGEST_BYTES)
    except (OSError, TimeoutError, WebSocketException) as error:
        raise RobotFault(str(error) or type(error).__name__) from None
    with contextlib.closing(socket):
        threading.Thread(target=_read, args=(far, words, socket), daemon=True).start()
        _write(far, words, socket)


def _read(far: FarEnd, words: _Words, socket: Any) -> None:
    with far.guarded():
        for text in socket:
            now_s = far.clock.now()
            said = _parsed(text)
            if said.get("op") == "status" and said.get("level") == "error":
                raise RobotFault(f"rosbridge says: {said.get('msg')}")
            if said.get("op") == "publish" and said.get("topic") == words.state_topic:
                _measured(far, words, said.get("msg"), now_s)
        if far.is_alive:
            raise RobotFault("the connection was closed")


def _measured(far: FarEnd, words: _Words, state: Any, now_s: float) -> None:
    """A JointState, of all our joints or, where several nodes share the topic, of others."""
    names, positions = (state.get(key) if isinstance(state, dict) else None for key in ("name", "position"))
    if not isinstance(names, list) or not isinstance(positions, list) or len(names) != len(positions):
        far.measured([np.nan], now_s)
        return
    by_name = dict(zip(map(str, names), positions, strict=True))
    if all(joint in by_name for joint in words.joints):
        far.measured([by_name[joint] for joint in words.joints], now_s)


def _write(far: FarEnd, words: _Words, socket: Any) -> None:
    def say(op: str, **more: Any) -> None:
        socket.send(json.dumps({"op": op, **more}))

    command, last = {"topic": words.command_topic}, None
    say("subscribe", topic=words.state_topic, type=words.typed("sensor_msgs/JointState"), queue_length=1)
    say("advertise", **command, type=words.typed(TYPES[words.message]))
    while far.is_alive:
        if waypoints := far.orders(IDLE_S):
            say("publish", **command, msg=words.said(waypoints, far.clock.now()))
            far.count("sent")
            last = waypoints[-1]
    if last is not None:
        say("publish", **command, msg=words.said([words.rest(last)], far.clock.now()))
    say("unadvertise", **command)
    say("unsubscribe", topic=words.state_topic)


class _Words(NamedTuple):
    """What is said of a command, and how each ROS spells it. As of RosbridgeRobot."""

    joints: tuple[str, ...]
    limits: Limits
    period_s: float
    command_topic: str
    state_topic: str
    message: str = "trajectory"
    ros: int = 2

    def typed(self, name: str) -> str:
        return name if self.ros == 1 else name.replace("/", "/msg/")

    def rest(self, last: Waypoint) -> Waypoint:
        """Where the robot comes to rest when it brakes after its last waypoint as its limits allow."""
        braking_s = np.abs(last.velocity) / self.limits.acceleration
        rest = np.clip(last.position + last.velocity * braking_s / 2, self.limits.low, self.limits.high)
        rest_s = last.time_s + max(float(braking_s.max()), self.period_s)
        return Waypoint(rest_s, rest, np.zeros_like(rest))

    def said(self, waypoints: Sequence[Waypoint], now_s: float) -> dict[str, Any]:
        """The message of a command."""
        if self.message == "positions":
            ahead = [waypoint for waypoint in waypoints if waypoint.time_s > now_s] or [waypoints[-1]]
            return {"layout": {"dim": [], "data_offset": 0}, "data": ahead[0].position.tolist()}
        points = [
            {
                "positions": waypoint.position.tolist(),
                "velocities": waypoint.velocity.tolist(),
                "time_from_start": self._duration(max(waypoint.time_s - now_s, 0.001 * (i + 1))),
            }
            for i, waypoint in enumerate(waypoints)
        ]
        return {"joint_names": list(self.joints), "points": points}  # no stamp: from its arrival on

    def _duration(self, duration_s: float) -> dict[str, int]:
        seconds, nanoseconds = divmod(round(duration_s * 1e9), 10**9)
        return dict(
            zip(("secs", "nsecs") if self.ros == 1 else ("sec", "nanosec"), (seconds, nanoseconds), strict=True)
        )


def _parsed(text: str | bytes) -> dict[str, Any]:
    """A message of the protocol; an empty one for what is none."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
