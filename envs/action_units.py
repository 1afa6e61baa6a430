"""Which actions of some demonstrations keep the units they have, and which are grippers.

By their task or, where they name none of ours, by robosuite's controller: 7 numbers an arm of displacements, or 10 of
absolute poses with rotation_6d; the last of each is the gripper.
"""

from typing import Any, NamedTuple

from .demonstrations import ROBOSUITE_TYPE
from .robomimic_hdf5 import is_absolute
from .rotations import LEARNT, STORED
from .tasks import TASKS


class ActionUnits(NamedTuple):
    """Indices of the action."""

    unfitted: tuple[int, ...]  # left as they are; the others are stretched to the limits of the data
    grippers: tuple[int, ...]


def action_units(attributes: dict[str, Any], action_dim: int) -> ActionUnits:
    """attributes: of the demonstrations. None where they tell neither a task nor robosuite's controller."""
    task = TASKS.get(str(attributes.get("task")))
    if task is not None and task.action_dim == action_dim:
        return ActionUnits(task.unfitted_dims, task.gripper_dims)
    env_args = attributes.get("env_args") or {}
    absolute = is_absolute(env_args)
    arm = LEARNT if absolute else STORED
    if env_args.get("type") != ROBOSUITE_TYPE or action_dim % arm:
        return ActionUnits((), ())
    own = range(3, 9) if absolute else range(6)
    arms = range(0, action_dim, arm)
    return ActionUnits(tuple(i + k for i in arms for k in own), tuple(i + arm - 1 for i in arms))
