"""The expert of Avoid by pixels: the shorter way round, and what it does follows from what it sees.

Legend: an observation [6] is tool x, y, the target from the tool, the facing obstacle from the tool.
"""

import numpy as np
import pytest

from ontick.envs.avoid_pixels_expert import AHEAD_M, avoid_pixels_expert

SEEDS = range(40)


def faced(off_m, tool_m=(0.0, 0.0), ahead_m=0.12):
    return np.array([*tool_m, 0.0, 0.0, off_m, ahead_m])


def first(seed, off_m):
    return avoid_pixels_expert(np.random.default_rng(seed))(faced(off_m))


@pytest.mark.parametrize("off_m", [0.025, 0.04, 0.05])
def test_an_obstacle_to_the_side_is_passed_on_the_nearer_side_by_everyone(off_m):
    assert all(first(seed, off_m)[0] < 0 < first(seed, -off_m)[0] for seed in SEEDS)


def test_one_straight_ahead_is_passed_on_either_side():
    to_the_right = [first(seed, 0.5 * AHEAD_M)[0] > 0 for seed in SEEDS]
    assert 0.25 < np.mean(to_the_right) < 0.75


def test_the_side_stays_what_it_was_until_another_obstacle_is_faced():
    act = avoid_pixels_expert(np.random.default_rng(3))
    assert act(faced(0.03))[0] < 0
    assert act(faced(-0.01))[0] < 0  # pushed past the middle: it goes back round the side that it chose
    assert act(faced(-0.05, tool_m=(0.0, 0.14), ahead_m=0.14))[0] > 0  # the next row's


def test_it_comes_to_the_same_place_from_wherever_it_was_pushed():
    """Steering anew at every step, from where it is: a place beside the obstacle, by the style's margin."""
    for pushed_m in (-0.02, 0.0, 0.02):
        act = avoid_pixels_expert(None)
        act(faced(0.03))
        x_m, y_m = pushed_m, 0.0
        for _ in range(30):
            step = 0.01 * act(np.array([x_m, y_m, 0.0, 0.0, 0.03 - x_m, 0.12 - y_m]))
            x_m, y_m = x_m + step[0], y_m + step[1]
            if y_m > 0.1:
                break
        assert x_m == pytest.approx(0.03 - 0.028 - 0.035, abs=0.004)


def test_actions_fit_and_it_rests_behind_the_goal():
    for seed in SEEDS:
        action = first(seed, 0.15)
        assert action.shape == (2,) and action.dtype == np.float32 and np.hypot(*action) <= 1 + 1e-6
    act = avoid_pixels_expert(None)
    assert (act(faced(0.0, tool_m=(0.0, 0.61), ahead_m=-0.15)) == 0).all()
