"""Tiny transformers by what is changed in them, and their observations."""

import pytest
import torch


def observed(lanes: int, seed: int = 0, steps: int = 2, dim: int = 3) -> torch.Tensor:
    """[lanes, To, Do]; a lane's observation does not depend on how many lanes there are."""
    g = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(steps, dim, generator=g) for _ in range(lanes)])


@pytest.fixture(scope="session")
def randomised_network(tiny_config, random_network):
    """randomised_network(**config_changes) -> TransformerForDiffusion, every bias, scale and shift randomised."""

    def make(seed: int = 0, **changes):
        return random_network(tiny_config(**changes), seed)

    return make


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
