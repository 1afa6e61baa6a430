"""Checkpoints of tiny networks, toy data, and the stock network they are compared with."""

import numpy as np
import pytest

from ontick.benchmarks import stock as benchmark_stock
from ontick.policy import ActionNetwork, Checkpoint, ChunkConfig, Normaliser, TransformerForDiffusion


@pytest.fixture(scope="session")
def stock():
    """The benchmark's module of what users run today."""
    return benchmark_stock


@pytest.fixture
def random_checkpoint(tiny_config, random_network):
    """A checkpoint of a random network and a normaliser that moves and scales every dimension."""

    def make(
        config: ChunkConfig | None = None,
        seed: int = 0,
        about: dict | None = None,
        family: type[ActionNetwork] = TransformerForDiffusion,
    ) -> Checkpoint:
        config = config or tiny_config()
        rng = np.random.default_rng(seed)
        centre = {"obs": rng.normal(size=config.observation_dim), "action": rng.normal(size=config.action_dim)}
        normaliser = Normaliser.fit(
            centre["obs"] + rng.uniform(-2, 2, (50, config.observation_dim)),
            centre["action"] + rng.uniform(-3, 3, (50, config.action_dim)),
        )
        return Checkpoint(random_network(config, seed, family), normaliser, about or {})

    return make


@pytest.fixture
def toy_data():
    """Episodes whose actions follow from the observation: observations [400, 3], actions [400, 2], ends [10]."""
    rng = np.random.default_rng(3)
    phase = np.repeat(rng.uniform(0, 2 * np.pi, 10), 40) + np.tile(np.arange(40) * 0.1, 10)
    observations = np.stack([np.cos(phase), np.sin(phase), np.ones(400)], 1).astype(np.float32)
    actions = np.stack([2 * np.sin(phase), 5 + np.cos(phase)], 1).astype(np.float32)
    return observations, actions, np.arange(40, 401, 40)


@pytest.fixture(scope="session")
def observed():
    """observed(lanes, seed=0) -> [lanes, To, Do], the same for a lane whatever the number of lanes."""

    def make(lanes, seed: int = 0, steps: int = 2, dim: int = 3) -> np.ndarray:
        return np.stack([np.random.default_rng([seed, lane]).normal(size=(steps, dim)) for lane in lanes]).astype("f4")

    return make


@pytest.fixture
def overheard(monkeypatch):
    """overheard(network) -> a list that every later call of the network is added to, as (x, label, prediction)."""

    def listen(network: ActionNetwork) -> list:
        calls, predict = [], network.predict

        def told(x, label, context, rows=None):
            prediction = predict(x, label, context, rows)
            calls.append((x.clone(), label.clone(), prediction))
            return prediction

        monkeypatch.setattr(network, "predict", told)
        return calls

    return listen
