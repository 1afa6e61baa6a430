"""A level a row: where all rows share one and the row embedding is zero the network is the published one, and it is
trained on what the engine's queue tells it.

Legend: B lanes, T rows, H rows of a block, S = T / H steps of a row.
"""

import pytest
import torch

from ontick.diffusion import Inputs, Prediction, build, load_plan
from ontick.policy import StreamingTransformer, TransformerForDiffusion, train
from ontick.policy.streaming import TOGETHER, queue_labels
from ontick.policy.training import TrainingConfig


def inputs(lanes=5, rows=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(lanes, rows, 2, generator=g), torch.randn(lanes, 2, 3, generator=g)


@pytest.fixture
def pair(tiny_config, random_network):
    """pair(**changes) -> the published network and a streaming one with its weights and a zero row embedding."""

    def make(**changes):
        published = random_network(tiny_config(**changes))
        streaming = StreamingTransformer(published.config).eval().requires_grad_(False)
        streaming.load_state_dict(published.state_dict(), strict=False)
        return published, streaming

    return make


def predict(network, x, label, obs):
    return network.predict(x, label, network.prepare(obs)).x


# -- the published network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("level", [0, 37, 99])
def test_with_one_shared_level_it_gives_the_published_bits(layers, level, pair):
    published, streaming = pair(n_cond_layers=layers, causal=False)
    x, obs = inputs()
    label = torch.full((5, 8), float(level))
    assert torch.equal(predict(streaming, x, label, obs), predict(published, x, label, obs))


def test_a_causal_one_gives_the_published_bits_but_shows_row_0_every_observation(pair, monkeypatch):
    published, streaming = pair(causal=True)
    x, obs = inputs()
    label = torch.full((5, 8), 37.0)
    ours = predict(streaming, x, label, obs)
    assert not torch.equal(ours, predict(published, x, label, obs))
    tell = published.tell
    monkeypatch.setattr(published, "tell", lambda asked: tell(asked)._replace(memory_mask=None))
    assert torch.equal(ours, predict(published, x, label, obs))


def test_published_weights_load_and_only_the_row_embedding_is_missing(tiny_config, random_network):
    streaming = StreamingTransformer(tiny_config())
    left = streaming.load_state_dict(random_network(tiny_config()).state_dict(), strict=False)
    assert set(left.missing_keys) == {"row_level.weight", "row_level.bias"} and not left.unexpected_keys
    assert not any(p.any() for p in streaming.row_level.parameters())


def test_a_training_may_begin_from_a_published_checkpoint(random_checkpoint, toy_data, tiny_config):
    published = random_checkpoint(tiny_config())
    still = TrainingConfig(steps=1, batch=2, lr=1e-12, weight_decay=0)
    begun = train(*toy_data, tiny_config(), still, family=StreamingTransformer, begin_from=published)
    for key, value in published.network.state_dict().items():
        torch.testing.assert_close(begun.network.state_dict()[key], value)
    for key, value in published.normaliser.tensors().items():
        assert torch.equal(begun.normaliser.tensors()[key], value)


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 3, 7])
def test_a_row_does_not_depend_on_what_later_rows_hold(row, tiny_config, random_network):
    network = random_network(tiny_config(), family=StreamingTransformer)
    x, obs = inputs()
    label = torch.arange(8.0).expand(5, -1) * 13
    changed = x.clone()
    changed[:, row + 1 :] += 3
    before, after = predict(network, x, label, obs), predict(network, changed, label, obs)
    assert torch.equal(before[:, : row + 1], after[:, : row + 1])
    if row < 7:
        assert not torch.equal(before, after)


def test_each_row_is_told_its_own_level(tiny_config, random_network):
    network = random_network(tiny_config(), family=StreamingTransformer)
    x, obs = inputs()
    label = torch.arange(8.0).expand(5, -1)
    swapped = label[:, [1, 0, 2, 3, 4, 5, 6, 7]]  # the mean, which the time token holds, is the same
    assert not torch.allclose(predict(network, x, label, obs)[:, 0], predict(network, x, swapped, obs)[:, 0])


def test_it_is_no_network_for_the_exact_stack(tiny_config):
    assert StreamingTransformer(tiny_config()).anatomy() is None and StreamingTransformer.levels == "position"
    assert TransformerForDiffusion(tiny_config()).first_row == 1 and StreamingTransformer(tiny_config()).first_row == 0


