"""What a policy's action means to a robot: a position, or how far to move the last one.

Legend: Da = Dc action and command numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError

KINDS = ("absolute", "delta")


@dataclass(frozen=True, kw_only=True)
class ActionMap:
    """Turns actions [Da] into positions of a command [Dc].

    kind: `absolute`: the position is scale * action; `delta`: the last target, moved by scale * action. absolute_dims:
    dimensions that are absolute all the same, such as grippers. low, high: between which each action number must lie,
    as in training.
    """

    kind: str
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    absolute_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"got actions of kind {self.kind!r}, wanted {' or '.join(KINDS)}")
        if not len(self.scale) == len(self.low) == len(self.high) or not self.scale:
            raise InputError("an action map wants scale, low and high of one length, that of an action")
        if not np.all(np.isfinite([self.scale, self.low, self.high])) or not np.less(self.low, self.high).all():
            raise InputError("an action map wants finite scale, and low < high in every dimension")
        if not all(0 <= dim < len(self.scale) for dim in self.absolute_dims):
            raise InputError(f"got absolute_dims {list(self.absolute_dims)} of actions with {len(self.scale)} numbers")

    @property
    def dim(self) -> int:
        return len(self.scale)

    def position(self, last: np.ndarray, action: np.ndarray) -> np.ndarray:
        """last: [Dc], the target before; action: [Da] -> the target [Dc]."""
        moved = np.asarray(self.scale) * action
        if self.kind == "absolute":
            return moved
        target = last + moved
        dims = list(self.absolute_dims)
        target[dims] = moved[dims]
        return target

    def hold(self, last_action: np.ndarray) -> np.ndarray:
        """The action of no motion: [Da] -> [Da]."""
        if self.kind == "absolute":
            return np.array(last_action)
        held = np.zeros_like(last_action)
        dims = list(self.absolute_dims)
        held[dims] = last_action[dims]
        return held

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "scale": list(self.scale),
            "low": list(self.low),
            "high": list(self.high),
            "absolute_dims": list(self.absolute_dims),
        }
