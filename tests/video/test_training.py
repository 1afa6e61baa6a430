"""Training of video networks: it learns, a killed run goes on as if it had not been killed, and what is asked of a
network is what its parameterisation says.

Legend: B windows, N frames, C, H, W.
"""

import dataclasses

import numpy as np
import pytest
import torch

from ontick.diffusion import Prediction
from ontick.errors import InputError
from ontick.video import Clips, FrameTransformer, Values, VideoTrainingConfig, train_video
from ontick.video import training as module
from ontick.video.training import BEGINNING, beginnings_of, drawn_noise, window_batch, window_loss, window_starts

SHAPE = {"frames": 4, "width": 8, "layers": 1, "heads": 1}
MIXTURE = {"independent": 1.0, "context": 1.0, "rolling": 1.0, "fopp": 1.0, "shared": 1.0}
RUN = VideoTrainingConfig(steps=6, batch=2, lr=1e-3, warmup=2, save_every=2, levels=MIXTURE, causal=0.5)
PARAMETERISATIONS = {"sample": {}, "v": {"prediction": "v"}, "velocity": {"prediction": "velocity", "schedule": "flow"}}


class Killed(Exception):
    """Stands for a kill between two steps."""


def killed_after(steps):
    def progress(step, loss):
        if step + 1 == steps:
            raise Killed

    return progress


def weights_equal(one, other):
    ours, theirs = one.network.state_dict(), other.network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())


@pytest.fixture
def clips(squares):
    return squares()


@pytest.fixture
def config(video_config):
    return video_config(**SHAPE)


# -- windows ----------------------------------------------------------------------------------------------------------


def test_windows_are_all_spans_of_consecutive_frames_of_one_episode(squares, config):
    starts = window_starts(squares(episodes=2, frames=6), config)
    assert starts.tolist() == [0, 1, 2, 6, 7, 8]


def test_episodes_shorter_than_a_window_give_none(squares, config):
    whole = squares(episodes=2, frames=6)
    cut = Clips(whole.frames[:9], whole.actions[:9], np.array([3, 9]), whole.attributes)
    assert window_starts(cut, config).tolist() == [3, 4, 5]


def test_a_batch_holds_frames_as_a_network_sees_them_and_their_actions(clips, config):
    starts = window_starts(clips, config)
    frames, actions = window_batch(clips, starts, Values(), config, 5, torch.Generator().manual_seed(0))
    assert frames.shape == (5, 4, 3, 16, 16) and frames.min() == -1 and frames.max() == 1
    picks = torch.randint(len(starts), (5,), generator=torch.Generator().manual_seed(0))
    for i, pick in enumerate(picks):
        first = starts[pick]
        assert np.array_equal(Values().to_frames(frames[i]), clips.frames[first : first + 4])
        assert np.array_equal(actions[i].numpy(), clips.actions[first : first + 4])


@pytest.mark.parametrize("change", [{"size": 8}, {"channels": 1}, {"action_dim": 3}, {"frames": 15}])
def test_clips_that_do_not_fit_the_network_are_refused(change, clips, video_config):
    with pytest.raises(InputError, match=r"do not fit the network|longest episode") as caught:
        train_video(clips, video_config(**{**SHAPE, **change}), RUN)
    assert "\n" not in str(caught.value)


# -- what is asked ----------------------------------------------------------------------------------------------------


def setting(clips, video_config, kind):
    config = video_config(**SHAPE, **PARAMETERISATIONS[kind])
    network = FrameTransformer(config)
    return network, window_batch(clips, window_starts(clips, config), Values(), config, 16, torch.Generator())


