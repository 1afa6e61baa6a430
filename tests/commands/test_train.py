import numpy as np
import pytest

from ontick.commands import main
from ontick.envs.dataset import write_demonstrations
from ontick.envs.demonstrations import Demonstrations
from ontick.policy import load_checkpoint

SMALL = ["--preset", "cpu-small", "--set", "width=16", "--set", "layers=1", "--set", "heads=2", "--set", "steps=3"]


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "demos.zarr"
    ends, attributes = np.array([20, 45]), {"task": "metaworld/pick-place-v3", "seeds": [1, 3]}
    observations, actions = rng.standard_normal((45, 39)), rng.uniform(-1, 1, (45, 4))
    write_demonstrations(
        path, Demonstrations(observations.astype(np.float32), actions.astype(np.float32), ends, attributes)
    )
    return path


def test_training_writes_a_checkpoint_that_says_where_it_comes_from(data, tmp_path):
    out = tmp_path / "policy"
    assert main(["train", "--data", str(data), "--out", str(out), *SMALL]) == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.about["task"] == "metaworld/pick-place-v3" and checkpoint.about["training"]["steps"] == 3
    assert checkpoint.network.config.width == 16
    action = checkpoint.normaliser.normalise("action", checkpoint.normaliser.unnormalise("action", _ones()))
    assert action.allclose(_ones())
    gripper, motion = checkpoint.normaliser.action_scale[3], checkpoint.normaliser.action_scale[0]
    assert 0.05 < gripper / motion < 0.2, "the gripper is scaled by 0.1"
    assert not list(tmp_path.glob("*.state")), "the training state is gone once the checkpoint is there"


def _ones():
    import torch

    return torch.ones(4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--data", "nowhere.zarr"], "nowhere.zarr"),
        (["--preset", "nothing"], "cpu-small"),
        (["--set", "stepz=3"], "KEY=VALUE"),
        (["--set", "steps=0"], "at least 1"),
        (["--set", "steps=many"], "steps"),
        (["--threads", "0"], "at least 1"),
        (["--set", "lr=["], "no YAML value"),
        (["--set", "lr=-1"], "lr is -1.0"),
        (["--set", "betas=[2, 3]"], "betas"),
        (["--set", "weight_decay=-1"], "weight_decay"),
        (["--set", "prediction=velocity"], "does not go with"),
        (["--set", "width=2", "--set", "heads=1"], "width is 2"),
        (["--seed", "99999999999999999"], "seed"),
        (["--device", "cuda"], "GPU"),
        (["--algorithm", "bc", "--set", "steps=2"], "bc"),
    ],
)
def test_bad_options_give_one_line_and_exit_code_2(data, tmp_path, capsys, options, complaint):
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "x"), *SMALL, *options]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_is_not_overwritten(data, tmp_path, capsys):
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "policy"), *SMALL]
    assert main(arguments) == 0
    assert main(arguments) == 2 and "already there" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_training(data, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "file" / "x"), *SMALL]
    assert main(arguments) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_empty_part_of_a_preset_is_no_trouble(data, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("network:\ntraining: {steps: 1, batch: 2}\n")
    overrides = ["--set", "width=16", "--set", "layers=1"]
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "x"), "--preset", str(preset), *overrides]) == 0
