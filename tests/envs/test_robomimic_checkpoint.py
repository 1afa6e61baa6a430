"""robomimic's own files become our baselines: the action is that of robomimic's own loader."""

import contextlib
import io
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch

from ontick._torchvision import ensure_torchvision
from ontick.envs.robomimic_bc import BCPolicy
from ontick.envs.robomimic_bc_rnn import BCRNNPolicy, draw
from ontick.envs.robomimic_checkpoint import from_robomimic
from ontick.errors import InputError
from ontick.policy.foreign import open_torch_file, tensors

# Not in the order of the configuration: robomimic takes them in the order of the shapes.
SHAPES = OrderedDict([("object", [4]), ("robot0_eef_pos", [3]), ("robot0_gripper_qpos", [2])])
KEYS = ["robot0_gripper_qpos", "object", "robot0_eef_pos"]
ENVIRONMENT = {"env_name": "Lift", "type": 1, "env_version": "1.4.1", "env_kwargs": {"robots": ["Panda"]}}
KINDS = {
    "BC": {"actor_layer_dims": (16, 8)},
    "BC-RNN": {"actor_layer_dims": (), "rnn": {"enabled": True, "horizon": 3, "hidden_dim": 8, "num_layers": 2}},
    "BC-RNN-GMM": {
        "actor_layer_dims": (8, 6),
        "rnn": {"enabled": True, "horizon": 3, "hidden_dim": 8, "num_layers": 1},
        "gmm": {"enabled": True, "num_modes": 3},
    },
}


def write(path, kind, normalised=False, edit=None):
    """A file by robomimic's own save_model, of a network whose weights are all random."""
    ensure_torchvision()
    from robomimic.algo import algo_factory
    from robomimic.config import config_factory
    from robomimic.utils import obs_utils, train_utils

    with contextlib.redirect_stdout(io.StringIO()):
        config = config_factory("bc")
        with config.values_unlocked():
            config.observation.modalities.obs.low_dim = KEYS
            config.train.hdf5_normalize_obs = normalised
            config.algo.update(KINDS[kind])
        obs_utils.initialize_obs_utils_with_config(config)
        algorithm = algo_factory("bc", config, SHAPES, 3, torch.device("cpu"))
        g = torch.Generator().manual_seed(2)
        for value in algorithm.nets.parameters():
            value.data.copy_(torch.randn(value.shape, generator=g) * (0.5 if value.dim() > 1 else 0.3))
        shapes = {"ac_dim": 3, "all_shapes": SHAPES, "all_obs_keys": KEYS, "use_images": False}
        rng = np.random.default_rng(1)
        told = {
            key: {"mean": rng.normal(size=(1, n)), "std": rng.uniform(0.3, 3, (1, n))} for key, (n,) in SHAPES.items()
        }
        train_utils.save_model(algorithm, config, ENVIRONMENT, shapes, str(path), told if normalised else None)
    if edit is not None:
        contents = torch.load(path, weights_only=True)
        edit(contents)
        torch.save(contents, path)
    return path


def converted(path):
    with open_torch_file(path) as contents:
        return from_robomimic(contents, tensors(contents["model"], "model"), path.name)


def rows(n):
    return np.random.default_rng(7).normal(size=(n, 9)).astype(np.float32)


def their_policy(path):
    from robomimic.utils import file_utils

    with contextlib.redirect_stdout(io.StringIO()):
        policy, _ = file_utils.policy_from_checkpoint(device=torch.device("cpu"), ckpt_path=str(path))
    policy.start_episode()
    return policy


def as_keys(row):
    ends = np.cumsum([n for (n,) in SHAPES.values()])[:-1]
    return dict(zip(SHAPES, np.split(row, ends), strict=True))


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", ["BC", "BC-RNN"])
def test_actions_are_those_of_robomimics_own_loader(kind, normalised, tmp_path):
    path = write(tmp_path / "model.pth", kind, normalised)
    theirs, ours = their_policy(path), converted(path)
    ours.save(tmp_path / "ours", half=False)
    again = type(ours).load(tmp_path / "ours", width=2)
    for policy in (ours, again):
        policy.reset([0], [0])
    for row in rows(7):
        wanted = theirs(as_keys(row))
        np.testing.assert_allclose(ours.predict_action_chunk(row[None, None], [0])[0, 0], wanted, rtol=0, atol=1e-6)
        np.testing.assert_allclose(again.predict_action_chunk(row[None, None], [0])[0, 0], wanted, rtol=0, atol=1e-6)
    assert isinstance(ours, BCPolicy if kind == "BC" else BCRNNPolicy)


def test_a_mixture_is_that_of_robomimics_own_loader(tmp_path):
    """Its draws are robomimic's generator's, ours are keyed: so the same keys draw from both mixtures."""
    path = write(tmp_path / "model.pth", "BC-RNN-GMM", normalised=True)
    theirs, ours = their_policy(path), converted(path)
    ours.reset([0], [5])
    network, state = theirs.policy.nets["policy"], None
    for call, row in enumerate(rows(7)):
        state = None if call % 3 == 0 else state
        with torch.no_grad():
            told = theirs._prepare_observation(as_keys(row))
            mixture, state = network.forward_train_step(told, rnn_state=state)
        wanted = draw(mixture, [5], [call])[0]
        np.testing.assert_allclose(ours.predict_action_chunk(row[None, None], [0])[0, 0], wanted, rtol=0, atol=1e-6)


