"""`ontick demos`: one command, that can be interrupted, repeated, and misused."""

import pytest

from ontick.commands import main
from ontick.envs import find_task
from ontick.envs.dataset import read_demonstrations

ARGUMENTS = ["demos", "--task", "metaworld/reach-v3", "--episodes", "2", "--seed", "1"]


def test_both_formats_are_written_and_a_second_run_does_nothing(tmp_path, capsys):
    arguments = [*ARGUMENTS, "--format", "both", "--out", str(tmp_path / "reach")]
    assert main(arguments) == 0
    assert "succeeded in 2 of 2 attempts" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reach.hdf5", "reach.zarr"]
    one, other = (read_demonstrations(tmp_path / f"reach.{ending}") for ending in ("zarr", "hdf5"))
    assert (one.actions == other.actions).all() and one.attributes["seeds"] == other.attributes["seeds"]
    assert main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_other_demonstrations_are_never_overwritten(tmp_path, capsys):
    arguments = [*ARGUMENTS, "--out", str(tmp_path / "reach.hdf5")]
    assert main(arguments) == 0
    assert main([*arguments, "--noise", "0.3"]) == 2
    assert "noise 0.1, not 0.3" in capsys.readouterr().err


def test_the_modes_of_styled_demonstrations_are_counted(tmp_path, capsys):
    out = tmp_path / "avoid.zarr"
    arguments = ["demos", "--task", "ontick/Avoid-v0", "--episodes", "8", "--styled", "--out", str(out)]
    assert main(arguments) == 0
    modes = read_demonstrations(out).attributes["modes"]
    assert len(modes) == 8 and f"{len(set(modes))} modes, of entropy" in capsys.readouterr().out
    assert main([argument for argument in arguments if argument != "--styled"]) == 2
    assert "styled True, not False" in capsys.readouterr().err


@pytest.mark.parametrize(
    "extra, complaint",
    [
        (["--task", "metaworld/raech-v3"], "metaworld/reach-v3"),
        (["--episodes", "0"], "0 episodes"),
        (["--noise", "2"], "noise 2.0"),
        (["--seed", "-1"], "base seed -1"),
        (["--settle-steps", "-1"], "-1 settling steps"),
        (["--workers", "0"], "0 workers"),
        (["--format", "hdf5"], "leave out --format"),
    ],
)
def test_misuse_is_told_in_one_line_with_exit_code_2(extra, complaint, tmp_path, capsys):
    assert main([*ARGUMENTS, "--out", str(tmp_path / "x.zarr"), *extra]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_task_is_told_by_its_place_or_by_its_option(tmp_path, capsys):
    out = tmp_path / "reach.hdf5"
    common = ["--episodes", "1", "--seed", "1", "--out", str(out)]
    assert main(["demos", "metaworld/reach-v3", *common]) == 0
    assert main(["demos", "--task", "metaworld/reach-v3", *common]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["demos", "metaworld/reach-v3", "--task", "metaworld/reach-v3", *common]) == 0
    for given, complaint in (
        ([], "got no task"),
        (["metaworld/push-v3", "--task", "metaworld/reach-v3"], "wanted one"),
    ):
        capsys.readouterr()
        assert main(["demos", *given, *common]) == 2
        error = capsys.readouterr().err
        assert complaint in error and error.count("\n") == 1


def test_the_noise_is_the_tasks_own_where_none_is_told(tmp_path):
    for task, noise in (("metaworld/reach-v3", 0.1), ("ontick/Avoid-v0", 0.1)):
        out = tmp_path / task.replace("/", "-")
        assert main(["demos", task, "--episodes", "1", "--out", f"{out}.zarr"]) == 0
        assert read_demonstrations(f"{out}.zarr").attributes["noise"] == noise == find_task(task).noise
    assert find_task("ontick/PushT-v0").noise < 0.1  # its actions are places: 0.1 would be 26 mm
