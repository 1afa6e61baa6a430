"""Who steers a stream: keys, or nobody."""

import torch
from torch import Tensor

from ..diffusion import keyed_normal

HELD = 8  # frames that a wandering action is held
KEYS = {
    "ArrowLeft": (0, -1.0),
    "ArrowRight": (0, 1.0),
    "ArrowUp": (1, 1.0),
    "ArrowDown": (1, -1.0),
}


def wandering(seed: int, frame: int, action_dim: int) -> Tensor:
    """[Da]: -1, 0 or 1 in every dimension, held for `HELD` frames, by key, so that any frame's is known at once."""
    drawn = keyed_normal(seed, 0, frame // HELD, 0, action_dim)
    return torch.where(drawn.abs() < 0.43, torch.zeros_like(drawn), drawn.sign())  # a third each


def steered(keys: set[str], action_dim: int) -> Tensor:
    """[Da]: what the held keys add up to; keys of dimensions that there are none of do nothing."""
    action = torch.zeros(action_dim)
    for key in keys:
        dimension, value = KEYS.get(key, (action_dim, 0.0))
        if dimension < action_dim:
            action[dimension] += value
    return action.clamp(-1, 1)
