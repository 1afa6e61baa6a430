"""The tasks: what a policy sees, what it commands, who can show it, and how to make one."""

import difflib
import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np

from ..errors import InputError

Expert = Callable[[np.ndarray], np.ndarray]  # observation [Do] -> action float32 [Da]
MakeExpert = Callable[[np.random.Generator | None], Expert]  # a generator draws a style, None is the plain expert

# fmt: off
METAWORLD_NAMES = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press", "button-press-topdown",
    "button-press-topdown-wall", "button-press-wall", "coffee-button", "coffee-pull", "coffee-push", "dial-turn",
    "disassemble", "door-close", "door-lock", "door-open", "door-unlock", "drawer-close", "drawer-open",
    "faucet-close", "faucet-open", "hammer", "hand-insert", "handle-press", "handle-press-side", "handle-pull",
    "handle-pull-side", "lever-pull", "peg-insert-side", "peg-unplug-side", "pick-out-of-hole", "pick-place",
    "pick-place-wall", "plate-slide", "plate-slide-back", "plate-slide-back-side", "plate-slide-side", "push",
    "push-back", "push-wall", "reach", "reach-wall", "shelf-place", "soccer", "stick-pull", "stick-push", "sweep",
    "sweep-into", "window-close", "window-open",
)
# fmt: on


# How to get a simulator that is not set up with the rest.
INSTALL = {
    "robosuite": (
        "pip install --no-deps robosuite==1.5.2 && pip install numba==0.68.1 opencv-python-headless==5.0.0.93 "
        "(or `make robosuite`); its own pins would bring numpy below 2"
    )
}
# robosuite's tasks, with how many numbers of their observation tell of the object; and what tells of the robot.
ROBOSUITE_OBJECT_DIMS = {"Lift": 10, "PickPlaceCan": 14}
ROBOSUITE_KEYS = (("robot0_eef_pos", 3), ("robot0_eef_quat", 4), ("robot0_gripper_qpos", 2))


@dataclass(frozen=True)
class Task:
    """One task: Do observation numbers in, Da action numbers out, at most `max_steps` steps an episode."""

    id: str
    observation_dim: int
    action_dim: int
    max_steps: int
    gripper_dims: tuple[int, ...]  # indices of the action that are gripper commands, not motion
    packages: tuple[str, ...]  # what the physics depends on
    make_expert: MakeExpert
    entry_point: str  # "module:Class" of this package
    arguments: dict[str, Any] = field(default_factory=dict)  # of its constructor
    # Units of the command a second: what a seam between answers may change, grippers excepted. 50 ms allow 1, as much
    # as demonstrators change between two steps: their p99 is 0.47 to 1 on the shipped tasks.
    speed: float = 20.0
    # Indices of the action that are learnt in the units they have, not stretched to the limits of the data: a hand that
    # hardly turns in the demonstrations would otherwise be told to turn by noise.
    unfitted_dims: tuple[int, ...] = ()
    noise: float = 0.1  # standard deviation that `ontick demos` adds to each executed action, where it is not told one
    absolute: bool = False  # actions are places to be at, not motions
    # Of absolute actions: observation [Do] -> the action [Da] to stay, which is held until the first answer is there.
    stay: Callable[[np.ndarray], np.ndarray] | None = None
    # What the observation is made of, in its order, where it has parts with names: (robomimic's key, how many numbers).
    observation_keys: tuple[tuple[str, int], ...] = ()
    recorded_as: str | None = None  # its demonstrations are that task's, with other actions made of them
    env_args: Callable[[], dict[str, Any]] | None = None  # what robomimic's files keep of the environment

    def make(self, render: bool = False, **options: Any) -> gymnasium.Env:
        """The environment; `options` are those of its constructor (`max_steps`, `stop_on_success`, ...)."""
        return gymnasium.make(self.id, render_mode="rgb_array" if render else None, **options)

    def expert(self, style: np.random.Generator | None = None) -> Expert:
        """A scripted expert for one episode, its actions within [-1, 1].

        With `style` it has a manner of its own, drawn from there: on Meta-World its speed, heights, pauses and grasp,
        on Avoid its route, speed and margin, on Push-T its speeds, clearance and liking for a side. Without, every
        episode is done the one plain way.
        """
        return self.make_expert(style)

    def hold(self, last_action: np.ndarray) -> np.ndarray:
        """The action where no answer is there: no motion, the gripper as it was. [..., Da] -> [..., Da]

        Where actions are places, it is the last one again.
        """
        if self.absolute:
            return np.array(last_action)
        action = np.zeros_like(last_action)
        gripper = list(self.gripper_dims)
        action[..., gripper] = last_action[..., gripper]
        return action

    def neutral(self, observation: np.ndarray) -> np.ndarray:
        """What to hold before there was an action, from the first observation [Do]: zeros, or to stay there. [Da]"""
        return np.zeros(self.action_dim, np.float32) if self.stay is None else self.stay(observation)

    @property
    def v_max(self) -> np.ndarray:
        """[Da] units of the command a second that a seam may change it by; infinite for grippers, which switch."""
        most = np.full(self.action_dim, self.speed)
        most[list(self.gripper_dims)] = np.inf
        return most

    @property
    def version(self) -> dict[str, str]:
        """The versions of the packages that decide what an episode looks like. InputError where one is missing."""
        try:
            return {package: importlib.metadata.version(package) for package in self.packages}
        except importlib.metadata.PackageNotFoundError as error:
            how = INSTALL.get(error.name, 'pip install "ontick[sim]"')
            raise InputError(f"got no package {error.name}, wanted what {self.id} runs in: {how}") from None


