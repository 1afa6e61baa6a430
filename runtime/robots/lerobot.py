"""Robots of LeRobot, by an adapter of its interface: `get_observation() -> dict`, `send_action(dict) -> dict`.

Both may wait for a serial line of tens of ms, and only one may use it at a time. So a process of its own does both in
turn, and the controller sees the newest measurement, stamped when it was asked for. Limits are in the units of the
action keys (degrees, or -100 to 100), which LeRobot's calibration decides. Images are left out.

LeRobot's robots hold the last position that they were told, which is all the watchdog they have.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...errors import InputError
from .contract import Limits, Observed, RobotDescription, RobotFault, Waypoint
from .link import FarEnd, Link
from .refusals import refuse_bad


class LeRobot(Protocol):
    """What is used of `lerobot.robots.Robot`."""

    @property
    def observation_features(self) -> dict[str, Any]: ...
    @property
    def action_features(self) -> dict[str, Any]: ...
    @property
    def is_calibrated(self) -> bool: ...
    def connect(self, calibrate: bool = True) -> None: ...
    def get_observation(self) -> dict[str, Any]: ...
    def send_action(self, action: dict[str, Any]) -> dict[str, Any]: ...
    def disconnect(self) -> None: ...


class LeRobotRobot:
    """A `Robot`.

    make: makes LeRobot's robot, in the process that will use it; picklable.
    keys_observation: Do names such as "shoulder_pan.pos"; keys_action: Dc of them, which are commanded as well.
    """

    def __init__(
        self,
        make: Callable[[], LeRobot],
        *,
        keys_observation: Sequence[str],
        keys_action: Sequence[str],
        limits: Limits,
        period_s: float,
    ) -> None:
        self.keys_observation, self.keys_action = tuple(keys_observation), tuple(keys_action)
        if len(self.keys_action) != len(limits.low):
            raise InputError(f"got limits of {len(limits.low)} dimensions for {len(self.keys_action)} action keys")
        if unseen := set(self.keys_action) - set(self.keys_observation):
            raise InputError(f"got actions {sorted(unseen)} that are not observed: where they are must be known")
        self.limits, self.period_s = limits, period_s
        self._make = make
        self._commanded = [self.keys_observation.index(key) for key in self.keys_action]
        self._link: Link | None = None
        self._counts: dict[str, int] = {}

    def connect(self) -> RobotDescription:
        if self._link is not None:
            raise RobotFault("the LeRobot robot is connected already: stop it first")
        link = self._link = Link("the LeRobot robot", len(self.keys_observation), len(self.keys_action))
        try:
            link.start(_live, self._make, self.keys_observation, self.keys_action, self.period_s)
            link.wait_for_first()
        except BaseException:
            self.stop()
            raise
        return RobotDescription(
            name="LeRobot",
            observation_dim=len(self.keys_observation),
            limits=self.limits,
            period_s=self.period_s,
            streams=(("motors", 0, len(self.keys_observation)),),
        )

    def begin(self, seed: int) -> None:
        self._connected()

    def observe(self) -> Observed:
        values, stamp_s = self._connected().newest()
        return Observed(values, np.array([stamp_s]), values[self._commanded].astype(np.float64))

    def command(self, waypoints: Sequence[Waypoint]) -> None:
        link = self._connected()
        refuse_bad(waypoints, self.limits)
        link.order(waypoints)

    def report(self) -> dict[str, int]:
        """What was counted since it was connected, also after `stop`: see `Link.report`; `clipped`: how many commands
        LeRobot sent otherwise than they were given (its `max_relative_target`)."""
        return self._counts if self._link is None else self._link.report()

    def stop(self) -> None:
        """Let go; whether the motors keep their torque then is LeRobot's setting `disable_torque_on_disconnect`."""
        link, self._link = self._link, None
        if link is not None:
            link.end()
            self._counts = link.report()

    def _connected(self) -> Link:
        if self._link is None:
            raise RobotFault("the LeRobot robot is not connected")
        return self._link


def _live(
    far: FarEnd, make: Callable[[], LeRobot], keys_observation: Sequence[str], keys_action: Sequence[str], rest_s: float
) -> None:
    """What has the robot to itself."""
    robot = make()
    try:
        robot.connect(calibrate=False)  # which would ask somebody to move the arm
        _check(robot, keys_observation, keys_action)
        waypoints: Sequence[Waypoint] = ()
        sent: Waypoint | None = None
        while far.is_alive:
            stamp_s = far.clock.now()
            seen = robot.get_observation()
            far.measured([seen[key] for key in keys_observation], stamp_s)
            waypoints = far.orders(rest_s) or waypoints
            due = _due(waypoints, far.clock.now())
            if due is not None and due is not sent:
                _send(far, robot, dict(zip(keys_action, due.position.tolist(), strict=True)))
                sent = due
    finally:
        with contextlib.suppress(Exception):
            robot.disconnect()


def _check(robot: LeRobot, keys_observation: Sequence[str], keys_action: Sequence[str]) -> None:
    if not robot.is_calibrated:
        raise RobotFault("it is not calibrated: run lerobot-calibrate")
    for what, keys, features in (
        ("observation", keys_observation, robot.observation_features),
        ("action", keys_action, robot.action_features),
    ):
        if missing := [key for key in keys if key not in features]:
            raise RobotFault(f"it has no {what} {', '.join(missing)}; it has {', '.join(map(str, features))}")
    if more := [key for key in robot.action_features if key not in keys_action]:
        raise RobotFault(f"it wants to be told {', '.join(more)} as well")


def _send(far: FarEnd, robot: LeRobot, action: dict[str, float]) -> None:
    sent = robot.send_action(dict(action))
    far.count("sent")
    if any(abs(float(sent.get(key, value)) - value) > 1e-3 for key, value in action.items()):
        far.count("clipped")


def _due(waypoints: Sequence[Waypoint], now_s: float) -> Waypoint | None:
    """Where to go now: the first waypoint that lies ahead, else the last."""
    ahead = [waypoint for waypoint in waypoints if waypoint.time_s > now_s]
    return ahead[0] if ahead else waypoints[-1] if waypoints else None


def make_lerobot(settings: Mapping[str, Any]) -> LeRobot:
    """LeRobot's robot from its own settings: `type` (such as "so101_follower"), `port`, `id` and so on. Raises
    InputError for settings that it does not know, or without the package."""
    try:
        draccus = importlib.import_module("draccus")
        robots = importlib.import_module("lerobot.robots")
    except ImportError as error:
        raise InputError(f'got no package {error.name}, wanted LeRobot: pip install "ontick[lerobot]"') from error
    for module in pkgutil.iter_modules(robots.__path__):  # a type is known once its module was imported
        if module.ispkg:
            with contextlib.suppress(ImportError):  # it wants a package of that robot alone
                importlib.import_module(f"lerobot.robots.{module.name}")
    try:
        return robots.make_robot_from_config(draccus.decode(robots.RobotConfig, dict(settings)))
    except Exception as error:  # of LeRobot, draccus and its drivers
        raise InputError(f"LeRobot makes no robot of {dict(settings)}: {' '.join(str(error).split())}") from error
