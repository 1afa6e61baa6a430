"""Meta-World v3 as gymnasium environments whose episodes are decided by their seed alone.

Meta-World's own `reset(seed=...)` ignores the seed, draws goals from a list of 50 and hides the goal. Here the
observation shows the goal, and the initial state is drawn from the seed: equal seeds give bit-equal episodes, in a
fresh environment as in a used one.
"""

import copy
import warnings
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .rendering import Camera, check_options, import_mujoco
from .tasks import METAWORLD_NAMES, Expert

import_mujoco()  # before metaworld does, so that the rendering backend is our choice

from metaworld.env_dict import ENV_CLS_MAP  # noqa: E402
from metaworld.policies import ENV_POLICY_MAP  # noqa: E402

# What a reset of Meta-World may move in the model (a drawer, a door, a goal's site) and leave moved.
_MODEL_FIELDS = ("body_pos", "body_quat", "geom_pos", "geom_quat", "geom_size", "site_pos", "site_quat", "eq_data")
# A pushed object is moved in steps so short that it cannot jump over a wall, and may not sink deeper than this.
_SLIDE_M, _SUNK_M = 0.005, 0.001
_CARRIED_Z_M = 0.05  # a peg on the table lies at 0.03
_NOT_SNAPSHOT = ("model", "data", "mujoco_renderer", "_np_random", "_np_random_seed")


class MetaWorldEnv(gymnasium.Env):
    """One Meta-World task. Observation float64 [39], action float32 [4]: hand motion (x, y, z) and gripper effort.

    An action of 1 moves the hand's target by 1 cm; a step lasts 12.5 ms. Success is in `info["success"]` and
    `info["is_success"]` after each step, and ends the episode where `stop_on_success` is true.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012  gymnasium's own form

    def __init__(
        self,
        name: str = "pick-place-v3",
        *,
        max_steps: int = 500,
        stop_on_success: bool = True,
        render_mode: str | None = None,
        camera: str = "corner2",
        width: int = 256,
        height: int = 256,
    ):
        if name.removesuffix("-v3") not in METAWORLD_NAMES:
            raise InputError(f"got unknown Meta-World task {name!r}, wanted a name such as pick-place-v3")
        check_options(max_steps, render_mode)
        self.max_steps, self.stop_on_success, self.render_mode = max_steps, stop_on_success, render_mode
        self._sim = _goal_observable(name)
        self._pristine = _snapshot(self._sim)
        # Meta-World's corner cameras are mounted upside down.
        self._camera = Camera(
            self._sim.model, name=camera, width=width, height=height, half_turn=camera.startswith("corner")
        )
        self.observation_space = self._sim.observation_space
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start an episode. Its initial state is a function of `seed`, which is drawn where none is given."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        _restore(self._sim, self._pristine)
        self._sim.np_random = np.random.default_rng(seed)
        observation, _ = self._sim.reset()
        self._steps = 0
        return observation, {"seed": seed, "success": False, "is_success": False}

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float64], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step of 12.5 ms. Raises InputError for an action of another shape or with a NaN."""
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (4,) or not np.isfinite(action).all():
            raise InputError(f"got action {action.tolist()}, wanted 4 finite numbers: check the policy's output")
        observation, reward, _, _, info = self._sim.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        success = bool(info["success"])
        info.update(success=success, is_success=success)
        terminated = success and self.stop_on_success
        return observation, reward, terminated, self._steps >= self.max_steps, info

    def push(self, displacement_xy_m: NDArray[Any]) -> None:
        """Push the task's object, or else the hand, by (x, y) [m].

        The object (a body free to move; a task has one or none) is slid along and left at rest. The hand is pushed
        instead where there is none, where the hand has hold of it or touches it, and where something is in the way
        of it: then the hand's target is displaced, within its workspace, and the hand follows with what it holds.
        """
        displacement_xy_m = np.asarray(displacement_xy_m, np.float64)
        if not _slide_object(self._sim.model, self._sim.data, displacement_xy_m):
            target_m = self._sim.data.mocap_pos[0]
            target_m[:2] += displacement_xy_m
            target_m[:] = np.clip(target_m, self._sim.mocap_low, self._sim.mocap_high)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The present frame, uint8 [height, width, 3]; None where no render mode was asked for."""
        return self._camera.frame(self._sim.data) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the renderer."""
        self._camera.close()
        self._sim.close()


