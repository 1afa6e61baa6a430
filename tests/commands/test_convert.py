"""`ontick convert`: what it finds by looking, what it writes, and that it writes whole or not at all."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ontick
from ontick.commands import main
from ontick.commands.convert import in_place
from ontick.commands.families import parse_candidate, policy_maker
from ontick.envs import find_task
from ontick.policy import Normaliser, TransformerConfig, TransformerForDiffusion, load_checkpoint
from ontick.policy.config import UNetConfig
from ontick.policy.unet import ConditionalUnet1D

TASK = find_task("metaworld/reach-v3")
WIDTHS = {"observation_dim": TASK.observation_dim, "action_dim": TASK.action_dim}


def randomised(network):
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return network


def write_stanford(path):
    """A configuration may be a plain mapping too."""
    torch.manual_seed(0)
    shape = {"width": 16, "layers": 1, "heads": 2, "horizon": 8, "n_action_steps": 4}
    network = randomised(TransformerForDiffusion(TransformerConfig(**WIDTHS, **shape)))
    normaliser = Normaliser.fit(
        np.random.default_rng(0).normal(size=(9, 39)), np.random.default_rng(1).normal(size=(9, 4))
    )
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    for key, width in (("obs", 39), ("action", 4)):
        for name in ("scale", "offset"):
            state[f"normalizer.params_dict.{key}.{name}"] = getattr(normaliser, f"{key}_{name}")
        state[f"normalizer.params_dict.{key}.input_stats.min"] = normaliser.unnormalise(key, -torch.ones(width))
        state[f"normalizer.params_dict.{key}.input_stats.max"] = normaliser.unnormalise(key, torch.ones(width))
    scheduler = {"_target_": "a.DDPMScheduler", "num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}
    model = {"n_head": 2, "obs_as_cond": True}
    policy = {"_target_": "a.DiffusionTransformerLowdimPolicy", "obs_as_cond": True, "n_action_steps": 4}
    cfg = {"policy": {**policy, "model": model, "noise_scheduler": scheduler}, "training": {"use_ema": True}}
    torch.save({"cfg": cfg, "state_dicts": {"model": {}, "ema_model": state}, "pickles": {}}, path)
    return path


def write_lerobot(folder):
    torch.manual_seed(0)
    shape = {"down_dims": (16, 32), "step_width": 8, "horizon": 8, "n_action_steps": 4}
    network = randomised(ConditionalUnet1D(UNetConfig(**WIDTHS, **shape)))
    weights = {}
    for name, value in network.state_dict().items():
        for i in (0, 1):
            name = name.replace(f".blocks.{i}.block.", f".conv{i + 1}.block.")
        weights[f"diffusion.unet.{name.replace('.2.conv.', '.2.')}"] = value
    spread = {"min": -2.0, "max": 3.0}
    for part, width in (("normalize_inputs.buffer_observation_state", 39), ("unnormalize_outputs.buffer_action", 4)):
        weights |= {f"{part}.{name}": torch.full((width,), value) for name, value in spread.items()}
    config = {
        "type": "diffusion",
        "input_features": {"observation.state": {"type": "STATE", "shape": [39]}},
        "output_features": {"action": {"type": "ACTION", "shape": [4]}},
        "normalization_mapping": {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
        "horizon": 8,
        "n_obs_steps": 2,
        "n_action_steps": 4,
        "num_train_timesteps": 100,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "epsilon",
        "clip_sample": True,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder


def write_robomimic(path):
    from ontick.envs.robomimic_algorithm import bc_algorithm

    algorithm = bc_algorithm(39, 4, {"actor_layer_dims": (8,)})
    shapes = {"ac_dim": 4, "all_shapes": {"flat": [39]}}
    contents = {"config": algorithm.global_config.dump(), "algo_name": "bc", "shape_metadata": shapes}
    torch.save({**contents, "model": algorithm.serialize(), "env_metadata": {"env_name": "Reach", "type": 2}}, path)
    return path


WRITERS = {"stanford": write_stanford, "lerobot": write_lerobot, "robomimic": write_robomimic}
PLANS = {"stanford": "ddim-2", "lerobot": "ddim-2", "robomimic": "robomimic-bc"}


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("kind", WRITERS)
def test_each_kind_is_found_and_its_policy_runs(kind, forced, tmp_path, capsys):
    source, target = WRITERS[kind](tmp_path / "source.bin"), tmp_path / "target"
    options = ["--task", TASK.id, *(["--kind", kind] if forced else [])]
    assert main(["convert", str(source), str(target), *options]) == 0
    told = capsys.readouterr().out
    assert kind in told and f"--tasks {TASK.id}" in told and str(target) in told
    policy = policy_maker(parse_candidate(PLANS[kind]), target)(2)
    policy.reset([0], [3])
    chunk = policy.predict_action_chunk(np.zeros((1, policy.n_obs_steps, 39), np.float32), [0])
    assert np.isfinite(chunk).all() and chunk.shape[2] == 4
    about = json.loads((target / "config.json").read_text())["about"]
    assert about["source"]["kind"] == kind and about["task"] == TASK.id


@pytest.mark.parametrize("kind", WRITERS)
def test_each_kind_is_evaluated_in_place_as_what_it_becomes(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ontick.commands.evaluate.TIMING_SECONDS", 0.01)
    source, target = WRITERS[kind](tmp_path / "source.bin"), tmp_path / "target"
    assert main(["convert", str(source), str(target), "--task", TASK.id]) == 0
    documents = []
    for i, checkpoint in enumerate((source, source, target)):
        wanted = ["--tasks", TASK.id, "--plans", PLANS[kind], "--episodes", "1", "--json", str(tmp_path / f"{i}.json")]
        assert main(["evaluate", *wanted, "--checkpoint", str(checkpoint)]) == 0
        documents.append(json.loads((tmp_path / f"{i}.json").read_text()))
    assert documents[0]["request"] == documents[1]["request"] == documents[2]["request"]
    assert documents[0]["rows"][0]["outcomes"] == documents[2]["rows"][0]["outcomes"]
    assert "found: " in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["stanford", "lerobot"])
def test_grippers_are_the_tasks_and_end_where_the_normaliser_does(kind, tmp_path):
    source = WRITERS[kind](tmp_path / "source")
    assert main(["convert", str(source), str(tmp_path / "plain")]) == 0
    assert load_checkpoint(tmp_path / "plain").about["discrete_dims"] == []
    assert main(["convert", str(source), str(tmp_path / "told"), "--task", TASK.id]) == 0
    checkpoint = load_checkpoint(tmp_path / "told")
    assert checkpoint.about["discrete_dims"] == list(TASK.gripper_dims)
    put = checkpoint.at_limits(torch.tensor([[0.3, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, -0.01]]))
    assert put[:, 3].tolist() == [1, -1] and (put[:, :3] == 0.3).all()


def test_a_folder_above_the_policy_will_do(tmp_path):
    write_lerobot(tmp_path / "last" / "pretrained_model")
    assert main(["convert", str(tmp_path / "last"), str(tmp_path / "target")]) == 0


def refused(capsys, *arguments):
    assert main(["convert", *map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1, "one line"
    return told


def test_a_file_that_would_run_something_is_refused_and_nothing_is_written(tmp_path, capsys):
    class Bomb:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'witness')!r}, 'w').close()",)

    torch.save({"cfg": {}, "state_dicts": {}, "pickles": Bomb()}, tmp_path / "bomb.ckpt")
    assert "builtins.exec" in refused(capsys, tmp_path / "bomb.ckpt", tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bomb.ckpt"]


def test_what_a_file_keeps_pickled_inside_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'witness')!r}, 'w').close()",)

    import pickle

    path = write_stanford(tmp_path / "it.ckpt")
    contents = torch.load(path, weights_only=True)
    torch.save({**contents, "pickles": {"epoch": pickle.dumps(Bomb())}}, path)
    assert main(["convert", str(path), str(tmp_path / "target")]) == 0
    assert not (tmp_path / "witness").exists()


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, capsys):
    target = tmp_path / "target"
    assert "no file or folder" in refused(capsys, tmp_path / "nowhere", target)
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    assert "weights" in refused(capsys, tmp_path / "other.pt", target)
    torch.save([1], tmp_path / "list.pt")
    assert "list" in refused(capsys, tmp_path / "list.pt", target)
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert "no zip, wanted a checkpoint" in refused(capsys, tmp_path / "text.ckpt", target)
    (tmp_path / "old.pth").write_bytes(pickle.dumps([1]))
    assert "torch before 1.6" in refused(capsys, tmp_path / "old.pth", target)
    assert "no file or folder" in refused(capsys, tmp_path / ("x" * 300), target)
    (tmp_path / "folder").mkdir()
    assert "config.json" in refused(capsys, tmp_path / "folder", target)
    write_lerobot(tmp_path / "lerobot")
    assert "folder" in refused(capsys, tmp_path / "lerobot/model.safetensors", target)
    assert "wanted a .pth file" in refused(capsys, tmp_path / "lerobot", target, "--kind", "robomimic")
    assert "wanted a .ckpt file" in refused(capsys, tmp_path / "lerobot", target, "--kind", "stanford")
    path = write_stanford(tmp_path / "it.ckpt")
    assert "robomimic checkpoint" in refused(capsys, path, target, "--kind", "robomimic")
    assert "LeRobot" in refused(capsys, path, target, "--kind", "lerobot")
    assert not target.exists()


def test_a_place_that_is_taken_or_a_task_that_does_not_fit_is_refused(tmp_path, capsys):
    path = write_stanford(tmp_path / "it.ckpt")
    (tmp_path / "taken").mkdir()
    assert "already there" in refused(capsys, path, tmp_path / "taken")
    assert "39 and 4" in refused(capsys, path, tmp_path / "target", "--task", "ontick/Avoid-v0")
    assert "unknown task" in refused(capsys, path, tmp_path / "target", "--task", "nothing")
    assert not (tmp_path / "target").exists()


def test_a_robomimic_policy_that_sees_in_another_order_than_the_task_is_refused(tmp_path, capsys):
    from ontick.envs.robomimic_algorithm import bc_algorithm

    task = find_task("robosuite/Lift")
    algorithm = bc_algorithm(task.observation_dim, task.action_dim, {"actor_layer_dims": (8,)})
    config = json.loads(algorithm.global_config.dump())
    keys = dict(reversed(task.observation_keys))
    config["observation"]["modalities"]["obs"]["low_dim"] = list(keys)
    shapes = {"ac_dim": task.action_dim, "all_shapes": {key: [width] for key, width in keys.items()}}
    contents = {"config": json.dumps(config), "algo_name": "bc", "shape_metadata": shapes}
    torch.save({**contents, "model": algorithm.serialize()}, tmp_path / "it.pth")
    assert "observes object" in refused(capsys, tmp_path / "it.pth", tmp_path / "target", "--task", task.id)


@pytest.mark.parametrize("source", ["nowhere", "text.ckpt", "folder", "it.ckpt"])
def test_a_refusal_leaves_no_folder_behind(source, tmp_path, capsys):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    (tmp_path / "folder").mkdir()
    write_stanford(tmp_path / "it.ckpt")
    before = sorted(tmp_path.rglob("*"))
    refused(capsys, tmp_path / source, tmp_path / "new" / "a" / "b", "--task", "ontick/Avoid-v0")
    refused(capsys, tmp_path / source, tmp_path / "text.ckpt" / "a" / "b")
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["convert", str(tmp_path / "it.ckpt"), str(tmp_path / "new" / "a" / "b")]) == 0


def test_the_source_is_looked_at_before_the_target(tmp_path, capsys):
    assert "no file or folder" in refused(capsys, tmp_path / "nowhere", tmp_path)


def test_one_of_ours_is_said_to_be_one(tmp_path, capsys):
    assert main(["convert", str(write_robomimic(tmp_path / "it.pth")), str(tmp_path / "ours")]) == 0
    assert "one of ours already" in refused(capsys, tmp_path / "ours", tmp_path / "again")
    with in_place(str(tmp_path / "ours"), []) as folder:
        assert folder == str(tmp_path / "ours")


@pytest.mark.parametrize("text", ["[" * 200_000, "5", "{"])
def test_a_config_that_cannot_be_read_is_refused_in_one_line(text, tmp_path, capsys):
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "config.json").write_text(text)
    assert "config.json" in refused(capsys, tmp_path / "it", tmp_path / "target")
    with in_place(str(tmp_path / "it"), []) as folder:
        assert folder == str(tmp_path / "it"), "refused as ours are"


def test_other_verbs_hint_at_converting(tmp_path, capsys):
    source = write_lerobot(tmp_path / "it")
    assert main(["bundle", str(source), "--plan", "ddim-10", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "`ontick convert` it first" in told and told.count("\n") == 1


def test_the_help_tells_of_cameras(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    told = capsys.readouterr().out
    assert "with cameras" in told and "low-dimensional" not in told


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    """docs/convert.md, with a task that needs no other package."""
    monkeypatch.chdir(tmp_path)
    write_stanford(tmp_path / "latest.ckpt")
    write_lerobot(tmp_path / "pretrained_model")
    write_robomimic(tmp_path / "model_epoch_50.pth")
    page = (Path(ontick.__file__).parent / "docs" / "convert.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    ontick (convert [^#\n]*)", page, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        assert main(line.replace("robosuite/Lift", TASK.id).split()) == 0
        assert (tmp_path / "runs" / "converted" / "config.json").is_file()
        shutil.rmtree(tmp_path / "runs" / "converted")
