"""robomimic's own behaviour cloning algorithms, set up and trained on demonstrations in memory, on the CPU.

Observations are normalised here, because robomimic 0.3's own normalisation fails.
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .._torchvision import ensure_torchvision
from ..errors import InputError, RunFailed
from .demonstrations import Demonstrations, recorded_versions
from .robomimic_hdf5 import OBSERVATION_KEY

EPOCHS = 100  # a training has as many; robomimic's learning rate schedules count them
STILL = 1e-4  # an observation that varies less is padding: it is not blown up to unit variance

OnStep = Callable[[int, float], None]


def bc_algorithm(observation_dim: int, action_dim: int, settings: dict[str, Any], learning_rate: float = 1e-4) -> Any:
    """robomimic's algorithm, with its network in `nets["policy"]`. settings: of `config.algo`, nested."""
    ensure_torchvision()
    with contextlib.redirect_stdout(io.StringIO()):  # robomimic prints as it sets up
        from robomimic.algo import algo_factory
        from robomimic.config import config_factory
        from robomimic.utils import obs_utils

        config = config_factory("bc")
        with config.values_unlocked():
            config.observation.modalities.obs.low_dim = [OBSERVATION_KEY]
            config.algo.update(settings)
            config.algo.optim_params.policy.learning_rate.initial = learning_rate
        obs_utils.initialize_obs_utils_with_config(config)
        shapes = {OBSERVATION_KEY: [observation_dim]}
        return algo_factory("bc", config, shapes, action_dim, torch.device("cpu"))


def check_training(steps: int, batch_size: int, learning_rate: float) -> None:
    """Raises InputError for what is not above 0."""
    if steps < 1 or batch_size < 1 or not learning_rate > 0:
        raise InputError(f"got {steps} steps, batch {batch_size}, learning rate {learning_rate}, wanted all above 0")


def train_actor(
    demonstrations: Demonstrations,
    settings: dict[str, Any],
    *,
    steps: int,
    seed: int,
    batch_size: int,
    learning_rate: float,
    frames_of: Callable[[torch.Tensor], torch.Tensor] = lambda first: first,
    on_step: OnStep = lambda step, loss: None,
) -> tuple[torch.nn.Module, np.ndarray, np.ndarray]:
    """Train for `steps` batches -> the network and the observations' mean and standard deviation, float32 [Do].

    Batches are drawn from memory: `frames_of(first [B]) -> [B]` or `[B, T]` says which frames a batch holds whose
    samples begin at `first`. Equal arguments give equal weights. They are rounded to fp16 at the end, so that saving
    changes nothing. `on_step(step, loss)` is called after each step. Raises RunFailed where the loss is not finite.
    """
    _check_reach(demonstrations.actions)
    mean, std = _statistics(demonstrations.observations)
    observations = torch.from_numpy((demonstrations.observations - mean) / std)
    actions = torch.from_numpy(demonstrations.actions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        algorithm = bc_algorithm(observations.shape[1], actions.shape[1], settings, learning_rate)
        algorithm.set_train()
        for step in range(1, steps + 1):
            frames = frames_of(torch.randint(len(actions), (batch_size,)))
            batch = {"obs": {OBSERVATION_KEY: observations[frames]}, "goal_obs": None, "actions": actions[frames]}
            information = algorithm.train_on_batch(batch, epoch=1)
            loss = float(information["losses"]["action_loss"])
            if not np.isfinite(loss):
                raise RunFailed(f"the loss is {loss} at step {step}, nothing is saved; train with another seed")
            for epoch in range((step - 1) * EPOCHS // steps + 1, step * EPOCHS // steps + 1):
                algorithm.on_epoch_end(epoch)
            on_step(step, loss)
    network = algorithm.nets["policy"]
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    return network, mean, std


def _check_reach(actions: np.ndarray) -> None:
    """robomimic's actors end in a tanh."""
    beyond = np.flatnonzero(np.abs(actions).max(0) > 1)
    if len(beyond):
        raise InputError(
            f"got actions beyond [-1, 1] (of {len(beyond)} numbers, the first is number {beyond[0]}), which bc and "
            "bc-rnn of robomimic cannot answer: train them on displacements, or a diffusion policy on these"
        )


def about_demonstrations(demonstrations: Demonstrations) -> dict[str, Any]:
    """What a checkpoint says of its data; `modes` (one an episode) only where the task has several ways, `versions` of
    the simulator where the data tells them."""
    attributes = demonstrations.attributes
    about = {
        "task": attributes.get("task", "unknown"),
        "episodes": len(demonstrations),
        "action_dim": demonstrations.actions.shape[1],
    }
    more = {"modes": attributes.get("modes"), "versions": recorded_versions(attributes)}
    return about | {key: value for key, value in more.items() if value}


def _statistics(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each observation number, float32 [Do]."""
    mean, std = observations.mean(0, dtype=np.float64), observations.std(0, dtype=np.float64)
    return mean.astype(np.float32), np.where(std > STILL, std, 1.0).astype(np.float32)
