"""robomimic's behaviour cloning as a Policy: it learns, travels, and serves each lane alike."""

import json

import numpy as np
import pytest

from ontick.envs.dataset import read_demonstrations
from ontick.envs.robomimic_bc import BCPolicy, train_bc
from ontick.errors import InputError


@pytest.fixture(scope="module")
def losses():
    return []


@pytest.fixture(scope="module")
def policy(saved, losses):
    return train_bc(
        read_demonstrations(saved["hdf5"]),
        30,
        seed=0,
        batch_size=64,
        width=4,
        on_step=lambda _, loss: losses.append(loss),
    )


@pytest.fixture(scope="module")
def observations(demonstrations):
    return demonstrations.observations[:11, None]  # [11, 1, 39]


def test_training_lowers_the_loss(policy, losses):
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_equal_seeds_train_equal_policies(saved, observations):
    a, b, c = (train_bc(read_demonstrations(saved["hdf5"]), 2, seed=seed, batch_size=8) for seed in (5, 5, 6))
    lanes = range(len(observations))
    np.testing.assert_array_equal(a.predict_with_tail(observations, lanes), b.predict_with_tail(observations, lanes))
    assert (a.predict_with_tail(observations, lanes) != c.predict_with_tail(observations, lanes)).any()


def test_a_saved_policy_answers_as_before(policy, observations, tmp_path):
    policy.save(tmp_path / "bc")
    loaded = BCPolicy.load(tmp_path / "bc", width=4)
    lanes = range(len(observations))
    answers = [p.predict_with_tail(observations, lanes) for p in (policy, loaded)]
    np.testing.assert_array_equal(*answers)
    assert answers[0].shape == (11, 1, 4) and answers[0].dtype == np.float32
    assert sorted(path.name for path in (tmp_path / "bc").iterdir()) == ["config.json", "model.safetensors"]


def test_a_lane_does_not_depend_on_its_neighbours(policy, observations):
    together = policy.predict_with_tail(observations, range(11))
    alone = [policy.predict_with_tail(observations[i : i + 1], [i]) for i in range(11)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_it_implements_the_policy_contract(policy, observations):
    from ontick.runtime.contracts import Policy

    assert isinstance(policy, Policy)
    policy.reset([0, 1], [3, 4])
    chunk = policy.predict_action_chunk(observations[:2], [0, 1])
    np.testing.assert_array_equal(policy.select_action(observations[:2, 0]), chunk[:, 0])
    assert (policy.observation_dim, policy.action_dim) == (39, 4)


@pytest.mark.parametrize("shape", [(2, 39), (2, 1, 38), (1, 1, 39), (2, 2, 39)])
def test_observations_of_another_shape_are_refused(policy, shape):
    with pytest.raises(InputError, match="wanted"):
        policy.predict_with_tail(np.zeros(shape, np.float32), [0, 1])


def test_observations_with_nan_are_refused(policy):
    with pytest.raises(InputError, match="NaN"):
        policy.predict_with_tail(np.full((1, 1, 39), np.nan, np.float32), [0])


def test_a_folder_that_is_no_such_policy_is_refused(policy, tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        BCPolicy.load(tmp_path)
    policy.save(tmp_path / "bc")
    with pytest.raises(InputError, match="already there"):
        policy.save(tmp_path / "bc")
    config = json.loads((tmp_path / "bc/config.json").read_text())
    (tmp_path / "bc/config.json").write_text(json.dumps({**config, "family": "other"}))
    with pytest.raises(InputError, match="robomimic-bc"):
        BCPolicy.load(tmp_path / "bc")
    (tmp_path / "bc/config.json").write_text(json.dumps(config))
    (tmp_path / "bc/model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="does not fit"):
        BCPolicy.load(tmp_path / "bc")
