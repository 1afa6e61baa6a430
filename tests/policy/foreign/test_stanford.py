"""Checkpoints of Diffusion Policy become ours: the same numbers, bit for bit, and refusals by name."""

import pytest
import torch

from ontick.errors import InputError
from ontick.policy import load_checkpoint, save_checkpoint
from ontick.policy.foreign import from_stanford, open_torch_file
from ontick.policy.unet import ConditionalUnet1D


def converted(path):
    with open_torch_file(path) as contents:
        return from_stanford(contents, path.name)


@pytest.fixture(params=["transformer", "transformer with a condition encoder", "not causal", "unet", "shift alone"])
def original(request, random_checkpoint, tiny_config, unet):
    if request.param in ("unet", "shift alone"):
        config = unet(film_scale=request.param == "unet").config
        return random_checkpoint(config, seed=3, family=ConditionalUnet1D)
    changes = {
        "transformer": {},
        "transformer with a condition encoder": {"n_cond_layers": 2},
        "not causal": {"causal": False},
    }[request.param]
    return random_checkpoint(tiny_config(train_levels=50, p_drop_attn=0.3, **changes), seed=3)


def answers(checkpoint):
    """One forward pass, from observations in the user's units to actions in them."""
    c, g = checkpoint.network.config, torch.Generator().manual_seed(5)
    x, obs = (
        torch.randn(3, c.horizon, c.action_dim, generator=g),
        torch.randn(3, c.n_obs_steps, c.observation_dim, generator=g),
    )
    with torch.no_grad():
        out = checkpoint.network.forward(x, torch.tensor([0.0, 7.0, 49.0]), checkpoint.normaliser.normalise("obs", obs))
    return checkpoint.normaliser.unnormalise("action", out)


def test_the_averaged_weights_answer_bit_for_bit(original, stanford_file, tmp_path):
    ours = converted(stanford_file(original).write(tmp_path / "latest.ckpt"))
    assert torch.equal(answers(ours), answers(original))
    assert ours.network.config == original.network.config
    assert ours.about["source"]["weights"] == "ema_model"
    save_checkpoint(tmp_path / "ours", ours, half=False)
    assert torch.equal(answers(load_checkpoint(tmp_path / "ours")), answers(original))


def test_the_trained_weights_are_taken_where_there_is_no_average(random_checkpoint, stanford_file, tmp_path):
    original = random_checkpoint()
    file = stanford_file(original)
    file.cfg["training"]["use_ema"] = False
    file.state_dicts["model"] = file.state_dicts.pop("ema_model")
    ours = converted(file.write(tmp_path / "latest.ckpt"))
    assert ours.about["source"]["weights"] == "model"
    assert torch.equal(answers(ours), answers(original))


def test_the_sampler_is_the_configurations(random_checkpoint, stanford_file, tmp_path):
    file = stanford_file(random_checkpoint())
    file.cfg["policy"]["noise_scheduler"] |= {
        "num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "prediction_type": "sample",
        "clip_sample": False,
    }  # fmt: skip
    config = converted(file.write(tmp_path / "latest.ckpt")).network.config
    assert (config.schedule, config.train_levels, config.prediction, config.clip) == (
        "scaled_linear",
        1000,
        "sample",
        None,
    )


def test_the_normaliser_says_what_it_is(random_checkpoint, stanford_file, tmp_path):
    file = stanford_file(random_checkpoint())
    assert converted(file.write(tmp_path / "a.ckpt")).about["source"]["normaliser"] == "limits"
    for state in file.state_dicts["ema_model"], file.state_dicts["model"]:
        state["normalizer.params_dict.action.scale"] = torch.ones(1)  # an identity for all dimensions
        state["normalizer.params_dict.action.offset"] = torch.zeros(1)
    ours = converted(file.write(tmp_path / "b.ckpt"))
    assert ours.about["source"]["normaliser"] == "identity"
    x = torch.randn(3, ours.network.config.action_dim)
    assert torch.equal(ours.normaliser.unnormalise("action", x), x)


def change(path, value):
    def changed(file):
        part = file.cfg
        *parents, last = path.split(".")
        for name in parents:
            part = part.setdefault(name, {})
        part[last] = value

    return changed


def in_state(name, value):
    return lambda file: file.state_dicts["ema_model"].update({name: value})


def without(name):
    return lambda file: file.state_dicts["ema_model"].pop(name)


