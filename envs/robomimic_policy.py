"""What robomimic's actors have in common as Policies: a chunk of one, a fixed width, the checkpoint folder.

Legend: L lanes asked, Do, Da.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import InputError
from ..files import whole

FORMAT = "ontick-checkpoint-1"


class RobomimicPolicy(ABC):
    """One action for the newest observation: the Policy contract with a chunk of one.

    Every call of the network has `width` lanes, fewer are padded: so a lane's action never depends on its neighbours.
    """

    family: ClassVar[str]  # of its checkpoints
    n_obs_steps = 1
    n_action_steps = 1
    calls_per_chunk = 1

    def __init__(
        self, network: torch.nn.Module, mean: np.ndarray, std: np.ndarray, about: dict[str, Any], width: int = 1
    ) -> None:
        """network: robomimic's actor; mean, std: float32 [Do]; about: task, data and training, as JSON."""
        if width < 1:
            raise InputError(f"got a width of {width} lanes, wanted at least 1")
        self.network: Any = network.eval().requires_grad_(False)
        self.mean, self.std, self.about, self.width = mean, std, about, width
        self.observation_dim, self.action_dim = len(mean), int(about["action_dim"])

    @abstractmethod
    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin an episode in each lane."""

    @abstractmethod
    def _act(self, rows: torch.Tensor, lanes: Sequence[int]) -> np.ndarray:
        """rows [width, Do], normalised, the first for `lanes` and the rest padding -> [len(lanes), Da]."""

    @staticmethod
    @abstractmethod
    def _network(observation_dim: int, about: dict[str, Any]) -> torch.nn.Module:
        """A fresh network of the shape that `about` tells."""

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
        groups = [slice(i, i + self.width) for i in range(0, len(rows), self.width)]
        return np.concatenate([self._act(self._padded(rows[group]), lanes[group]) for group in groups])[:, None]

    def predict_action_chunk(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """The same: its chunk has no tail."""
        return self.predict_with_tail(obs, lanes)

    def select_action(self, obs: np.ndarray) -> np.ndarray:
        """obs [B, Do], of lanes 0 .. B-1 -> [B, Da]."""
        return self.predict_with_tail(np.asarray(obs)[:, None], range(len(obs)))[:, 0]

    def _padded(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([rows, np.repeat(rows[-1:], self.width - len(rows), 0)]))

    # -- the folder -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, half: bool = True) -> None:
        """Write a new folder, whole or not at all: `config.json` and `model.safetensors`. `half` stores the weights as
        fp16."""
        folder = Path(folder)
        if folder.exists():
            raise InputError(f"got {folder}, which is already there: choose another folder, or delete it")
        kind = torch.float16 if half else torch.float32
        own = self.network.state_dict()
        weights = {f"network.{name}": value.to(kind, copy=True).contiguous() for name, value in own.items()}
        weights |= {"mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std)}
        config = {"format": FORMAT, "family": self.family, "about": self.about}
        with whole(folder) as temporary:
            temporary.mkdir()
            (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            save_file(weights, temporary / "model.safetensors")

    @classmethod
    def load(cls, folder: str | Path, width: int = 1) -> Self:
        """Read such a folder; the weights run in fp32. Raises InputError naming what is wrong with it."""
        folder = Path(folder)
        about = cls._read_about(folder)
        try:
            tensors = load_file(folder / "model.safetensors")
            mean, std = tensors.pop("mean").numpy(), tensors.pop("std").numpy()
            network = cls._network(len(mean), about)
            network.load_state_dict({key.removeprefix("network."): value.float() for key, value in tensors.items()})
        except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"got {folder}, whose model.safetensors does not fit ({reason}): train it anew") from error
        return cls(network, mean, std, about, width)

    @classmethod
    def _read_about(cls, folder: Path) -> dict[str, Any]:
        try:
            config = json.loads((folder / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"got {folder} without a readable config.json, wanted a checkpoint folder") from error
        if not isinstance(config, dict) or (config.get("format"), config.get("family")) != (FORMAT, cls.family):
            raise InputError(f"got {folder}, which holds no {cls.family} policy in format {FORMAT}")
        return config.get("about", {})
