"""What is said where robosuite is not installed, or a file comes from another version: told without the simulator."""

import importlib.metadata
import sys

import pytest

from ontick.commands import main
from ontick.envs import find_task, robosuite_wrapper
from ontick.errors import InputError

INSTALL = r"pip install --no-deps robosuite==1\.5\.2 && pip install numba=="


@pytest.fixture
def absent(monkeypatch):
    """As if robosuite were not installed, whether it is or not."""
    versions = importlib.metadata.version

    def version(name):
        if name == "robosuite":
            raise importlib.metadata.PackageNotFoundError(name)
        return versions(name)

    monkeypatch.setitem(sys.modules, "robosuite", None)
    monkeypatch.setattr(importlib.metadata, "version", version)


def test_making_the_environment_tells_how_to_install_it(absent):
    with pytest.raises(InputError, match=INSTALL):
        find_task("robosuite/Lift").make()


def test_asking_for_its_version_tells_how_to_install_it(absent):
    with pytest.raises(InputError, match=INSTALL):
        _ = find_task("robosuite/PickPlaceCan").version
    with pytest.raises(InputError, match=INSTALL):
        robosuite_wrapper.installed_version()


def test_the_command_tells_it_in_one_line_with_exit_code_2(absent, tmp_path, capsys):
    assert main(["demos", "--task", "robosuite/Lift", "--episodes", "1", "--out", str(tmp_path / "lift.hdf5")]) == 2
    error = capsys.readouterr().err
    assert "robosuite==1.5.2" in error.splitlines()[-1] and "Traceback" not in error


def test_absolute_tasks_have_no_expert_and_say_where_demonstrations_come_from():
    with pytest.raises(InputError, match="ontick demos robosuite/Lift-abs --out"):
        find_task("robosuite/Lift-abs").expert()


def test_absolute_tasks_hold_their_last_pose():
    task = find_task("robosuite/PickPlaceCan-abs")
    assert task.hold([0.5] * task.action_dim).tolist() == [0.5] * 10


@pytest.mark.parametrize("name, width", [("Lift", 19), ("PickPlaceCan", 23)])
def test_tasks_have_robomimics_widths(name, width):
    delta, absolute = find_task(f"robosuite/{name}"), find_task(f"robosuite/{name}-abs")
    assert (delta.observation_dim, delta.action_dim, delta.gripper_dims) == (width, 7, (6,))
    assert (absolute.observation_dim, absolute.action_dim, absolute.gripper_dims) == (width, 10, (9,))


@pytest.mark.parametrize(
    "args, complaint",
    [
        (
            {"env_name": "Lift", "type": 1, "env_version": "1.4.1"},
            "robosuite 1.4.1, while robosuite 1.5.2 is installed",
        ),
        ({"env_name": "ToolHang", "type": 1, "env_version": "1.5.2"}, "recorded in 'ToolHang'"),
        ({"env_name": "Lift", "type": 2, "env_version": "1.5.2"}, "robomimic's type 2"),
        ({}, "wanted robosuite's Lift or PickPlaceCan"),
    ],
)
def test_env_args_of_another_simulator_are_refused(args, complaint, monkeypatch):
    monkeypatch.setattr(robosuite_wrapper, "installed_version", lambda: "1.5.2")
    with pytest.raises(InputError, match=complaint):
        robosuite_wrapper.check_env_args(args, "file.hdf5")
    robosuite_wrapper.check_env_args({"env_name": "Lift", "type": 1, "env_version": "1.5.2"}, "file.hdf5")
