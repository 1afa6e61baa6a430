"""Tiny networks with every parameter randomised, toy data, and the stock network they are compared with."""

import numpy as np
import pytest
import torch

from ontick.benchmarks import stock as benchmark_stock
from ontick.policy import Checkpoint, Normaliser, TransformerConfig, TransformerForDiffusion


def tiny(**changes) -> TransformerConfig:
    shape = {"action_dim": 2, "observation_dim": 3, "horizon": 8, "n_obs_steps": 2, "n_action_steps": 4}
    return TransformerConfig(**{**shape, "width": 16, "layers": 2, "heads": 2, "p_drop_attn": 0.0, **changes})


def randomised(config: TransformerConfig, seed: int = 0) -> TransformerForDiffusion:
    """Weights that make outputs of order one, and random biases, scales and shifts: fresh ones hide missing terms."""
    network = TransformerForDiffusion(config).eval().requires_grad_(False)
    g = torch.Generator().manual_seed(seed)
    for module in network.modules():
        for name, value in module.named_parameters(recurse=False):
            noise = torch.randn(value.shape, generator=g)
            if isinstance(module, torch.nn.LayerNorm):
                value.copy_(0.3 * noise + (1 if name == "weight" else 0))
            elif value.dim() == 2:
                value.copy_(noise / value.shape[1] ** 0.5)
            else:
                value.copy_(0.3 * noise)
    return network


@pytest.fixture
def tiny_config():
    return tiny


@pytest.fixture
def random_network():
    return randomised


@pytest.fixture(scope="session")
def stock():
    """The benchmark's module of what users run today."""
    return benchmark_stock


@pytest.fixture
def random_checkpoint():
    """A checkpoint of a random network and a normaliser that moves and scales every dimension."""

    def make(config: TransformerConfig | None = None, seed: int = 0, about: dict | None = None) -> Checkpoint:
        config = config or tiny()
        rng = np.random.default_rng(seed)
        centre = {"obs": rng.normal(size=config.observation_dim), "action": rng.normal(size=config.action_dim)}
        normaliser = Normaliser.fit(
            centre["obs"] + rng.uniform(-2, 2, (50, config.observation_dim)),
            centre["action"] + rng.uniform(-3, 3, (50, config.action_dim)),
        )
        return Checkpoint(randomised(config, seed), normaliser, about or {})

    return make


@pytest.fixture
def toy_data():
    """Episodes whose actions follow from the observation: observations [400, 3], actions [400, 2], ends [10]."""
    rng = np.random.default_rng(3)
    phase = np.repeat(rng.uniform(0, 2 * np.pi, 10), 40) + np.tile(np.arange(40) * 0.1, 10)
    observations = np.stack([np.cos(phase), np.sin(phase), np.ones(400)], 1).astype(np.float32)
    actions = np.stack([2 * np.sin(phase), 5 + np.cos(phase)], 1).astype(np.float32)
    return observations, actions, np.arange(40, 401, 40)
