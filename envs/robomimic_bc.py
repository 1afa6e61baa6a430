"""robomimic's behaviour cloning as a baseline: trained by robomimic's own algorithm, run as a Policy of ours.

    policy = train_bc(read_demonstrations("demos.hdf5"), steps=4000, seed=0)
    policy.save(folder); policy = BCPolicy.load(folder, width=16)

Legend: L lanes asked, Do, Da.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .demonstrations import Demonstrations
from .robomimic_algorithm import OnStep, about_demonstrations, bc_algorithm, check_training, train_actor
from .robomimic_hdf5 import OBSERVATION_KEY
from .robomimic_policy import RobomimicPolicy

LAYERS = (1024, 1024)  # robomimic's default


class BCPolicy(RobomimicPolicy):
    """An MLP: the action is a function of the newest observation."""

    family = "robomimic-bc"

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Nothing to do: it keeps no state and draws no noise."""

    def _act(self, rows: torch.Tensor, lanes: Sequence[int]) -> np.ndarray:
        return self.network({OBSERVATION_KEY: rows})[: len(lanes)].numpy()

    @staticmethod
    def _network(observation_dim: int, about: dict[str, Any]) -> torch.nn.Module:
        settings = {"actor_layer_dims": tuple(about["layers"])}
        return bc_algorithm(observation_dim, int(about["action_dim"]), settings).nets["policy"]


def train_bc(
    demonstrations: Demonstrations,
    steps: int = 4000,
    seed: int = 0,
    *,
    batch_size: int = 256,
    learning_rate: float = 5e-4,
    width: int = 1,
    on_step: OnStep = lambda step, loss: None,
) -> BCPolicy:
    """Train robomimic's BC (an MLP, mean squared error) on robomimic demonstrations, on the CPU.

    `SequenceDataset` gives the same rows, one by one. Equal arguments give equal weights, already rounded to fp16.
    `on_step(step, loss)` is called after each step.
    """
    check_training(steps, batch_size, learning_rate)
    training = {"steps": steps, "seed": seed, "batch_size": batch_size, "learning_rate": learning_rate}
    settings = {"actor_layer_dims": LAYERS}
    network, mean, std = train_actor(demonstrations, settings, **training, on_step=on_step)
    about = about_demonstrations(demonstrations) | {"layers": list(LAYERS), "training": training}
    return BCPolicy(network, mean, std, about, width)
