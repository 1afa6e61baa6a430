"""Training: windows and hyper-parameters are the published ones, it learns, and a killed run goes on as if it had not
been killed.

Legend: M windows, Tp rows, To observation steps, Ta executed rows.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ontick.diffusion import Prediction, load_plan
from ontick.errors import InputError
from ontick.policy import (
    DiffusionPolicy,
    StreamingTransformer,
    TrainingConfig,
    TransformerForDiffusion,
    streaming,
    train,
)
from ontick.policy.training import Windows, ema_decay, learning_rate, optimiser, window_frames


class Killed(Exception):
    """Stands for a kill between two steps."""


def killed_after(steps):
    def progress(step, loss):
        if step + 1 == steps:
            raise Killed

    return progress


def states_equal(one, other):
    ours = one.network.state_dict() | one.normaliser.tensors()
    theirs = other.network.state_dict() | other.normaliser.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())


# -- windows ----------------------------------------------------------------------------------------------------------


def published_windows(lengths, horizon, pad_before, pad_after):
    """Diffusion Policy's sampler, slowly: every start from -pad_before to length - horizon + pad_after, each row that
    falls outside of its episode replaced by the episode's nearest frame."""
    windows, start = [], 0
    for length in lengths:
        for first in range(-pad_before, length - horizon + pad_after + 1):
            windows.append([start + min(max(first + row, 0), length - 1) for row in range(horizon)])
        start += length
    return windows


@pytest.mark.parametrize(("horizon", "To", "Ta"), [(8, 2, 4), (16, 2, 8), (5, 3, 1), (16, 4, 8), (4, 1, 4)])
def test_windows_are_those_of_the_published_sampler(horizon, To, Ta, tiny_config):
    config = tiny_config(horizon=horizon, n_obs_steps=To, n_action_steps=Ta)
    lengths = [20, 16, 33, 17]
    got = window_frames(np.cumsum(lengths), config)
    assert got.tolist() == published_windows(lengths, horizon, To - 1, Ta - 1)


def test_no_window_crosses_an_episode_and_every_frame_is_the_newest_of_one(tiny_config):
    config = tiny_config()
    ends = np.cumsum([9, 12, 8, 30])
    episode = np.searchsorted(ends, np.arange(ends[-1]), side="right")
    frames = window_frames(ends, config)
    assert (episode[frames] == episode[frames[:, :1]]).all()
    newest = {(window[config.n_obs_steps - 1]) for window in frames}
    last_asked = set(np.concatenate([np.arange(s, e - 4) for s, e in itertools.pairwise([0, *ends])]))
    assert last_asked <= newest


def test_an_episode_shorter_than_a_window_is_still_seen(tiny_config):
    frames = window_frames(np.array([1, 4]), tiny_config())
    assert frames.tolist() == [[0] * 8, [1, 1, 2, 3, 3, 3, 3, 3]]


def test_a_batch_pairs_the_first_observations_of_a_window_with_all_its_actions(toy_data, tiny_config):
    observations, actions, ends = (torch.from_numpy(x) for x in toy_data)
    frames = torch.from_numpy(window_frames(ends.numpy(), tiny_config()))
    obs, rows = Windows(observations, actions, frames).batch(torch.tensor([0, 1, 50]), tiny_config())
    assert obs.shape == (3, 2, 3) and rows.shape == (3, 8, 2)
    assert torch.equal(obs[0], observations[[0, 0]]) and torch.equal(rows[1], actions[:8])


@pytest.mark.parametrize(("horizon", "To"), [(8, 2), (16, 4), (4, 1)])
def test_where_rows_begin_at_the_newest_observation_every_frame_is_the_newest_of_one_window(horizon, To, tiny_config):
    config = tiny_config(horizon=horizon, n_obs_steps=To, n_action_steps=1)
    ends = np.cumsum([20, 33, 16])
    frames = window_frames(ends, config, from_newest=True)
    assert frames.shape[1] == To - 1 + horizon
    assert frames[:, To - 1].tolist() == list(range(ends[-1]))
    for start, end in itertools.pairwise([0, *ends]):
        within = frames[start:end] - start  # the windows of this episode
        wanted = np.arange(end - start)[:, None] + np.arange(-(To - 1), horizon)
        assert np.array_equal(within, wanted.clip(0, end - start - 1))


