"""Avoid: a point tool on a table passes three rows of obstacles without touching anything.

Like a Galton board: behind the gap it came through, the tool faces one obstacle of the next row and goes round it on
the left or on the right. Three rows give eight modes, all equally good. A policy that averages two of them drives
into the obstacle between. In the manner of Avoiding in D3IL (Jia et al., ICLR 2024), with jittered obstacles.

Lengths are in metres: x to the right, y forward. Seen from above, with the goal line at the top:

    - - - - - - - - -
       o    o    o        row 3
         o    o           row 2
           o              row 1
           .              start
"""

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .rendering import Camera, check_options, import_mujoco

mujoco: Any = import_mujoco()

ROW_Y_M = (0.12, 0.28, 0.44)
GOAL_Y_M = 0.58
WALL_X_M = 0.30  # inner faces of the side walls are at plus and minus this
SPACING_M = 0.16  # between obstacles of a row
OBSTACLE_RADIUS_M, TOOL_RADIUS_M = 0.02, 0.008
START_M, START_JITTER_M = (0.0, -0.04), (0.015, 0.01)
OBSTACLE_JITTER_M = 0.01
ACTION_M = 0.01  # an action of 1 moves the tool's target by this
TICK_S, SUBSTEPS = 0.05, 10
ROW_OF_OBSTACLE = (0, 1, 1, 2, 2, 2)
SIDES = "LR"
COLOURS = ("0.86 0.33 0.26", "0.93 0.58 0.20", "0.30 0.48 0.78")  # of the rows


def nominal_obstacles() -> NDArray[np.float64]:
    """Places of the obstacles before jitter, row by row from the left. [6, 2] m"""
    rows = ((row, place) for row in range(len(ROW_Y_M)) for place in range(row + 1))
    return np.array([((place - row / 2) * SPACING_M, ROW_Y_M[row]) for row, place in rows])


class AvoidEnv(gymnasium.Env):
    """Observation float64 [6], action float32 [2] in [-1, 1].

    Action: how far the tool's target moves to the right and forward; 1 is 1 cm.
    Observation, in metres: tool (x, y), the target from the tool (x, y), the facing obstacle from the tool (x, y).
    An obstacle is faced until the tool has crossed its row's line; the last row's stays.
    A step lasts 50 ms. Success is the tool at the goal line (y of at least 0.58 m), and ends the episode where
    `stop_on_success` is true. A contact with an obstacle or a wall ends it always, without success.

    `info` has `success` and `is_success`, `mode` (the sides on which the facing obstacles were passed so far, such
    as "LRL") and `clearance_m` (the least gap between tool and obstacles so far).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  gymnasium's own form

    def __init__(
        self,
        *,
        max_steps: int = 200,
        stop_on_success: bool = True,
        render_mode: str | None = None,
        camera: str = "behind",
        width: int = 256,
        height: int = 256,
    ):
        check_options(max_steps, render_mode)
        self.max_steps, self.stop_on_success, self.render_mode = max_steps, stop_on_success, render_mode
        self._model = mujoco.MjModel.from_xml_string(_scene())
        self._data = mujoco.MjData(self._model)
        self._obstacle_bodies = [self._model.body(f"obstacle_{i}").id for i in range(len(ROW_OF_OBSTACLE))]
        self._camera = Camera(self._model, name=camera, width=width, height=height)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._obstacles_m = nominal_obstacles()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start an episode. Its initial state is a function of `seed`, which is drawn where none is given."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        rng = np.random.default_rng(seed)
        start_m = np.array(START_M) + rng.uniform(-1.0, 1.0, 2) * START_JITTER_M
        self._obstacles_m = nominal_obstacles() + rng.uniform(-1.0, 1.0, (6, 2)) * OBSTACLE_JITTER_M
        mujoco.mj_resetData(self._model, self._data)
        self._model.body_pos[self._obstacle_bodies, :2] = self._obstacles_m
        self._data.qpos[:] = self._data.ctrl[:] = start_m
        mujoco.mj_forward(self._model, self._data)
        self._steps, self._mode, self._facing, self._clearance_m = 0, "", 0, self._gap_to_nearest_m()
        self._touched = self._succeeded = False
        return self._observation(), {"seed": seed, **self._info()}

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float64], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step of 50 ms. The reward is 1 at success. Raises InputError for an action misshapen or with a NaN."""
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise InputError(f"got action {action.tolist()}, wanted 2 finite numbers: check the policy's output")
        self._data.ctrl[:] += ACTION_M * np.clip(action, -1.0, 1.0)
        for _ in range(SUBSTEPS):
            mujoco.mj_step(self._model, self._data)
            self._feel()
        self._note_rows_passed()
        self._succeeded = not self._touched and bool(self._succeeded or self._data.qpos[1] >= GOAL_Y_M)
        self._steps += 1
        terminated = self._touched or (self._succeeded and self.stop_on_success)
        return self._observation(), float(self._succeeded), terminated, self._steps >= self.max_steps, self._info()

    def push(self, displacement_m: NDArray[Any]) -> None:
        """Push the tool, and its target with it, by (x, y) [m]; what it meets on the way counts as touched."""
        for _ in range(SUBSTEPS):  # in small moves, so that it cannot jump over an obstacle
            self._data.qpos[:] += np.asarray(displacement_m, np.float64) / SUBSTEPS
            mujoco.mj_forward(self._model, self._data)
            self._feel()
        self._data.ctrl[:] += displacement_m

    @property
    def tool_m(self) -> NDArray[np.float64]:
        """Where the tool is, (x, y). [2] m"""
        return self._data.qpos.copy()

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The present frame, uint8 [height, width, 3]; None where no render mode was asked for."""
        return self._camera.frame(self._data) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the renderer."""
        self._camera.close()

    def _observation(self) -> NDArray[np.float64]:
        tool_m = self._data.qpos
        return np.concatenate([tool_m, self._data.ctrl - tool_m, self._obstacles_m[self._facing] - tool_m])

    def _info(self) -> dict[str, Any]:
        return {
            "success": self._succeeded,
            "is_success": self._succeeded,
            "mode": self._mode,
            "clearance_m": self._clearance_m,
        }

    def _feel(self) -> None:
        """Note the gap and any contact. Contacts are those of a substep ago, so the gap is looked at as well."""
        self._clearance_m = min(self._clearance_m, self._gap_to_nearest_m())
        self._touched = self._touched or self._data.ncon > 0 or self._clearance_m <= 0

    def _gap_to_nearest_m(self) -> float:
        """Between the tool's surface and the nearest obstacle's; below 0 they overlap."""
        apart_m = np.hypot(*(self._obstacles_m - self._data.qpos).T)
        return float(apart_m.min()) - OBSTACLE_RADIUS_M - TOOL_RADIUS_M

    def _note_rows_passed(self) -> None:
        """A letter for each row whose line the tool has crossed: on which side it left the obstacle that it faced.

        Behind gap g of a row (0 is left of all its obstacles) the tool faces obstacle g of the next one.
        """
        x_m, y_m = self._data.qpos
        while len(self._mode) < len(ROW_Y_M) and y_m > ROW_Y_M[len(self._mode)]:
            row = len(self._mode)
            self._mode += SIDES[int(x_m > self._obstacles_m[self._facing, 0])]
            if row + 1 < len(ROW_Y_M):
                gap = int((self._obstacles_m[np.equal(ROW_OF_OBSTACLE, row), 0] < x_m).sum())
                self._facing = ROW_OF_OBSTACLE.index(row + 1) + gap


