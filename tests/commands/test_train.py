import json

import numpy as np
import pytest

from ontick.commands import main
from ontick.commands.families import checkpoint_for, parse_candidate, policy_maker
from ontick.envs.dataset import read_demonstrations, write_demonstrations
from ontick.envs.demonstrations import Demonstrations
from ontick.errors import InputError
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
        (["--algorithm", "bc"], "--algorithm bc "),
        (["--algorithm", "bc", "--begin-from", "x"], "--algorithm bc "),
        (["--algorithm", "anchored", "--preset", "anchored", "--set", "causal=true"], "KEY=VALUE"),
        (["--algorithm", "anchored", "--preset", "anchored", "--set", "anchors=0"], "anchors is 0"),
        (["--set", "anchors=3"], "KEY=VALUE"),
        (["--algorithm", "bc-rnn"], "--algorithm bc-rnn "),
    ],
)
def test_bad_options_give_one_line_and_exit_code_2(data, tmp_path, capsys, options, complaint):
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "x"), *SMALL, *options]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


SHAPE = ["--set", "width=16", "--set", "layers=1", "--set", "heads=2", "--set", "steps=2", "--set", "batch=4"]


@pytest.mark.parametrize(
    ("algorithm", "plan", "family", "rows", "more"),
    [
        ("streaming", "diagonal-4", "streaming-transformer", 4, []),
        ("anchored", "anchored-2", "anchored-decoder", 16, ["--set", "anchors=3", "--set", "stages=1"]),
    ],
)
def test_an_algorithm_writes_a_checkpoint_of_the_family_that_its_plans_want(
    data, tmp_path, algorithm, plan, family, rows, more
):
    out = tmp_path / "policy"
    assert main(["train", "--algorithm", algorithm, "--data", str(data), "--out", str(out), *SHAPE, *more]) == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.network.family == family and checkpoint.about["preset"] == algorithm
    assert checkpoint.about["discrete_dims"] == [3]
    candidate = parse_candidate(plan)
    assert candidate.family == family
    assert checkpoint_for("metaworld/pick-place-v3", candidate, str(out)) == out
    policy = policy_maker(candidate, out)(2)
    policy.reset([0], [8])
    assert policy.predict_with_tail(np.zeros((1, 2, 39)), [0]).shape == (1, rows, 4)


def test_a_u_net_is_trained_and_runs_the_plans_of_the_transformer(data, tmp_path, capsys):
    out = tmp_path / "policy"
    shape = ["--set", "down_dims=[8, 16]", "--set", "groups=4", "--set", "step_width=8", "--set", "steps=2"]
    begin = ["train", "--algorithm", "unet", "--data", str(data), "--out", str(out)]
    assert main([*begin, *shape, "--set", "down_dims=[8]"]) == 2
    assert "two whole numbers" in capsys.readouterr().err
    assert main([*begin, *shape, "--set", "batch=4"]) == 0
    assert "channels 8, 16" in capsys.readouterr().out
    assert load_checkpoint(out).network.family == "diffusion-unet"
    for plan, rows in (("ddim-4", 8), ("rti-3", 1)):
        candidate = parse_candidate(plan)
        assert checkpoint_for("metaworld/pick-place-v3", candidate, str(out)) == out
        policy = policy_maker(candidate, out)(2)
        policy.reset([0], [8])
        assert policy.predict_action_chunk(np.zeros((1, 2, 39)), [0]).shape == (1, rows, 4)
    assert not any(
        parse_candidate(plan).runs("diffusion-unet") for plan in ("anchored-2", "diagonal-4", "robomimic-bc")
    )
    timed = ["evaluate", "--checkpoint", str(out), "--tasks", "metaworld/pick-place-v3", "--episodes", "1"]
    assert main([*timed, "--plans", "exact-ddim-10"]) == 2
    assert "exact" in capsys.readouterr().err


