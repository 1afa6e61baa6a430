"""Push-T: a round tool pushes a T over a table until it covers its goal.

The field's best-known task (Florence et al., IBC, CoRL 2021; Chi et al., Diffusion Policy, RSS 2023), here in MuJoCo:
its measures, controller, goal, reward and limits of the draws, but another physics engine.

Lengths are in metres: x to the right, y down in the picture, z into the table. The workspace is 0.512 m wide.
"""

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .push_t_shape import (
    BAR_AND_STEM_M,
    CENTRE_M,
    GOAL,
    KEYPOINTS_M,
    OUTLINE_M,
    SIDE_M,
    TOOL_RADIUS_M,
    coverage,
    placed,
    unplaced,
)
from .rendering import Camera, check_options, import_mujoco

mujoco: Any = import_mujoco()

TICK_S, SUBSTEPS = 0.1, 20
STIFFNESS, DRAG = 100.0, 20.0  # the tool's acceleration a metre from its target [1/s2], and a metre a second [1/s]
COVERED = 0.95  # of the goal's area, for success
WALLS_M = (0.007, 0.504)  # inner faces of the walls, in x as in y
TOOL_FROM_M, T_FROM_M = (0.05, 0.45), (0.1, 0.4)  # where they begin, in x as in y
CLEAR_M = 0.001  # between the tool and the T, and the T and the walls, at the start

# A T without thrust stops within TICK_S / 10: the table's drag takes its speed with this rate. Rotation and motion are
# slowed alike, so the radius of gyration says how a push shares out. The tool is so heavy that the T does not move it.
T_KG, GYRATION_M, T_DRAG_PER_S = 0.1, 0.0548, 100.0
TOOL_KG = 100.0


class PushTEnv(gymnasium.Env):
    """Observation float64 [20], action float32 [2] in [-1, 1].

    Action: where the tool is to go, (x, y): -1 is 0 m, 1 is 0.512 m. It is a place, not a motion: the same action again
    means to stay. The tool is drawn there as the field's is: acceleration = 100 (target - place) - 20 velocity.
    Observation, in metres: the T's nine keypoints, (x, y) each, then the tool's (x, y). As the field's observation of
    low dimension, but the keypoints are the T's eight corners and the middle of the joint between bar and stem.
    A step lasts 100 ms. Reward: clip(coverage / 0.95, 0, 1), where coverage is the share of the goal T's area that
    the T covers. Success is a coverage above 0.95, and ends the episode where `stop_on_success` is true.

    `info` has `success` and `is_success` (so far), `coverage` and `max_coverage`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  gymnasium's own form

    def __init__(
        self,
        *,
        max_steps: int = 300,
        stop_on_success: bool = True,
        render_mode: str | None = None,
        camera: str = "top",
        width: int = 256,
        height: int = 256,
    ):
        check_options(max_steps, render_mode)
        self.max_steps, self.stop_on_success, self.render_mode = max_steps, stop_on_success, render_mode
        self._model = make_model()
        self._data = mujoco.MjData(self._model)
        self._camera = Camera(self._model, name=camera, width=width, height=height)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (20,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start an episode. Its initial state is a function of `seed`, which is drawn where none is given.

        `options` may hold "pose" [3] and "tool_m" [2]: then these are the initial state, and nothing is drawn.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        tool_m, pose = _start(np.random.default_rng(seed))
        tool_m, pose = (options or {}).get("tool_m", tool_m), (options or {}).get("pose", pose)
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = joints_of(np.asarray(tool_m), np.asarray(pose))
        self._data.ctrl[:] = tool_m
        mujoco.mj_forward(self._model, self._data)
        self._steps, self._max_coverage, self._succeeded = 0, 0.0, False
        self._look()
        return self._observation(), {"seed": seed, **self._info()}

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float64], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step of 100 ms. Raises InputError for an action misshapen or with a NaN."""
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise InputError(f"got action {action.tolist()}, wanted 2 finite numbers: check the policy's output")
        self._data.ctrl[:] = target_of(np.clip(action, -1.0, 1.0))
        mujoco.mj_step(self._model, self._data, SUBSTEPS)
        self._steps += 1
        self._look()
        reward = min(self._coverage / COVERED, 1.0)
        terminated = self._succeeded and self.stop_on_success
        return self._observation(), reward, terminated, self._steps >= self.max_steps, self._info()

    def push(self, displacement_m: NDArray[Any]) -> None:
        """Displace the T by (x, y) [m], as far as the walls allow."""
        corners_m = placed(OUTLINE_M, self.pose)
        low, high = WALLS_M[0] - corners_m.min(0), WALLS_M[1] - corners_m.max(0)
        self._data.qpos[2:4] += np.clip(displacement_m, np.minimum(low, 0.0), np.maximum(high, 0.0))
        mujoco.mj_forward(self._model, self._data)

    @property
    def tool_m(self) -> NDArray[np.float64]:
        """Where the tool is, (x, y). [2] m"""
        return self._data.qpos[:2].copy()

    @property
    def pose(self) -> NDArray[np.float64]:
        """Where the T is. [3], see `push_t_shape`"""
        return pose_from_joints(self._data.qpos)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The present frame, uint8 [height, width, 3]; None where no render mode was asked for."""
        return self._camera.frame(self._data) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the renderer."""
        self._camera.close()

    def _look(self) -> None:
        self._coverage = coverage(self.pose)
        self._max_coverage = max(self._max_coverage, self._coverage)
        self._succeeded = self._succeeded or self._coverage > COVERED

    def _observation(self) -> NDArray[np.float64]:
        return np.concatenate([placed(KEYPOINTS_M, self.pose).ravel(), self._data.qpos[:2]])

    def _info(self) -> dict[str, Any]:
        return {
            "success": self._succeeded,
            "is_success": self._succeeded,
            "coverage": self._coverage,
            "max_coverage": self._max_coverage,
        }


