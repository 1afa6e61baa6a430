"""What a policy and a robot must agree on: how often an action is taken, what it means, what is observed, and limits.

A robot's YAML file says it in its parts `policy`, `limits` and `model`:

    limits: {low: [-3.1, -2.0], high: [3.1, 2.0], speed: [1, 1], acceleration: [4, 4], jerk: [40, 40]}
    model: {file: arm.xml, site: tool, workspace: {low: [0.1, -0.4, 0.02], high: [0.6, 0.4, 0.8]}}
    policy:
      period_ms: 50
      observation_dim: 4
      actions: {kind: delta, scale: [0.05, 0.05], low: [-1, -1], high: [1, 1]}
      observation_age_ms: 200                # how old what is acted on may be
      answer_ms: 300                         # how long an answer is of use
      target: [2, 4]                         # where the policy is shown the last target, seen from where the robot is
      observation: {observation/state: [0, 4], prompt: pick up the cup}      # what a foreign server calls its parts
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime.robots import ActionMap, Limits
from ..runtime.robots.finding import read_robot_file
from ..settings import checked

SIM = "sim"
# Of ontick/Avoid-v0: a tick, what an action of 1 moves the target by, and where the target stands in an observation.
OBSERVATION_DIM, PERIOD_MS, MOVE_M, TARGET = 6, 50.0, 0.01, (2, 4)
OBSERVATION_AGE_S, ANSWER_S = 0.2, 0.3
NEEDED = ("period_ms", "observation_dim", "actions")
OF_POLICY = (*NEEDED, "observation_age_ms", "answer_ms", "target", "observation")
LONGEST_MS = 60_000


@dataclass(frozen=True, kw_only=True)
class RobotTerms:
    """period_s: of the policy, from one action to the next; actions: what they mean; observation_dim: numbers that the
    robot gives; limits: what the policy may use of the robot's own, None: all.

    observation_age_s: how old what is acted on may be; answer_s: how long an answer is of use.
    target: the part [start, end) of an observation that is the last target, seen from where the robot is: a policy that
    was trained with it must be shown what its actions added up to, not where the command on its way to it is.
    observation: what a foreign server calls parts of an observation: {key: [start, end]}, or {key: a constant text}.
    model: of the robot, see `RobotModel.to_dict`.
    """

    name: str
    period_s: float
    observation_dim: int
    actions: ActionMap
    limits: Limits | None = None
    observation_age_s: float = OBSERVATION_AGE_S
    answer_s: float = ANSWER_S
    target: tuple[int, int] | None = None
    observation: dict[str, Any] | None = None
    model: dict[str, Any] | None = None

    def check_fit(self, observation_dim: int, action_dim: int) -> None:
        """Raises InputError where a policy's actions are not the robot's."""
        got, wanted = (observation_dim, action_dim), (self.observation_dim, self.actions.dim)
        if got != wanted:
            raise InputError(f"the policy has {got[0]} observations and {got[1]} actions, {self.name} {wanted}")

    def differs(self, told: Any) -> list[str]:
        """Which parts of these terms are others in `told`, what `to_dict` gave on another host; the folder of a model's
        file is left out."""
        if not isinstance(told, dict):
            return ["all"]
        ours, theirs = _placeless(self.to_dict()), _placeless(told)
        return [name for name in ours if ours[name] != theirs.get(name)]

    def workspace(self) -> Callable[[np.ndarray], bool] | None:
        """Whether a command [Dc] keeps the tool in its workspace, for `SafetyGate(inside=)`; None without a model. It
        can be given to another process. Raises InputError for a model that cannot be read or is of another robot."""
        if self.model is None:
            return None
        from ..envs.robot_model import RobotModel

        model = RobotModel.from_dict(self.model, f"the model of {self.name}")
        model.check_fit(self.actions.dim)
        return model.inside

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "name": self.name,
            "period_ms": _ms(self.period_s),
            "observation_dim": self.observation_dim,
            "actions": self.actions.to_dict(),
            "limits": None if self.limits is None else self.limits.to_dict(),
            "observation_age_ms": _ms(self.observation_age_s),
            "answer_ms": _ms(self.answer_s),
            "target": None if self.target is None else list(self.target),
            "observation": self.observation,
            "model": self.model,
        }

    @classmethod
    def from_dict(cls, data: Any, origin: str) -> "RobotTerms":
        """Undo `to_dict`. Raises InputError that starts with `origin`."""
        if not isinstance(data, dict):
            raise InputError(f"{origin}: wanted a mapping with {_listed(NEEDED)}")
        _refuse_others(data, (*OF_POLICY, "name", "limits", "model"), origin)
        if missing := [name for name in NEEDED if data.get(name) is None]:
            raise InputError(f"{origin}: lacks {', '.join(missing)}; wanted {_listed(NEEDED)}")
        observation_dim = data["observation_dim"]
        if type(observation_dim) is not int or observation_dim < 1:
            raise InputError(f"{origin}: observation_dim is {observation_dim!r}, wanted a whole number above 0")
        actions, limits = _actions(data["actions"], f"{origin}, actions"), data.get("limits")
        limits = None if limits is None else Limits.from_dict(limits, f"{origin}, limits")
        if limits is not None and len(limits.low) != actions.dim:
            raise InputError(f"{origin}: got limits of {len(limits.low)} and actions of {actions.dim} numbers")
        return cls(
            name=str(data.get("name", "robot")),
            period_s=_seconds(data, "period_ms", None, origin),
            observation_dim=observation_dim,
            actions=actions,
            limits=limits,
            observation_age_s=_seconds(data, "observation_age_ms", OBSERVATION_AGE_S, origin),
            answer_s=_seconds(data, "answer_ms", ANSWER_S, origin),
            target=_target(data.get("target"), observation_dim, actions.dim, origin),
            observation=_observation(data.get("observation"), observation_dim, origin),
            model=_model(data.get("model"), origin),
        )


def terms_of(robot: str) -> RobotTerms:
    """Of `sim`, or of a robot's YAML file, whose parts `policy`, `limits` and `model` hold these. Its limits are
    tightened to the ranges of its model, where it has one. Raises InputError."""
    if robot == SIM:
        actions = ActionMap(kind="delta", scale=(MOVE_M, MOVE_M), low=(-1.0, -1.0), high=(1.0, 1.0))
        sim = {"name": SIM, "period_s": PERIOD_MS * 1e-3, "observation_dim": OBSERVATION_DIM}
        return RobotTerms(**sim, actions=actions, target=TARGET)
    data = read_robot_file(robot)
    policy = data.get("policy")
    if not isinstance(policy, dict):
        raise InputError(f"{robot}: no part `policy` with {_listed(NEEDED)}; see docs/drive.md")
    _refuse_others(policy, OF_POLICY, f"{robot}, policy")
    parts = {name: data.get(name) for name in ("limits", "model")}
    parts["model"] = _model(parts["model"], robot, Path(robot).parent)
    terms = RobotTerms.from_dict({"name": Path(robot).stem, **policy, **parts}, robot)
    return terms if terms.model is None else _tightened(terms, robot)


def _tightened(terms: RobotTerms, origin: str) -> RobotTerms:
    from ..envs.robot_model import RobotModel

    model = RobotModel.from_dict(terms.model, f"{origin}, model")
    model.check_fit(terms.actions.dim)
    if terms.limits is None:
        raise InputError(f"{origin}: lacks limits; a model knows no speed, acceleration and jerk")
    rates = terms.limits.speed, terms.limits.acceleration, terms.limits.jerk
    try:
        return dataclasses.replace(terms, limits=terms.limits.within(model.limits(*rates)))
    except InputError as error:
        raise InputError(f"{origin}: limits and model: {error}") from None


def _actions(data: Any, origin: str) -> ActionMap:
    given = checked(ActionMap, data, origin)
    needed = [field.name for field in dataclasses.fields(ActionMap) if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in given]:
        raise InputError(f"{origin}: lacks {', '.join(missing)}; wanted {_listed(needed)}")
    try:
        return ActionMap(**given)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None


def _seconds(data: dict[str, Any], name: str, usual_s: float | None, origin: str) -> float:
    value = data.get(name)
    if value is None and usual_s is not None:
        return usual_s
    if type(value) not in (int, float) or not 0 < value < LONGEST_MS:  # type: ignore[operator]  # a number
        raise InputError(f"{origin}: {name} is {value!r}, wanted milliseconds above 0, below {LONGEST_MS}")
    return float(value) * 1e-3  # type: ignore[arg-type]  # as above


def _ms(seconds: float) -> float:
    """As it was written: rounding, there and back, is no difference."""
    return round(seconds * 1e3, 9)


def _placeless(told: dict[str, Any]) -> dict[str, Any]:
    model = told.get("model")
    if not isinstance(model, dict) or "file" not in model:
        return told
    return {**told, "model": {**model, "file": Path(str(model["file"])).name}}


def _target(part: Any, observation_dim: int, action_dim: int, origin: str) -> tuple[int, int] | None:
    if part is None:
        return None
    if not _is_part(part, observation_dim) or part[1] - part[0] != action_dim:
        wanted = f"wanted [start, end) of {action_dim} among {observation_dim} numbers"
        raise InputError(f"{origin}: target is {part!r}, {wanted}, as many as an action's")
    return part[0], part[1]


def _observation(parts: Any, observation_dim: int, origin: str) -> dict[str, Any] | None:
    if parts is None:
        return None
    if not isinstance(parts, dict) or not parts or not all(isinstance(key, str) and key for key in parts):
        raise InputError(f"{origin}: observation is {parts!r}, wanted a server's names, each with a part or a text")
    for key, part in parts.items():
        if not isinstance(part, str) and not _is_part(part, observation_dim):
            wanted = f"wanted [start, end) of {observation_dim} numbers, or a text"
            raise InputError(f"{origin}: observation, {key}: got {part!r}, {wanted}")
    return {key: part if isinstance(part, str) else list(part) for key, part in parts.items()}


def _is_part(part: Any, dim: int) -> bool:
    is_pair = isinstance(part, list | tuple) and len(part) == 2 and all(type(end) is int for end in part)
    return is_pair and 0 <= part[0] < part[1] <= dim


def _model(data: Any, origin: str, folder: str | Path = ".") -> dict[str, Any] | None:
    if data is None:
        return None
    from ..envs.robot_model import RobotModel

    return RobotModel.from_dict(data, f"{origin}, model", folder).to_dict()


def _refuse_others(data: dict[str, Any], known: tuple[str, ...], origin: str) -> None:
    if unknown := [str(key) for key in data if key not in known]:
        raise InputError(f"{origin}: unknown {', '.join(unknown)}; known: {_listed(sorted(known))}")


def _listed(names: Any) -> str:
    return ", ".join(names)