def test_such_a_batch_pairs_the_newest_observation_with_the_action_that_was_taken_then(toy_data, tiny_config):
    observations, actions, ends = (torch.from_numpy(x) for x in toy_data)
    frames = torch.from_numpy(window_frames(ends.numpy(), tiny_config(), from_newest=True))
    obs, rows = Windows(observations, actions, frames).batch(torch.tensor([5, 47]), tiny_config())
    assert torch.equal(obs[:, -1], observations[[5, 47]]) and torch.equal(obs[:, 0], observations[[4, 46]])
    assert torch.equal(rows, torch.stack([actions[5:13], actions[47:55]]))


# -- hyper-parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1])
def test_matrices_decay_and_biases_norms_and_embeddings_do_not(layers, tiny_config):
    network = TransformerForDiffusion(tiny_config(n_cond_layers=layers))
    groups = optimiser(network, TrainingConfig(weight_decay=0.1)).param_groups
    names = {id(p): name for name, p in network.named_parameters()}
    decay, keep = ({names[id(p)] for p in group["params"]} for group in groups)
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert decay | keep == set(names.values()) and not decay & keep

    def is_matrix(name):
        return name.endswith("weight") and "norm" not in name and name != "ln_f.weight"

    assert decay == {name for name in names.values() if is_matrix(name)}
    assert {"_dummy_variable", "pos_emb", "cond_pos_emb", "ln_f.weight"} <= keep
    assert "decoder.layers.0.self_attn.in_proj_weight" in decay
    assert "decoder.layers.0.self_attn.in_proj_bias" in keep


def test_adamw_has_the_published_settings(tiny_config):
    optim = optimiser(TransformerForDiffusion(tiny_config()), TrainingConfig())
    assert isinstance(optim, torch.optim.AdamW)
    assert all(g["betas"] == (0.9, 0.95) and g["lr"] == 1e-4 for g in optim.param_groups)


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    config = TrainingConfig(steps=3000, warmup=1000, lr=1e-4)
    known = {0: 1e-7, 499: 5e-5, 999: 1e-4, 1000: 1e-4, 1500: 1e-4 * (1 + 2**-0.5) / 2, 2000: 5e-5, 3000: 0}
    for step, wanted in known.items():
        assert learning_rate(step, config) == pytest.approx(wanted, abs=1e-12)
    assert learning_rate(0, TrainingConfig(steps=10, warmup=0, lr=1e-3)) == 1e-3


def test_the_moving_average_starts_at_once_and_slows_down_to_its_limit():
    config = TrainingConfig()
    known = {0: 0.0, 1: 1 - 2**-0.75, 15: 0.875, 9999: 0.999}
    for step, wanted in known.items():
        assert ema_decay(step, config) == pytest.approx(wanted, abs=1e-12)
    assert ema_decay(10**9, config) == 0.9999


def test_after_the_first_step_the_average_is_the_network_itself(toy_data, tiny_config):
    # Its decay is 0 then, and the step's learning rate is too small to hide a difference.
    config = TrainingConfig(steps=1, batch=4, lr=1e-2, warmup=0)
    torch.manual_seed(config.seed)
    before = TransformerForDiffusion(tiny_config()).state_dict()
    after = train(*toy_data, tiny_config(), config).network.state_dict()
    step = {k: (after[k] - before[k]).abs().max() for k in before if before[k].numel() and "mask" not in k}
    assert max(step.values()) == pytest.approx(1e-2, rel=0.2)  # AdamW's first step is lr in every dimension


@pytest.mark.parametrize("family", [TransformerForDiffusion, StreamingTransformer])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_the_loss_is_zero_for_a_network_that_knows_the_answer(prediction, family, tiny_config, monkeypatch):
    monkeypatch.setattr(streaming, "OLD", 0.0)  # noised demonstrations alone
    network, m = family(tiny_config(prediction=prediction)), family.lookback
    shown = torch.randn(64, m + 8, 2, generator=torch.Generator().manual_seed(1))
    actions = shown[:, m:]
    alpha_bar = torch.from_numpy(network.schedule.alpha_bar).float()
    seen = []

    def knowing(x, label, context):
        a, s = alpha_bar[label.long()].sqrt()[..., None], (1 - alpha_bar[label.long()]).sqrt()[..., None]
        noise = (x - a * actions) / s
        seen.append(noise)
        return Prediction({"epsilon": noise, "sample": actions, "v": a * noise - s * actions}[prediction])

    network.predict = knowing
    assert network.loss(torch.zeros(64, m + 2, 3), shown, torch.Generator().manual_seed(0)) < 1e-4
    assert abs(seen[0].std() - 1) < 0.1


# -- it learns --------------------------------------------------------------------------------------------------------


