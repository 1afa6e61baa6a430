"""robomimic's BC-RNN as a Policy: it learns, travels, remembers its own lane only, and draws by key."""

import numpy as np
import pytest
import torch

from ontick.envs.dataset import read_demonstrations
from ontick.envs.demonstrations import Demonstrations
from ontick.envs.robomimic_bc import BCPolicy, train_bc
from ontick.envs.robomimic_bc_rnn import GMM, RNN, BCRNNPolicy, draw, sequence_frames, train_bc_rnn
from ontick.errors import InputError

HORIZON = RNN["horizon"]


@pytest.fixture(scope="module")
def losses():
    return []


@pytest.fixture(scope="module")
def policy(saved, losses):
    return train_bc_rnn(
        read_demonstrations(saved["hdf5"]), 20, batch_size=8, width=4, on_step=lambda _, loss: losses.append(loss)
    )


@pytest.fixture(scope="module")
def episode(demonstrations):
    return demonstrations.observations[demonstrations.episode(0)]  # [T, 39]


def answers(policy, observations, lane=0, seed=3):
    """Begin an episode in one lane and give it the observations [T, Do] one by one -> [T, Da]."""
    policy.reset([lane], [seed])
    return np.stack([policy.predict_action_chunk(row[None, None], [lane])[0, 0] for row in observations])


def test_training_lowers_the_loss(policy, losses):
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1


def test_equal_seeds_train_equal_policies(saved, episode):
    a, b, c = (train_bc_rnn(read_demonstrations(saved["hdf5"]), 2, seed=seed, batch_size=4) for seed in (5, 5, 6))
    np.testing.assert_array_equal(answers(a, episode[:3]), answers(b, episode[:3]))
    assert (answers(a, episode[:3]) != answers(c, episode[:3])).any()


def test_a_saved_policy_answers_as_before(policy, episode, tmp_path):
    policy.save(tmp_path / "rnn")
    loaded = BCRNNPolicy.load(tmp_path / "rnn", width=4)
    np.testing.assert_array_equal(answers(policy, episode[:12]), answers(loaded, episode[:12]))
    assert sorted(path.name for path in (tmp_path / "rnn").iterdir()) == ["config.json", "model.safetensors"]
    assert (tmp_path / "rnn/model.safetensors").stat().st_size < 5e6


def test_sequences_are_those_of_robomimics_own_dataset(saved, demonstrations):
    from robomimic.config import config_factory
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    config = config_factory("bc")
    config.observation.modalities.obs.low_dim = ["flat"]
    obs_utils.initialize_obs_utils_with_config(config)
    theirs = SequenceDataset(
        str(saved["hdf5"]), ["flat"], ["actions"], seq_length=HORIZON, pad_seq_length=True, load_next_obs=False
    )
    firsts = [0, *(demonstrations.episode_ends[:2] - 3), *(demonstrations.episode_ends[:2])]
    ours = sequence_frames(torch.from_numpy(demonstrations.episode_ends), torch.tensor(firsts))
    for first, frames in zip(firsts, ours, strict=True):
        sample = theirs[int(first)]
        np.testing.assert_array_equal(sample["obs"]["flat"], demonstrations.observations[frames])
        np.testing.assert_array_equal(sample["actions"], demonstrations.actions[frames])


def test_step_by_step_it_follows_the_network_unrolled_over_a_sequence(policy, episode):
    rows = torch.from_numpy((episode[: 2 * HORIZON] - policy.mean) / policy.std).view(2, HORIZON, -1)
    with torch.inference_mode():
        means = policy.network.forward_train({"flat": rows}).component_distribution.base_dist.loc  # [2, 10, K, Da]
    acted = torch.from_numpy(answers(policy, episode[: 2 * HORIZON])).view(2, HORIZON, 1, -1)
    nearest = (means - acted).abs().amax(-1).amin(-1)
    assert means.shape[2] == GMM["num_modes"]
    assert nearest.max() < 1e-3, "each action is a component's mean, but for a standard deviation of 1e-4"


def test_it_remembers_until_its_next_fresh_start(policy, episode):
    def after(calls, noise):
        history = episode[:calls] + np.float32(noise)
        return answers(policy, np.concatenate([history, episode[:1]]))[-1]

    assert (after(HORIZON - 1, 0) != after(HORIZON - 1, 1)).any()
    np.testing.assert_array_equal(after(HORIZON, 0), after(HORIZON, 1))


