"""Folders of LeRobot's diffusion policy become ours: the same numbers, and refusals by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ontick.errors import InputError
from ontick.policy import load_checkpoint, save_checkpoint
from ontick.policy.foreign import from_lerobot
from ontick.policy.foreign.lerobot_normaliser import Treatment, lerobot_normaliser

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
TOP, SIDE = "observation.images.top", "observation.images.side"


def forward(network):
    c, g = network.config, torch.Generator().manual_seed(5)
    x, obs = (
        torch.randn(3, n, d, generator=g) for n, d in ((c.horizon, c.action_dim), (c.n_obs_steps, c.observation_dim))
    )
    with torch.no_grad():
        return network.forward(x, torch.tensor([0.0, 7.0, 49.0]), obs)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_u_net_answers_bit_for_bit(unet, lerobot_folder, tmp_path, scaled):
    network = unet(film_scale=scaled, down_dims=(16, 32, 64) if scaled else (16, 32))
    ours = from_lerobot(lerobot_folder(network).write(tmp_path / "pretrained_model"))
    assert torch.equal(forward(ours.network), forward(network))
    assert ours.network.config == network.config
    save_checkpoint(tmp_path / "ours", ours, half=False)
    assert torch.equal(forward(load_checkpoint(tmp_path / "ours").network), forward(network))


def test_names_of_a_compiled_network_are_those_of_a_plain_one(unet, lerobot_folder, tmp_path):
    network = unet()
    folder = lerobot_folder(network)
    folder.weights = {name.replace("unet.", "unet._orig_mod."): value for name, value in folder.weights.items()}
    assert torch.equal(forward(from_lerobot(folder.write(tmp_path / "it")).network), forward(network))


# -- normalisation: LeRobot's formulas, written out ----------------------------------------------------------------

EPS = 1e-8


def theirs(mode, stats, x):
    low, high = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}.get(
        mode, (None, None)
    )
    if mode == "IDENTITY":
        return x
    if mode == "MEAN_STD":
        return (x - stats["mean"]) / (stats["std"] + EPS)
    range_ = stats[high] - stats[low]
    return 2 * (x - stats[low]) / torch.where(range_ == 0, torch.tensor(EPS), range_) - 1


def theirs_undone(mode, stats, y):
    low, high = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}.get(
        mode, (None, None)
    )
    if mode == "IDENTITY":
        return y
    if mode == "MEAN_STD":
        return y * stats["std"] + stats["mean"]
    range_ = stats[high] - stats[low]
    return (y + 1) / 2 * torch.where(range_ == 0, torch.tensor(EPS), range_) + stats[low]


@pytest.mark.parametrize("mode", ["IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_each_mode_is_lerobots_formula(mode):
    g = torch.Generator().manual_seed(0)
    low = torch.randn(4, generator=g)
    stats = {
        name: low + i * torch.rand(4, generator=g) for i, name in enumerate(["min", "q01", "q10", "q90", "q99", "max"])
    }
    stats |= {"mean": torch.randn(4, generator=g), "std": torch.rand(4, generator=g) + 0.1}
    normaliser = lerobot_normaliser([(Treatment(mode, stats), 4)], (Treatment(mode, stats), 4))
    x, y = torch.randn(7, 4, generator=g), torch.randn(7, 4, generator=g)
    torch.testing.assert_close(normaliser.normalise("obs", x), theirs(mode, stats, x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normaliser.unnormalise("action", y), theirs_undone(mode, stats, y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["MIN_MAX", "MEAN_STD"])
def test_a_number_that_never_moved_is_treated_as_lerobot_does_where_it_was(mode):
    place = torch.tensor([0.5, -300.0, 0.0])
    stats = {"min": place, "max": place, "mean": place, "std": torch.zeros(3)}
    normaliser = lerobot_normaliser([(Treatment(mode, stats), 3)], (Treatment(mode, stats), 3))
    torch.testing.assert_close(normaliser.normalise("obs", place), theirs(mode, stats, place))
    y = torch.tensor([0.7, -1.0, 1.0])
    torch.testing.assert_close(normaliser.unnormalise("action", y), theirs_undone(mode, stats, y), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("form", ["write", "write_legacy"])
def test_state_and_environment_stand_in_their_order_each_by_its_mode(unet, lerobot_folder, tmp_path, form):
    folder = lerobot_folder(unet(), state=2)
    ours = from_lerobot(getattr(folder, form)(tmp_path / "it"))
    state, environment = torch.randn(4, 2), torch.randn(4, 3)
    modes = (("MIN_MAX", STATE, state), ("MEAN_STD", ENVIRONMENT, environment))
    told = torch.cat([theirs(mode, folder.statistics[name], x) for mode, name, x in modes], 1)
    given = ours.normaliser.normalise("obs", torch.cat([state, environment], 1))
    torch.testing.assert_close(given, told, rtol=1e-5, atol=1e-5)
    y = torch.randn(4, 2)
    undone = theirs_undone("MIN_MAX", folder.statistics["action"], y)
    torch.testing.assert_close(ours.normaliser.unnormalise("action", y), undone, rtol=1e-5, atol=1e-5)
    assert ours.about["source"]["observations"] == {STATE: 2, ENVIRONMENT: 3}
    assert ours.about["source"]["statistics"] == ("processors" if form == "write" else "buffers")


def test_a_type_without_a_mode_is_left_as_it_is(unet, lerobot_folder, tmp_path):
    folder = lerobot_folder(unet(), state=2)
    del folder.modes["ENV"]
    ours = from_lerobot(folder.write(tmp_path / "it"))
    x = torch.randn(4, 5)
    assert torch.equal(ours.normaliser.normalise("obs", x)[:, 2:], x[:, 2:])


def test_the_oldest_configurations_are_read(unet, lerobot_folder, tmp_path):
    network = unet()
    folder = lerobot_folder(network, state=2)
    for name in ("type", "input_features", "output_features", "normalization_mapping"):
        del folder.config[name]
    folder.config |= {"input_shapes": {ENVIRONMENT: [3], STATE: [2]}, "output_shapes": {"action": [2]}}
    folder.config |= {"input_normalization_modes": {STATE: "min_max", ENVIRONMENT: "mean_std"}}
    folder.config |= {"output_normalization_modes": {"action": "min_max"}}
    ours = from_lerobot(folder.write_legacy(tmp_path / "it"))
    assert torch.equal(forward(ours.network), forward(network))
    x = torch.randn(4, 3)
    told = theirs("MEAN_STD", folder.statistics[ENVIRONMENT], x)
    torch.testing.assert_close(ours.normaliser.normalise("obs", torch.cat([x[:, :2], x], 1))[:, 2:], told)


def change(**settings):
    return lambda folder: folder.config.update(settings)


def feature(name, kind, shape):
    return lambda folder: folder.config["input_features"].update({name: {"type": kind, "shape": shape}})


def in_weights(name, value):
    return lambda folder: folder.weights.update({name: value})


def without(name):
    return lambda folder: folder.config.pop(name)


# -- cameras ---------------------------------------------------------------------------------------------------------

SEES = {"image_size": 40, "camera_width": 16, "keypoints": 3, "camera_crop": 34, "camera_shift": 3}


def seeing(unet, *cameras, **changes):
    return unet(observation_dim=2 + len(cameras) * 3 * 40 * 40, cameras=cameras, **{**SEES, **changes})


@pytest.mark.parametrize("form", ["write", "write_legacy"])
@pytest.mark.parametrize("cameras", [(TOP,), (TOP, SIDE)])
def test_a_policy_that_sees_answers_bit_for_bit(unet, lerobot_folder, tmp_path, cameras, form):
    network = seeing(unet, *cameras)
    folder = lerobot_folder(network)
    ours = from_lerobot(getattr(folder, form)(tmp_path / "it"))
    assert ours.network.config == network.config
    assert torch.equal(forward(ours.network), forward(network))
    pixels = torch.rand(2, len(cameras), 3, 40, 40)
    wanted = [theirs("MEAN_STD", folder.statistics[name], pixels[:, i]).flatten(1) for i, name in enumerate(cameras)]
    given = ours.normaliser.normalise("obs", torch.cat([torch.zeros(2, 2), pixels.flatten(1)], 1))
    torch.testing.assert_close(given[:, 2:], torch.cat(wanted, 1), rtol=1e-5, atol=1e-5)


def test_one_encoder_of_all_cameras_is_each_ones(unet, lerobot_folder, tmp_path):
    network = seeing(unet, TOP, SIDE)
    encoders = network.cameras.encoders
    encoders[1].load_state_dict(encoders[0].state_dict())
    folder = lerobot_folder(network)
    one = {name: v for name, v in folder.weights.items() if not name.startswith("diffusion.rgb_encoder.1.")}
    folder.weights = {name.replace("rgb_encoder.0.", "rgb_encoder."): value for name, value in one.items()}
    folder.config["use_separate_rgb_encoder_per_camera"] = False
    assert torch.equal(forward(from_lerobot(folder.write(tmp_path / "it")).network), forward(network))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_policy_that_is_kept_in_half_precision_is_taken(unet, lerobot_folder, tmp_path, precision):
    sees = {**SEES, "image_size": 100, "camera_crop": 97, "camera_shift": 1}
    network = unet(observation_dim=2 + 3 * 100 * 100, cameras=(TOP,), **sees)
    folder = lerobot_folder(network)
    folder.weights = {name: value.to(precision) for name, value in folder.weights.items()}
    ours = from_lerobot(folder.write(tmp_path / "it"))
    network.load_state_dict({name: value.to(precision).float() for name, value in network.state_dict().items()})
    assert torch.equal(forward(ours.network), forward(network))


CAMERAS_REFUSED = {
    "another backbone": (change(vision_backbone="resnet34"), "resnet34"),
    "batch norm": (change(use_group_norm=False), "use_group_norm"),
    "other sizes": (change(resize_shape=[36, 36]), "resize_shape"),
    "no square": (feature(TOP, "VISUAL", [3, 40, 48]), "squares"),
    "no square is cropped": (change(crop_shape=[34, 35]), "crop_shape"),
    "a crop too large": (change(crop_shape=[41, 41]), "40 wide"),
    "no encoder": (lambda f: [f.weights.pop(n) for n in list(f.weights) if "rgb_encoder" in n], "weights lack"),
    "a weight too few": (lambda f: f.weights.pop("diffusion.rgb_encoder.out.bias"), "out.bias"),
    "a weight too many": (in_weights("diffusion.rgb_encoder.critic.weight", torch.ones(1)), "critic"),
    "a grid of one dimension": (in_weights("diffusion.rgb_encoder.pool.pos_grid", torch.zeros(4)), "another grid"),
    "a grid of whole numbers": (
        in_weights("diffusion.rgb_encoder.pool.pos_grid", torch.zeros(4, 2, dtype=torch.int64)), "another grid",
    ),
    "a weight without a shape": (in_weights("diffusion.rgb_encoder.backbone.0.weight", torch.tensor(1.0)), "its shape"),
    "images larger than any": (feature(TOP, "VISUAL", [3, 50_000, 50_000]), "50000 x 50000"),
    "more cameras than any": (
        lambda f: [feature(f"{SIDE}.{i}", "VISUAL", [3, 40, 40])(f) for i in range(16)], "17 images",
    ),
    "another grid": (in_weights("diffusion.rgb_encoder.pool.pos_grid", torch.zeros(4, 2)), "another grid"),
}  # fmt: skip


@pytest.mark.parametrize("what", CAMERAS_REFUSED)
def test_cameras_that_are_not_served_are_refused_by_name(what, unet, lerobot_folder, tmp_path):
    make, complaint = CAMERAS_REFUSED[what]
    folder = lerobot_folder(seeing(unet, TOP))
    make(folder)
    with pytest.raises(InputError, match=complaint):
        from_lerobot(folder.write(tmp_path / "it"))


# -- refusals --------------------------------------------------------------------------------------------------------


REFUSED = {
    "another policy": (change(type="act"), "'act'"),
    "a camera beside an environment": (feature(TOP, "VISUAL", [3, 96, 96]), f"cameras and {ENVIRONMENT}"),
    "an encoder without a camera": (in_weights("diffusion.rgb_encoder.out.weight", torch.ones(1)), "has no camera"),
    "another input": (feature("observation.effort", "STATE", [3]), "observation.effort"),
    "no state": (lambda folder: folder.config["input_features"].pop(STATE), STATE),
    "no action": (change(output_features={}), "no action"),
    "another width": (feature(STATE, "STATE", [3]), "observations of 6"),
    "another action width": (change(output_features={"action": {"type": "ACTION", "shape": [3]}}), "actions are 3"),
    "a shape that is none": (feature(STATE, "STATE", "wide"), "shape of"),
    "no horizon": (without("horizon"), "horizon"),
    "no schedule": (without("beta_schedule"), "beta_schedule"),
    "another schedule": (change(beta_schedule="sigmoid"), "sigmoid"),
    "another scheduler": (change(noise_scheduler_type="EDM"), "EDM"),
    "other groups": (change(n_groups=4), "n_groups"),
    "other dimensions": (change(down_dims=[16, 64]), "down_dims"),
    "another kernel": (change(kernel_size=5), "kernel_size"),
    "another weight": (in_weights("diffusion.critic.weight", torch.ones(1)), "critic"),
    "a weight too many": (in_weights("diffusion.unet.extra", torch.ones(1)), "extra"),
    "a weight too few": (lambda folder: folder.weights.pop("diffusion.unet.final_conv.1.bias"), "final_conv.1.bias"),
    "a mode": (lambda folder: folder.modes.update(STATE="ZSCORE"), "ZSCORE"),
    "no statistics": (lambda folder: folder.statistics.pop(STATE), "no statistics of observation.state"),
    "no maximum": (lambda folder: folder.statistics["action"].pop("max"), "'max' is missing"),
    "statistics without an end": (
        lambda folder: folder.statistics["action"].update(max=torch.full((2,), torch.inf)), "not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_served_is_refused_by_name(what, unet, lerobot_folder, tmp_path):
    make, complaint = REFUSED[what]
    folder = lerobot_folder(unet())
    make(folder)
    with pytest.raises(InputError, match=complaint):
        from_lerobot(folder.write(tmp_path / "it"))


def edited(folder, name, edit):
    found = json.loads((folder / name).read_text())
    edit(found)
    (folder / name).write_text(json.dumps(found))


def step_named(name):
    return lambda found: found["steps"].insert(0, {"registry_name": name})


FILES_REFUSED = {
    "another step": ("policy_preprocessor.json", step_named("delta_action_processor"), "delta_action_processor"),
    "another step after": ("policy_postprocessor.json", step_named("absolute_actions"), "absolute_actions"),
    "two normalisers": ("policy_preprocessor.json", step_named("normalizer_processor"), "2 steps"),
    "no steps": ("policy_preprocessor.json", lambda found: found.pop("steps"), "no steps"),
    "a file elsewhere": (
        "policy_preprocessor.json", lambda found: found["steps"][1].update(state_file="../it.safetensors"), "beside it",
    ),
    "a file that is not there": (
        "policy_preprocessor.json", lambda found: found["steps"][1].update(state_file="x.safetensors"), "x.safetensors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES_REFUSED)
def test_pipelines_that_do_more_are_refused_by_name(what, unet, lerobot_folder, tmp_path):
    name, edit, complaint = FILES_REFUSED[what]
    folder = lerobot_folder(unet()).write(tmp_path / "it")
    edited(folder, name, edit)
    with pytest.raises(InputError, match=complaint):
        from_lerobot(folder)


def test_a_folder_without_statistics_is_refused(unet, lerobot_folder, tmp_path):
    folder = lerobot_folder(unet()).write(tmp_path / "it")
    (folder / "policy_preprocessor.json").unlink()
    with pytest.raises(InputError, match="without statistics"):
        from_lerobot(folder)


def test_damaged_files_are_refused(unet, lerobot_folder, tmp_path):
    folder = lerobot_folder(unet()).write(tmp_path / "it")
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        from_lerobot(folder)
    save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="'a'"):
        from_lerobot(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="wanted a mapping"):
        from_lerobot(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        from_lerobot(folder)


@pytest.mark.parametrize("name", ["type", "horizon", "noise_scheduler_type", "down_dims", "n_groups", "input_features"])
def test_a_refusal_is_one_short_line_whatever_is_in_the_file(name, unet, lerobot_folder, tmp_path):
    folder = lerobot_folder(unet())
    long = ["x" * 100] * 5000
    folder.config[name] = {STATE: {"type": "STATE", "shape": long}} if name == "input_features" else long
    with pytest.raises(InputError, match="it") as caught:
        from_lerobot(folder.write(tmp_path / "it"))
    assert len(str(caught.value)) < 800


def test_what_is_only_told_is_kept_where_it_is_what_it_should_be(unet, lerobot_folder, tmp_path):
    folder = lerobot_folder(unet())
    folder.config |= {"num_inference_steps": 10, "lerobot_version": "0.4.4"}
    source = from_lerobot(folder.write(tmp_path / "a")).about["source"]
    assert source["num_inference_steps"] == 10 and source["versions"] == {"lerobot_version": "0.4.4"}
    folder.config |= {"num_inference_steps": [[]] * 9, "lerobot_version": {"a": 1}}
    source = from_lerobot(folder.write(tmp_path / "b")).about["source"]
    assert source["num_inference_steps"] is None and source["versions"] == {}
