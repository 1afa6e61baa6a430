"""How an answer's time is told apart: what is computed once an observation, and the denoising."""

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.commands.table import print_table
from ontick.commands.timing import stage_latencies
from ontick.diffusion import load_plan
from ontick.policy import Checkpoint, Normaliser, TransformerConfig, TransformerForDiffusion, load_checkpoint, serve
from ontick.runtime import load_budget

SIDE = 40
STAGES = {"n", "p50", "p99", "p99.9", "max"}


@pytest.fixture(scope="module")
def seeing():
    """An untrained network with a camera."""
    torch.manual_seed(0)
    sees = {"cameras": ("top",), "image_size": SIDE, "camera_width": 16, "keypoints": 4}
    shape = {"width": 16, "layers": 1, "heads": 2, "horizon": 8, "n_action_steps": 4}
    config = TransformerConfig(observation_dim=2 + 3 * SIDE**2, action_dim=2, **shape, **sees)
    rng = np.random.default_rng(0)
    observations = rng.uniform(0, 1, (20, config.observation_dim))
    normaliser = Normaliser.fit(observations, rng.uniform(-1, 1, (20, 2)), state_dim=2)
    return Checkpoint(TransformerForDiffusion(config).eval().requires_grad_(False), normaliser)


def windows_of(policy, n=4):
    shape = (n, policy.n_obs_steps, policy.observation_dim)
    return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("plan", ["ddim-4", "exact-ddim-4", "rti-3"])
def test_encoding_and_denoising_are_timed_apart(seeing, plan):
    policy = serve(seeing, load_plan(plan), 1, accel.build)
    told = stage_latencies(policy, windows_of(policy), n=7)
    assert told is not None and set(told) == {"encode", "denoise"}
    for stage in told.values():
        assert set(stage) == STAGES and stage["n"] == 7
        assert 0 < stage["p50"] <= stage["p99"] <= stage["max"]


def test_a_slower_encoder_is_told_as_encoding(seeing, monkeypatch):
    policy = serve(seeing, load_plan("ddim-2"))
    before = stage_latencies(policy, windows_of(policy), n=9)
    forward, cameras = seeing.network.cameras.forward, seeing.network.cameras
    monkeypatch.setattr(cameras, "forward", lambda obs: [forward(obs) for _ in range(20)][-1])
    after = stage_latencies(policy, windows_of(policy), n=9)
    assert after["encode"]["p50"] > 5 * before["encode"]["p50"]
    assert after["denoise"]["p50"] < after["encode"]["p50"]


def test_timing_leaves_the_network_as_it_was(seeing):
    policy = serve(seeing, load_plan("ddim-2"))
    stage_latencies(policy, windows_of(policy), n=2)
    assert "prepare" not in vars(policy.program.denoiser)


def test_a_policy_without_cameras_has_no_stages(tiny_checkpoint):
    policy = serve(load_checkpoint(tiny_checkpoint), load_plan("ddim-2"))
    assert stage_latencies(policy, windows_of(policy), n=2) is None


def test_the_table_tells_stages_with_their_number(capsys):
    stage = {"n": 50, "p50": 3.0, "p99": 4.0, "p99.9": 5.0, "max": 6.0}
    row = {
        "task": "t", "plan": "p", "successes": 1, "episodes": 1, "success_low": 0.0, "success_high": 1.0, "jerk": 0.0,
        "calls_per_action": 1.0, "chunk_ms": stage, "met": True, "starved": 0, "rest": 0, "steps": [1], "rungs": {},
    }  # fmt: skip
    stages = {"encode": stage, "denoise": {**stage, "p50": 30.0}}
    print_table([row, {**row, "plan": "q", "stages_ms": stages}], load_budget("cpu-20hz"))
    told = [line for line in capsys.readouterr().out.splitlines() if "encode" in line]
    assert len(told) == 1 and told[0].startswith("q: ")
    assert "encode p50 3.0, p99 4.0, max 6.0" in told[0] and "denoise p50 30.0" in told[0] and "n = 50" in told[0]
