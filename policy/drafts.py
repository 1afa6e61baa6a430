"""Drafts: what a chunk may be born from in the place of noise.

    nearest     the chunk of the demonstration whose newest observation is nearest, as in RAGDP: Euclidean distance of
                normalised observations; older ones differ from it by a step, which weighs nothing
    regression  a small network's answer, as Trajectory Diffuser's draft; trained by squared error, it averages modes

Both lie in one file beside a checkpoint's weights, fp16 on disk and fp32 in memory:

    drafts.safetensors     observations [M, Do], chunks [M, Tp, Da], regression.*; as metadata: normaliser, about

Rows are the checkpoint's: row `first_row` of its network belongs to the newest observation.

Legend: B lanes, M windows of the bank, N windows in all, To, Tp, Do, Da, E width of the regression.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import InputError
from ..files import whole
from .checkpoint import Checkpoint
from .config import ChunkConfig
from .normaliser import Normaliser
from .training import Windows

FILE = "drafts.safetensors"
METADATA = "drafts"  # one key, because safetensors keeps several in no fixed order
BANK = 2048  # windows, at most
WIDTH = 224  # of the regression: below 100 000 parameters, and a file below 0.6 MB, for Meta-World's shape
STEPS, BATCH, RATE, DECAY = 4000, 256, 2e-3, 1e-2  # of the regression's training, by AdamW
HOW_TO_MAKE = "make them with `ontick calibrate CHECKPOINT --plan draft-3 --data DEMOS`"


class Drafts(nn.Module):
    """A bank of demonstration windows and a regression, both in normalised units.

    normaliser  fingerprint of the normaliser whose units these are
    about       where they came from, free-form but JSON
    """

    observations: Tensor  # [M, Do]
    chunks: Tensor  # [M, Tp, Da]

    def __init__(
        self,
        observations: Tensor,
        chunks: Tensor,
        regression: nn.Sequential,
        normaliser: str = "",
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("observations", observations)
        self.register_buffer("chunks", chunks)
        self.regression = regression
        self.normaliser, self.about = normaliser, about or {}
        self.eval().requires_grad_(False)

    def nearest(self, obs: Tensor, known: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """obs: [B, To, Do], normalised, newest last -> [B, Tp, Da], normalised; of equally near ones the first.

        known [B, Tp, Da], normalised, weight [B, Tp]: rows that the chunk is to agree with; the weighted mean of its
        distances from them counts as the observation's does.
        """
        distance = (obs[:, None, -1] - self.observations).square().sum(-1)  # [B, M]; by itself for each lane
        if known is not None and weight is not None and weight.any():
            apart = (known[:, None] - self.chunks).square().sum(-1)  # [B, M, Tp]
            mean = weight / weight.sum(1, keepdim=True).clamp(min=1e-6)
            distance = distance + (apart * mean[:, None]).sum(-1)
        return self.chunks[distance.argmin(1)]

    def regressed(self, obs: Tensor) -> Tensor:
        """obs: [B, To, Do], normalised, newest last -> [B, Tp, Da], normalised."""
        return self.regression(obs.flatten(1)).unflatten(1, self.chunks.shape[1:])

    @staticmethod
    def random(config: ChunkConfig, bank: int = BANK) -> "Drafts":
        """Of random numbers, always the same: they take as long to find as any."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            observations = torch.rand(bank, config.observation_dim) * 2 - 1
            chunks = torch.rand(bank, config.horizon, config.action_dim) * 2 - 1
            shape = (config.n_obs_steps * config.observation_dim, WIDTH, config.horizon * config.action_dim)
            return Drafts(observations, chunks, _network(*shape))

    @staticmethod
    def fit(
        windows: Windows,
        config: ChunkConfig,
        normaliser: Normaliser,
        *,
        seed: int = 0,
        bank: int = BANK,
        steps: int = STEPS,
        about: dict[str, Any] | None = None,
    ) -> "Drafts":
        """The bank is `bank` of the windows, evenly spread, and the regression is trained on all of them for `steps`
        steps. Values are those that fp16 holds, as they will lie on disk. Raises InputError."""
        if not 1 <= bank <= BANK:
            raise InputError(f"a bank of {bank} windows, wanted 1 to {BANK}")
        N = len(windows.frame)
        if N == 0:
            raise InputError("no windows to make drafts of; give demonstrations with an episode or more")
        picks = torch.linspace(0, N - 1, min(bank, N), dtype=torch.float64).round().long()
        obs, chunks = windows.batch(picks.to(windows.frame.device), config)
        with torch.random.fork_rng(devices=[]):  # whoever draws from torch's generator draws as before
            torch.manual_seed(seed)
            shape = (config.n_obs_steps * config.observation_dim, WIDTH, config.horizon * config.action_dim)
            regression = _network(*shape).to(obs.device)
        _train(regression, windows, config, seed, steps)
        drafts = Drafts(obs[:, -1].contiguous(), chunks, regression, fingerprint(normaliser), about)
        return drafts.half().float()

    def save(self, place: str | Path) -> Path:
        """Write a folder's drafts, or a .safetensors file by name, whole or not at all. Returns the file."""
        path = _file(place)
        tensors = {name: value.half().cpu().contiguous() for name, value in self.state_dict().items()}
        with whole(path) as temporary:
            save_file(tensors, temporary, {METADATA: json.dumps({"normaliser": self.normaliser, "about": self.about})})
        return path

    @staticmethod
    def load(place: str | Path, device: str | torch.device = "cpu") -> "Drafts":
        """The inverse of `save`. Raises InputError where there are none, or what is there cannot be used."""
        path = _file(place)
        if not path.is_file():
            raise InputError(f"{path.parent} has no {path.name}: {HOW_TO_MAKE}")
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
                said = json.loads((file.metadata() or {})[METADATA])
            bank = tensors.pop("observations"), tensors.pop("chunks")
            first = tensors["regression.0.weight"]
            regression = _network(first.shape[1], first.shape[0], bank[1][0].numel())
            regression.load_state_dict({name.removeprefix("regression."): value for name, value in tensors.items()})
            return Drafts(*bank, regression, said["normaliser"], said["about"]).to(device)
        except (OSError, SafetensorError, KeyError, IndexError, ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"{path} holds no drafts ({why}): {HOW_TO_MAKE}") from None

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises InputError where these drafts are not the checkpoint's: other shapes, or another normaliser."""
        config = checkpoint.network.config
        got = (self._observed, self.observations.shape[1], *self.chunks.shape[1:])
        seen = config.n_obs_steps * config.observation_dim
        wanted = (seen, config.observation_dim, config.horizon, config.action_dim)
        if got != wanted:
            raise InputError(
                f"drafts of shapes {got}, the checkpoint wants {wanted} (To Do, Do, Tp, Da): {HOW_TO_MAKE}"
            )
        if self.normaliser != fingerprint(checkpoint.normaliser):
            raise InputError(f"the drafts are in the units of another checkpoint's normaliser: {HOW_TO_MAKE}")

    @property
    def _observed(self) -> int:
        """Numbers that the regression reads, To Do."""
        first = self.regression[0]
        assert isinstance(first, nn.Linear)
        return first.in_features


