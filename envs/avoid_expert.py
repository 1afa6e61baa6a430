"""A scripted expert for Avoid: it draws a route through the rows and follows it, as one person would and not another.

Drawn for each episode: the side of each row, the margin to its obstacle, the speed and how it swells, and how far
ahead it looks (a short look corners sharply, a long one cuts the corner).
"""

from dataclasses import dataclass

import numpy as np

from .avoid import (
    ACTION_M,
    GOAL_Y_M,
    OBSTACLE_RADIUS_M,
    ROW_OF_OBSTACLE,
    ROW_Y_M,
    SIDES,
    TOOL_RADIUS_M,
)
from .tasks import Expert

STOP_Y_M = GOAL_Y_M + 0.02  # where it comes to rest
ABREAST_M = 0.012  # before and behind an obstacle's middle it goes straight


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
            margins_m=tuple(rng.uniform(0.018, 0.032, rows)),
            speed=rng.uniform(0.65, 1.0),
            swell=rng.uniform(0.0, 0.2),
            phase=rng.uniform(0.0, 2 * np.pi),
            look_ahead_m=rng.uniform(0.025, 0.04),
        )


PLAIN = AvoidStyle("LRL", (0.025,) * 3, speed=0.8, swell=0.0, phase=0.0, look_ahead_m=0.03)


def avoid_expert(rng: np.random.Generator | None) -> Expert:
    """The expert of one episode, in a style drawn from `rng`; without, always the same route at the same speed.

    It plans on the first observation [16] that it is given and then steers the tool's target along the plan, so it
    comes back to it after a disturbance. The actions are float32 [2] in [-1, 1].
    """
    style = PLAIN if rng is None else AvoidStyle.draw(rng)
    plan: list[tuple[np.ndarray, np.ndarray]] = []

    def act(observation: np.ndarray) -> np.ndarray:
        tool_m, target_m = observation[:2], observation[:2] + observation[2:4]
        if not plan:
            plan.append(_way(tool_m, observation[4:].reshape(-1, 2) + tool_m, style))
        way_y_m, way_x_m = plan[0]
        if target_m[1] >= STOP_Y_M:
            return np.zeros(2, np.float32)
        ahead_y_m = target_m[1] + style.look_ahead_m
        wanted_m = np.array([np.interp(ahead_y_m, way_y_m, way_x_m), ahead_y_m]) - target_m
        swelling = 1.0 + style.swell * np.sin(style.phase + 2 * np.pi * target_m[1] / 0.2)
        length = min(1.0, style.speed * swelling)
        return (length * wanted_m / max(np.hypot(*wanted_m), ACTION_M)).astype(np.float32)

    return act


def _way(start_m: np.ndarray, obstacles_m: np.ndarray, style: AvoidStyle) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) along a smooth way from the start past each row's facing obstacle. [n] m each"""
    from scipy.interpolate import PchipInterpolator

    knots, gap = [(start_m[1], start_m[0])], 0
    for row, (side, margin_m) in enumerate(zip(style.route, style.margins_m, strict=True)):
        facing_x_m, facing_y_m = obstacles_m[np.equal(ROW_OF_OBSTACLE, row)][gap]
        sign = 1.0 if side == SIDES[1] else -1.0
        x_m = facing_x_m + sign * (OBSTACLE_RADIUS_M + TOOL_RADIUS_M + margin_m)
        knots += [(facing_y_m - ABREAST_M, x_m), (facing_y_m + ABREAST_M, x_m)]
        gap += side == SIDES[1]
    knots += [(GOAL_Y_M, knots[-1][1]), (GOAL_Y_M + 0.2, knots[-1][1])]
    y_m, x_m = np.array(knots).T
    fine_y_m = np.linspace(y_m[0], y_m[-1], 400)
    return fine_y_m, PchipInterpolator(y_m, x_m)(fine_y_m)