def test_a_streaming_policy_may_begin_from_a_published_network_and_from_no_other(data, tmp_path, capsys):
    first, out = tmp_path / "first", tmp_path / "out"
    shape = [*SHAPE, "--set", "horizon=16", "--set", "n_action_steps=8", "--set", "lr=1e-12"]
    assert main(["train", "--preset", "streaming", "--data", str(data), "--out", str(first), *shape]) == 0
    begin = ["train", "--algorithm", "streaming", "--data", str(data), "--out", str(out), "--begin-from"]
    assert main([*begin, str(first), *shape, "--set", "width=32"]) == 2
    assert "of another shape" in capsys.readouterr().err
    assert main([*begin, str(tmp_path / "nowhere"), *shape]) == 2
    assert "is not a checkpoint" in capsys.readouterr().err
    assert main([*begin, str(first), *shape]) == 0
    before, after = (load_checkpoint(folder).network.state_dict() for folder in (first, out))
    assert load_checkpoint(first).network.family == "diffusion-transformer"
    assert all(after[key].allclose(value, atol=1e-6) for key, value in before.items())


def test_a_shipped_u_net_is_found_for_the_plans_of_the_transformer(tmp_path, monkeypatch):
    monkeypatch.setattr("ontick.commands.families.ASSETS", tmp_path)
    (tmp_path / "diffusion-unet" / "ontick-PushT-v0").mkdir(parents=True)
    found = checkpoint_for("ontick/PushT-v0", parse_candidate("ddim-10"), None)
    assert found == tmp_path / "diffusion-unet" / "ontick-PushT-v0"
    with pytest.raises(InputError, match="no anchored-decoder"):
        checkpoint_for("ontick/PushT-v0", parse_candidate("anchored-2"), None)


@pytest.mark.parametrize(("algorithm", "plan"), [("bc", "robomimic-bc"), ("bc-rnn", "robomimic-bc-rnn")])
def test_a_robomimic_algorithm_writes_a_checkpoint_for_the_plan_of_its_name(data, tmp_path, algorithm, plan):
    hdf5, out = tmp_path / "demos.hdf5", tmp_path / "policy"
    write_demonstrations(hdf5, read_demonstrations(data))
    one = ["--set", "steps=1"]
    assert main(["train", "--algorithm", algorithm, "--data", str(hdf5), "--out", str(out), *one]) == 0
    candidate = parse_candidate(plan)
    assert checkpoint_for("metaworld/pick-place-v3", candidate, str(out)) == out
    policy = policy_maker(candidate, out)(2)
    policy.reset([0], [8])
    assert policy.select_action(np.zeros((1, 39))).shape == (1, 4)


@pytest.mark.parametrize("algorithm", ["bc", "bc-rnn"])
def test_a_robomimic_algorithm_learns_from_the_columns_and_demonstrations_named(data, tmp_path, algorithm):
    hdf5, out = tmp_path / "demos.hdf5", tmp_path / "policy"
    write_demonstrations(hdf5, read_demonstrations(data))
    named = ["--obs-keys", "flat[:7]", "--filter", "valid", "--set", "steps=1"]
    assert main(["train", "--algorithm", algorithm, "--data", str(hdf5), "--out", str(out), *named]) == 0
    about = json.loads((out / "config.json").read_text())["about"]
    assert about["episodes"] == len(read_demonstrations(hdf5, mask="valid")) < len(read_demonstrations(hdf5))
    policy = policy_maker(parse_candidate(f"robomimic-{algorithm}"), out)(1)
    policy.reset([0], [0])
    assert policy.select_action(np.zeros((1, 7))).shape == (1, 4)


@pytest.mark.parametrize("setting", ["width=16", "steps=0", "steps=x", "steps"])
def test_of_a_robomimic_algorithm_only_the_steps_are_set(data, tmp_path, capsys, setting):
    arguments = ["--data", str(data), "--out", str(tmp_path / "x"), "--set", setting]
    assert main(["train", "--algorithm", "bc", *arguments]) == 2
    assert "wanted steps=N" in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize("algorithm", ["bc", "bc-rnn"])
def test_a_robomimic_algorithm_reads_a_replay_buffer_as_well(data, tmp_path, algorithm):
    one = ["--set", "steps=1"]
    assert main(["train", "--algorithm", algorithm, "--data", str(data), "--out", str(tmp_path / "x"), *one]) == 0


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
