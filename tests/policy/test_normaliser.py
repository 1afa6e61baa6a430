"""Normalisation: the limits of the data become [-1, 1], and what it does can be undone."""

import numpy as np
import pytest
import torch

from ontick.errors import InputError
from ontick.policy import Normaliser


@pytest.fixture
def data(rng):
    observations = rng.normal(size=(200, 4)) * [1, 100, 1e-3, 5] + [0, -7, 3, 1e3]
    actions = rng.uniform(-1, 1, (200, 3)) * [0.1, 4, 1] + [1, 2, 0]
    return observations, actions


def tensor(x):
    return torch.from_numpy(x).float()


def test_the_limits_of_every_dimension_become_minus_one_and_one(data):
    normaliser = Normaliser.fit(*data)
    for key, values in zip(("obs", "action"), data, strict=True):
        y = normaliser.normalise(key, tensor(values))
        torch.testing.assert_close(y.amin(0), -torch.ones(y.shape[1]), atol=2e-3, rtol=0)
        torch.testing.assert_close(y.amax(0), torch.ones(y.shape[1]), atol=2e-3, rtol=0)


def test_a_dimension_that_hardly_moves_becomes_zero_and_comes_back(data):
    observations, actions = data
    observations[:, 2] = 0.7
    actions[:, 1] = 2 + np.linspace(0, 5e-5, 200)
    normaliser = Normaliser.fit(observations, actions)
    assert normaliser.normalise("obs", tensor(observations))[:, 2].abs().max() < 1e-6
    assert normaliser.normalise("action", tensor(actions))[:, 1].abs().max() < 1e-4
    back = normaliser.unnormalise("obs", torch.zeros(4))
    assert abs(back[2] - 0.7) < 1e-6


def test_unnormalise_undoes_normalise_for_any_leading_shape(data):
    normaliser = Normaliser.fit(*data)
    for key, values in zip(("obs", "action"), data, strict=True):
        x = tensor(values)[:12].reshape(2, 3, 2, -1)
        y = normaliser.unnormalise(key, normaliser.normalise(key, x))
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-4)


def test_a_gripper_is_a_tenth_of_the_others(data):
    observations, actions = data
    actions[:, 2] = np.sign(actions[:, 2])
    normaliser = Normaliser.fit(observations, actions, discrete_dims=(2,))
    y = normaliser.normalise("action", tensor(actions))
    torch.testing.assert_close(y[:, 2].abs(), torch.full((200,), 0.1))
    torch.testing.assert_close(normaliser.unnormalise("action", y), tensor(actions), rtol=1e-5, atol=1e-5)
    plain = Normaliser.fit(observations, actions)
    assert torch.equal(y[:, :2], plain.normalise("action", tensor(actions))[:, :2])


def test_actions_with_units_of_their_own_are_left_as_they_are(data):
    _, actions = data
    normaliser, plain = Normaliser.fit(*data, unfitted_dims=(0, 2), discrete_dims=(2,)), Normaliser.fit(*data)
    y = normaliser.normalise("action", tensor(actions))
    assert torch.equal(y[:, 0], tensor(actions[:, 0]))
    assert torch.equal(y[:, 1], plain.normalise("action", tensor(actions))[:, 1])
    torch.testing.assert_close(y[:, 2], 0.1 * tensor(actions[:, 2]))  # and a gripper a tenth of that


def test_pixels_become_minus_one_to_one_whatever_the_data_and_the_rest_as_without_them(data):
    observations, actions = data
    observations[:, 2], observations[:, 3] = 0.25, np.linspace(0, 0.1, 200)
    whole, state = Normaliser.fit(*data, state_dim=2), Normaliser.fit(observations[:, :2], actions)
    y = whole.normalise("obs", tensor(observations))
    torch.testing.assert_close(y[:, 2:], 2 * tensor(observations[:, 2:]) - 1)
    assert torch.equal(y[:, :2], state.normalise("obs", tensor(observations[:, :2])))
    assert torch.equal(whole.action_scale, state.action_scale)
    pictures = Normaliser.fit(*data, state_dim=0)  # nothing but pixels
    assert (pictures.obs_scale == 2).all() and (pictures.obs_offset == -1).all()


def test_its_tensors_are_named_as_a_checkpoint_names_them_and_give_it_back(data):
    normaliser = Normaliser.fit(*data)
    tensors = normaliser.tensors()
    assert set(tensors) == {"obs.scale", "obs.offset", "action.scale", "action.offset"}
    again = Normaliser.from_tensors(tensors)
    assert all(torch.equal(v, tensors[k]) for k, v in again.tensors().items())
    assert not list(normaliser.parameters())  # nothing of it is trained


@pytest.mark.parametrize("missing", ["obs.scale", "obs.offset", "action.scale", "action.offset"])
def test_missing_statistics_are_refused(data, missing):
    tensors = Normaliser.fit(*data).tensors()
    del tensors[missing]
    with pytest.raises(InputError, match=missing.split(".")[0]):
        Normaliser.from_tensors(tensors)


@pytest.mark.parametrize("key", ["obs", "action"])
def test_a_normaliser_of_one_key_is_refused(data, key):
    tensors = {k: v for k, v in Normaliser.fit(*data).tensors().items() if not k.startswith(key)}
    with pytest.raises(InputError, match=f"no statistics for {key}"):
        Normaliser.from_tensors(tensors)


@pytest.mark.parametrize(
    ("name", "value"), [("obs.scale", 0.0), ("obs.scale", np.nan), ("action.scale", np.inf), ("action.offset", np.nan)]
)
def test_numbers_that_cannot_be_undone_are_refused(data, name, value):
    tensors = Normaliser.fit(*data).tensors()
    tensors[name][1] = value
    with pytest.raises(InputError, match="zeros or values that are not finite"):
        Normaliser.from_tensors(tensors)


def test_a_scale_and_an_offset_of_different_widths_are_refused(data):
    tensors = Normaliser.fit(*data).tensors()
    tensors["obs.offset"] = tensors["obs.offset"][:1]
    with pytest.raises(InputError, match="shapes"):
        Normaliser.from_tensors(tensors)