def test_a_reset_forgets_and_the_seed_keys_the_draws(policy, episode):
    first = answers(policy, episode[:5], seed=3)
    np.testing.assert_array_equal(first, answers(policy, episode[:5], seed=3))
    assert (first != answers(policy, episode[:5], seed=4)).any()


def test_a_lane_does_not_depend_on_its_neighbours(policy, demonstrations):
    lanes, calls = range(7), 12
    seen = demonstrations.observations[: 7 * calls].reshape(7, calls, -1)
    alone = [answers(policy, seen[lane], lane, seed=50 + lane) for lane in lanes]
    policy.reset(lanes, [50 + lane for lane in lanes])
    together = []
    for call in range(calls):
        order = np.roll(lanes, call).tolist()  # a lane's place in the batch changes, too
        policy.reset([90], [call])
        answer = policy.predict_with_tail(np.stack([seen[lane, call] for lane in [*order, 0]])[:, None], [*order, 90])
        together.append(answer[np.argsort(order), 0])
    np.testing.assert_array_equal(np.stack(together, 1), np.stack(alone))


def test_it_implements_the_policy_contract(policy, episode):
    from ontick.runtime.contracts import Policy

    assert isinstance(policy, Policy)
    policy.reset([0, 1], [3, 4])
    chunk = policy.predict_action_chunk(episode[:2, None], [0, 1])
    assert chunk.shape == (2, 1, 4) and chunk.dtype == np.float32
    policy.reset([0, 1], [3, 4])
    np.testing.assert_array_equal(policy.select_action(episode[:2]), chunk[:, 0])
    assert (policy.observation_dim, policy.action_dim, policy.calls_per_chunk) == (39, 4, 1)


def test_draws_have_the_mixtures_shares_and_spread():
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    n, shares, means = 4000, torch.tensor([0.2, 0.5, 0.3]), torch.tensor([-1.0, 0.0, 1.0])
    gaussians = Normal(means[:, None].expand(n, 3, 2), torch.full((n, 3, 2), 0.05))
    mixture = MixtureSameFamily(Categorical(shares.expand(n, 3)), Independent(gaussians, 1))
    actions = draw(mixture, range(n), [7] * n)
    counts = [(np.abs(actions - float(mean)).max(1) < 0.5).mean() for mean in means]
    np.testing.assert_allclose(counts, shares, atol=0.03)
    assert 0.045 < (actions - actions.round()).std() < 0.055
    np.testing.assert_array_equal(draw(mixture, [5], [7]), actions[5:6])
    other = [np.random.default_rng(seed).random() for seed in range(n)]  # what an environment draws first
    assert abs(np.corrcoef(draw(mixture, range(n), [0] * n)[:, 0], other)[0, 1]) < 0.1


def test_the_modes_of_the_demonstrations_are_told(demonstrations):
    d = demonstrations
    modes = ["LL", "LR", "LL", "RR"]
    shown = Demonstrations(d.observations, d.actions, d.episode_ends, {**d.attributes, "modes": modes})
    for train in (train_bc, train_bc_rnn):
        assert train(shown, 1, batch_size=2).about["modes"] == modes


@pytest.mark.parametrize("train", [train_bc, train_bc_rnn])
def test_actions_that_a_tanh_cannot_reach_are_refused(demonstrations, train):
    d, actions = demonstrations, demonstrations.actions.copy()
    actions[3, 1] = 1.01
    with pytest.raises(InputError, match=r"beyond \[-1, 1\].*number 1"):
        train(Demonstrations(d.observations, actions, d.episode_ends), 1, batch_size=2)


def test_lanes_that_cannot_be_answered_are_refused(policy, episode):
    policy.reset([0], [1])
    with pytest.raises(InputError, match=r"\[77\].*never reset"):
        policy.predict_with_tail(episode[:2, None], [0, 77])
    with pytest.raises(InputError, match="twice"):
        policy.predict_with_tail(episode[:2, None], [0, 0])


def test_the_two_families_are_told_apart(policy, saved, tmp_path):
    policy.save(tmp_path / "rnn")
    with pytest.raises(InputError, match="no robomimic-bc policy"):
        BCPolicy.load(tmp_path / "rnn")
    train_bc(read_demonstrations(saved["hdf5"]), 1, batch_size=2).save(tmp_path / "bc")
    with pytest.raises(InputError, match="no robomimic-bc-rnn policy"):
        BCRNNPolicy.load(tmp_path / "bc")
