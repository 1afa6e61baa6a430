"""The anchored decoder: every anchor is a lane that sees no other, anchors are the centres of the demonstrations'
chunks, and it learns which of them a demonstration is and what it becomes.

Legend: B observations, K anchors, L = B K lanes, T rows, M windows, Da.
"""

import numpy as np
import pytest
import torch

from ontick.errors import InputError
from ontick.policy import AnchoredDecoder, TrainingConfig, load_checkpoint, save_checkpoint, train


@pytest.fixture
def network(tiny_anchored_config, random_network):
    return random_network(tiny_anchored_config(), family=AnchoredDecoder)


def asked(B=3, K=5, seed=0):
    """x [L, T, Da], label [L, T], obs [B, To, Do]."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(50, (B * K, 1), generator=g).float().expand(-1, 8)
    return torch.randn(B * K, 8, 2, generator=g), label, torch.randn(B, 2, 3, generator=g)


def predict(network, x, label, obs):
    return network.predict(x, label, network.prepare(obs))


# -- lanes ------------------------------------------------------------------------------------------------------------


def test_a_lane_gives_a_chunk_and_a_confidence(network):
    x, label, obs = asked()
    chunk, score = predict(network, x, label, obs)
    assert chunk.shape == x.shape and score is not None and score.shape == (15,)


def test_what_the_other_lanes_hold_changes_no_bit(network):
    x, label, obs = asked()
    before = predict(network, x, label, obs)
    for lane in (0, 7, 14):
        other_x, other_label, other_obs = x + 3, label + 9, obs.clone()
        other_x[lane], other_label[lane] = x[lane], label[lane]
        other_obs[[b for b in range(3) if b != lane // 5]] += 2
        after = predict(network, other_x, other_label, other_obs)
        assert torch.equal(after.x[lane], before.x[lane]) and torch.equal(after.score[lane], before.score[lane])


def test_a_lane_does_not_depend_on_how_many_there_are(network):
    x, label, obs = asked()
    together = predict(network, x, label, obs)
    for lane in (1, 8):
        alone = predict(network, x[[lane]], label[[lane]], obs[[lane // 5]])
        torch.testing.assert_close(alone.x[0], together.x[lane], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.score[0], together.score[lane], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("what", ["x", "label", "obs"])
def test_a_lane_depends_on_its_chunk_its_level_and_its_observation(what, network):
    given = dict(zip(("x", "label", "obs"), asked(), strict=True))
    before, after = (predict(network, **(given | {what: given[what] + move})) for move in (0, 1))
    assert not torch.isclose(before.x, after.x).all(-1).all(-1).any()
    assert not torch.isclose(before.score, after.score).any()


def test_stages_refine_the_chunk_one_after_another(network):
    x, label, obs = asked()
    chunks, scores = network.cascade(x.clamp(-1, 1), label[:, 0], network.prepare(obs))
    assert len(chunks) == len(scores) == 2
    prediction = predict(network, x, label, obs)  # which sees x as training does
    assert torch.equal(prediction.x, chunks[-1]) and torch.equal(prediction.score, scores[-1])


# -- anchors ----------------------------------------------------------------------------------------------------------


def chunks_about(centres, each=40, spread=0.02):
    g = torch.Generator().manual_seed(1)
    return (centres[:, None] + spread * torch.randn(len(centres), each, *centres.shape[1:], generator=g)).flatten(0, 1)


def test_anchors_are_the_centres_of_the_chunks(tiny_anchored_config):
    centres = torch.rand(5, 8, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    chunks = chunks_about(centres)
    network = AnchoredDecoder(tiny_anchored_config())
    network.begin_training(chunks[torch.randperm(200, generator=torch.Generator().manual_seed(2))], seed=0)
    nearest = (network.anchors[:, None] - centres).flatten(2).norm(dim=-1).argmin(0)
    assert sorted(nearest.tolist()) == list(range(5))
    torch.testing.assert_close(network.anchors[nearest], chunks.reshape(5, 40, 8, 2).mean(1), atol=1e-5, rtol=1e-5)
    assert torch.equal(network.nearest(chunks), nearest.repeat_interleave(40))


def test_every_anchor_is_the_mean_of_the_chunks_nearest_to_it(tiny_anchored_config):
    chunks = torch.rand(300, 8, 2, generator=torch.Generator().manual_seed(3))
    network = AnchoredDecoder(tiny_anchored_config())
    network.begin_training(chunks, seed=0)
    right = (chunks[:, None] - network.anchors).flatten(2).norm(dim=-1).argmin(1)  # as k-means measures
    for k in range(5):
        torch.testing.assert_close(network.anchors[k], chunks[right == k].mean(0), atol=1e-3, rtol=1e-3)


def test_anchors_repeat_by_their_seed_and_travel_with_the_checkpoint(tmp_path, tiny_anchored_config, random_checkpoint):
    chunks = torch.rand(300, 8, 2, generator=torch.Generator().manual_seed(3))
    one, two = AnchoredDecoder(tiny_anchored_config()), AnchoredDecoder(tiny_anchored_config())
    for network in (one, two):
        network.begin_training(chunks, seed=4)
    assert torch.equal(one.anchors, two.anchors)
    checkpoint = random_checkpoint(tiny_anchored_config(), family=AnchoredDecoder)
    save_checkpoint(tmp_path / "policy", checkpoint, half=False)
    read = load_checkpoint(tmp_path / "policy").network
    assert isinstance(read, AnchoredDecoder) and torch.equal(read.anchors, checkpoint.network.anchors)
    assert read.config == checkpoint.network.config


def test_fewer_chunks_than_anchors_are_refused(tiny_anchored_config):
    with pytest.raises(InputError, match="4 windows do not make 5 anchors"):
        AnchoredDecoder(tiny_anchored_config()).begin_training(torch.zeros(4, 8, 2), seed=0)


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [0.0, 0.5, 1.0])
def test_the_loss_is_finite_and_that_of_its_generator(members, tiny_anchored_config, random_network):
    network = random_network(tiny_anchored_config(members=members), family=AnchoredDecoder)
    x, _, obs = asked(B=6, K=1)

    def loss(seed):
        return network.loss(obs, x.clamp(-1, 1), torch.Generator().manual_seed(seed))

    assert torch.isfinite(loss(1)) and torch.equal(loss(1), loss(1)) and not torch.equal(loss(1), loss(2))


def test_lanes_of_members_hold_chunks_whose_right_anchor_is_theirs(network):
    actions = torch.rand(12, 8, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1
    right = network.nearest(actions)
    members = network._members(actions, right, torch.Generator().manual_seed(0))
    assert torch.equal(members[torch.arange(12), right], actions)
    for k in range(5):
        held = members[:, k]
        if (right == k).any():
            assert (held[:, None] == actions[right == k]).flatten(2).all(-1).any(1).all()
        else:
            assert torch.equal(held, network.anchors[k].expand(12, 8, 2))


def test_the_loss_is_zero_for_a_network_that_knows_the_answer(network, monkeypatch):
    actions = torch.rand(6, 8, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1
    right = torch.nn.functional.one_hot(network.nearest(actions), 5).float()

    def knowing(x, label, context):
        first = len(x) // 5  # lanes of the first samples, or of all
        return [actions[:first].repeat_interleave(5, 0)] * 2, [40 * right[:first].reshape(-1)] * 2

    monkeypatch.setattr(network, "cascade", knowing)
    assert network.loss(torch.zeros(6, 2, 3), actions, torch.Generator()) < 1e-6


def test_training_reduces_the_loss_and_ends_the_same_after_a_kill(tmp_path, toy_data, tiny_anchored_config):
    losses, config = [], TrainingConfig(steps=60, batch=32, lr=3e-3, warmup=5, weight_decay=1e-3, save_every=20)

    def run(progress=lambda step, loss: None, **saved):
        network = tiny_anchored_config(width=32)
        return train(*toy_data, network, config, family=AnchoredDecoder, progress=progress, **saved)

    def killed(step, loss):
        if step == 50:
            raise KeyboardInterrupt

    whole = run(lambda step, loss: losses.append(loss))
    assert np.isfinite(losses).all() and np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    with pytest.raises(KeyboardInterrupt):
        run(killed, state_file=tmp_path / "state")
    resumed = run(state_file=tmp_path / "state")
    for key, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[key], value), key


def test_a_step_of_its_own_goes_along_the_network_s_own_path_to_a_lower_level(network, monkeypatch):
    truth, noise = 0.5 * torch.ones(64, 5, 8, 2), torch.randn(64, 5, 8, 2, generator=torch.Generator().manual_seed(1))
    t = torch.arange(64)[:, None] % network.config.noised_levels
    a, s = network._signal_and_noise(t, torch.device("cpu"))
    monkeypatch.setattr(network, "cascade", lambda x, label, context: ([truth.reshape(-1, 8, 2)], []))
    x, target = network._stepped(a * truth + s * noise, t, torch.zeros(64, 2, 3), torch.Generator().manual_seed(2))
    assert ((target < t) | (t == 0)).all() and target.max() > 20
    a, s = network._signal_and_noise(target, torch.device("cpu"))
    torch.testing.assert_close(x, a * truth + s * noise, atol=1e-4, rtol=1e-4)
