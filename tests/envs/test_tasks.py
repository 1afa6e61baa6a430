"""The registry: every task can be found, and a misspelt one is told what is near."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from ontick.envs import TASKS, find_task
from ontick.errors import InputError


def test_all_tasks_are_known_to_gymnasium():
    assert sum(task_id.startswith("metaworld/") for task_id in TASKS) == 50
    assert all(task_id in gymnasium.registry for task_id in TASKS)


def test_a_misspelt_task_is_told_the_nearest_ids():
    with pytest.raises(InputError, match="metaworld/pick-place-v3"):
        find_task("metaworld/pick-plac-v3")
    with pytest.raises(InputError, match=f"one of {len(TASKS)}"):
        find_task("chess")


def test_importing_the_package_imports_no_simulator():
    code = "import ontick.envs, sys; print([m for m in ('mujoco', 'metaworld', 'torch', 'zarr') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_holding_keeps_the_gripper_and_stops_the_motion():
    last = np.array([[0.3, -0.2, 0.9, 0.7], [1, 1, 1, -1]], np.float32)
    held = find_task("metaworld/push-v3").hold(last)
    np.testing.assert_array_equal(held, np.array([[0, 0, 0, 0.7], [0, 0, 0, -1]], np.float32))
    assert held.dtype == np.float32


def test_a_task_names_the_versions_of_its_physics():
    assert set(find_task("metaworld/push-v3").version) == {"metaworld", "mujoco"}