# -- levels of training and of the queue ------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_what_is_trained_is_what_the_queue_tells_the_network(block, tiny_config, random_network, monkeypatch):
    config = tiny_config(horizon=16)
    network, told = random_network(config, family=StreamingTransformer), []

    def spy(x, label, context, rows):
        told.append(label.clone())
        return Prediction(torch.zeros_like(x))

    monkeypatch.setattr(network, "predict", spy)
    program = build(network, load_plan(f"diagonal-{block}"), (2,), None)
    state = program.start(torch.tensor([1, 2]), torch.tensor([0, 0]))
    ramp = 16 // block
    for _ in range(ramp + 5):
        state, _ = program.tick(state, Inputs(None))
    trained = queue_labels(config, block)
    assert trained.shape == (ramp, 16)
    for tick, label in enumerate(told):
        assert torch.equal(label, trained[min(tick, ramp - 1)].float().expand(2, -1)), tick


def test_levels_rise_along_the_rows_of_every_sample_and_are_those_of_some_queue(tiny_config):
    network = StreamingTransformer(tiny_config(horizon=16))
    levels = network.drawn_levels(4000, torch.Generator().manual_seed(0))
    assert levels.shape == (4000, 16) and levels.min() >= 0 and levels.max() < 100
    assert (levels.diff(dim=1) >= 0).all()
    queues = {tuple(row) for block in (1, 2, 4, 8) for row in queue_labels(network.config, block).tolist()}
    shared = (levels == levels[:, :1]).all(1)
    drawn = {tuple(row) for row in levels[~shared].tolist()}
    assert drawn <= queues
    assert TOGETHER < shared.float().mean() < TOGETHER + 0.1, "beside them the queues in which nothing has moved yet"
    assert queues - drawn <= {row for row in queues if len(set(row)) == 1}, "every queue at every tick is drawn"


def test_levels_and_loss_are_those_of_the_generator(tiny_config, random_network):
    network = random_network(tiny_config(), family=StreamingTransformer)
    obs, actions = shown(lanes=16)

    def loss(seed):
        return network.loss(obs, actions, torch.Generator().manual_seed(seed))

    assert torch.equal(loss(1), loss(1)) and not torch.equal(loss(1), loss(2)) and torch.isfinite(loss(1))


# -- queues of its own ------------------------------------------------------------------------------------------------


def shown(m=6, lanes=4, T=8):
    """Observations [B, m + To, Do] and actions [B, m + T, Da] as a batch of training has them."""
    g = torch.Generator().manual_seed(5)
    return torch.randn(lanes, m + 2, 3, generator=g), torch.rand(lanes, m + T, 2, generator=g) * 2 - 1


@pytest.mark.parametrize("ticks", [1, 3, 6])
def test_a_network_that_knows_the_demonstration_ticks_its_queue_onto_the_noised_demonstration(
    ticks, tiny_config, monkeypatch
):
    network = StreamingTransformer(tiny_config())
    obs, actions = shown()
    a, s = network.signal_and_noise(queue_labels(network.config, 1)[-1].expand(4, -1), actions)
    told = []

    def knowing(x, label, context, rows=None):
        first = int(rows.index[0, 0])  # position 0 belongs to the observation of the first tick
        told.append((first, context))
        return Prediction((x - a * actions[:, first : first + 8]) / s)

    monkeypatch.setattr(network, "predict", knowing)
    monkeypatch.setattr(network, "prepare", lambda obs: obs)
    x = network.ticked_queue(obs, actions[:, :8], ticks, torch.Generator().manual_seed(1))
    assert [first for first, _ in told] == list(range(ticks))
    assert all(torch.equal(seen, obs[:, i : i + 2]) for i, (_, seen) in enumerate(told))
    noise = (x - a * actions[:, ticks : ticks + 8]) / s
    assert noise[:, :-1].abs().max() < 5 and abs(noise.mean()) < 0.5  # noised by its level, and by nothing else


def test_the_loss_of_a_queue_looks_at_the_observations_of_its_time_alone(tiny_config, random_network):
    network = random_network(tiny_config(), family=StreamingTransformer)
    obs, actions = shown(lanes=10)
    seen = []
    prepare = network.prepare
    network.prepare = lambda obs: seen.append(obs) or prepare(obs)
    network.loss(obs, actions, torch.Generator().manual_seed(3))
    plain, *ticks, now = seen
    old = len(now)
    assert torch.equal(now, obs[:old, 6:]) and torch.equal(plain, obs[old:, 6:]) and 1 <= len(ticks) <= 6
    assert all(torch.equal(tick, obs[:old, 6 - len(ticks) + i :][:, :2]) for i, tick in enumerate(ticks))


def test_only_the_last_call_of_a_queue_is_learnt_from(tiny_config, random_network):
    network = random_network(tiny_config(), family=StreamingTransformer).requires_grad_(True)
    obs, actions = shown()
    x = network.ticked_queue(obs, actions[:, :8], 2, torch.Generator().manual_seed(1))
    assert not x.requires_grad
    network.loss(*shown(), torch.Generator().manual_seed(1)).backward()
    assert network.row_level.weight.grad.abs().sum() > 0
