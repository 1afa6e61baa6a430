"""Fixtures for every test: denoisers whose right answer is known, tiny transformers with every parameter randomised,
one thread for torch, and the same drawn examples in every run."""

import numpy as np
import pytest
import torch
from hypothesis import settings

from ontick.diffusion import Denoiser, Grid, Prediction, schedule
from ontick.policy import AnchoredConfig, AnchoredDecoder, TransformerConfig, TransformerForDiffusion, UNetConfig

torch.set_num_threads(1)

settings.register_profile("repeatable", derandomize=True)  # a run of the tests depends on the code alone
settings.load_profile("repeatable")


class Oracle(Denoiser):
    """Knows the truth [N, D], by position id, and answers in any parameterisation. It reads levels by position."""

    levels = "position"

    def __init__(self, truth, prediction="sample", schedule_name="squaredcos_cap_v2", grid: Grid | None = None):
        self.truth, self.prediction, self.grid = truth, prediction, grid
        self.schedule = schedule(schedule_name, 100)
        self.calls = 0

    def prepare(self, obs):
        return obs

    def predict(self, x, label, context, rows):
        self.calls += 1
        x0 = self.truth[rows.index.clamp(min=0) % len(self.truth)].to(x)
        if self.schedule.is_flow:
            a, s = 1 - label.double(), label.double()
        else:
            ab = torch.from_numpy(self.schedule.alpha_bar)[label.long()]
            a, s = ab.sqrt(), (1 - ab).sqrt()
        a, s = a[..., None], s[..., None]
        eps = (x.double() - a * x0) / s
        out = {"sample": x0, "epsilon": eps, "v": a * eps - s * x0, "velocity": eps - x0}[self.prediction]
        return Prediction(out.float())


class Gaussian(Denoiser):
    """The exact epsilon where the data are N(mean, std^2), each dimension by itself."""

    levels = "position"

    def __init__(self, mean=0.4, std=0.1, clip=None):
        self.mean, self.std, self.clip = mean, std, clip
        self.schedule = schedule("squaredcos_cap_v2", 100)

    def prepare(self, obs):
        return obs

    def predict(self, x, label, context, rows):
        ab = torch.from_numpy(self.schedule.alpha_bar)[label.long()][..., None]
        eps = (1 - ab).sqrt() * (x.double() - ab.sqrt() * self.mean) / (ab * self.std**2 + 1 - ab)
        return Prediction(eps.float())


class Mixer(Denoiser):
    """A small fixed random network that mixes positions, sees levels, and keeps lanes apart."""

    levels = "position"

    def __init__(self, dim=2, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.inner, self.outer = torch.randn(dim + 1, 8, generator=g), torch.randn(8, dim, generator=g) * 0.3
        self.schedule = schedule("squaredcos_cap_v2", 100)
        self.clip = 1.0

    def prepare(self, obs):
        return obs

    def predict(self, x, label, context, rows):
        h = torch.tanh(torch.cat([x, label[..., None] / 100], -1) @ self.inner)
        h = h + 0.5 * h.mean(1, keepdim=True)
        return Prediction(h @ self.outer)


def tiny(**changes) -> TransformerConfig:
    shape = {"action_dim": 2, "observation_dim": 3, "horizon": 8, "n_obs_steps": 2, "n_action_steps": 4}
    return TransformerConfig(**{**shape, "width": 16, "layers": 2, "heads": 2, "p_drop_attn": 0.0, **changes})


def tiny_anchors(**changes) -> AnchoredConfig:
    shape = {"action_dim": 2, "observation_dim": 3, "horizon": 8, "n_obs_steps": 2, "n_action_steps": 4}
    return AnchoredConfig(**{**shape, "width": 16, "layers": 1, "stages": 2, "heads": 2, "anchors": 5, **changes})


def tiny_unet(**changes) -> UNetConfig:
    shape = {"action_dim": 2, "observation_dim": 3, "horizon": 8, "n_obs_steps": 2, "n_action_steps": 4}
    return UNetConfig(**{**shape, "down_dims": (8, 16), "groups": 4, "step_width": 8, **changes})


def randomised(config, seed: int = 0, family=TransformerForDiffusion):
    """Weights that make outputs of order one, and random biases, scales and shifts: fresh ones hide missing terms."""
    network = family(config).eval().requires_grad_(False)
    g = torch.Generator().manual_seed(seed)
    convolutions = torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.ConvTranspose1d
    if family is AnchoredDecoder:
        network.anchors.copy_(torch.rand(network.anchors.shape, generator=g) * 1.6 - 0.8)
    for module in network.modules():
        for name, value in module.named_parameters(recurse=False):
            noise = torch.randn(value.shape, generator=g)
            if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm):
                value.copy_(0.3 * noise + (1 if name == "weight" else 0))
            elif value.dim() == 2 or (isinstance(module, convolutions) and name == "weight"):
                value.copy_(noise / value[0].numel() ** 0.5)
            else:
                value.copy_(0.3 * noise)
    return network


@pytest.fixture
def oracle():
    return Oracle


@pytest.fixture
def gaussian():
    return Gaussian


@pytest.fixture
def mixer():
    return Mixer


@pytest.fixture
def keys():
    """seed, birth: [B] int64."""

    def make(lanes, birth=0, first=11):
        return torch.arange(first, first + lanes), torch.full((lanes,), birth)

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_config():
    """tiny_config(**changes) -> TransformerConfig."""
    return tiny


@pytest.fixture(scope="session")
def tiny_anchored_config():
    """tiny_anchored_config(**changes) -> AnchoredConfig."""
    return tiny_anchors


@pytest.fixture(scope="session")
def tiny_unet_config():
    """tiny_unet_config(**changes) -> UNetConfig."""
    return tiny_unet


@pytest.fixture(scope="session")
def random_network():
    """random_network(config, seed=0, family=TransformerForDiffusion) -> its network, eval, without gradients."""
    return randomised
