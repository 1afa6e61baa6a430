"""A robot's model, as far as a controller needs it: where its tool is at a command, and how far its joints go.

Legend: Dc of a command, which is one number for each actuator of the model; where it has none, for each of its joints.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..runtime.robots import Limits
from ..runtime.safety import limits_from_mujoco
from ..runtime.safety.model import JOINT_TRANSMISSIONS
from ..settings import checked

NAMED = 12  # so many names are told to whoever asked for one that is not there


class _Loaded(NamedTuple):
    """addresses: of the joints in qpos that commands move; parts: which command moves each; gears: a command is the
    joint's position times its gear; dims: Dc."""

    mujoco: Any
    model: Any
    data: Any
    place: np.ndarray  # [3], a view of where the site or body is
    addresses: np.ndarray
    parts: np.ndarray
    gears: np.ndarray
    dims: int


@dataclass(frozen=True, kw_only=True)
class _Box:
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class _File:
    file: str
    workspace: dict[str, Any]
    site: str | None = None
    body: str | None = None


class RobotModel:
    """An MJCF or URDF file, and a box of the world that a site or a body of it must stay in.

    low, high: corners of the box [3], m, in the world frame. It is read when it is first asked something; given to
    another process it is read there again. Actuators that move no single joint (a gripper's tendon) leave the tool
    where it is.

    Raises InputError for a box that is none, and unless a site or a body is named; what is asked first raises it for a
    file that MuJoCo does not read, that has no such site or body, or joints that one number does not say.
    """

    def __init__(
        self,
        file: str | Path,
        *,
        low: Sequence[float],
        high: Sequence[float],
        site: str | None = None,
        body: str | None = None,
    ) -> None:
        self.file, self.site, self.body = Path(file), site, body
        self.low, self.high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if (site is None) == (body is None):
            raise InputError("a robot's model wants the name of a site or of a body: what stays in the workspace")
        if not (self.low.shape == self.high.shape == (3,) and (self.low < self.high).all()):
            raise InputError("a workspace wants low and high, 3 numbers each in metres, low < high")
        self._loaded: _Loaded | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    @property
    def dims(self) -> int:
        """Dc. Raises InputError as the class says."""
        return self._load().dims

    def check_fit(self, dims: int) -> None:
        """Raises InputError where a command has another number of joints than the model."""
        if dims != self.dims:
            what = "actuators" if self._load().model.nu else "joints"
            raise InputError(f"{self.file} has {self.dims} {what}, the robot's command {dims} numbers; wanted as many")

    def inside(self, position: np.ndarray) -> bool:
        """Whether the site or body lies in the box when the robot is at `position` [Dc], by forward kinematics. What is
        not finite does not. Raises InputError for another shape."""
        place = self._place(position)
        return bool(((place >= self.low) & (place <= self.high)).all())

    def place(self, position: np.ndarray) -> np.ndarray:
        """Where the site or body is, [3] m in the world frame, when the robot is at `position` [Dc]."""
        return self._place(position).copy()

    def limits(
        self,
        speed: float | Sequence[float] | np.ndarray,
        acceleration: float | Sequence[float] | np.ndarray,
        jerk: float | Sequence[float] | np.ndarray,
    ) -> Limits:
        """Limits [Dc] with the model's ranges, see `limits_from_mujoco`; of its joints where it has no actuators. The
        rates are one number each, or one for each number of a command."""
        loaded = self._load()
        if loaded.model.nu:
            return limits_from_mujoco(loaded.model, *(_listed(rate) for rate in (speed, acceleration, jerk)))
        for joint in range(loaded.dims):
            if not loaded.model.jnt_limited[joint]:
                name = loaded.model.joint(joint).name or joint
                raise InputError(f"{self.file}: joint {name} has no limits: give it a range")
        low, high = loaded.model.jnt_range.T
        try:
            rates = [np.broadcast_to(np.asarray(rate, float), loaded.dims) for rate in (speed, acceleration, jerk)]
        except ValueError:
            raise InputError(f"{self.file}: wanted one rate, or one for each of {loaded.dims} joints") from None
        return Limits(low=low.copy(), high=high.copy(), speed=rates[0], acceleration=rates[1], jerk=rates[2])

    def to_dict(self) -> dict[str, Any]:
        """As JSON and YAML data."""
        named = {"body": self.body} if self.site is None else {"site": self.site}
        box = {"low": self.low.tolist(), "high": self.high.tolist()}
        return {"file": str(self.file), **named, "workspace": box}

    @classmethod
    def from_dict(cls, data: Any, origin: str, folder: str | Path = ".") -> RobotModel:
        """Undo `to_dict`; a file is looked for in `folder`. Raises InputError that starts with `origin`."""
        if not isinstance(data, dict) or not {"file", "workspace"} <= set(data):
            raise InputError(f"{origin}: wanted a file, a site or a body, and a workspace with low and high")
        given = _File(**checked(_File, data, origin))
        box = checked(_Box, given.workspace, f"{origin}, workspace")
        try:
            corners = {name: box.get(name, ()) for name in ("low", "high")}
            return cls(Path(folder) / given.file, site=given.site, body=given.body, **corners)
        except InputError as error:
            raise InputError(f"{origin}: {error}") from None

    def _place(self, position: np.ndarray) -> np.ndarray:
        loaded, command = self._load(), np.asarray(position, np.float64)
        if command.shape != (loaded.dims,):
            raise InputError(f"got a command of shape {command.shape}, {self.file} wants ({loaded.dims},)")
        if not np.isfinite(command).all():
            return np.full(3, np.nan)
        loaded.data.qpos[loaded.addresses] = command[loaded.parts] / loaded.gears
        loaded.mujoco.mj_kinematics(loaded.model, loaded.data)
        return loaded.place

    def _load(self) -> _Loaded:
        if self._loaded is None:
            try:
                mujoco: Any = importlib.import_module("mujoco")
            except ImportError:
                raise InputError(
                    'got no package mujoco, wanted it for a robot\'s model: pip install "mujoco"'
                ) from None
            try:
                model = mujoco.MjModel.from_xml_path(str(self.file))
            except ValueError as error:
                raise InputError(f"{self.file} is no model of a robot: {' '.join(str(error).split())}") from None
            data = mujoco.MjData(model)
            self._loaded = _Loaded(mujoco, model, data, self._found(model, data), *_commanded(model, str(self.file)))
        return self._loaded

    def _found(self, model: Any, data: Any) -> np.ndarray:
        what, name, count = ("body", self.body, model.nbody) if self.site is None else ("site", self.site, model.nsite)
        try:
            found = getattr(model, what)(name).id
        except KeyError:
            there = [getattr(model, what)(i).name for i in range(count)]
            told = ", ".join(filter(None, there[:NAMED])) + (" ..." if count > NAMED else "")
            raise InputError(f"{self.file} has no {what} {name}; it has {told or 'none'}") from None
        return (data.xpos if self.site is None else data.site_xpos)[found]


def _commanded(model: Any, file: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """addresses, parts, gears and dims, see `_Loaded`."""
    moved = [(joint, joint, 1.0) for joint in range(model.njnt)]
    if model.nu:
        by_joint = [i for i in range(model.nu) if model.actuator_trntype[i] in JOINT_TRANSMISSIONS]
        moved = [(int(model.actuator_trnid[i, 0]), i, float(model.actuator_gear[i, 0])) for i in by_joint]
    for joint, _, gear in moved:
        name = model.joint(joint).name or joint
        if model.jnt_type[joint] < 2:  # mjJNT_FREE and mjJNT_BALL
            raise InputError(f"{file}: joint {name} is free or a ball, wanted hinges and slides alone")
        if not gear:
            raise InputError(f"{file}: the actuator of joint {name} has a gear of 0, wanted another")
    if not moved:
        raise InputError(f"{file} has no joints that are commanded, wanted a robot's model")
    joints, parts, gears = zip(*moved, strict=True)
    return model.jnt_qposadr[list(joints)], np.array(parts), np.array(gears), int(model.nu) or int(model.njnt)


def _listed(rate: float | Sequence[float] | np.ndarray) -> Sequence[float]:
    return np.asarray(rate, np.float64).tolist()
