"""A scripted expert for Avoid by pixels: at every step anew it steers for a place beside the obstacle that it faces.

Where rows are shifted, one way round an obstacle can be much longer than the other. It takes the shorter, and the side
that its style draws where both are about as long. So what it does is told by where the tool and the obstacle are, and
not by where it came from.
"""

import numpy as np

from .avoid import OBSTACLE_JITTER_M, OBSTACLE_RADIUS_M, SIDES, TOOL_RADIUS_M
from .avoid_expert import PLAIN, STOP_Y_M, AvoidStyle, moved
from .tasks import Expert

AHEAD_M = 0.02  # an obstacle no further to the side than this is straight ahead: either way round it will do
CLOSING_M = 0.04  # of way forward, in which it would be at its place if it did not slow down sideways


def avoid_pixels_expert(rng: np.random.Generator | None) -> Expert:
    """The expert of one episode, in a style drawn from `rng`; without, always the same.

    It sees what a policy of Avoid sees [6]. The actions are float32 [2] in [-1, 1].
    """
    style = PLAIN if rng is None else AvoidStyle.draw(rng)
    passed: list[tuple[float, float]] = []  # of each obstacle faced so far: y [m], and the side, -1 or 1

    def act(observation: np.ndarray) -> np.ndarray:
        tool_m, target_m = observation[:2], observation[:2] + observation[2:4]
        facing_m = tool_m + observation[4:6]
        if not passed or facing_m[1] - passed[-1][0] > 4 * OBSTACLE_JITTER_M:
            passed.append((facing_m[1], _side(facing_m[0] - target_m[0], style.route[len(passed)])))
        if target_m[1] >= STOP_Y_M:
            return np.zeros(2, np.float32)
        gap_m = OBSTACLE_RADIUS_M + TOOL_RADIUS_M + style.margins_m[len(passed) - 1]
        sideways_m = facing_m[0] + passed[-1][1] * gap_m - target_m[0]
        way_m = np.array([sideways_m / CLOSING_M, 1.0]) * style.look_ahead_m
        return moved(style, target_m, target_m + way_m)

    return act


def _side(off_m: float, drawn: str) -> float:
    """-1 to pass on the left, 1 on the right: the nearer side of an obstacle `off_m` to the right, or the drawn one."""
    if abs(off_m) < AHEAD_M:
        return 1.0 if drawn == SIDES[1] else -1.0
    return -float(np.sign(off_m))
