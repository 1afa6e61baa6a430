"""robosuite's Lift and PickPlaceCan, run through robomimic's own environment wrapper.

A Panda under operational space control at 20 Hz, as robomimic and Diffusion Policy evaluate it. The observation is
robomimic's low-dimensional one. Equal seeds give bit-equal episodes, in a fresh environment as in a used one: each
reset builds the scene anew, and everything random in it is drawn from the seed.
"""

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .rendering import Camera, check_options, import_mujoco
from .robosuite_wrapper import CONTROL_HZ, env_args, flat, wrapped
from .rotations import LEARNT, STORED, matrix_to_axis_angle, matrix_to_rotation_6d, narrow_actions
from .tasks import ROBOSUITE_KEYS, ROBOSUITE_OBJECT_DIMS

mujoco: Any = import_mujoco()

DELTA_M, DELTA_RAD = 0.05, 0.5  # what an action of 1 displaces the hand's target by, from where the hand is
_SUNK_M = 0.001  # a pushed object may not sink deeper than this into anything
_NUDGE_STEPS = 10  # a held object is brought to its new place by the hand within so many steps


class RobosuiteEnv(gymnasium.Env):
    """One robosuite task. A step lasts 50 ms.

    Observation float64: object, robot0_eef_pos (m), robot0_eef_quat (x, y, z, w), robot0_gripper_qpos: 19 numbers of
    Lift, 23 of PickPlaceCan.
    Action float32 [7] in [-1, 1]: displacement of the hand (x, y, z; 1 is 5 cm), its rotation about the world's axes
    (1 is 0.5 rad), gripper (-1 opens, 1 closes). With `absolute`, float32 [10]: the hand's pose in the world (x, y, z
    in m; rotation_6d), gripper; with a rotation of zeros, which is none, the hand stays where it is.
    Success is in `info["success"]` and `info["is_success"]` after each step, and ends the episode where
    `stop_on_success` is true.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  gymnasium's own form

    def __init__(
        self,
        name: str = "Lift",
        *,
        absolute: bool = False,
        max_steps: int = 400,
        stop_on_success: bool = True,
        render_mode: str | None = None,
        camera: str = "agentview",
        width: int = 256,
        height: int = 256,
    ):
        if name not in ROBOSUITE_OBJECT_DIMS:
            raise InputError(f"got unknown robosuite task {name!r}, wanted {' or '.join(ROBOSUITE_OBJECT_DIMS)}")
        check_options(max_steps, render_mode)
        self.name, self.absolute, self.max_steps, self.stop_on_success = name, absolute, max_steps, stop_on_success
        self.render_mode, self._view = render_mode, {"name": camera, "width": width, "height": height}
        self._camera: Camera | None = None
        self._sim = wrapped(env_args(name, absolute))
        width_of_observation = ROBOSUITE_OBJECT_DIMS[name] + sum(width for _, width in ROBOSUITE_KEYS)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (width_of_observation,), np.float64)
        bound, action_dim = (np.inf, LEARNT) if absolute else (1.0, STORED)
        self.action_space = gymnasium.spaces.Box(-bound, bound, (action_dim,), np.float32)
        self._steps, self._gripper = 0, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start an episode. Its initial state is a function of `seed`, which is drawn where none is given."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._close_camera()  # the scene that it looks at is about to go
        # The scene, the robot and the placement of objects share this one generator.
        self._sim.env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        seen = self._sim.reset()
        self._steps, self._gripper = 0, 0.0
        return flat(self._sim, seen), {"seed": seed, "success": False, "is_success": False}

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float64], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step of 50 ms. Raises InputError for an action of another shape, with a NaN, or that is no pose."""
        action = np.asarray(action, dtype=np.float32)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            wanted = f"{self.action_space.shape[0]} finite numbers"  # type: ignore[index]
            raise InputError(f"got action {action.tolist()}, wanted {wanted}: check the policy's output")
        command = self._pose_command(action) if self.absolute else np.clip(action, -1.0, 1.0)
        seen, reward, _, _ = self._sim.step(command)
        self._gripper = float(command[-1])
        self._steps += 1
        success = bool(self._sim.is_success()["task"])
        info, ended = {"success": success, "is_success": success}, success and self.stop_on_success
        return flat(self._sim, seen), float(reward), ended, self._steps >= self.max_steps, info

    def simulator_state(self) -> NDArray[np.float64]:
        """Time, positions and velocities of everything, as robomimic stores them. [Ds]"""
        return np.array(self._sim.env.sim.get_state().flatten(), np.float64)

    def scene_xml(self) -> str:
        """The episode's scene: its objects differ in size from one to the next."""
        return self._sim.env.model.get_xml()

    def push(self, displacement_xy_m: NDArray[Any]) -> None:
        """Push the task's object by (x, y) [m]: it is slid along and left at rest.

        Where the hand touches it, or something is in its way, the hand is brought to the displaced place instead,
        with what it holds, in half a second that is not counted as steps.
        """
        displacement_xy_m = np.asarray(displacement_xy_m, np.float64)
        if not self._slide_object(displacement_xy_m):
            self._nudge_hand(displacement_xy_m)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The present frame, uint8 [height, width, 3]; None where no render mode was asked for."""
        if self.render_mode != "rgb_array":
            return None
        model, data = self._model_and_data()
        if self._camera is None:
            model.geom_rgba[model.geom_group == 0, 3] = 0.0  # robosuite keeps the shapes of collisions there
            self._camera = Camera(model, **self._view)
        return self._camera.frame(data)

    def close(self) -> None:
        """Free the renderer and the simulation."""
        self._close_camera()
        if self._sim.env.sim is not None:
            self._sim.env.close()

    def _close_camera(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def _model_and_data(self) -> tuple[Any, Any]:
        """MuJoCo's own objects, of this episode."""
        sim = self._sim.env.sim
        return sim.model._model, sim.data._data

    def _hand_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] m and rotation matrix [3, 3] of what the controller moves, in the world."""
        _, data = self._model_and_data()
        site = self._sim.env.robots[0].eef_site_id["right"]
        return data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy()

    def _pose_command(self, action: np.ndarray) -> np.ndarray:
        """[10] -> [7] as the controller takes it."""
        action = action.astype(np.float64)
        if not action[3:9].any():
            position_m, rotation = self._hand_pose()
            action = np.concatenate([position_m, matrix_to_rotation_6d(rotation), action[9:]])
        return narrow_actions(action)

    def _object_joint(self) -> str:
        scene = self._sim.env
        thing = scene.cube if self.name == "Lift" else scene.objects[scene.object_id]
        return thing.joints[0]

    def _slide_object(self, displacement_xy_m: np.ndarray) -> bool:
        """False, with nothing moved, where the robot touches the object or something is in its way."""
        model, data = self._model_and_data()
        joint = model.joint(self._object_joint())
        position, velocity = int(joint.qposadr[0]), int(joint.dofadr[0])
        root = model.body_rootid[int(joint.bodyid[0])]
        xy_m = data.qpos[position : position + 2]  # a view
        start_m, sunk_m = xy_m.copy(), _sunk_m(model, data, root)
        if sunk_m == np.inf:
            return False
        for share in np.linspace(0.0, 1.0, 9)[1:]:  # in small moves, so that it cannot jump over a wall
            xy_m[:] = start_m + share * displacement_xy_m
            mujoco.mj_forward(model, data)
            if _sunk_m(model, data, root) > max(sunk_m, _SUNK_M):
                xy_m[:] = start_m
                mujoco.mj_forward(model, data)
                return False
        data.qvel[velocity : velocity + 6] = 0.0
        return True

    def _nudge_hand(self, displacement_xy_m: np.ndarray) -> None:
        position_m, rotation = self._hand_pose()
        goal_m = position_m + np.append(displacement_xy_m, 0.0)
        for _ in range(_NUDGE_STEPS):
            if self.absolute:
                command = np.concatenate([goal_m, matrix_to_axis_angle(rotation), [self._gripper]])
            else:
                here_m, turned = self._hand_pose()
                turn = matrix_to_axis_angle(rotation @ turned.T) / DELTA_RAD
                command = np.clip(np.concatenate([(goal_m - here_m) / DELTA_M, turn, [self._gripper]]), -1.0, 1.0)
            self._sim.step(command)


def _sunk_m(model: Any, data: Any, root: int) -> float:
    """How deep the object (the body tree under `root`) is in anything else [m]; infinite where the robot touches it."""
    robot, deepest_m = model.body_rootid[model.body("robot0_base").id], 0.0
    for contact in data.contact:
        roots = model.body_rootid[model.geom_bodyid[contact.geom]]
        if root in roots:
            deepest_m = np.inf if robot in roots else max(deepest_m, -contact.dist)
    return deepest_m
