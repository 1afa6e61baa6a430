import numpy as np
import pytest
import torch

from ontick.envs.dataset import write_demonstrations
from ontick.envs.demonstrations import Demonstrations
from ontick.policy import Checkpoint, Normaliser, TransformerConfig, TransformerForDiffusion, save_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """An untrained network of Meta-World's shape: it succeeds never, but it runs fast."""
    torch.manual_seed(0)
    config = TransformerConfig(
        observation_dim=39, action_dim=4, width=16, layers=1, heads=2, horizon=8, n_action_steps=4
    )
    rng = np.random.default_rng(0)
    normaliser = Normaliser.fit(rng.uniform(-1, 1, (50, 39)), rng.uniform(-1, 1, (50, 4)), discrete_dims=(3,))
    network = TransformerForDiffusion(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(folder, Checkpoint(network, normaliser, {"task": "metaworld/pick-place-v3"}))
    return folder


@pytest.fixture
def random_demonstrations(tmp_path):
    """random_demonstrations(ends) -> a file of Meta-World's shape: random numbers, episodes that end there."""

    def write(ends):
        rng = np.random.default_rng(0)
        numbers = (rng.uniform(-1, 1, (ends[-1], dims)).astype(np.float32) for dims in (39, 4))
        path = tmp_path / "data.zarr"
        write_demonstrations(path, Demonstrations(*numbers, np.array(ends)))
        return path

    return write
