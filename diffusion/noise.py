"""Noise by key: the same (seed, birth, position, level) gives the same noise, whatever else is drawn with it.

A stateful generator would tie a lane's noise to its neighbours, to the batch width and to how often it was asked.
Here every number is a hash of its key (splitmix64) turned into a normal variate (Box-Muller), so batching, pacing
and the number of workers cannot change it.
"""

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(h: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014): a bijection of 64-bit words that scrambles all bits."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def keyed_normal(seed, birth, position, level, size: int) -> torch.Tensor:
    """Standard normal noise, float32 [..., size], for integer keys that broadcast to [...].

    seed: the lane's; birth: which entry into the grid; position: which row; level: the level at which the noise
    enters, which is the target of a step, or the grid's top for what a position is born with.
    """
    keys = np.broadcast_arrays(*(np.asarray(k, dtype=np.int64) for k in (seed, birth, position, level)))
    state = np.zeros(keys[0].shape or (1,), dtype=np.uint64)
    for key in keys:
        state = _mix(state + _GOLDEN + np.atleast_1d(key).view(np.uint64))
    words = _mix(state[..., None] + _GOLDEN * np.arange(1, size + 1, dtype=np.uint64))
    high = torch.from_numpy((words >> np.uint64(32)).astype(np.float64))
    low = torch.from_numpy((words & np.uint64(0xFFFFFFFF)).astype(np.float64))
    radius = torch.sqrt(-2 * torch.log((high + 0.5) / 2**32))
    normal = (radius * torch.cos(low * (2 * np.pi / 2**32))).float()
    return normal.reshape(*keys[0].shape, size)