def test_training_reduces_the_loss_and_denoises_toy_data(toy_data, tiny_config):
    observations, actions, ends = toy_data
    losses = []
    config = TrainingConfig(steps=500, batch=64, lr=3e-3, warmup=20, weight_decay=1e-3)
    trained = train(
        observations, actions, ends, tiny_config(width=32), config, progress=lambda step, loss: losses.append(loss)
    )
    assert len(losses) == 500
    first, last = np.mean(losses[:10]), np.mean(losses[-50:])
    assert last < 0.5 * first
    lanes = list(range(32))
    policy = DiffusionPolicy(trained, load_plan("ddim-10"), width=32)
    policy.reset(lanes, lanes)
    newest = np.linspace(5, 390, 32).astype(int) // 40 * 40 + np.linspace(5, 25, 32).astype(int)
    chunk = policy.predict_action_chunk(np.stack([observations[newest - 1], observations[newest]], 1), lanes)
    wanted = actions[newest[:, None] + np.arange(4)]
    error = np.sqrt(((chunk - wanted) ** 2).mean((0, 1)))
    assert (error < 0.35 * wanted.std((0, 1))).all()  # a policy that ignored the observation would be at 1


def test_training_tells_what_it_was(toy_data, tiny_config):
    config = TrainingConfig(steps=1, batch=2)
    trained = train(*toy_data, tiny_config(), config, about={"task": "circle"})
    assert trained.about["task"] == "circle" and trained.about["training"]["batch"] == 2
    assert not trained.network.training and not any(p.requires_grad for p in trained.network.parameters())


# -- killed and resumed -----------------------------------------------------------------------------------------------

RUN = TrainingConfig(steps=9, batch=8, lr=1e-3, warmup=3, save_every=2)


@pytest.mark.parametrize("kill", [1, 2, 5, 8])
def test_a_killed_run_ends_as_an_uninterrupted_one_bit_for_bit(kill, tmp_path, toy_data, tiny_config):
    network = tiny_config(p_drop_attn=0.1)  # dropout must come back to its place, too
    wanted = train(*toy_data, network, RUN)
    state = tmp_path / "run" / "state.safetensors"
    with pytest.raises(Killed):
        train(*toy_data, network, RUN, state_file=state, progress=killed_after(kill))
    steps = []
    got = train(*toy_data, network, RUN, state_file=state, progress=lambda step, loss: steps.append(step))
    assert states_equal(got, wanted)
    # The killed step's own save never happened.
    assert steps == list(range((kill - 1) // 2 * 2, 9))


def test_a_finished_run_is_not_trained_again(tmp_path, toy_data, tiny_config):
    config = dataclasses.replace(RUN, steps=4)
    wanted = train(*toy_data, tiny_config(), config, state_file=tmp_path / "state")
    steps = []
    got = train(
        *toy_data, tiny_config(), config, state_file=tmp_path / "state", progress=lambda step, _: steps.append(step)
    )
    assert not steps and states_equal(got, wanted)


def test_training_draws_nothing_from_the_callers_random_numbers(toy_data, tiny_config):
    config = dataclasses.replace(RUN, steps=2)
    torch.manual_seed(1)
    one = train(*toy_data, tiny_config(), config)
    torch.manual_seed(2)
    assert states_equal(train(*toy_data, tiny_config(), config), one)
    assert not states_equal(train(*toy_data, tiny_config(), dataclasses.replace(config, seed=1)), one)


@pytest.fixture
def saved(tmp_path, toy_data, tiny_config):
    with pytest.raises(Killed):
        train(*toy_data, tiny_config(), RUN, state_file=tmp_path / "state", progress=killed_after(5))
    return tmp_path / "state"


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"seed": 1}, {"batch": 4}, {"steps": 10}])
def test_the_state_of_a_run_with_other_settings_is_refused(change, saved, toy_data, tiny_config):
    with pytest.raises(InputError, match="other settings or data"):
        train(*toy_data, tiny_config(), dataclasses.replace(RUN, **change), state_file=saved)


def test_the_state_of_another_network_or_of_fewer_episodes_is_refused(saved, toy_data, tiny_config):
    with pytest.raises(InputError, match="other settings or data"):
        train(*toy_data, tiny_config(layers=1), RUN, state_file=saved)
    observations, actions, ends = toy_data
    with pytest.raises(InputError, match="other settings or data"):
        train(observations[:360], actions[:360], ends[:-1], tiny_config(), RUN, state_file=saved)


