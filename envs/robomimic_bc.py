"""robomimic's behaviour cloning as a baseline: trained by robomimic's own algorithm, run as a Policy of ours.

    policy = train_bc("demos.hdf5", steps=4000, seed=0)
    policy.save(folder); policy = BCPolicy.load(folder, width=16)

Observations are normalised here, because robomimic 0.3's own normalisation fails. Legend: L lanes asked, Do, Da.
"""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .._torchvision import ensure_torchvision
from ..errors import InputError
from ..files import whole
from .robomimic_hdf5 import OBSERVATION_KEY, read_robomimic

FORMAT, FAMILY = "ontick-checkpoint-1", "robomimic-bc"
LAYERS = (1024, 1024)  # robomimic's default
STILL = 1e-4  # an observation that varies less is padding: it is not blown up to unit variance


class BCPolicy:
    """One action for the newest observation: the Policy contract with a chunk of one.

    Every call of the network has `width` lanes, fewer are padded: so a lane's action never depends on its neighbours.
    """

    n_obs_steps = 1
    n_action_steps = 1
    calls_per_chunk = 1

    def __init__(
        self, network: torch.nn.Module, mean: np.ndarray, std: np.ndarray, about: dict[str, Any], width: int = 1
    ) -> None:
        """network: robomimic's ActorNetwork; mean, std: float32 [Do]; about: task, data and training, as JSON."""
        if width < 1:
            raise InputError(f"got a width of {width} lanes, wanted at least 1")
        self.network = network.eval().requires_grad_(False)
        self.mean, self.std, self.about, self.width = mean, std, about, width
        self.observation_dim, self.action_dim = len(mean), int(about["action_dim"])

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Nothing to do: it keeps no state and draws no noise."""

    @torch.inference_mode()
    def predict_with_tail(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """obs float32 [L, 1, Do] -> actions float32 [L, 1, Da]. Raises InputError for another shape or a NaN."""
        obs = np.asarray(obs, dtype=np.float32)
        wanted = (len(lanes), 1, self.observation_dim)
        if obs.shape != wanted or len(lanes) == 0:
            raise InputError(f"got observations of shape {obs.shape}, wanted {wanted} (lanes, 1, Do)")
        if not np.isfinite(obs).all():
            raise InputError("got observations with NaN or infinity: mend the sensor or the environment")
        rows = ((obs[:, 0] - self.mean) / self.std).astype(np.float32)
        parts = [self._padded(rows[i : i + self.width]) for i in range(0, len(rows), self.width)]
        return np.concatenate(parts)[:, None]

    def predict_action_chunk(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """The same: its chunk has no tail."""
        return self.predict_with_tail(obs, lanes)

    def select_action(self, obs: np.ndarray) -> np.ndarray:
        """obs [B, Do] -> [B, Da]."""
        return self.predict_with_tail(np.asarray(obs)[:, None], range(len(obs)))[:, 0]

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        filled = np.concatenate([rows, np.repeat(rows[-1:], self.width - len(rows), 0)])
        return self.network({OBSERVATION_KEY: torch.from_numpy(filled)})[: len(rows)].numpy()

    def save(self, folder: str | Path) -> None:
        """Write a new folder, whole or not at all: `config.json` and `model.safetensors` (weights in fp16)."""
        folder = Path(folder)
        if folder.exists():
            raise InputError(f"got {folder}, which is already there: choose another folder, or delete it")
        weights = {f"network.{name}": value.half().contiguous() for name, value in self.network.state_dict().items()}
        weights |= {"mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std)}
        config = {"format": FORMAT, "family": FAMILY, "about": self.about}
        with whole(folder) as temporary:
            temporary.mkdir()
            (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            save_file(weights, temporary / "model.safetensors")

    @classmethod
    def load(cls, folder: str | Path, width: int = 1) -> "BCPolicy":
        """Read such a folder; the weights run in fp32. Raises InputError naming what is wrong with it."""
        folder = Path(folder)
        about = _read_about(folder)
        try:
            tensors = load_file(folder / "model.safetensors")
            mean, std = tensors.pop("mean").numpy(), tensors.pop("std").numpy()
            network = _algorithm(len(mean), int(about["action_dim"]), tuple(about["layers"])).nets["policy"]
            network.load_state_dict({key.removeprefix("network."): value.float() for key, value in tensors.items()})
        except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"got {folder}, whose model.safetensors does not fit ({reason}): train it anew") from error
        return cls(network, mean, std, about, width)


def train_bc(
    hdf5_path: str | Path,
    steps: int = 4000,
    seed: int = 0,
    *,
    batch_size: int = 256,
    learning_rate: float = 5e-4,
    width: int = 1,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> BCPolicy:
    """Train robomimic's BC (an MLP, mean squared error) on robomimic demonstrations, on the CPU.

    Batches are drawn from memory: `SequenceDataset` gives the same rows, one by one. Equal arguments give equal
    weights. They are rounded to fp16 at the end, so that saving changes nothing. `on_step(step, loss)` is called
    after each step.
    """
    if steps < 1 or batch_size < 1 or not learning_rate > 0:
        raise InputError(f"got {steps} steps, batch {batch_size}, learning rate {learning_rate}, wanted all above 0")
    demonstrations = read_robomimic(hdf5_path)
    mean, std = _statistics(demonstrations.observations)
    observations = torch.from_numpy((demonstrations.observations - mean) / std)
    actions = torch.from_numpy(demonstrations.actions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        algorithm = _algorithm(observations.shape[1], actions.shape[1], LAYERS, learning_rate)
        algorithm.set_train()
        for step in range(1, steps + 1):
            rows = torch.randint(len(actions), (batch_size,))
            batch = {"obs": {OBSERVATION_KEY: observations[rows]}, "goal_obs": None, "actions": actions[rows]}
            information = algorithm.train_on_batch(batch, epoch=1)
            on_step(step, float(information["losses"]["action_loss"]))
    network = algorithm.nets["policy"]
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    about = {
        "task": demonstrations.attributes.get("task", "unknown"),
        "episodes": len(demonstrations),
        "action_dim": actions.shape[1],
        "layers": list(LAYERS),
        "training": {"steps": steps, "seed": seed, "batch_size": batch_size, "learning_rate": learning_rate},
    }
    return BCPolicy(network, mean, std, about, width)


def _statistics(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each observation number, float32 [Do]."""
    mean, std = observations.mean(0, dtype=np.float64), observations.std(0, dtype=np.float64)
    return mean.astype(np.float32), np.where(std > STILL, std, 1.0).astype(np.float32)


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"got {folder} without a readable config.json, wanted a checkpoint folder") from error
    if not isinstance(config, dict) or (config.get("format"), config.get("family")) != (FORMAT, FAMILY):
        raise InputError(f"got {folder}, which holds no {FAMILY} policy in format {FORMAT}")
    return config.get("about", {})


def _algorithm(observation_dim: int, action_dim: int, layers: tuple[int, ...], learning_rate: float = 5e-4) -> Any:
    """robomimic's BC algorithm, with its network, on the CPU."""
    ensure_torchvision()
    with contextlib.redirect_stdout(io.StringIO()):  # robomimic prints as it sets up
        from robomimic.algo import algo_factory
        from robomimic.config import config_factory
        from robomimic.utils import obs_utils

        config = config_factory("bc")
        with config.values_unlocked():
            config.observation.modalities.obs.low_dim = [OBSERVATION_KEY]
            config.algo.actor_layer_dims = layers
            config.algo.optim_params.policy.learning_rate.initial = learning_rate
        obs_utils.initialize_obs_utils_with_config(config)
        shapes = {OBSERVATION_KEY: [observation_dim]}
        return algo_factory("bc", config, shapes, action_dim, torch.device("cpu"))