def fingerprint(normaliser: Normaliser) -> str:
    """Tells one normaliser from another."""
    parts = sorted(normaliser.tensors().items())
    return hashlib.sha256(b"".join(name.encode() + value.cpu().numpy().tobytes() for name, value in parts)).hexdigest()


def _file(place: str | Path) -> Path:
    """The drafts of a folder, or the file that is named."""
    path = Path(place)
    return path if path.suffix == ".safetensors" else path / FILE


def _network(observed: int, width: int, predicted: int) -> nn.Sequential:
    """To Do -> Tp Da numbers, through two hidden layers."""
    layers = nn.Linear(observed, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, predicted)
    return nn.Sequential(*layers)


def _train(regression: nn.Sequential, windows: Windows, config: ChunkConfig, seed: int, steps: int) -> None:
    """By squared error of all rows; batches are drawn from the seed; the rate falls by a half cosine."""
    generator = torch.Generator().manual_seed(seed)
    optim = torch.optim.AdamW(regression.parameters(), lr=RATE, weight_decay=DECAY)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optim, max(steps, 1))
    for _ in range(steps):
        picks = torch.randint(len(windows.frame), (BATCH,), generator=generator)
        obs, chunks = windows.batch(picks.to(windows.frame.device), config)
        error = (regression(obs.flatten(1)) - rearrange(chunks, "b t d -> b (t d)")).square().mean()
        optim.zero_grad(set_to_none=True)
        error.backward()
        optim.step()
        falling.step()
