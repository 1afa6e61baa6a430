"""The contracts of whatever the engine denoises.

Legend: B lanes, N positions, D... the shape of one position.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from .schedules import Schedule


class Prediction(NamedTuple):
    """x: [B, N, D...] in the denoiser's own parameterisation; score: [B] confidence of a lane, or None."""

    x: Tensor
    score: Tensor | None = None


class Rows(NamedTuple):
    """What a network call is told of its positions: index [B, N] int64 position ids; conditioning, such as a frame's
    action, and state, such as KV, as the denoiser defines them."""

    index: Tensor
    conditioning: Any = None
    state: Any = None


class Denoiser(ABC):
    """A network that the engine can run.

    levels      "sample": one level a lane, so plans that mix levels are refused; "position": a level a position
    prediction  "epsilon", "sample", "v" or "velocity"
    schedule    what it was trained with
    windows     whether a call may see a part of the positions; False: plans that cut the window are refused
    clip        x0 is clamped to [-clip, clip] before every solver step; None: never
    """

    levels: str = "sample"
    prediction: str = "epsilon"
    windows: bool = True
    schedule: Schedule
    clip: float | None = None

    @abstractmethod
    def prepare(self, obs: Tensor) -> Any:
        """Everything that does not depend on the level, once an observation or prompt. Its result is read only."""

    @abstractmethod
    def predict(self, x: Tensor, label: Tensor, context: Any, rows: Rows) -> Prediction:
        """x: [B, N, D...]; label: [B, N] float32, the grid's label of each position's level ("sample" denoisers may
        read any column). Must be a pure function: equal arguments, equal result, at a fixed batch width whatever
        the other lanes hold."""

    def blocks(self) -> list["Block"]:
        """The residual branches in order, so that accelerators can see them; empty where a network lists none."""
        return []


@dataclass(frozen=True)
class Block:
    """One residual branch: x <- x + branch(x, context).

    kind: "self_attention", "cross_attention" or "feed_forward"; layer counts from 0.
    """

    name: str
    kind: str
    layer: int
    branch: Callable[[Tensor, Any], Tensor]