def _scene() -> str:
    """The MuJoCo model. The tool is on two slides, x and y, and is drawn to its target by critically damped springs."""
    obstacles = "".join(
        f'<body name="obstacle_{i}" pos="{x} {y} 0.03">'
        f'<geom type="cylinder" size="{OBSTACLE_RADIUS_M} 0.03" rgba="{COLOURS[ROW_OF_OBSTACLE[i]]} 1"/></body>'
        for i, (x, y) in enumerate(nominal_obstacles())
    )
    length_m = GOAL_Y_M + 0.30
    middle_m = length_m / 2 - 0.15
    wall = f'type="box" size="0.01 {length_m / 2} 0.015" rgba="0.45 0.47 0.5 1"'
    return f"""
    <mujoco model="avoid">
      <option timestep="{TICK_S / SUBSTEPS}" gravity="0 0 0"/>
      <visual><headlight ambient="0.4 0.4 0.4" diffuse="0.3 0.3 0.3" specular="0 0 0"/></visual>
      <asset>
        <texture name="sky" type="skybox" builtin="gradient" rgb1="0.93 0.95 0.97" rgb2="0.8 0.84 0.88"
          width="64" height="384"/>
        <texture name="table" type="2d" builtin="checker" rgb1="0.9 0.89 0.86" rgb2="0.87 0.86 0.83"
          width="256" height="256"/>
        <material name="table" texture="table" texrepeat="12 12"/>
      </asset>
      <default><default class="drawn"><geom contype="0" conaffinity="0"/></default></default>
      <worldbody>
        <light pos="-0.4 -0.2 1.2" dir="0.35 0.4 -1" diffuse="0.35 0.35 0.35" specular="0.1 0.1 0.1"/>
        <camera name="behind" pos="0 -0.44 0.66" xyaxes="1 0 0 0 0.64 0.77" fovy="44"/>
        <camera name="top" pos="0 {middle_m - 0.02} 1.0" xyaxes="1 0 0 0 1 0" fovy="45"/>
        <geom class="drawn" type="box" pos="0 {middle_m} -0.01" size="0.45 {length_m / 2 + 0.1} 0.01"
          material="table"/>
        <geom class="drawn" type="box" pos="0 {GOAL_Y_M} 0" size="{WALL_X_M} 0.006 0.001" rgba="0.2 0.65 0.35 1"/>
        <geom pos="{-WALL_X_M - 0.01} {middle_m} 0.015" {wall}/>
        <geom pos="{WALL_X_M + 0.01} {middle_m} 0.015" {wall}/>
        {obstacles}
        <body name="tool" pos="0 0 0.035">
          <joint name="x" type="slide" axis="1 0 0"/>
          <joint name="y" type="slide" axis="0 1 0" range="-0.13 {GOAL_Y_M + 0.12}" limited="true"/>
          <camera name="carried" pos="0 0.12 0.45" xyaxes="1 0 0 0 1 0" fovy="45"/>
          <geom type="cylinder" size="{TOOL_RADIUS_M} 0.03" mass="0.5" rgba="0.15 0.16 0.2 1"/>
          <geom class="drawn" type="sphere" pos="0 0 0.04" size="0.014" mass="0.01" rgba="0.15 0.16 0.2 1"/>
        </body>
      </worldbody>
      <actuator>
        <position joint="x" kp="400" dampratio="1"/>
        <position joint="y" kp="400" dampratio="1"/>
      </actuator>
    </mujoco>"""
