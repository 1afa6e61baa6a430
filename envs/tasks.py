"""The tasks: what a policy sees, what it commands, who can show it, and how to make one."""

import difflib
import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field
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

    def make(self, render: bool = False, **options: Any) -> gymnasium.Env:
        """The environment; `options` are those of its constructor (`max_steps`, `stop_on_success`, ...)."""
        return gymnasium.make(self.id, render_mode="rgb_array" if render else None, **options)

    def expert(self, style: np.random.Generator | None = None) -> Expert:
        """A scripted expert for one episode, its actions within [-1, 1].

        With `style` it has a manner of its own, drawn from there: on Meta-World its speed, heights, pauses and grasp,
        on Avoid its route, speed and margin. Without, every episode is done the one plain way.
        """
        return self.make_expert(style)

    def hold(self, last_action: np.ndarray) -> np.ndarray:
        """The action where no answer is there: no motion, the gripper as it was. [..., Da] -> [..., Da]"""
        action = np.zeros_like(last_action)
        gripper = list(self.gripper_dims)
        action[..., gripper] = last_action[..., gripper]
        return action

    @property
    def v_max(self) -> np.ndarray:
        """[Da] units of the command a second that a seam may change it by; infinite for grippers, which switch."""
        most = np.full(self.action_dim, self.speed)
        most[list(self.gripper_dims)] = np.inf
        return most

    @property
    def version(self) -> dict[str, str]:
        """The versions of the packages that decide what an episode looks like."""
        return {package: importlib.metadata.version(package) for package in self.packages}


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

TASKS: dict[str, Task] = {
    task.id: task for task in (AVOID, *(_metaworld_task(f"{name}-v3") for name in METAWORLD_NAMES))
}
