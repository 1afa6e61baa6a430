"""A scripted expert for Avoid: it draws a route through the rows and follows it, as one person would and not another.

Drawn for each episode: the side of each row, the margin to its obstacle, the speed and how it swells, and how far
ahead it looks (a short look corners sharply, a long one cuts the corner).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .avoid import (
    ACTION_M,
    GOAL_Y_M,
    OBSTACLE_JITTER_M,
    OBSTACLE_RADIUS_M,
    ROW_Y_M,
    SIDES,
    TOOL_RADIUS_M,
)
from .tasks import Expert

STOP_Y_M = GOAL_Y_M + 0.02  # where it comes to rest
STRAIGHT_FROM_M = -0.04  # of an obstacle's middle: from there on it goes straight past


@dataclass(frozen=True)
class AvoidStyle:
    """How one episode is done."""

    route: str  # a letter of "LR" a row
    margins_m: tuple[float, ...]  # gap to leave to the facing obstacle of each row
    speed: float  # of the most that an action allows
    swell: float  # share by which the speed rises and falls along the way
    phase: float  # where it starts to [rad]
    look_ahead_m: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "AvoidStyle":
        """Every route is equally likely."""
        rows = len(ROW_Y_M)
        return cls(
            route="".join(SIDES[side] for side in rng.integers(2, size=rows)),
            margins_m=tuple(rng.uniform(0.025, 0.045, rows)),
            speed=rng.uniform(0.65, 1.0),
            swell=rng.uniform(0.0, 0.2),
            phase=rng.uniform(0.0, 2 * np.pi),
            look_ahead_m=rng.uniform(0.025, 0.04),
        )


PLAIN = AvoidStyle("LRL", (0.035,) * 3, speed=0.8, swell=0.0, phase=0.0, look_ahead_m=0.03)


def avoid_expert(rng: np.random.Generator | None) -> Expert:
    """The expert of one episode, in a style drawn from `rng`; without, always the same route at the same speed.

    It sees what a policy sees [6]. When it faces another obstacle it plans how to pass it, and steers the tool's target
    along that way, so it comes back to it after a disturbance. The actions are float32 [2] in [-1, 1].
    """
    style = PLAIN if rng is None else AvoidStyle.draw(rng)
    legs: list[_Leg] = []

    def act(observation: np.ndarray) -> np.ndarray:
        tool_m, target_m = observation[:2], observation[:2] + observation[2:4]
        facing_m = tool_m + observation[4:6]
        if not legs or facing_m[1] - legs[-1].facing_y_m > 4 * OBSTACLE_JITTER_M:
            legs.append(_leg(target_m, facing_m, style, len(legs)))
        if target_m[1] >= STOP_Y_M:
            return np.zeros(2, np.float32)
        ahead_y_m = target_m[1] + style.look_ahead_m
        return moved(style, target_m, np.array([legs[-1].x_m(ahead_y_m), ahead_y_m]))

    return act


def moved(style: AvoidStyle, target_m: np.ndarray, wanted_m: np.ndarray) -> np.ndarray:
    """The action [2] that moves the tool's target towards a place [2], as fast as the style moves there."""
    way_m = wanted_m - target_m
    swelling = 1.0 + style.swell * np.sin(style.phase + 2 * np.pi * target_m[1] / 0.2)
    length = min(1.0, style.speed * swelling)
    return (length * way_m / max(np.hypot(*way_m), ACTION_M)).astype(np.float32)


@dataclass(frozen=True)
class _Leg:
    """The way past one obstacle: x as a function of y, and the y of the obstacle [m]."""

    x_m: Callable[[float], float]
    facing_y_m: float


def _leg(from_m: np.ndarray, facing_m: np.ndarray, style: AvoidStyle, row: int) -> _Leg:
    """A smooth way from where the target is to the style's side of the facing obstacle, and on straight ahead."""
    from scipy.interpolate import PchipInterpolator

    sign = 1.0 if style.route[row] == SIDES[1] else -1.0
    x_m = facing_m[0] + sign * (OBSTACLE_RADIUS_M + TOOL_RADIUS_M + style.margins_m[row])
    abreast_y_m = max(facing_m[1] + STRAIGHT_FROM_M, from_m[1] + style.look_ahead_m)
    return _Leg(PchipInterpolator([from_m[1], abreast_y_m, abreast_y_m + 1.0], [from_m[0], x_m, x_m]), facing_m[1])
