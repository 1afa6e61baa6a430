"""What a controller knows of a policy that is asked elsewhere: in another process, or on another machine.

    card = describe_policy(policy, ...)         # where the policy is
    loop = ControlLoop(card.stand_in(), ...)    # where the robot is, without torch

Legend: To, Do, Ta, Th, Da.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import numpy as np

from ..errors import InputError
from ..settings import checked
from .contracts import FollowingPolicy, Policy
from .ladder import LadderPolicy
from .questions import can_inpaint

MOST_ROWS, MOST_NUMBERS = 1024, 65536  # of an answer, and of an observation, that are believed


@dataclass(frozen=True, kw_only=True)
class PolicyCard:
    """n_obs_steps To, n_action_steps Ta, observation_dim Do, action_dim Da, rows Th of an answer; plans: names of the
    rungs, dearest first, and costs_s: what an answer of each costs [s]; can_inpaint: it can be told what was played;
    continues: it is a queue, see `FollowingPolicy`; robot: the terms of the robot that it was packed for, as JSON data,
    where it was packed. Raises InputError for numbers that no policy has."""

    n_obs_steps: int
    n_action_steps: int
    observation_dim: int
    action_dim: int
    rows: int
    plans: tuple[str, ...]
    costs_s: tuple[float, ...]
    can_inpaint: bool = False
    continues: bool = False
    robot: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        numbers = (self.n_obs_steps, self.n_action_steps, self.observation_dim, self.action_dim)
        if not all(0 < number <= MOST_NUMBERS for number in numbers):
            raise InputError(f"got a policy with To, Ta, Do, Da = {numbers}, wanted whole numbers above 0")
        if not self.n_action_steps <= self.rows <= MOST_ROWS:
            raise InputError(f"got a policy of {self.rows} rows, {self.n_action_steps} of them to be executed")
        if not self.plans or len(self.plans) != len(self.costs_s):
            raise InputError(f"got {len(self.costs_s)} costs of {len(self.plans)} plans, wanted one each")
        if not all(np.isfinite(cost) and cost > 0 for cost in self.costs_s):
            raise InputError(f"got plans that cost {self.costs_s} s, wanted times above 0: measure them again")

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {**asdict(self), "plans": list(self.plans), "costs_s": list(self.costs_s)}

    @classmethod
    def from_dict(cls, data: Any, origin: str) -> PolicyCard:
        """Undo `to_dict`; unknown names are left out, so that a newer server can be talked to. Raises InputError that
        starts with `origin`."""
        if not isinstance(data, dict):
            raise InputError(f"{origin}: wanted what is known of a policy, got {type(data).__name__}")
        known = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        missing = [name for name in cls.__dataclass_fields__ if name not in known and name != "robot"]
        if missing:
            raise InputError(f"{origin}: no {', '.join(missing)}; it speaks another version of the protocol")
        return cls(**checked(cls, known, origin))

    def is_same_policy(self, other: PolicyCard) -> bool:
        """Whether both are of one policy, as far as a card tells; what it costs differs from run to run."""
        ours, theirs = self.to_dict(), other.to_dict()
        del ours["costs_s"], theirs["costs_s"]
        return ours == theirs

    def stand_in(self) -> Policy:
        """A policy of these shapes for a `ControlLoop`, which never answers itself."""
        stands = [_Inpaints(self) if self.can_inpaint else _StandIn(self) for _ in self.plans]
        if len(stands) == 1:
            return stands[0]
        return LadderPolicy(self.plans, stands, self.costs_s)


def describe_policy(policy: Policy, plans: Sequence[str], costs_s: Sequence[float], rows: int) -> PolicyCard:
    """The card of a policy, whose answers have `rows` rows."""
    return PolicyCard(
        n_obs_steps=policy.n_obs_steps,
        n_action_steps=policy.n_action_steps,
        observation_dim=policy.observation_dim,
        action_dim=policy.action_dim,
        rows=rows,
        plans=tuple(plans),
        costs_s=tuple(costs_s),
        can_inpaint=can_inpaint(policy),
        continues=isinstance(policy, FollowingPolicy) and policy.continues,
    )


class _StandIn:
    """Has a policy's shapes, and is never asked."""

    usual_calls = None

    def __init__(self, card: PolicyCard) -> None:
        self.n_obs_steps, self.n_action_steps = card.n_obs_steps, card.n_action_steps
        self.observation_dim, self.action_dim = card.observation_dim, card.action_dim
        self.continues, self.calls_per_chunk = card.continues, 1

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Whoever computes is told with the next question."""

    def follow(self, lanes: Sequence[int], rows: Sequence[int]) -> None:
        """As above."""

    def calls_of(self, lane: int) -> int:
        return self.calls_per_chunk

    def predict_with_tail(self, obs: np.ndarray, lanes: Sequence[int]) -> NoReturn:
        raise RuntimeError("this policy is asked elsewhere: launch its questions, and deliver the answers")

    predict_action_chunk = predict_with_tail

    def select_action(self, obs: np.ndarray) -> NoReturn:
        self.predict_with_tail(obs, [])


class _Inpaints(_StandIn):
    def inpaint(self, lanes: Sequence[int], rows: Sequence[np.ndarray], fixed: Sequence[int]) -> None:
        """As above."""