def test_it_says_where_it_comes_from(tmp_path):
    about = converted(write(tmp_path / "model.pth", "BC-RNN-GMM")).about
    assert about["source"]["policy"] == "BC-RNN-GMM"
    assert about["source"]["observations"] == {"object": 4, "robot0_eef_pos": 3, "robot0_gripper_qpos": 2}
    assert about["source"]["versions"] == {"robosuite": "1.4.1"} and about["source"]["environment"] == "Lift"
    assert about["gmm"]["num_modes"] == 3 and about["layers"] == [8, 6]


def in_config(path, value):
    def edit(contents):
        config = json.loads(contents["config"])
        part = config
        *parents, last = path.split(".")
        for name in parents:
            part = part[name]
        part[last] = value
        contents["config"] = json.dumps(config)

    return edit


def with_camera(contents):
    in_config("observation.modalities.obs.rgb", ["agentview_image"])(contents)
    contents["shape_metadata"]["all_shapes"]["agentview_image"] = [3, 84, 84]


def shared(levels):
    """10 ** levels numbers in as many lists."""
    found = [1.0]
    for _ in range(levels):
        found = [found] * 10
    return found


REFUSED = {
    "another algorithm": (lambda c: c.update(algo_name="bcq"), "'bcq'"),
    "a camera": (with_camera, "cameras: agentview_image"),
    "a goal": (in_config("observation.modalities.goal.low_dim", ["object"]), "goals .object."),
    "a Gaussian": (in_config("algo.gaussian.enabled", True), "gaussian"),
    "a mixture without memory": (in_config("algo.gmm.enabled", True), "gmm"),
    "a VAE": (in_config("algo.vae.enabled", True), "vae"),
    "a transformer": (in_config("algo.transformer.enabled", True), "transformer"),
    "an encoder": (in_config("observation.encoder.low_dim.core_class", "VisualCore"), "VisualCore"),
    "stacked frames": (in_config("train.frame_stack", 4), "frame_stack"),
    "no observations": (in_config("observation.modalities.obs.low_dim", []), "no low_dim"),
    "no layers": (in_config("algo.actor_layer_dims", []), "actor_layer_dims"),
    "layers that are none": (in_config("algo.actor_layer_dims", ["x"]), "actor_layer_dims"),
    "other layers": (in_config("algo.actor_layer_dims", [16, 9]), "does not fit"),
    "another width": (lambda c: c["shape_metadata"].update(ac_dim=4), "does not fit"),
    "no width": (lambda c: c["shape_metadata"].pop("ac_dim"), "ac_dim"),
    "a weight too few": (lambda c: c["model"].popitem(), "does not fit"),
    "JSON nested without end": (lambda c: c.update(config="[" * 200_000), "nested too deeply"),
    "another algorithm, at length": (lambda c: c.update(algo_name=["x" * 100] * 5000), "its algorithm is"),
    "a width that nothing could hold": (lambda c: c["shape_metadata"]["all_shapes"].update(object=[10**13]), "wide"),
    "more layers than weights": (in_config("algo.actor_layer_dims", [16] * 500), "weights are fewer"),
    "a mean that shares its lists": (
        lambda c: c.update(obs_normalization_stats={k: {"mean": shared(19), "std": [1.0]} for k in SHAPES}), "no mean",
    ),
    "a scale that shares its lists": (
        lambda c: c.update(action_normalization_stats={"actions": {"scale": shared(19)}}), "cannot be understood",
    ),
    "no JSON": (lambda c: c.update(config="{"), "JSON"),
    "a mean without a std": (lambda c: c.update(obs_normalization_stats={"object": {"mean": [0.0] * 4}}), "object"),
    "a mean of another width": (
        lambda c: c.update(obs_normalization_stats={k: {"mean": [0.0], "std": [1.0]} for k in SHAPES}), "4 finite",
    ),
    "scaled actions": (
        lambda c: c.update(action_normalization_stats={"actions": {"scale": [[2.0]], "offset": [[0.0]]}}), "actions",
    ),
    "no shapes": (lambda c: c.pop("shape_metadata"), "has no shape_metadata, wanted"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_served_is_refused_by_name(what, tmp_path):
    edit, complaint = REFUSED[what]
    with pytest.raises(InputError, match=complaint) as caught:
        converted(write(tmp_path / "model.pth", "BC", edit=edit))
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("algo.rnn.rnn_type", "GRU", "GRU"),
        ("algo.rnn.open_loop", True, "open_loop"),
        ("algo.rnn.kwargs.bidirectional", True, "bidirectional"),
        ("algo.rnn.hidden_dim", 9, "does not fit"),
    ],
)
def test_another_memory_is_refused_by_name(path, value, complaint, tmp_path):
    with pytest.raises(InputError, match=complaint):
        converted(write(tmp_path / "model.pth", "BC-RNN", edit=in_config(path, value)))


def test_statistics_of_newer_versions_are_the_same(tmp_path):
    """offset and scale are what was mean and std."""

    def rename(contents):
        found = contents["obs_normalization_stats"]
        contents["obs_normalization_stats"] = {k: {"offset": v["mean"], "scale": v["std"]} for k, v in found.items()}
        contents["action_normalization_stats"] = {"actions": {"scale": [[1.0] * 3], "offset": [[0.0] * 3]}}

    old = converted(write(tmp_path / "old.pth", "BC", normalised=True))
    new = converted(write(tmp_path / "new.pth", "BC", normalised=True, edit=rename))
    np.testing.assert_array_equal(old.mean, new.mean)
    np.testing.assert_array_equal(old.std, new.std)
