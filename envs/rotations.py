"""Rotations as numbers: axis-angle, matrices, the six numbers that policies learn; batches of them, in numpy.

A policy that commands absolute poses learns a rotation as the first two rows of its matrix (Zhou et al., On the
continuity of rotation representations, 2019, whose six numbers these are, in pytorch3d's order): they have no jumps,
where axis-angle jumps at pi. Actions of robomimic are stored in axis-angle, 7 numbers an arm, and learnt as 10.

Legend: ... any number of axes; arms side by side in the last one.
"""

import numpy as np

from ..errors import InputError

STORED, LEARNT = 7, 10  # numbers an arm: position, axis-angle, gripper; position, rotation_6d, gripper
SMALLEST = 1e-6  # shorter rows have no direction


def axis_angle_to_matrix(axis_angle: np.ndarray) -> np.ndarray:
    """[..., 3] rad -> [..., 3, 3]. Rodrigues: R = I + sin(a)/a K + (1 - cos(a))/a^2 K^2, K v = axis_angle x v."""
    x, y, z = np.moveaxis(np.asarray(axis_angle, np.float64), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    angle = np.sqrt(x * x + y * y + z * z)[..., None, None]
    # np.sinc(u) is sin(pi u) / (pi u), and 1 at 0: so both factors are exact at small angles.
    return np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (cross @ cross)


def matrix_to_axis_angle(matrix: np.ndarray) -> np.ndarray:
    """[..., 3, 3] -> [..., 3] rad, of a length from 0 to pi; at pi, either of the two axes."""
    return _quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """[..., 3, 3] -> [..., 4], unit, as (x, y, z, w) with w of at least 0."""
    m = np.asarray(matrix, np.float64)
    r = {(i, j): m[..., i, j] for i in range(3) for j in range(3)}
    # Four times the outer product of the quaternion (w, x, y, z) with itself: each row is the quaternion, scaled. The
    # row of the largest number on the diagonal is taken, which is never near zero (Shepperd, 1978).
    w, x, y, z = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 1] + r[1, 0]
    u, v = r[0, 2] + r[2, 0], r[1, 2] + r[2, 1]
    outer = np.stack(
        [
            *(1 + r[0, 0] + r[1, 1] + r[2, 2], w, x, y),
            *(w, 1 + r[0, 0] - r[1, 1] - r[2, 2], z, u),
            *(x, z, 1 - r[0, 0] + r[1, 1] - r[2, 2], v),
            *(y, u, v, 1 - r[0, 0] - r[1, 1] + r[2, 2]),
        ],
        -1,
    ).reshape(*m.shape[:-2], 4, 4)
    largest = np.diagonal(outer, axis1=-2, axis2=-1).argmax(-1)
    quaternion = np.take_along_axis(outer, largest[..., None, None], -2)[..., 0, :]
    quaternion = quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    return np.roll(quaternion, -1, axis=-1)


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """[..., 4], unit, as (x, y, z, w), robosuite's order -> [..., 3, 3]."""
    return axis_angle_to_matrix(_quaternion_to_axis_angle(np.asarray(quaternion, np.float64)))


def matrix_to_rotation_6d(matrix: np.ndarray) -> np.ndarray:
    """[..., 3, 3] -> [..., 6], the first two rows."""
    matrix = np.asarray(matrix)
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def rotation_6d_to_matrix(rotation_6d: np.ndarray) -> np.ndarray:
    """[..., 6], two rows that need be neither of unit length nor at right angles -> [..., 3, 3] (Gram-Schmidt).

    Raises InputError where a row is zero or the two are parallel: then they are no rotation.
    """
    rows = np.asarray(rotation_6d, np.float64)
    first = _unit(rows[..., :3])
    second = _unit(rows[..., 3:] - (first * rows[..., 3:]).sum(-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], -2)


def widen_actions(actions: np.ndarray) -> np.ndarray:
    """Absolute actions as robomimic stores them, [..., 7 arms] -> as policies learn them, [..., 10 arms]."""
    arms = _by_arm(np.asarray(actions), STORED)
    turned = matrix_to_rotation_6d(axis_angle_to_matrix(arms[..., 3:6]))
    return _joined(arms[..., :3], turned, arms[..., 6:]).astype(arms.dtype)


def narrow_actions(actions: np.ndarray) -> np.ndarray:
    """The inverse: [..., 10 arms] -> [..., 7 arms]. Raises InputError for rows that are no rotation."""
    arms = _by_arm(np.asarray(actions), LEARNT)
    turned = matrix_to_axis_angle(rotation_6d_to_matrix(arms[..., 3:9]))
    return _joined(arms[..., :3], turned, arms[..., 9:]).astype(arms.dtype)


def _quaternion_to_axis_angle(quaternion: np.ndarray) -> np.ndarray:
    vector, cosine = quaternion[..., :3], quaternion[..., 3:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)  # of half the angle
    angle = 2 * np.arctan2(sine, cosine)
    return vector * np.where(sine > 0, angle / np.where(sine > 0, sine, 1.0), 2.0)


def _by_arm(actions: np.ndarray, width: int) -> np.ndarray:
    if actions.shape[-1] == 0 or actions.shape[-1] % width:
        raise InputError(f"got absolute actions of {actions.shape[-1]} numbers, wanted {width} an arm")
    return actions.reshape(*actions.shape[:-1], -1, width)


def _joined(position: np.ndarray, rotation: np.ndarray, gripper: np.ndarray) -> np.ndarray:
    arms = np.concatenate([position, rotation, gripper], -1)
    return arms.reshape(*arms.shape[:-2], -1)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not (length > SMALLEST).all():
        raise InputError("got two rows that are no rotation (zero, or parallel): check the policy's output")
    return rows / length
