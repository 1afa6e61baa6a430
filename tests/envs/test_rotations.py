"""Rotations: every way of writing one gives it back, near no turn and near half a turn too."""

import numpy as np
import pytest

from ontick.envs.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    matrix_to_rotation_6d,
    narrow_actions,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
    widen_actions,
)
from ontick.errors import InputError

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation

ANGLES = [0.0, 1e-12, 1e-7, 1e-3, 0.5, 1.5, np.pi - 1e-3, np.pi - 1e-7, np.pi - 1e-12, np.pi]


def axes(n=200, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, 3))
    rows = np.concatenate([rows, np.eye(3), -np.eye(3)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_comes_back_from_its_matrix(angle):
    vectors = angle * axes()
    again = matrix_to_axis_angle(axis_angle_to_matrix(vectors))
    if angle < np.pi - 1e-9:
        np.testing.assert_allclose(again, vectors, atol=1e-7)
    # At half a turn the axis may point the other way: the rotation is the same.
    np.testing.assert_allclose(axis_angle_to_matrix(again), axis_angle_to_matrix(vectors), atol=1e-9)
    assert np.isfinite(again).all() and (np.linalg.norm(again, axis=1) <= np.pi + 1e-12).all()


@pytest.mark.parametrize("angle", [*ANGLES, 4.0, 7.0])
def test_matrices_are_those_of_scipy(angle):
    vectors = angle * axes(seed=1)
    np.testing.assert_allclose(axis_angle_to_matrix(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_axis_angles_of_random_rotations_are_those_of_scipy():
    rotations = Rotation.random(500, rng=np.random.default_rng(2))
    np.testing.assert_allclose(matrix_to_axis_angle(rotations.as_matrix()), rotations.as_rotvec(), atol=1e-9)


def test_quaternions_are_read_in_robosuites_order_and_either_sign_is_the_same_rotation():
    rotations = Rotation.random(100, rng=np.random.default_rng(3))
    for sign in (1, -1):
        np.testing.assert_allclose(quaternion_to_matrix(sign * rotations.as_quat()), rotations.as_matrix(), atol=1e-12)
    np.testing.assert_array_equal(quaternion_to_matrix(np.array([0.0, 0.0, 0.0, 1.0])), np.eye(3))
    quaternions = matrix_to_quaternion(rotations.as_matrix())
    np.testing.assert_allclose(quaternions, rotations.as_quat(canonical=True), atol=1e-9)


def test_rotation_6d_is_the_first_two_rows_and_comes_back():
    matrices = Rotation.random(100, rng=np.random.default_rng(4)).as_matrix()
    six = matrix_to_rotation_6d(matrices)
    np.testing.assert_array_equal(six[:, :3], matrices[:, 0])
    np.testing.assert_array_equal(six[:, 3:], matrices[:, 1])
    np.testing.assert_allclose(rotation_6d_to_matrix(six), matrices, atol=1e-12)


def test_a_networks_six_numbers_give_a_rotation_whose_first_row_points_as_theirs():
    six = np.random.default_rng(5).standard_normal((200, 6))
    matrices = rotation_6d_to_matrix(six)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(3), (200, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0, atol=1e-12)
    np.testing.assert_allclose(matrices[:, 0], six[:, :3] / np.linalg.norm(six[:, :3], axis=1, keepdims=True))
    assert (np.einsum("nd,nd->n", matrices[:, 1], six[:, 3:]) > 0).all()


@pytest.mark.parametrize("six", [np.zeros(6), [0, 0, 0, 1, 0, 0], [1, 2, 3, 2, 4, 6]])
def test_rows_that_are_no_rotation_are_refused(six):
    with pytest.raises(InputError, match="no rotation"):
        rotation_6d_to_matrix(np.array(six, float))


def test_any_number_of_axes_may_stand_in_front():
    vectors = axes()[:24].reshape(2, 3, 4, 3) * 0.7
    assert axis_angle_to_matrix(vectors).shape == (2, 3, 4, 3, 3)
    np.testing.assert_allclose(matrix_to_axis_angle(axis_angle_to_matrix(vectors)), vectors, atol=1e-12)
    np.testing.assert_allclose(matrix_to_axis_angle(axis_angle_to_matrix(vectors[0, 0, 0])), vectors[0, 0, 0])


@pytest.mark.parametrize("arms", [1, 2])
def test_absolute_actions_come_back_from_ten_numbers_an_arm(arms):
    rng = np.random.default_rng(6)
    stored = rng.uniform(-1, 1, (50, arms, 7))
    learnt = widen_actions(stored.reshape(50, -1))
    assert learnt.shape == (50, 10 * arms)
    np.testing.assert_array_equal(learnt.reshape(50, arms, 10)[..., :3], stored[..., :3])
    np.testing.assert_array_equal(learnt.reshape(50, arms, 10)[..., 9], stored[..., 6])
    np.testing.assert_allclose(narrow_actions(learnt), stored.reshape(50, -1), atol=1e-12)


def test_single_precision_stays_single_precision():
    assert widen_actions(np.zeros((3, 7), np.float32)).dtype == np.float32


@pytest.mark.parametrize("convert, width", [(widen_actions, 8), (narrow_actions, 7), (widen_actions, 0)])
def test_actions_of_another_width_are_refused(convert, width):
    with pytest.raises(InputError, match=f"absolute actions of {width} numbers"):
        convert(np.zeros((4, width)))
