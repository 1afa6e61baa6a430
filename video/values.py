"""Frames as they are stored and shown, and as a network sees them: about -1 to 1, channels first."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Values:
    """kind: "rgb", uint8; or "field", float32 of standard deviation `scale`, which a network sees in units of it."""

    kind: str = "rgb"
    scale: float = 1.0

    def to_network(self, frames: np.ndarray | Tensor) -> Tensor:
        """[..., H, W, C] as stored -> float32 [..., C, H, W]."""
        x = torch.as_tensor(frames).movedim(-1, -3).float()
        return x / 127.5 - 1 if self.kind == "rgb" else x / self.scale

    def to_frames(self, x: Tensor) -> np.ndarray:
        """[..., C, H, W] -> uint8 or float32 [..., H, W, C]."""
        x = x.detach().float().cpu().movedim(-3, -1)
        if self.kind == "rgb":
            return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        return (x * self.scale).numpy()

    def to_unit(self, x: Tensor) -> np.ndarray:
        """[..., C, H, W] -> float32 [..., H, W, C]: 0 to 1 for pictures, in standard deviations for fields."""
        x = x.detach().float().cpu().movedim(-3, -1)
        return ((x + 1) / 2).clamp(0, 1).numpy() if self.kind == "rgb" else x.numpy()
