"""Robots by file: which driver, and what it must know.

    kind: rosbridge                         # or lerobot, or a name that another package enters under "ontick.robots"
    url: ws://robot:9090
    joints: [shoulder, elbow]
    period_s: 0.02
    limits: {low: [-3.1, -2.0], high: [3.1, 2.0], speed: [1, 1], acceleration: [4, 4], jerk: [40, 40]}
    policy: ...                             # what a policy must know of it, and
    model: ...                              # where its joints and tool may be; neither is read here

Another package's entry point is a function that takes the file's mapping without `kind` and gives a `Robot`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError
from ...settings import checked
from .contract import Limits, Robot
from .lerobot import LeRobotRobot, make_lerobot
from .rosbridge import STATES, TRAJECTORY, RosbridgeRobot

GROUP = "ontick.robots"
NOT_DRIVERS = ("policy", "model")  # parts of a file that no driver reads


@dataclass(frozen=True, kw_only=True)
class _LeRobotFile:
    """robot: LeRobot's own settings; observation, action: names of its features."""

    robot: dict[str, Any]
    observation: tuple[str, ...]
    action: tuple[str, ...]
    limits: dict[str, Any]
    period_s: float


@dataclass(frozen=True, kw_only=True)
class _RosbridgeFile:
    """As of RosbridgeRobot."""

    url: str
    joints: tuple[str, ...]
    limits: dict[str, Any]
    period_s: float
    command_topic: str = TRAJECTORY
    state_topic: str = STATES
    message: str = "trajectory"
    ros: int = 2


def make_robot(source: str | Path) -> Robot:
    """The robot of a YAML file, not connected; it can be given to another process.

    Raises InputError for a file that is none, says too little or too much, or names a kind that nobody knows.
    """
    path, data = Path(source), read_robot_file(source)
    kind = data.pop("kind")
    for part in NOT_DRIVERS:
        data.pop(part, None)
    robot = _maker(kind, str(path))(data, str(path))
    if not isinstance(robot, Robot):
        raise InputError(f"{path}: the kind {kind!r} made a {type(robot).__name__}, wanted a Robot: see the contract")
    return robot


def read_robot_file(source: str | Path) -> dict[str, Any]:
    """A robot's YAML file: a mapping with a kind. Raises InputError."""
    try:
        data = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no text, or no such date
        reason = " ".join(str(error).split())
        raise InputError(f"got the robot {str(source)!r}, wanted sim or a YAML file of a robot: {reason}") from None
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise InputError(f"{source}: wanted a mapping with a kind: {', '.join(robot_kinds())}")
    return data


def robot_kinds() -> list[str]:
    """The kinds that a file may name."""
    return sorted({*_KINDS, *(point.name for point in entry_points(group=GROUP))})


def _maker(kind: str, origin: str) -> Callable[[dict[str, Any], str], Any]:
    if kind in _KINDS:
        return _KINDS[kind]
    for point in entry_points(group=GROUP):
        if point.name == kind:
            return functools.partial(_foreign, point)
    raise InputError(f"{origin}: got the kind {kind!r}, wanted one of {', '.join(robot_kinds())}")


def _foreign(point: Any, data: dict[str, Any], origin: str) -> Any:
    try:
        return point.load()(data)
    except InputError:
        raise
    except Exception as error:  # of another package
        raise InputError(f"{origin}: {point.value} makes no robot of it: {type(error).__name__}: {error}") from error


def _lerobot(data: dict[str, Any], origin: str) -> LeRobotRobot:
    file = _read(_LeRobotFile, data, origin)
    return LeRobotRobot(
        functools.partial(make_lerobot, file.robot),
        keys_observation=file.observation,
        keys_action=file.action,
        limits=Limits.from_dict(file.limits, f"{origin}: limits"),
        period_s=file.period_s,
    )


def _rosbridge(data: dict[str, Any], origin: str) -> RosbridgeRobot:
    file = _read(_RosbridgeFile, data, origin)
    settings = {field.name: getattr(file, field.name) for field in dataclasses.fields(file)}
    return RosbridgeRobot(**{**settings, "limits": Limits.from_dict(file.limits, f"{origin}: limits")})


def _read(kind: Any, data: dict[str, Any], origin: str) -> Any:
    """The mapping as the dataclass `kind`, with all that it must have."""
    given = checked(kind, data, origin)
    needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in given]:
        raise InputError(f"{origin}: lacks {', '.join(missing)}")
    if not 0.001 <= given["period_s"] <= 1.0:
        raise InputError(f"{origin}: period_s is {given['period_s']}, wanted 0.001 to 1")
    return kind(**given)


_KINDS: dict[str, Callable[[dict[str, Any], str], Any]] = {"lerobot": _lerobot, "rosbridge": _rosbridge}
