"""How far a plan's answers are from the dense sampler's, as distributions, at the same observations.

    D^2 = 2 E|a - b| - E|a - a'| - E|b - b'|          energy distance (Szekely & Rizzo 2013)

a, a' are answers of the plan with different noise, b, b' of the dense sampler. It is 0 where both draw from the same
distribution, whatever their grids, solvers and births, so that a warm start can be compared with a sampler from noise.

Legend: P pairs of consecutive control ticks, M answers at each, To, Do, Ta, Da.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..policy import DiffusionPolicy
from ..runtime import FollowingPolicy

M = 16  # chance alone moves D^2 by 1 / (M sqrt(P)): many answers at few pairs tell more than few at many
ROWS = 4  # of an answer that are compared: the ones that are executed first


def answers(policy: DiffusionPolicy, before: np.ndarray, after: np.ndarray, first_seed: int = 0) -> np.ndarray:
    """[P, M, rows, Da], normalised: what is played from one tick after a first answer on, of what is known by then.
    before, after: [P, To, Do] in the units of the environment; policy: of width P M."""
    lanes = range(len(before) * M)
    policy.reset(lanes, range(first_seed, first_seed + len(lanes)))
    first = policy.predict_action_chunk(np.repeat(before, M, 0), lanes)
    if isinstance(policy, FollowingPolicy):
        policy.follow(lanes, [1] * len(lanes))
    rows = policy.predict_action_chunk(np.repeat(after, M, 0), lanes)
    if isinstance(policy, FollowingPolicy) and policy.continues:  # a queue: these come after those
        rows = np.concatenate([first, rows], 1)[:, 1:]
    rows = rows[:, :ROWS]
    normaliser = policy.checkpoint.normaliser
    x = normaliser.normalise("action", torch.from_numpy(rows).to(normaliser.action_scale.device))
    return x.cpu().numpy().reshape(len(before), M, *rows.shape[1:])


class Distance(NamedTuple):
    """error: D, the root of the mean of D^2 over P; resolution: the root of two standard errors of that mean, what
    chance alone may give."""

    error: float
    resolution: float


def energy_distance(plan: np.ndarray, dense: np.ndarray) -> Distance:
    """Of answers [P, M, rows, Da]; over the rows that both have, an action."""
    rows = min(plan.shape[2], dense.shape[2])
    a, b = (torch.from_numpy(x[:, :, :rows].reshape(*x.shape[:2], -1)).double() for x in (plan, dense))
    between = torch.cdist(a, b).mean((1, 2))
    squared = (2 * between - _within(a) - _within(b)) / np.sqrt(rows)  # without bias, so below 0 by chance
    mean, deviation = squared.mean(), squared.std() / np.sqrt(len(squared))
    return Distance(float(mean.clamp(min=0).sqrt()), float((2 * deviation).sqrt()))


def _within(x: Tensor) -> Tensor:
    """[P]: the mean distance of two different answers. x: [P, M, D]."""
    m = x.shape[1]
    return torch.cdist(x, x).sum((1, 2)) / (m * (m - 1))