def scripted_expert(name: str) -> Expert:
    """Meta-World's scripted policy of that task: observation [39] -> action float32 [4] in [-1, 1].

    One is mended. At far goals a carried peg hangs lower in the gripper than the script of peg-insert-side allows; it
    takes the peg for lost and carries it away for ever, in one episode of seven. It is shown the peg where it should
    hang while it is carried.
    """
    policy, mend = ENV_POLICY_MAP[name](), _show_carried_peg if name == "peg-insert-side-v3" else np.array

    def act(observation: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that large actions are clipped, which is done here
            return np.clip(policy.get_action(mend(observation, np.float64)), -1.0, 1.0).astype(np.float32)

    return act


def _show_carried_peg(observation: np.ndarray, dtype: type) -> np.ndarray:
    """A copy in which a carried peg, up to 6 cm below the hand, is at most 2 cm below it."""
    shown = np.array(observation, dtype)
    hand_z_m, peg_z_m = shown[2], shown[6]
    if peg_z_m > _CARRIED_Z_M and hand_z_m - peg_z_m < 0.06:
        shown[6] = max(peg_z_m, hand_z_m - 0.02)
    return shown


def _goal_observable(name: str) -> Any:
    """Meta-World's environment, with the goal shown and the initial state drawn from its `np_random`."""
    sim: Any = ENV_CLS_MAP[name]()
    sim._partially_observable = False
    sim.__dict__.pop("sawyer_observation_space", None)  # cached while the goal was hidden
    sim.observation_space = sim.sawyer_observation_space
    sim._freeze_rand_vec = False
    sim.seeded_rand_vec = True
    sim._set_task_called = True
    sim.max_path_length = float("inf")  # episodes are counted here
    return sim


def _snapshot(sim: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a reset or a step may change, apart from mujoco's data."""
    attributes = {key: value for key, value in vars(sim).items() if key not in _NOT_SNAPSHOT}
    return _copied(attributes), {field: getattr(sim.model, field).copy() for field in _MODEL_FIELDS}


def _restore(sim: Any, pristine: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    """Bring a used environment back to the state it was built in, so that its past cannot leak into an episode."""
    attributes, fields = pristine
    kept = {key: value for key, value in vars(sim).items() if key in _NOT_SNAPSHOT}
    sim.__dict__.clear()
    sim.__dict__.update(kept, **_copied(attributes))
    for field, value in fields.items():
        getattr(sim.model, field)[:] = value
    mujoco = import_mujoco()
    mujoco.mj_resetData(sim.model, sim.data)
    mujoco.mj_forward(sim.model, sim.data)


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    """A copy of the attributes. Arrays that look into mujoco's data must go on looking into it."""
    return {
        key: value if isinstance(value, np.ndarray) and not value.flags.owndata else copy.deepcopy(value)
        for key, value in attributes.items()
    }


def _slide_object(model: Any, data: Any, displacement_xy_m: np.ndarray) -> bool:
    """Slide the free body by (x, y) [m]. False, with nothing moved, where there is none or something is in its way."""
    mujoco = import_mujoco()
    free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    if not len(free):
        return False
    position, velocity = model.jnt_qposadr[free[0]], model.jnt_dofadr[free[0]]
    xy_m = data.qpos[position : position + 2]  # a view
    start_m, sunk_m = xy_m.copy(), _sunk_m(model, data, free[0])
    if sunk_m == np.inf:
        return False
    moves = 1 + int(np.hypot(*displacement_xy_m) / _SLIDE_M)
    for share in np.linspace(0.0, 1.0, moves + 1)[1:]:
        xy_m[:] = start_m + share * displacement_xy_m
        mujoco.mj_fwdPosition(model, data)
        if _sunk_m(model, data, free[0]) > max(sunk_m, _SUNK_M):
            break
    else:
        data.qvel[velocity : velocity + 6] = 0.0
        return True
    xy_m[:] = start_m
    mujoco.mj_fwdPosition(model, data)
    return False


def _sunk_m(model: Any, data: Any, joint: int) -> float:
    """How deep the body of a free joint is in anything else [m]; infinite where it touches the robot."""
    ours, robot = (model.body_rootid[body] for body in (model.jnt_bodyid[joint], model.body("hand").id))
    deepest_m = 0.0
    for contact in data.contact:
        roots = model.body_rootid[model.geom_bodyid[contact.geom]]
        if ours in roots:
            deepest_m = np.inf if robot in roots else max(deepest_m, -contact.dist)
    return deepest_m
