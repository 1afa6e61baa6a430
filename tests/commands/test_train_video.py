"""`ontick train --algorithm video`: a checkpoint that says where it comes from, and a killed run that goes on."""

import numpy as np
import pytest
import torch

from ontick.commands import main
from ontick.video import Clips, Stream, load_video_checkpoint, stream_plan, write_clips
from ontick.video import training as module

SETTINGS = {"width": 8, "layers": 1, "heads": 1, "frames": 4, "steps": 4, "batch": 2, "warmup": 1, "save_every": 2}


def clips(kind="rgb", actions=2):
    rng = np.random.default_rng(0)
    told = rng.uniform(-1, 1, (12, actions)).astype(np.float32)
    about = {"kind": kind, "scene": "noise", "fps": 7, "seed": 0}
    if kind == "field":
        field = rng.standard_normal((12, 16, 16, 1)).astype(np.float32)
        return Clips(field, told, np.array([6, 12]), about | {"scale": 1.5})
    return Clips(rng.integers(0, 256, (12, 16, 16, 3)).astype(np.uint8), told, np.array([6, 12]), about)


@pytest.fixture
def data(tmp_path):
    write_clips(tmp_path / "clips.zarr", clips())
    return tmp_path / "clips.zarr"


def train(data, out, *options, **changes):
    settings = [f"--set={key}={value}" for key, value in {**SETTINGS, **changes}.items()]
    return main(["train", "--algorithm", "video", "--data", str(data), "--out", str(out), *settings, *options])


def test_training_writes_a_checkpoint_that_says_where_it_comes_from_and_streams(data, tmp_path, capsys):
    assert train(data, tmp_path / "net") == 0
    said = capsys.readouterr().out
    assert "2 episodes, 12 frames of 16 px" in said and str(tmp_path / "net") in said
    found = load_video_checkpoint(tmp_path / "net")
    config, about = found.network.config, found.about
    assert (config.size, config.width, config.frames, config.action_dim, config.clip) == (16, 8, 4, 2, 1.0)
    assert (about["scene"], about["fps"], about["preset"], about["training"]["steps"]) == ("noise", 7, "video", 4)
    assert about["data"]["seed"] == 0 and about["training"]["levels"].keys() >= {"context", "rolling"}
    assert not list(tmp_path.glob("*.state")), "the training state is gone once the checkpoint is there"
    plan = stream_plan("rolling", found.network.schedule, found.network.frames, steps=2)
    frame = Stream(found.network, plan, (3, 16, 16), action_dim=2).advance(torch.ones(2))
    assert frame.shape == (1, 1, 3, 16, 16) and frame.isfinite().all()


def test_fields_without_actions_are_trained_on_without_a_clamp(tmp_path):
    write_clips(tmp_path / "field.zarr", clips("field", actions=0))
    assert train(tmp_path / "field.zarr", tmp_path / "net") == 0
    found = load_video_checkpoint(tmp_path / "net")
    config = found.network.config
    assert (config.clip, config.channels, config.action_dim) == (None, 1, 0)
    assert (found.values.kind, found.values.scale) == ("field", 1.5)


def test_a_killed_run_goes_on_by_the_same_command(data, tmp_path, monkeypatch):
    assert train(data, tmp_path / "whole") == 0
    loss, steps = module.window_loss, []

    def killed(*inputs):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return loss(*inputs)

    monkeypatch.setattr(module, "window_loss", killed)
    assert train(data, tmp_path / "net") == 1 and (tmp_path / "net.state").is_file() and len(steps) == 4
    assert not (tmp_path / "net").exists()
    assert train(data, tmp_path / "net") == 0 and len(steps) == 4 + 2, "it goes on from the second step"
    one, other = (load_video_checkpoint(tmp_path / name).network.state_dict() for name in ("whole", "net"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "stepz=3"], "KEY=VALUE"),
        (["--set", "size=32"], "KEY=VALUE"),
        (["--set", "causal=2"], "a share"),
        (["--set", "levels={pyramid: 1}"], "unknown levels pyramid"),
        (["--set", "frames=20"], "set frames"),
        (["--set", "patch=5"], "do not divide"),
        (["--set", "prediction=velocity"], "does not go with"),
        (["--begin-from", "x"], "--begin-from is for policies"),
        (["--data", "nowhere.zarr"], "nowhere.zarr"),
        (["--device", "cuda"], "GPU"),
    ],
)
def test_bad_options_give_one_line_and_exit_code_2(options, said, data, tmp_path, capsys):
    assert train(data, tmp_path / "net", *options) == 2
    error = capsys.readouterr().err
    told = [line for line in error.splitlines() if line.startswith("ontick: ")]
    assert len(told) == 1 and said in told[0] and not (tmp_path / "net").exists()


def test_the_state_of_a_run_with_other_settings_is_refused(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "save_state", _and_die(module.save_state))
    assert train(data, tmp_path / "net") == 1
    monkeypatch.undo()
    capsys.readouterr()
    assert train(data, tmp_path / "net", lr=0.5) == 2
    assert "other settings or data" in capsys.readouterr().err


def _and_die(save):
    def saving(*inputs):
        save(*inputs)
        raise KeyboardInterrupt

    return saving