def knowing(network, frames, spoil=lambda label: 0.0):
    """A `predict` that knows the frames; `spoil` adds to its answer, by label."""

    def predict(x, label, context, rows):
        a, s = 1 - label, label
        if not network.schedule.is_flow:
            alpha_bar = torch.from_numpy(network.schedule.alpha_bar)[label.long()]
            a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
            a, s = torch.where(label == 0, 1.0, a), torch.where(label == 0, 0.0, s)
        a, s = a[..., None, None, None], s[..., None, None, None]
        noise = torch.where(s > 0, (x.double() - a * frames) / s.clamp(min=1e-9), 0.0)
        out = {"sample": frames.double(), "v": a * noise - s * frames, "velocity": noise - frames}[network.prediction]
        return Prediction((out + spoil(label)).float())

    return predict


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_the_loss_of_a_network_that_knows_the_answer_is_zero(kind, clips, video_config):
    network, (frames, actions) = setting(clips, video_config, kind)
    config = VideoTrainingConfig(levels=MIXTURE)
    network.predict = knowing(network, frames)
    assert window_loss(network, frames, actions, config, torch.Generator().manual_seed(1)) < 1e-6
    network.predict = knowing(network, frames, lambda label: 0.1)
    assert window_loss(network, frames, actions, config, torch.Generator().manual_seed(1)) > 5e-3


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_clean_frames_carry_no_loss(kind, clips, video_config):
    network, (frames, actions) = setting(clips, video_config, kind)
    clean = []

    def spoil(label):
        clean.append(int((label == 0).sum()))
        return torch.where(label == 0, 100.0, 0.0)[..., None, None, None]

    network.predict = knowing(network, frames, spoil)
    config = VideoTrainingConfig(levels={"context": 1.0})
    assert window_loss(network, frames, actions, config, torch.Generator().manual_seed(1)) < 1e-6
    assert clean[0] > 0


def test_a_batch_of_clean_frames_has_no_loss(clips, video_config, monkeypatch):
    network, (frames, actions) = setting(clips, video_config, "v")
    still = torch.zeros(16, 4)
    monkeypatch.setattr(module, "drawn_noise", lambda *inputs: (still, still + 1, still))
    assert window_loss(network, frames, actions, VideoTrainingConfig(), torch.Generator()) == 0


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_noise_is_that_of_the_level_and_a_clean_frame_is_told_zero(kind, video_config):
    network = FrameTransformer(video_config(**SHAPE, **PARAMETERISATIONS[kind]))
    label, a, s = drawn_noise(network, {"independent": 1, "context": 1}, 500, 4, torch.Generator().manual_seed(0))
    assert torch.equal(label == 0, s == 0) and (a[s == 0] == 1).all() and (label == 0).any()
    if network.schedule.is_flow:
        assert torch.equal(label, s) and torch.equal(a, 1 - s) and s.max() > 0.99
    else:
        wanted = torch.from_numpy(network.schedule.alpha_bar).float()[label.long()].sqrt()
        torch.testing.assert_close(a, torch.where(label == 0, 1.0, wanted))
        torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))


@pytest.mark.parametrize(("share", "seen"), [(0.0, {0}), (1.0, {1}), (0.5, {0, 1})])
def test_the_causal_share_of_the_steps_sees_frame_after_frame(share, seen, clips, config, monkeypatch):
    blocks = []
    predict = FrameTransformer.predict

    def noting(self, *asked):
        blocks.append(self.causal_block)
        return predict(self, *asked)

    monkeypatch.setattr(FrameTransformer, "predict", noting)
    run = dataclasses.replace(RUN, steps=16, batch=1, causal=share)
    train_video(clips, config, run)
    assert set(blocks) == seen and len(blocks) == 16


# -- it learns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_training_reduces_the_loss(kind, clips, video_config):
    losses = []
    config = video_config(**{**SHAPE, "width": 16}, **PARAMETERISATIONS[kind])
    run = VideoTrainingConfig(steps=80, batch=4, lr=1e-2, warmup=5, levels={"shared": 1, "independent": 1})
    trained = train_video(clips, config, run, progress=lambda step, loss: losses.append(loss), about={"fps": 10})
    assert len(losses) == 80 and np.mean(losses[-20:]) < 0.8 * np.mean(losses[:5])
    assert trained.about["fps"] == 10 and trained.about["training"]["steps"] == 80 and trained.values == Values()
    assert not trained.network.training and not any(p.requires_grad for p in trained.network.parameters())