IMAGE = "diffusion_policy.policy.diffusion_unet_hybrid_image_policy.DiffusionUnetHybridImagePolicy"
CAMERAS = {"obs": {"agentview_image": {"shape": [3, 84, 84], "type": "rgb"}, "robot0_eef_pos": {"shape": [3]}}}
REFUSED = {
    "cameras": (change("shape_meta", CAMERAS), "cameras: agentview_image"),
    "an image encoder": (in_state("obs_encoder.obs_nets.camera.weight", torch.ones(1)), "obs_encoder"),
    "another policy": (change("policy._target_", IMAGE), "DiffusionUnetHybridImagePolicy"),
    "no policy": (change("policy._target_", None), "None"),
    "inpainting": (change("obs_as_cond", False), "obs_as_cond is False"),
    "inpainting, unsaid": (lambda file: file.cfg["policy"].pop("obs_as_cond"), "obs_as_cond is False"),
    "executed rows alone": (change("policy.pred_action_steps_only", True), "pred_action_steps_only is True"),
    "time as a row": (change("policy.model.time_as_cond", False), "time_as_cond is False"),
    "another schedule": (change("policy.noise_scheduler.beta_schedule", "sigmoid"), "sigmoid"),
    "another prediction": (change("policy.noise_scheduler.prediction_type", "flow"), "flow"),
    "another range": (change("policy.noise_scheduler.beta_schedule", "linear"), None),
    "another scheduler": (change("policy.noise_scheduler._target_", "a.EDMScheduler"), "EDMScheduler"),
    "a threshold": (change("policy.noise_scheduler.thresholding", True), "thresholding"),
    "heads that nothing tells": (change("policy.model.n_head", "${nowhere}"), "n_head"),
    "heads that do not fit": (change("policy.model.n_head", 3), "heads"),
    "no average where there should be one": (lambda file: file.state_dicts.pop("ema_model"), "ema_model"),
    "no weights": (lambda file: file.state_dicts.clear(), "state_dicts.model"),
    "a weight too few": (without("model.head.bias"), "head.bias"),
    "a weight too many": (in_state("model.extra", torch.ones(1)), "extra"),
    "a weight of another size": (in_state("model.ln_f.bias", torch.ones(3)), "ln_f.bias"),
    "no head": (without("model.head.weight"), "head.weight"),
    "weights of something else": (in_state("critic.weight", torch.ones(1)), "critic.weight"),
    "weights without an end": (in_state("model.head.bias", torch.tensor([torch.nan, 0])), "finite"),
    "another mask": (in_state("model.mask", torch.zeros(8, 8)), "mask"),
    "no statistics": (without("normalizer.params_dict.obs.scale"), "obs.scale"),
    "statistics of another width": (in_state("normalizer.params_dict.obs.scale", torch.ones(7)), "wanted 3"),
    "a scale of zero": (in_state("normalizer.params_dict.obs.scale", torch.zeros(3)), "zeros"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_served_is_refused_by_name(what, random_checkpoint, stanford_file, tmp_path):
    make, complaint = REFUSED[what]
    file = stanford_file(random_checkpoint())
    make(file)
    path = file.write(tmp_path / "latest.ckpt")
    if complaint is None:
        assert converted(path).network.config.schedule == "linear"
        return
    with pytest.raises(InputError, match=complaint):
        converted(path)


UNET_REFUSED = {
    "local conditioning": (change("policy.obs_as_local_cond", True), "obs_as_local_cond is True"),
    "inpainting": (change("policy.obs_as_global_cond", False), "obs_as_global_cond is False"),
    "another first row": (change("policy.oa_step_convention", False), "oa_step_convention is False"),
    "weights of local conditioning": (in_state("model.local_cond_encoder.0.x", torch.ones(1)), "obs_as_local_cond"),
    "no horizon": (change("horizon", "${task.horizon}"), "horizon"),
    "other groups": (change("policy.model.n_groups", 4), "n_groups"),
    "observations that do not divide": (change("n_obs_steps", 3), "no 3 observations"),
    "no whole network": (without("model.down_modules.0.0.cond_encoder.1.weight"), "no whole U-Net"),
}


@pytest.mark.parametrize("what", UNET_REFUSED)
def test_a_u_net_that_is_not_served_is_refused_by_name(what, random_checkpoint, unet, stanford_file, tmp_path):
    make, complaint = UNET_REFUSED[what]
    file = stanford_file(random_checkpoint(unet().config, family=ConditionalUnet1D))
    make(file)
    with pytest.raises(InputError, match=complaint):
        converted(file.write(tmp_path / "latest.ckpt"))


def test_another_beta_range_is_refused_where_the_schedule_has_one(random_checkpoint, stanford_file, tmp_path):
    file = stanford_file(random_checkpoint())
    file.cfg["policy"]["noise_scheduler"] |= {"beta_end": 0.05}
    assert converted(file.write(tmp_path / "cosine.ckpt")).network.config.schedule == "squaredcos_cap_v2"
    file.cfg["policy"]["noise_scheduler"] |= {"beta_schedule": "linear"}
    with pytest.raises(InputError, match="beta_end"):
        converted(file.write(tmp_path / "linear.ckpt"))


def test_another_dictionary_is_refused():
    for contents in ({"model": {}}, [1], None):
        with pytest.raises(InputError, match="Diffusion Policy"):
            from_stanford(contents, "it")


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("policy._target_", ["x" * 100] * 5000, "its policy is"),
        ("policy._target_", "x" * 500_000, "its policy is"),
        ("policy.noise_scheduler._target_", ["x" * 100] * 5000, "noise scheduler"),
        ("policy.noise_scheduler.beta_schedule", ["x" * 100] * 5000, "beta_schedule"),
        ("policy.model.n_head", ["x" * 100] * 5000, "n_head"),
        ("policy.model.p_drop_attn", ["x" * 100] * 5000, "p_drop_attn"),
        ("policy.obs_as_cond", ["x" * 100] * 5000, "obs_as_cond"),
        ("shape_meta", {"obs": {f"camera {i}": {"type": "rgb"} for i in range(5000)}}, "camera 0"),
    ],
)
def test_a_refusal_is_one_short_line_whatever_is_in_the_file(
    path, value, complaint, random_checkpoint, stanford_file, tmp_path
):
    file = stanford_file(random_checkpoint())
    change(path, value)(file)
    with pytest.raises(InputError, match=complaint) as caught:
        converted(file.write(tmp_path / "latest.ckpt"))
    assert len(str(caught.value)) < 800
