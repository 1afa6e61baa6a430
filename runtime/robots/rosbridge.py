"""ROS and ROS 2 robots, without ROS on this host: rosbridge's protocol, JSON over a WebSocket.

    {"op": "subscribe", "topic": "/joint_states", "type": "sensor_msgs/JointState"}
    {"op": "publish", "topic": "/joint_trajectory_controller/joint_trajectory", "msg": {...}}

What is observed are joint positions. Their stamps are of the robot's clock, which nobody compared with ours, so a
measurement is stamped when it arrives here: it is older than that by the time that it was under way.

The network can wait; the controller does not: a thread reads, another writes the newest command.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ...errors import InputError
from .contract import Limits, Observed, RobotDescription, RobotFault, Waypoint
from .link import Link
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
        self._last: Waypoint | None = None

    def connect(self) -> RobotDescription:
        if self._link is not None:
            raise RobotFault(f"the robot at {self.url} is connected already: stop it first")
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError:
            raise InputError('got no package websockets, wanted it: pip install "ontick[drive]"') from None
        opened = contextlib.ExitStack()
        try:
            socket = opened.enter_context(
                connect(self.url, open_timeout=OPEN_S, close_timeout=CLOSE_S, max_size=LONGEST_BYTES)
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise RobotFault(f"the robot at {self.url} cannot be reached: {error}") from None
        link = self._link = Link(f"the robot at {self.url}", len(self.joints))
        try:
            link.run(lambda: self._read(link, socket), lambda: self._write(link, socket, opened))
            link.wait_for_first()
        except BaseException:
            self.stop()
            raise
        count = len(self.joints)
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
        self._last = waypoints[-1]

    def stop(self) -> None:
        """Brake from the last waypoint, then leave: a trajectory's end is where a joint controller stays."""
        link, self._link = self._link, None
        if link is not None:
            link.end()
        self._last = None

    def _connected(self) -> Link:
        if self._link is None:
            raise RobotFault(f"the robot at {self.url} is not connected")
        return self._link

    def _read(self, link: Link, socket: Any) -> None:
        for text in socket:
            now_s = link.clock.now()
            said = _parsed(text)
            if said.get("op") == "status" and said.get("level") == "error":
                raise RobotFault(f"rosbridge says: {said.get('msg')}")
            if said.get("op") == "publish" and said.get("topic") == self.state_topic:
                self._measured(link, said.get("msg"), now_s)
        if not link.is_ending:
            raise RobotFault("the connection was closed")

    def _measured(self, link: Link, state: Any, now_s: float) -> None:
        """A JointState, of all our joints or, where several nodes share the topic, of others."""
        names, positions = (state.get(key) if isinstance(state, dict) else None for key in ("name", "position"))
        if not isinstance(names, list) or not isinstance(positions, list) or len(names) != len(positions):
            link.measured([np.nan], now_s)
            return
        by_name = dict(zip(map(str, names), positions, strict=True))
        if all(joint in by_name for joint in self.joints):
            link.measured([by_name[joint] for joint in self.joints], now_s)

    def _write(self, link: Link, socket: Any, opened: contextlib.ExitStack) -> None:
        def say(op: str, **more: Any) -> None:
            socket.send(json.dumps({"op": op, **more}))

        command = {"topic": self.command_topic}
        try:
            say("subscribe", topic=self.state_topic, type=self._typed("sensor_msgs/JointState"), queue_length=1)
            say("advertise", **command, type=self._typed(TYPES[self.message]))
            while link.is_alive:
                if waypoints := link.orders(IDLE_S):
                    say("publish", **command, msg=self._said(waypoints, link.clock.now()))
            if self._last is not None:
                say("publish", **command, msg=self._said([self._rest(self._last)], link.clock.now()))
            say("unadvertise", **command)
            say("unsubscribe", topic=self.state_topic)
        finally:
            with contextlib.suppress(Exception):
                opened.close()

    def _typed(self, name: str) -> str:
        return name if self.ros == 1 else name.replace("/", "/msg/")

    def _rest(self, last: Waypoint) -> Waypoint:
        """Where the robot comes to rest when it brakes after its last waypoint as its limits allow."""
        braking_s = np.abs(last.velocity) / self.limits.acceleration
        rest = np.clip(last.position + last.velocity * braking_s / 2, self.limits.low, self.limits.high)
        rest_s = last.time_s + max(float(braking_s.max()), self.period_s)
        return Waypoint(rest_s, rest, np.zeros_like(rest))

    def _said(self, waypoints: Sequence[Waypoint], now_s: float) -> dict[str, Any]:
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