def target_of(action: NDArray[Any]) -> NDArray[np.float64]:
    """The place [..., 2] m that an action [..., 2] means."""
    return (np.asarray(action, np.float64) + 1.0) * (SIDE_M / 2)


def action_of(target_m: NDArray[np.float64]) -> NDArray[np.float32]:
    """The action [..., 2] that means this place [..., 2] m: the inverse of `target_of`."""
    return (target_m / (SIDE_M / 2) - 1.0).astype(np.float32)


def joints_of(tool_m: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """MuJoCo's qpos [5]: the tool's x, y, then x, y of the point that the T turns about, and its yaw."""
    return np.concatenate([tool_m, placed(CENTRE_M[None], pose)[0], pose[2:]])


def pose_from_joints(qpos: NDArray[np.float64]) -> NDArray[np.float64]:
    """The T's pose [..., 3] of qpos [..., 5]."""
    centred = np.concatenate([qpos[..., 2:4], qpos[..., 4:5]], -1)
    return np.concatenate([placed(-CENTRE_M[None], centred)[..., 0, :], qpos[..., 4:5]], -1)


def gap_m(tool_m: NDArray[np.float64], pose: NDArray[np.float64]) -> float:
    """Between the tool's surface and the T's; below 0 they overlap."""
    own_m = unplaced(tool_m[None], pose)[0]
    nearest_m = np.clip(own_m, BAR_AND_STEM_M.min(1), BAR_AND_STEM_M.max(1))  # in the bar, and in the stem
    return float(np.hypot(*(own_m - nearest_m).T).min()) - TOOL_RADIUS_M


def _start(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The tool's place [2] and the T's pose [3], drawn until nothing touches and the goal is not reached."""
    while True:
        tool_m, place_m = rng.uniform(*TOOL_FROM_M, 2), rng.uniform(*T_FROM_M, 2)
        pose = np.array([*place_m, rng.uniform(-np.pi, np.pi)])
        corners_m = placed(OUTLINE_M, pose)
        inside = corners_m.min() >= WALLS_M[0] + CLEAR_M and corners_m.max() <= WALLS_M[1] - CLEAR_M
        if inside and gap_m(tool_m, pose) >= CLEAR_M and coverage(pose) <= COVERED:
            return tool_m, pose


def make_model() -> Any:
    """The MuJoCo model. Tool and T move in the plane; the tool's surface is slippery, as the field's.

    What touches is tall, so that a deep contact is never resolved upwards, and not drawn; what is drawn is not touched.
    """
    low, high = WALLS_M
    bar, stem = (_box(part - CENTRE_M) for part in BAR_AND_STEM_M)
    goal_bar, goal_stem = (_box(part) for part in BAR_AND_STEM_M)
    wall = 'type="plane" size="1 1 1" contype="0" conaffinity="2" group="3"'
    drawn_wall = 'class="drawn" type="box" rgba="0.45 0.47 0.5 1"'
    inertia = T_KG * GYRATION_M**2
    drag = T_KG * T_DRAG_PER_S
    return mujoco.MjModel.from_xml_string(f"""
    <mujoco model="push_t">
      <compiler angle="radian"/>
      <option timestep="{TICK_S / SUBSTEPS}" gravity="0 0 0" integrator="implicitfast"/>
      <visual><headlight ambient="0.5 0.5 0.5" diffuse="0.4 0.4 0.4" specular="0 0 0"/></visual>
      <default>
        <geom condim="1" solref="0.01 1" solimp="0.99 0.999 0.001"/>
        <default class="drawn"><geom contype="0" conaffinity="0"/></default>
      </default>
      <worldbody>
        <light pos="0.1 0.1 -1" dir="0.15 0.15 1" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
        <camera name="top" pos="{SIDE_M / 2} {SIDE_M / 2} -0.75" xyaxes="1 0 0 0 -1 0" fovy="39"/>
        <geom class="drawn" type="box" pos="{SIDE_M / 2} {SIDE_M / 2} 0.03" size="0.4 0.4 0.01"
          rgba="0.93 0.92 0.89 1"/>
        <geom {wall} pos="{low} 0 0" zaxis="1 0 0"/>
        <geom {wall} pos="{high} 0 0" zaxis="-1 0 0"/>
        <geom {wall} pos="0 {low} 0" zaxis="0 1 0"/>
        <geom {wall} pos="0 {high} 0" zaxis="0 -1 0"/>
        <geom {drawn_wall} pos="{low - 0.003} {SIDE_M / 2} 0.01" size="0.003 {SIDE_M / 2} 0.012"/>
        <geom {drawn_wall} pos="{high + 0.003} {SIDE_M / 2} 0.01" size="0.003 {SIDE_M / 2} 0.012"/>
        <geom {drawn_wall} pos="{SIDE_M / 2} {low - 0.003} 0.01" size="{SIDE_M / 2} 0.003 0.012"/>
        <geom {drawn_wall} pos="{SIDE_M / 2} {high + 0.003} 0.01" size="{SIDE_M / 2} 0.003 0.012"/>
        <body name="goal" pos="{GOAL[0]} {GOAL[1]} 0.0195" euler="0 0 {GOAL[2]}">
          <geom class="drawn" type="box" {goal_bar} 0.0005" rgba="0.56 0.86 0.56 1"/>
          <geom class="drawn" type="box" {goal_stem} 0.0005" rgba="0.56 0.86 0.56 1"/>
        </body>
        <body name="tool">
          <inertial pos="0 0 0" mass="{TOOL_KG}" diaginertia="1 1 1"/>
          <joint name="tool_x" type="slide" axis="1 0 0"/>
          <joint name="tool_y" type="slide" axis="0 1 0"/>
          <geom type="sphere" size="{TOOL_RADIUS_M}" contype="1" conaffinity="0" group="3"/>
          <geom class="drawn" type="cylinder" size="{TOOL_RADIUS_M} 0.016" rgba="0.25 0.41 0.88 1"/>
        </body>
        <body name="t">
          <inertial pos="0 0 0" mass="{T_KG}" diaginertia="{inertia} {inertia} {inertia}"/>
          <joint name="t_x" type="slide" axis="1 0 0" damping="{drag}"/>
          <joint name="t_y" type="slide" axis="0 1 0" damping="{drag}"/>
          <joint name="t_yaw" type="hinge" axis="0 0 1" damping="{drag * GYRATION_M**2}"/>
          <geom type="box" {bar} 0.1" contype="2" conaffinity="1" group="3"/>
          <geom type="box" {stem} 0.1" contype="2" conaffinity="1" group="3"/>
          <geom class="drawn" type="box" {bar} 0.012" rgba="0.47 0.53 0.6 1"/>
          <geom class="drawn" type="box" {stem} 0.012" rgba="0.47 0.53 0.6 1"/>
        </body>
      </worldbody>
      <actuator>
        <position joint="tool_x" kp="{STIFFNESS * TOOL_KG}" kv="{DRAG * TOOL_KG}"/>
        <position joint="tool_y" kp="{STIFFNESS * TOOL_KG}" kv="{DRAG * TOOL_KG}"/>
      </actuator>
    </mujoco>""")


def _box(corners_m: NDArray[np.float64]) -> str:
    """`pos` and the beginning of `size` of a box with these corners [4, 2], up to its half height."""
    middle, half = corners_m.mean(0), np.ptp(corners_m, axis=0) / 2
    return f'pos="{middle[0]} {middle[1]} 0" size="{half[0]} {half[1]}'
