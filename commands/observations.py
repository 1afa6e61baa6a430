"""Observations of a policy's own episodes: what schedules are calibrated on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diffusion import load_plan
from ..envs import demonstration_seeds, find_task
from ..envs.dataset import read_demonstrations
from ..errors import InputError
from ..policy import Checkpoint, DiffusionPolicy

AN_EPISODE = 4  # observations that are taken of each, evenly from its start to its end
SAMPLER = "ddim-10"  # plays the episodes


def played(checkpoint: Checkpoint, n: int, base_seed: int, tick: Callable[[], Any] = lambda: None) -> Tensor:
    """n normalised windows [n, To, Do] at which the policy asked for a chunk, of episodes that it played itself on the
    checkpoint's task, on seeds of which none is an evaluation's. The first is the beginning of an episode. `tick` is
    called after every episode."""
    task = find_task(task_of(checkpoint))
    policy = _Watched(checkpoint, load_plan(SAMPLER))
    taken: list[np.ndarray] = []
    env = task.make()
    for seed in demonstration_seeds(base_seed, n):  # as many episodes as it takes
        if len(taken) >= n:
            break
        observation, _ = env.reset(seed=seed)
        policy.reset([0], [seed])
        done = False
        while not done:
            observation, _, terminated, truncated, _ = env.step(policy.select_action(np.asarray(observation)[None])[0])
            done = terminated or truncated
        taken += _spread(policy.windows, AN_EPISODE)
        policy.windows.clear()
        tick()
    env.close()
    return _normalised(checkpoint, np.stack(taken[:n]))


def demonstrated(checkpoint: Checkpoint, n: int, path: str | Path) -> Tensor:
    """n normalised windows [n, To, Do] of demonstrations, episode after episode, evenly spread over each. Raises
    InputError."""
    data = read_demonstrations(path)
    steps = checkpoint.network.config.n_obs_steps
    episodes = [list(range(data.episode(i).start, data.episode(i).stop - steps + 1)) for i in range(len(data))]
    if sum(map(len, episodes)) < n:
        there = f"{sum(map(len, episodes))} windows of {steps} observations"
        raise InputError(f"{path} has {there}, wanted {n}; ask for fewer samples")
    each = AN_EPISODE  # windows of an episode: more where there are few episodes
    while sum(min(each, len(starts)) for starts in episodes) < n:
        each += AN_EPISODE
    starts = [start for episode in _spread(episodes, -(-n // each)) for start in _spread(episode, each)]
    starts += [start for episode in episodes for start in episode if start not in starts]  # short ones give less
    dim = checkpoint.network.config.observation_dim
    if data.observations.shape[1] != dim:
        raise InputError(f"{path} has {data.observations.shape[1]} observations a step, the checkpoint takes {dim}")
    return _normalised(checkpoint, np.stack([data.observations[s : s + steps] for s in starts[:n]]))


class _Watched(DiffusionPolicy):
    """Keeps the windows that it answers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.windows: list[np.ndarray] = []

    def predict_with_tail(self, obs: np.ndarray, lanes: Any) -> np.ndarray:
        self.windows.append(np.asarray(obs, np.float32)[0])
        return super().predict_with_tail(obs, lanes)


def task_of(checkpoint: Checkpoint) -> str:
    task = checkpoint.about.get("task")
    if not isinstance(task, str):
        raise InputError("the checkpoint does not say its task, so no episode can be played; give --data FILE")
    return task


def _spread(items: list[Any], n: int) -> list[Any]:
    """n of them, evenly, the first included; all where there are fewer."""
    if len(items) <= n:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]


def _normalised(checkpoint: Checkpoint, windows: np.ndarray) -> Tensor:
    device = checkpoint.normaliser.obs_scale.device
    return checkpoint.normaliser.normalise("obs", torch.from_numpy(windows.astype(np.float32)).to(device))