def find_task(task_id: str) -> Task:
    """The task of that id. Raises InputError, with the nearest ids, where there is none."""
    if task_id in TASKS:
        return TASKS[task_id]
    near = difflib.get_close_matches(task_id, TASKS, n=3, cutoff=0.5)
    wanted = f"did you mean {' or '.join(near)}?" if near else f"one of {len(TASKS)}, such as metaworld/pick-place-v3"
    raise InputError(f"got unknown task {task_id!r}: {wanted}")


def register_environments() -> None:
    """Make every task known to `gymnasium.make`. Its simulator is imported when an environment is made."""
    for task in TASKS.values():
        gymnasium.register(
            task.id,
            entry_point=f"{__package__}.{task.entry_point}",
            kwargs=task.arguments,
            disable_env_checker=True,  # it checks every step of every episode
        )


def _metaworld_expert(name: str, style: np.random.Generator | None) -> Expert:
    from .metaworld import scripted_expert
    from .styles import styled_expert

    script = scripted_expert(name)
    return script if style is None else styled_expert(name, script, style)


def _avoid_expert(style: np.random.Generator | None) -> Expert:
    from .avoid_expert import avoid_expert

    return avoid_expert(style)


def _avoid_pixels_expert(style: np.random.Generator | None) -> Expert:
    from .avoid_pixels_expert import avoid_pixels_expert

    return avoid_pixels_expert(style)


def _push_t_expert(style: np.random.Generator | None) -> Expert:
    from .push_t_expert import push_t_expert

    return push_t_expert(style)


def _push_t_stay(observation: np.ndarray) -> np.ndarray:
    from .push_t import action_of

    return action_of(observation[-2:])  # the tool's place


def _metaworld_task(name: str) -> Task:
    return Task(
        id=f"metaworld/{name}",
        observation_dim=39,
        action_dim=4,
        max_steps=500,
        gripper_dims=(3,),
        packages=("metaworld", "mujoco"),
        make_expert=functools.partial(_metaworld_expert, name),
        entry_point="metaworld:MetaWorldEnv",
        arguments={"name": name},
    )


def _robosuite_expert(name: str, style: np.random.Generator | None) -> Expert:
    from .robosuite_experts import pick_expert

    return pick_expert(name, style)


def _robosuite_no_expert(name: str, style: np.random.Generator | None) -> Expert:
    raise InputError(
        f"robosuite/{name}-abs has no expert: `ontick demos robosuite/{name}-abs --out FILE.hdf5` makes its "
        f"demonstrations of robosuite/{name}'s"
    )


def _robosuite_args(name: str, absolute: bool) -> dict[str, Any]:
    from .robosuite_wrapper import env_args

    return env_args(name, absolute)


def _robosuite_task(name: str, absolute: bool = False) -> Task:
    keys = (("object", ROBOSUITE_OBJECT_DIMS[name]), *ROBOSUITE_KEYS)
    return Task(
        id=f"robosuite/{name}-abs" if absolute else f"robosuite/{name}",
        observation_dim=sum(width for _, width in keys),
        action_dim=10 if absolute else 7,
        max_steps=400,
        gripper_dims=(9,) if absolute else (6,),
        packages=("robosuite", "mujoco"),
        make_expert=functools.partial(_robosuite_no_expert if absolute else _robosuite_expert, name),
        entry_point="robosuite_env:RobosuiteEnv",
        arguments={"name": name, "absolute": absolute},
        speed=2.0 if absolute else 20.0,
        unfitted_dims=tuple(range(3, 9))
        if absolute
        else tuple(range(6)),  # rotations; or all motion, as the field does
        absolute=absolute,
        recorded_as=f"robosuite/{name}" if absolute else None,
        observation_keys=keys,
        env_args=functools.partial(_robosuite_args, name, absolute),
    )


AVOID = Task(
    id="ontick/Avoid-v0",
    observation_dim=6,
    action_dim=2,
    max_steps=200,
    gripper_dims=(),
    packages=("mujoco",),
    make_expert=_avoid_expert,
    entry_point="avoid:AvoidEnv",
)

AVOID_PIXELS = replace(
    AVOID,
    id="ontick/AvoidPixels-v0",
    observation_dim=2 + 3 * 64 * 64,
    make_expert=_avoid_pixels_expert,
    entry_point="avoid_pixels:AvoidPixelsEnv",
)

PUSH_T = Task(
    id="ontick/PushT-v0",
    observation_dim=20,
    action_dim=2,
    max_steps=300,
    gripper_dims=(),
    packages=("mujoco",),
    make_expert=_push_t_expert,
    entry_point="push_t:PushTEnv",
    speed=2.5,
    noise=0.02,
    absolute=True,
    stay=_push_t_stay,
)

TASKS: dict[str, Task] = {
    task.id: task
    for task in (
        AVOID,
        AVOID_PIXELS,
        PUSH_T,
        *(_metaworld_task(f"{name}-v3") for name in METAWORLD_NAMES),
        *(_robosuite_task(name, absolute) for name in ROBOSUITE_OBJECT_DIMS for absolute in (False, True)),
    )
}