def test_a_corrupt_state_is_refused_in_one_line(saved, toy_data, tiny_config):
    whole = saved.read_bytes()
    for spoilt in (whole[: len(whole) // 2], b"", b"not a state at all", whole[:8] + b"}" * 40):
        saved.write_bytes(spoilt)
        with pytest.raises(InputError, match="is not a training state") as caught:
            train(*toy_data, tiny_config(), RUN, state_file=saved)
        assert "\n" not in str(caught.value)


def test_a_safetensors_file_of_something_else_is_refused(saved, toy_data, tiny_config):
    save_file(load_file(saved), saved)  # the tensors without what they belong to
    with pytest.raises(InputError):
        train(*toy_data, tiny_config(), RUN, state_file=saved)


def test_a_save_that_dies_leaves_the_state_before_it(saved, toy_data, tiny_config, monkeypatch):
    from ontick import learning as module

    wanted = train(*toy_data, tiny_config(), RUN)
    before = saved.read_bytes()

    def dying(tensors, path, metadata):
        save_file(tensors, path, metadata)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "save_file", dying)
        train(*toy_data, tiny_config(), RUN, state_file=saved)
    assert saved.read_bytes() == before
    assert states_equal(train(*toy_data, tiny_config(), RUN, state_file=saved), wanted)


def test_the_state_of_another_family_is_refused(saved, toy_data, tiny_config):
    with pytest.raises(InputError, match="other settings or data"):
        train(*toy_data, tiny_config(), RUN, family=StreamingTransformer, state_file=saved)


# -- begun from a checkpoint ------------------------------------------------------------------------------------------


def test_a_run_begins_with_the_weights_and_the_normaliser_it_is_given(toy_data, tiny_config, random_checkpoint):
    given = random_checkpoint(tiny_config())
    still = TrainingConfig(steps=1, batch=2, lr=1e-12, weight_decay=0)
    begun = train(*toy_data, tiny_config(), still, begin_from=given)
    for key, value in given.network.state_dict().items():
        torch.testing.assert_close(begun.network.state_dict()[key], value)
    assert all(torch.equal(begun.normaliser.tensors()[key], value) for key, value in given.normaliser.tensors().items())
    assert not any(p.requires_grad for p in given.network.parameters()), "the given one is as it was"


def test_a_checkpoint_of_another_shape_or_with_more_than_the_network_has_is_refused(
    toy_data, tiny_config, random_checkpoint
):
    with pytest.raises(InputError, match="of another shape"):
        train(*toy_data, tiny_config(), RUN, begin_from=random_checkpoint(tiny_config(width=32)))
    for more in (random_checkpoint(tiny_config(layers=3)), random_checkpoint(family=StreamingTransformer)):
        with pytest.raises(InputError, match="which this network has not"):
            train(*toy_data, tiny_config(), RUN, begin_from=more)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite_are_refused_before_the_first_step(which, value, toy_data, tiny_config):
    data = [x.copy() for x in toy_data]
    data[which][17, 1] = value
    with pytest.raises(InputError, match="1 frames, the first is 17"):
        train(*data, tiny_config(), RUN, progress=killed_after(1))


@pytest.mark.parametrize(
    "ends", [[], [40, 40, 400], [40, 30, 400], [40, 399], [40, 401], [0, 400]], ids=lambda ends: f"ends {ends}"
)
def test_episodes_that_do_not_divide_the_frames_are_refused(ends, toy_data, tiny_config):
    with pytest.raises(InputError, match="episode ends"):
        train(*toy_data[:2], np.array(ends, dtype=int), tiny_config(), RUN)


def test_data_of_another_width_are_refused(toy_data, tiny_config):
    with pytest.raises(InputError, match="do not fit the network"):
        train(*toy_data, tiny_config(action_dim=3), RUN)
    observations, actions, ends = toy_data
    with pytest.raises(InputError, match="do not fit the network"):
        train(observations[:-1], actions, ends, tiny_config(), RUN)


def test_flow_schedules_are_refused(toy_data, tiny_config):
    with pytest.raises(InputError, match="flow"):
        train(*toy_data, tiny_config(schedule="flow"), RUN)


def test_a_run_that_blows_up_stops_with_the_step_it_did(toy_data, tiny_config):
    with pytest.raises(InputError, match="at step"):
        train(*toy_data, tiny_config(), TrainingConfig(steps=50, batch=4, lr=1e30, warmup=0))


@pytest.mark.parametrize("name", ["steps", "batch", "save_every"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(InputError, match=f"{name} is 0"):
        TrainingConfig(**{name: 0})