def test_fields_are_seen_in_units_of_their_deviation(squares, video_config):
    config = video_config(**SHAPE, channels=1, clip=None)
    trained = train_video(squares(kind="field"), config, dataclasses.replace(RUN, steps=1))
    assert trained.values == Values("field", 1.2)


# -- killed and resumed -----------------------------------------------------------------------------------------------


def test_two_runs_are_equal_bit_for_bit_and_draw_nothing_from_the_caller(clips, config):
    torch.manual_seed(1)
    one = train_video(clips, config, RUN)
    torch.manual_seed(2)
    assert weights_equal(train_video(clips, config, RUN), one)
    assert not weights_equal(train_video(clips, config, dataclasses.replace(RUN, seed=1)), one)


@pytest.mark.parametrize("kill", [1, 3, 5])
def test_a_killed_run_ends_as_an_uninterrupted_one_bit_for_bit(kill, tmp_path, clips, config):
    wanted, steps, state = train_video(clips, config, RUN), [], tmp_path / "run" / "state"
    with pytest.raises(Killed):
        train_video(clips, config, RUN, state_file=state, progress=killed_after(kill))
    got = train_video(clips, config, RUN, state_file=state, progress=lambda step, loss: steps.append(step))
    assert weights_equal(got, wanted) and steps == list(range((kill - 1) // 2 * 2, 6))


@pytest.fixture
def saved(tmp_path, clips, config):
    with pytest.raises(Killed):
        train_video(clips, config, RUN, state_file=tmp_path / "state", progress=killed_after(3))
    return tmp_path / "state"


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"seed": 1}, {"levels": {"fopp": 1.0}}, {"causal": 0.0}])
def test_the_state_of_a_run_with_other_settings_is_refused(change, saved, clips, config):
    with pytest.raises(InputError, match="other settings or data"):
        train_video(clips, config, dataclasses.replace(RUN, **change), state_file=saved)


def test_the_state_of_other_data_or_of_another_network_is_refused(saved, clips, squares, video_config):
    config = video_config(**SHAPE)
    with pytest.raises(InputError, match="other settings or data"):
        train_video(clips, video_config(**{**SHAPE, "layers": 2}), RUN, state_file=saved)
    with pytest.raises(InputError, match="other settings or data"):
        train_video(squares(episodes=2), config, RUN, state_file=saved)
    still = Clips(clips.frames, clips.actions * 0, clips.ends, clips.attributes)
    with pytest.raises(InputError, match="other settings or data"):
        train_video(still, config, RUN, state_file=saved)


def test_a_corrupt_state_is_refused_in_one_line(saved, clips, config):
    saved.write_bytes(saved.read_bytes()[:200])
    with pytest.raises(InputError, match="is not a training state") as caught:
        train_video(clips, config, RUN, state_file=saved)
    assert "\n" not in str(caught.value)


def test_a_run_that_blows_up_stops_with_the_step_it_did(clips, config):
    wild = VideoTrainingConfig(steps=30, batch=2, lr=1e30, warmup=0)
    with pytest.raises(InputError, match="at step"):
        train_video(clips, config, wild)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"causal": 1.5}, "wanted a share"),
        ({"gradient_clip": 0.0}, "a norm above 0"),
        ({"levels": {"some": 1}}, "unknown levels some"),
        ({"steps": 0}, "steps is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
    ],
)
def test_settings_out_of_their_range_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        VideoTrainingConfig(**wrong)


def test_a_checkpoint_keeps_frames_from_the_middle_of_its_episodes_to_begin_with(squares):
    squares = squares()
    beginnings = beginnings_of(squares)
    first = squares.ends - squares.lengths
    for frames, actions in zip(*beginnings, strict=True):
        found = [
            i
            for i in range(len(squares.frames) - BEGINNING + 1)
            if (squares.frames[i : i + BEGINNING] == frames.numpy()).all()
            and (squares.actions[i : i + BEGINNING] == actions.numpy()).all()
        ]
        assert any((first < i).any() and not set(range(i + 1, i + BEGINNING)) & set(first) for i in found)
