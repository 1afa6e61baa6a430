"""The T's geometry: poses and keypoints tell the same, and coverage is the area that two Ts share."""

import numpy as np
import pytest

from ontick.envs.push_t_shape import (
    BAR_AND_STEM_M,
    GOAL,
    KEYPOINTS_M,
    LENGTH_M,
    OUTLINE_M,
    SIDE_M,
    area,
    clipped,
    coverage,
    placed,
    pose_of,
    unplaced,
)

SQUARE = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
T_M2 = sum(area(part) for part in BAR_AND_STEM_M)


def poses(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(0.0, SIDE_M, (n, 2)), rng.uniform(-np.pi, np.pi, (n, 1))], axis=1)


def moved(pose, *by):
    """A pose, moved by (x [m], y [m], yaw [rad])."""
    return pose + np.array(by)


def inside(points_m, pose):
    """Whether points [P, 2] lie in the T."""
    own = unplaced(points_m, pose)[:, None]
    return ((own >= BAR_AND_STEM_M.min(1)) & (own <= BAR_AND_STEM_M.max(1))).all(-1).any(-1)


def test_the_outline_encloses_the_bar_and_the_stem():
    assert area(OUTLINE_M) == pytest.approx(T_M2) == pytest.approx(0.0063)
    assert len(KEYPOINTS_M) == 9 and np.ptp(KEYPOINTS_M, axis=0) == pytest.approx([0.12, LENGTH_M])


def test_keypoints_tell_the_pose():
    for pose in poses(50):
        np.testing.assert_allclose(pose_of(placed(KEYPOINTS_M, pose)), pose, atol=1e-12)


def test_many_poses_are_placed_as_one_is_and_unplacing_is_the_inverse():
    many = poses(20)
    together = placed(OUTLINE_M, many)
    for points, pose in zip(together, many, strict=True):
        np.testing.assert_allclose(points, placed(OUTLINE_M, pose), atol=1e-15)
        np.testing.assert_allclose(unplaced(points, pose), OUTLINE_M, atol=1e-15)


def test_a_quarter_turn_takes_x_to_y():
    turned = np.array([1.0, 2.0, np.pi / 2])
    np.testing.assert_allclose(placed(np.array([[0.1, 0.0]]), turned), [[1.0, 2.1]], atol=1e-15)


def test_clipping_keeps_what_is_inside_and_nothing_else():
    np.testing.assert_array_equal(clipped(SQUARE * 0.5 + 0.2, SQUARE), SQUARE * 0.5 + 0.2)
    assert area(clipped(SQUARE * 3 - 1, SQUARE)) == pytest.approx(1.0)
    assert clipped(SQUARE + 2, SQUARE).shape == (0, 2) and area(clipped(SQUARE + 2, SQUARE)) == 0
    assert area(clipped(SQUARE + np.array([0.5, 0.75]), SQUARE)) == pytest.approx(0.5 * 0.25)
    diamond = np.array([(0.5, -0.5), (1.5, 0.5), (0.5, 1.5), (-0.5, 0.5)])  # its sides touch the square's corners
    assert area(clipped(diamond, SQUARE)) == pytest.approx(1.0)
    assert area(clipped(diamond - [0.5, 0.5], SQUARE)) == pytest.approx(0.5)  # a quarter of its area of 2


def test_coverage_is_one_at_the_goal_and_none_far_from_it():
    assert coverage(GOAL) == pytest.approx(1.0)
    assert coverage(moved(GOAL, 0, 0, 2 * np.pi)) == pytest.approx(1.0)
    assert coverage(moved(GOAL, 0.3, 0.0, 0.0)) == 0


@pytest.mark.parametrize("shift_m", [0.001, 0.01, 0.025])
def test_a_shift_along_the_stem_uncovers_a_strip_as_wide_as_the_bar(shift_m):
    upright = np.array([0.2, 0.2, 0.0])
    assert coverage(moved(upright, 0, shift_m, 0), goal=upright) == pytest.approx(1 - 0.12 * shift_m / T_M2)


def test_coverage_is_the_share_of_points_of_the_goal_that_lie_in_the_t():
    points = np.random.default_rng(0).uniform(0.1, 0.4, (200_000, 2))
    of_goal = points[inside(points, GOAL)]
    for off in poses(20) - [SIDE_M / 2, SIDE_M / 2, 0]:
        pose = GOAL + off * [0.15, 0.15, 0.5]
        share = inside(of_goal, pose).mean()
        assert abs(coverage(pose) - share) < 5 * 0.5 / np.sqrt(len(of_goal))


def test_coverage_is_mutual_and_does_not_depend_on_where_both_are():
    for one, other, moved in zip(poses(20), poses(20, seed=1) * [0.3, 0.3, 1], poses(20, seed=2), strict=True):
        one = one * [0.3, 0.3, 1]
        assert coverage(one, goal=other) == pytest.approx(coverage(other, goal=one))
        along = [np.array([*placed(pose[None, :2], moved)[0], pose[2] + moved[2]]) for pose in (one, other)]
        assert coverage(along[0], goal=along[1]) == pytest.approx(coverage(one, goal=other))
