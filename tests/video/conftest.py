"""Fixtures of the video tests: tiny networks with every parameter randomised, a network that knows the truth, and clips
of a square that moves as it is told.

Legend: B lanes, N frames of a call, F frames of the data, C, H, W, Da.
"""

import copy

import numpy as np
import pytest
import torch

from ontick.diffusion import Prediction, schedule
from ontick.video import Clips, FrameDenoiser, FrameTransformer, VideoConfig


def tiny(**changes) -> VideoConfig:
    shape = {"size": 16, "patch": 8, "frames": 8, "width": 16, "layers": 2, "heads": 2}
    return VideoConfig(**{**shape, **changes})


class FrameOracle(FrameDenoiser):
    """Knows the truth [F, C, H, W] by frame id, and notes what it is told.

    seen: (frame id, label, action, whether in a queue begun from a clip), of lane 0, of every frame of every call"""

    prediction = "sample"

    def __init__(self, truth, frames=8):
        self.truth, self.frames, self.schedule = truth, frames, schedule("squaredcos_cap_v2", 1000)
        self.seen: list[tuple] = []

    def prepare(self, obs=None):
        return ()

    def answer(self, x, label, rows):
        return self.truth[rows.index.clamp(min=0) % len(self.truth)].to(x)

    def predict(self, x, label, context, rows=None):
        self._note(label, rows)
        return Prediction(self.answer(x, label, rows))

    def causal(self, block):
        other = copy.copy(self)
        other.causal_block = block
        return other

    def remember(self, x, label, context, rows):
        self._note(label, rows)
        return torch.zeros(*x.shape[:2], 1, 2, 1, 1)

    def _note(self, label, rows):
        for i, frame in enumerate(rows.index[0].tolist()):
            action = None if rows.conditioning is None else tuple(rows.conditioning[0, i].tolist())
            self.seen.append((frame, float(label[0, i]), action, rows.state is None))


class Echo(FrameOracle):
    """Draws the action: every pixel is its first number."""

    def answer(self, x, label, rows):
        return rows.conditioning[..., :1, None, None].expand_as(x)


def square_clips(episodes=3, frames=14, size=16, kind="rgb") -> Clips:
    """A square that the first action moves down a ring and the second moves right."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((episodes * frames, size, size, 3), dtype=np.uint8)
    actions = rng.integers(-1, 2, (episodes * frames, 2)).astype(np.float32)
    for i in range(episodes):
        at = rng.integers(0, size, 2)
        for j in range(i * frames, (i + 1) * frames):
            at = (at + 2 * actions[j].astype(int)) % size
            rows, columns = ((place + np.arange(size // 2)) % size for place in at)
            pixels[j][np.ix_(rows, columns)] = 255
    attributes = {"kind": kind, "scene": "square", "fps": 10, "seed": 0}
    if kind == "field":
        return Clips(
            pixels[..., :1] / np.float32(100), actions, np.arange(1, episodes + 1) * frames, attributes | {"scale": 1.2}
        )
    return Clips(pixels, actions, np.arange(1, episodes + 1) * frames, attributes)


@pytest.fixture(scope="session")
def video_config():
    """video_config(**changes) -> VideoConfig of 16 px, 2 layers."""
    return tiny


@pytest.fixture(scope="session")
def video_network(random_network):
    """video_network(seed=0, **changes) -> a randomised FrameTransformer, eval, without gradients."""

    def make(seed=0, **changes):
        return random_network(tiny(**changes), seed, FrameTransformer)

    return make


@pytest.fixture
def frame_oracle():
    """frame_oracle(truth [F, C, H, W])"""
    return FrameOracle


@pytest.fixture
def echo():
    """echo(): a network that draws the action."""
    return lambda: Echo(torch.zeros(1, 3, 4, 4))


@pytest.fixture(scope="session")
def squares():
    """squares(episodes=3, frames=14, size=16, kind="rgb") -> Clips"""
    return square_clips
