"""Tiny networks with every bias, scale and shift randomised, and their observations."""

import pytest
import torch

from ontick.policy import TransformerConfig, TransformerForDiffusion

SHAPE = {"action_dim": 2, "observation_dim": 3, "horizon": 8, "n_obs_steps": 2, "n_action_steps": 4}
SIZE = {"width": 16, "layers": 2, "heads": 2, "p_drop_attn": 0.0}


def randomised(seed: int = 0, **changes) -> TransformerForDiffusion:
    """Weights that make outputs of order one, and random biases, scales and shifts: fresh ones hide missing terms."""
    network = TransformerForDiffusion(TransformerConfig(**{**SHAPE, **SIZE, **changes})).eval().requires_grad_(False)
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


def observed(lanes: int, seed: int = 0, steps: int = 2, dim: int = 3) -> torch.Tensor:
    """[lanes, To, Do]; a lane's observation does not depend on how many lanes there are."""
    g = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(steps, dim, generator=g) for _ in range(lanes)])


@pytest.fixture(scope="session")
def randomised_network():
    """randomised_network(**config_changes) -> TransformerForDiffusion, eval, without gradients."""
    return randomised


@pytest.fixture(scope="session")
def observation():
    """observation(lanes, seed=0) -> [lanes, To, Do]."""
    return observed


@pytest.fixture
def openvino_for():
    """openvino_for(precision): skips where OpenVINO is not installed, or its CPU does not grant bf16."""

    def skip(precision: str) -> None:
        openvino = pytest.importorskip("openvino")
        if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("OpenVINO grants no bf16 on this CPU")

    return skip
