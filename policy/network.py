"""What all networks that denoise chunks of actions have in common.

Legend: B lanes, M windows, Tp rows, To observation steps, E width, Da, Do.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import Denoiser, Schedule
from .config import ChunkConfig


class ActionNetwork(nn.Module, Denoiser):
    """A denoiser that can be trained, saved and served as a policy.

    family          as it stands in a checkpoint's config.json
    from_newest     whether row 0 belongs to the newest observation; else, as published, to the oldest of the To
    lookback        m: ticks before the newest observation that `loss` is shown too
    """

    family: ClassVar[str]
    from_newest: ClassVar[bool] = True
    lookback: ClassVar[int] = 0
    config: ChunkConfig

    @property
    def first_row(self) -> int:
        """The row that belongs to the newest observation."""
        return 0 if self.from_newest else self.config.n_obs_steps - 1

    def begin_training(self, chunks: Tensor, seed: int) -> None:
        """Look at all training chunks [M, Tp, Da], normalised, before the first step; by default at nothing."""

    @abstractmethod
    def loss(self, obs: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """A scalar; obs [B, m + To, Do] and actions [B, m + Tp, Da] are normalised; levels and noise come from
        `generator`, a CPU one."""


class ChunkNetwork(ActionNetwork):
    """One whose loss is Diffusion Policy's: the error of its own parameterisation at drawn levels."""

    schedule: Schedule

    def forward(self, x: Tensor, label: Tensor | float, obs: Tensor) -> Tensor:
        """x: [B, T, Da]; label: scalar or [B]; obs: [B, To, Do] -> [B, T, Da]. The whole network, for training."""
        label = torch.as_tensor(label, dtype=torch.float32, device=x.device).expand(len(x))
        return self.predict(x, label[:, None].expand(x.shape[:2]), self.prepare(obs)).x

    def loss(self, obs: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error on the network's own parameterisation at a uniformly drawn trained level a sample."""
        t = torch.randint(self.schedule.train_levels, (len(actions),), generator=generator)
        return self.loss_at(t[:, None].expand(actions.shape[:2]), obs, actions, generator)

    def loss_at(self, t: Tensor, obs: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """The same at given levels. t: [B, T] int64, on the host."""
        a, s = self.signal_and_noise(t, actions)
        noise = torch.randn(actions.shape, generator=generator).to(actions.device)
        target = self.target(actions, noise, a, s)
        out = self.predict(a * actions + s * noise, t.float().to(actions.device), self.prepare(obs)).x
        return F.mse_loss(out, target)

    def signal_and_noise(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma [B, T, 1] of trained levels t [B, T], on the device of `like`."""
        alpha_bar = torch.from_numpy(self.schedule.alpha_bar).float()[t]
        a, s = (part.sqrt()[..., None].to(like.device) for part in (alpha_bar, 1 - alpha_bar))
        return a, s

    def target(self, actions: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """What the network is to say of a actions + s noise."""
        return {"epsilon": noise, "sample": actions, "v": a * noise - s * actions}[self.prediction]


def frequencies(width: int) -> Tensor:
    """[E / 2], those of the published time embedding."""
    half = width // 2
    return torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))


def sinusoid(label: Tensor, frequency: Tensor) -> Tensor:
    """label [...] -> [..., E], sines and then cosines."""
    angle = label[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)
