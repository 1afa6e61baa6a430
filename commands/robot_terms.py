"""What a policy and a robot must agree on: how often an action is taken, what it means, and the robot's limits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runtime.robots import ActionMap, Limits
from ..settings import checked

SIM = "sim"
OBSERVATION_DIM, PERIOD_MS, MOVE_M = (
    6,
    50.0,
    0.01,
)  # of ontick/Avoid-v0: a tick, and what an action of 1 moves the target by


@dataclass(frozen=True, kw_only=True)
class RobotTerms:
    """period_s: of the policy, from one action to the next; actions: what they mean; observation_dim: numbers that the
    robot gives; limits: what the policy may use of the robot's own, None: all."""

    name: str
    period_s: float
    observation_dim: int
    actions: ActionMap
    limits: Limits | None = None

    def check_fit(self, observation_dim: int, action_dim: int) -> None:
        """Raises InputError where a policy's actions are not the robot's."""
        got, wanted = (observation_dim, action_dim), (self.observation_dim, self.actions.dim)
        if got != wanted:
            raise InputError(f"the policy has {got[0]} observations and {got[1]} actions, {self.name} {wanted}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "name": self.name,
            "period_ms": self.period_s * 1e3,
            "observation_dim": self.observation_dim,
            "actions": self.actions.to_dict(),
            "limits": None if self.limits is None else self.limits.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Any, origin: str) -> "RobotTerms":
        """Undo `to_dict`. Raises InputError that starts with `origin`."""
        if not isinstance(data, dict) or not {"period_ms", "observation_dim", "actions"} <= set(data):
            raise InputError(f"{origin}: wanted period_ms, observation_dim and actions")
        period_ms = data["period_ms"]
        if not isinstance(period_ms, int | float) or not 0 < period_ms < 60_000:
            raise InputError(f"{origin}: period_ms is {period_ms!r}, wanted milliseconds from one action to the next")
        if not isinstance(data["observation_dim"], int) or data["observation_dim"] < 1:
            raise InputError(f"{origin}: observation_dim is {data['observation_dim']!r}, wanted a whole number above 0")
        actions = ActionMap(**checked(ActionMap, data["actions"], f"{origin}, actions"))
        limits = data.get("limits")
        return cls(
            name=str(data.get("name", "robot")),
            period_s=period_ms * 1e-3,
            observation_dim=data["observation_dim"],
            actions=actions,
            limits=None if limits is None else Limits.from_dict(limits, f"{origin}, limits"),
        )


def terms_of(robot: str) -> RobotTerms:
    """Of `sim`, or of a robot's YAML file, whose part `policy` holds these. Raises InputError."""
    if robot == SIM:
        actions = ActionMap(kind="delta", scale=(MOVE_M, MOVE_M), low=(-1.0, -1.0), high=(1.0, 1.0))
        return RobotTerms(name=SIM, period_s=PERIOD_MS * 1e-3, observation_dim=OBSERVATION_DIM, actions=actions)
    import yaml

    try:
        data = yaml.safe_load(Path(robot).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{robot} cannot be read as a robot's YAML file ({error}); wanted one, or sim") from None
    if not isinstance(data, dict) or not isinstance(data.get("policy"), dict):
        raise InputError(f"{robot}: no part `policy` with period_ms, observation_dim and actions; see docs/drive.md")
    return RobotTerms.from_dict({"name": Path(robot).stem, **data["policy"], "limits": data.get("limits")}, robot)
