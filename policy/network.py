"""What all networks that denoise chunks of actions have in common.

Legend: B lanes, M windows, Tp rows, To observation steps, E width, Da, Do.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..diffusion import Denoiser
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


def frequencies(width: int) -> Tensor:
    """[E / 2], those of the published time embedding."""
    half = width // 2
    return torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))


def sinusoid(label: Tensor, frequency: Tensor) -> Tensor:
    """label [...] -> [..., E], sines and then cosines."""
    angle = label[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)
