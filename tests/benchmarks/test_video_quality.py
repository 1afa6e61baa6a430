"""Samplers of a video network judged on held-out clips: what is compared with what, and that it runs to its end."""

import json

import numpy as np
import pytest
import torch

from ontick.benchmarks import video_quality
from ontick.benchmarks.video_pictures import horizons, table
from ontick.errors import InputError
from ontick.video import (
    Clips,
    FrameTransformer,
    Values,
    VideoCheckpoint,
    VideoConfig,
    save_video_checkpoint,
    write_clips,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*samples of .* features:UserWarning")
NETWORK = {"size": 8, "patch": 4, "frames": 4, "width": 16, "layers": 1, "heads": 2}


def clips_of(kind: str = "rgb", action_dim: int = 2, episodes: int = 3, length: int = 24) -> Clips:
    rng = np.random.default_rng(0)
    shape = (episodes * length, 8, 8, 3 if kind == "rgb" else 1)
    frames = rng.integers(0, 256, shape, dtype=np.uint8) if kind == "rgb" else rng.normal(size=shape).astype(np.float32)
    actions = rng.uniform(-1, 1, (len(frames), action_dim)).astype(np.float32)
    told = {"kind": kind, "scene": "noise", "fps": 10, "seed": 0} | ({"scale": 1.0} if kind == "field" else {})
    return Clips(frames, actions, np.arange(1, episodes + 1) * length, told)


def checkpoint_of(kind: str = "rgb", action_dim: int = 2) -> VideoCheckpoint:
    torch.manual_seed(0)
    shape = {"channels": 3 if kind == "rgb" else 1, "action_dim": action_dim}
    network = FrameTransformer(VideoConfig(**NETWORK, **shape))
    for part in network.parameters():
        torch.nn.init.normal_(part, std=0.2)
    return VideoCheckpoint(network.eval().requires_grad_(False), Values(kind))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, value in {"TIMED": (2, 2), "REACTIONS": 1, "STARTS": 1, "SHUFFLES": 1}.items():
        monkeypatch.setattr(video_quality, name, value)


def measured(folder, plans: str, *more: str, **kind) -> dict:
    save_video_checkpoint(folder / "weights", checkpoint_of(**kind))
    write_clips(folder / "held.zarr", clips_of(**kind))
    asked = [str(folder / "weights"), "--clips", str(folder / "held.zarr"), "--out", str(folder / "tiny")]
    video_quality.main([*asked, "--n", "3", "--frames", "6", "--prompt", "2", "--plans", plans, *more])
    return json.loads((folder / "tiny.json").read_text())


def test_two_plans_are_judged_drawn_and_timed_from_end_to_end(tmp_path, capsys):
    document = measured(tmp_path, "full:steps=2,fifo:view=all:steps=4", "--members", "2")
    printed = capsys.readouterr().out.splitlines()
    assert printed == table(document) and sum("fifo:view=all" in line for line in printed) == 2
    assert horizons(document) == [1, 2, 4] and document["n"] == 3 and document["machine"]["threads"] == 1
    first, second = document["rows"]
    for row in (first, second):
        assert len(row["psnr_db"]) == len(row["mse"]) == len(row["crps"]) == len(row["spread_skill"]) == 6
        assert row["gain_db"]["low"] <= row["gain_db"]["mean"] <= row["gain_db"]["high"]
        assert row["spatial"] > 0 and row["temporal"] > 0 and row["action_shuffle"] > 0
        cost = row["cost"]
        assert cost["frame_ms"]["n"] == 2 and cost["call_ms"] > 0 and cost["bytes"]["ring"] > 0
        assert cost["reaction"]["calls"] is None or cost["reaction"]["calls"] >= 1
    assert first["against_first_db"] == {"mean": 0, "low": 0, "high": 0}
    assert first["cost"]["steady_evaluations_per_frame"] == 2 * 4 / 2  # 2 steps of 4 frames for a block of 2
    assert second["cost"]["steady_evaluations_per_frame"] == 4 and second["evaluations_per_frame"] > 4
    for name in ("tiny.png", "tiny-frames.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_a_field_without_actions_has_no_reaction_and_is_the_same_when_drawn_again(tmp_path, monkeypatch):
    plans = "causal:steps=2"
    for picture in ("draw_quality", "draw_frames"):
        monkeypatch.setattr(video_quality, picture, lambda *_: None)
    one = measured(tmp_path, plans, kind="field", action_dim=0)
    two = measured(tmp_path, plans, kind="field", action_dim=0)
    assert one["rows"][0]["cost"]["reaction"] is None and "action_shuffle" not in one["rows"][0]
    assert one["rows"][0]["cost"]["bytes"]["memory"] > 0 and one["floors"] == two["floors"]
    for row in (*one["rows"], *two["rows"]):
        del row["cost"], row["load"]
    assert one["rows"] == two["rows"]


def test_holding_the_last_frame_gains_nothing_over_itself_and_the_truth_is_best():
    held = video_quality.held_out(clips_of(), Values(), 4, 6, 2)
    repeated = np.repeat(held.truth[:, :1], 6, axis=1)
    still = video_quality.errors_of_clips(held.truth, repeated)
    row = video_quality.floors(held, repeated, 0)["repeat_last"]
    assert row["gain_db"] == {"mean": 0, "low": 0, "high": 0}
    best = video_quality.quality(held, held.truth, still, 0)
    assert (best["psnr_db"] == 100).all() and (best["mse"] == 0).all() and best["drift_db"]["mean"] == 0
    assert best["spatial"] == pytest.approx(0, abs=1e-6) and (best["spectral_error_db"] == 0).all()


def test_clips_lie_inside_their_episodes_with_the_actions_that_led_to_their_frames():
    clips = clips_of()
    held = video_quality.held_out(clips, Values(), 6, 6, 2)
    for i, start in enumerate(held.starts):
        assert start % 24 >= 2 and start % 24 + 6 <= 24
        assert (held.actions[i, :6] == clips.actions[start : start + 6]).all()
        assert (held.actions[i, -1] == clips.actions[start // 24 * 24 + 23]).all()
        assert (held.prompt_actions[i].numpy() == clips.actions[start - 2 : start]).all()
    assert len(set(held.starts // 24)) == 3
    with pytest.raises(InputError, match="starts"):
        video_quality.held_out(clips, Values(), 6, 30, 2)


def test_a_clip_is_drawn_the_same_whoever_is_drawn_beside_it():
    checkpoint, held = checkpoint_of(), video_quality.held_out(clips_of(), Values(), 4, 6, 2)
    case = video_quality.Case("rolling:steps=2", checkpoint, held, 0, lambda: None)
    both, alone = case.stream([1, 2]).advance(), case.stream([2]).advance()
    assert torch.allclose(both[1:], alone, atol=1e-5) and not torch.allclose(both[:1], alone, atol=1e-2)
    other = case.stream([2], member=1).advance()
    assert not torch.allclose(alone, other, atol=1e-2)


def test_the_usual_plans_fit_any_window_and_cost_about_the_same():
    for frames in (4, 8, 10, 12, 16):
        network = FrameTransformer(VideoConfig(**{**NETWORK, "frames": frames}))
        specs = video_quality.usual_plans(frames)
        assert [video_quality.sampler_of(spec, network)[0].name for spec in specs][:3] == ["full", "rolling", "ar"]
    assert "fifo:view=partitions:steps=20" in video_quality.usual_plans(10)


@pytest.mark.parametrize("spec", ["full:steps=x", "full:fast", "fifo:view", "later"])
def test_a_plan_that_is_none_is_refused(spec):
    with pytest.raises(InputError):
        video_quality.sampler_of(spec, checkpoint_of().network)


def test_a_plan_may_name_an_effort():
    assert video_quality.sampler_of("rolling:short", checkpoint_of().network)[1].name == "SHORT"
