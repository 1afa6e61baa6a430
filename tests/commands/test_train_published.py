"""`ontick train` on files as others publish them: several keys, masks, absolute actions."""

import json

import h5py
import numpy as np
import pytest

from ontick.commands import main
from ontick.policy import load_checkpoint

SMALL = ["--preset", "cpu-small", "--set", "width=16", "--set", "layers=1", "--set", "heads=2", "--set", "steps=2"]
KEYS = {"object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}


@pytest.fixture(params=[True, False], ids=["delta", "absolute"])
def published(request, tmp_path):
    """(file, whether its actions are displacements)"""
    rng, delta = np.random.default_rng(0), request.param
    controller = {"type": "OSC_POSE", "control_delta": delta}
    env_args = {"env_name": "Lift", "env_version": "1.4.1", "type": 1, "env_kwargs": {"controller_configs": controller}}
    with h5py.File(tmp_path / "low_dim.hdf5", "w") as file:
        for i in range(3):
            for key, width in KEYS.items():
                file[f"data/demo_{i}/obs/{key}"] = rng.normal(size=(20, width))
            file[f"data/demo_{i}/actions"] = rng.uniform(-1, 1, (20, 7))
        file["data"].attrs["env_args"] = json.dumps(env_args)
        file["mask/train"] = np.array(["demo_0", "demo_2"], "S")
    return tmp_path / "low_dim.hdf5", delta


def test_a_published_file_is_trained_on_as_it_is(published, tmp_path, capsys):
    path, delta = published
    assert main(["train", "--data", str(path), "--out", str(tmp_path / "out"), "--filter", "train", *SMALL]) == 0
    checkpoint = load_checkpoint(tmp_path / "out")
    config, about = checkpoint.network.config, checkpoint.about
    assert (config.observation_dim, config.action_dim) == (19, 7 if delta else 10)
    assert about["task"] == ("robosuite/Lift" if delta else "robosuite/Lift-abs")
    assert about["data"]["env_args"]["env_version"] == "1.4.1" and about["data"]["mask"] == "train"
    shown = capsys.readouterr().out
    assert "2 episodes of robosuite/Lift" in shown and "observations: 19 numbers" in shown


def test_what_is_observed_may_be_told(published, tmp_path):
    arguments = ["train", "--data", str(published[0]), "--out", str(tmp_path / "out"), *SMALL]
    assert main([*arguments, "--obs-keys", "object,robot0_eef_pos"]) == 0
    assert load_checkpoint(tmp_path / "out").network.config.observation_dim == 13


@pytest.mark.parametrize(
    "extra, complaint",
    [
        (["--obs-keys", "objekt"], "obs holds object"),
        (["--obs-keys", "object,,"], "wanted a key"),
        (["--filter", "valid"], "wanted one of train"),
        (["--obs-keys", "object", "--algorithm", "video", "--preset", "video"], "for policies"),
    ],
)
def test_misuse_is_told_in_one_line_with_exit_code_2(published, extra, complaint, tmp_path, capsys):
    assert main(["train", "--data", str(published[0]), "--out", str(tmp_path / "out"), *extra]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
