"""The T of Push-T: its outline, its keypoints, its pose, and how much of a goal it covers.

The measures are those of the field's Push-T (Florence et al., IBC, CoRL 2021; Chi et al., Diffusion Policy, RSS 2023),
a unit of which is a millimetre here. x to the right, y down in the picture: angles turn clockwise for who looks at it.

Legend: the T's frame has its origin in the middle of the bar's outer edge and its stem along +y; a pose is (x [m],
y [m], yaw [rad]) of that frame in the workspace.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIDE_M = 0.512  # of the workspace, a square from (0, 0)
TOOL_RADIUS_M = 0.015
THICK_M, BAR_M, LENGTH_M = 0.030, 0.120, 0.120  # of bar and stem; along the bar; from the bar's outer edge to the foot
CENTRE_M = np.array([0.0, 0.045])  # the point that it turns about when it is pushed, in its own frame
GOAL: Floats = np.array([SIDE_M / 2, SIDE_M / 2, np.pi / 4])


def _rectangle(low: tuple[float, float], high: tuple[float, float]) -> Floats:
    return np.array([low, (high[0], low[1]), high, (low[0], high[1])])


# Corners in the order in which an outline with its inside to the left (x right, y up) has them. [2, 4, 2] m
BAR_AND_STEM_M = np.stack(
    [
        _rectangle((-BAR_M / 2, 0.0), (BAR_M / 2, THICK_M)),
        _rectangle((-THICK_M / 2, THICK_M), (THICK_M / 2, LENGTH_M)),
    ]
)
_BAR, _STEM = BAR_AND_STEM_M
OUTLINE_M: Floats = np.array([_BAR[0], _BAR[1], _BAR[2], _STEM[1], _STEM[2], _STEM[3], _STEM[0], _BAR[3]])  # [8, 2]
KEYPOINTS_M: Floats = np.concatenate([OUTLINE_M, [(0.0, THICK_M)]])  # its corners, and where the stem begins. [9, 2]


def placed(points_m: Floats, pose: Floats) -> Floats:
    """Points of the T's frame [..., P, 2] in the workspace, for poses [..., 3]."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)  # transposed: points are rows
    return points_m @ turn + pose[..., None, :2]


def unplaced(points_m: Floats, pose: Floats) -> Floats:
    """Points of the workspace [P, 2] in the T's frame, for one pose [3]: the inverse of `placed`."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    return (points_m - pose[:2]) @ np.array([[cos, -sin], [sin, cos]])


def pose_of(keypoints_m: Floats) -> Floats:
    """The pose [3] whose keypoints lie nearest to these [9, 2], in the sense of least squares."""
    own, seen = KEYPOINTS_M - KEYPOINTS_M.mean(0), keypoints_m - keypoints_m.mean(0)
    yaw = np.arctan2((own[:, 0] * seen[:, 1] - own[:, 1] * seen[:, 0]).sum(), (own * seen).sum())
    turned = placed(KEYPOINTS_M.mean(0)[None], np.array([0.0, 0.0, yaw]))[0]
    return np.array([*(keypoints_m.mean(0) - turned), yaw])


def coverage(pose: Floats, goal: Floats = GOAL) -> float:
    """The share of the goal T's area that a T at `pose` [3] covers, exactly: 0 apart, 1 at the goal."""
    common_m2 = sum(
        area(clipped(part, window)) for part in placed(BAR_AND_STEM_M, pose) for window in placed(BAR_AND_STEM_M, goal)
    )
    return common_m2 / sum(area(part) for part in BAR_AND_STEM_M)


def clipped(polygon: Floats, window: Floats) -> Floats:
    """What of a polygon [P, 2] lies in a convex window [W, 2]; both have their inside to the left. [Q, 2], Q may be 0.

    Sutherland and Hodgman (1974): one edge of the window after the other cuts off what lies to its right.
    """
    for start, end in zip(window, np.roll(window, -1, axis=0), strict=True):
        along = end - start
        left = along[0] * (polygon[:, 1] - start[1]) - along[1] * (polygon[:, 0] - start[0])
        kept = []
        for i in range(len(polygon)):  # the edge from the corner before to this one
            if (left[i - 1] < 0) != (left[i] < 0):
                share = left[i - 1] / (left[i - 1] - left[i])
                kept.append(polygon[i - 1] + share * (polygon[i] - polygon[i - 1]))
            if left[i] >= 0:
                kept.append(polygon[i])
        polygon = np.array(kept).reshape(-1, 2)
    return polygon


def area(polygon: Floats) -> float:
    """Of a polygon [P, 2] with its inside to the left; 0 where it has no corners."""
    x, y = polygon.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
