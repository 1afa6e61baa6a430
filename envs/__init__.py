"""Simulated tasks, their experts and demonstrations.

Importing this makes the tasks known to gymnasium: `gymnasium.make("metaworld/pick-place-v3")`.
"""

from .seeds import demonstration_seeds, evaluation_seeds
from .tasks import TASKS, Task, find_task, register_environments

__all__ = ["TASKS", "Task", "demonstration_seeds", "evaluation_seeds", "find_task"]

register_environments()
