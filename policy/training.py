"""EMA training of a diffusion policy with the published hyper-parameters, resumable after a kill.

A step: a batch of windows, and the network's own loss on it (`ActionNetwork.loss`). State is saved whole or not at
all; a resumed run continues bit for bit on the same machine, because every step's batch, levels and noise are drawn
from (seed, step).

Legend: M windows, Tp rows, To observation steps, E episodes.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..learning import TrainingConfig, ema_decay, learning_rate, resume_state, save_state, update_ema
from .camera_lessons import teach, told
from .cameras import Cameras
from .checkpoint import Checkpoint
from .config import ChunkConfig
from .network import ActionNetwork
from .normaliser import Normaliser
from .transformer import Attention, TransformerForDiffusion


@dataclass(frozen=True)
class Windows:
    """Training windows over whole episodes: To - 1 rows of padding before, Ta - 1 after, edges repeated."""

    observations: Tensor  # [frames, Do], normalised
    actions: Tensor  # [frames, Da], normalised
    frame: Tensor  # [M, span] int64: which frame each row of a window reads

    def batch(self, picks: Tensor, config: ChunkConfig, lookback: int = 0) -> tuple[Tensor, Tensor]:
        """picks: [B] -> observations [B, m + To, Do], actions [B, m + Tp, Da]: the first and the last rows of the
        windows."""
        frame = self.frame[picks]
        seen, acted = lookback + config.n_obs_steps, lookback + config.horizon
        return self.observations[frame[:, :seen]], self.actions[frame[:, -acted:]]


def window_frames(
    episode_ends: np.ndarray, config: ChunkConfig, from_newest: bool = False, lookback: int = 0
) -> np.ndarray:
    """[M, span] frames of every window: one for each start from -(To - 1) up to where Ta - 1 rows lie past the end.

    from_newest: the rows begin at the newest observation, so that a window spans To - 1 + Tp frames in the place of Tp;
    and every frame is the newest of one, because such networks are asked at every tick. lookback: m more frames stand
    before each window, for such networks alone.
    """
    span, past, before = config.horizon, config.n_action_steps - 1, config.n_obs_steps - 1
    if from_newest:
        span, past, before = span + before + lookback, config.horizon - 1, before + lookback
    rows = np.arange(span)
    windows, start = [], 0
    for end in episode_ends:
        first = np.arange(start - before, end - span + past + 1)
        if len(first) == 0:  # an episode shorter than a window is still seen once
            first = np.array([start - before])
        windows.append((first[:, None] + rows).clip(start, end - 1))
        start = end
    return np.concatenate(windows)


def optimiser(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; weights of linear layers and attention decay, biases, norms and position embeddings do not."""
    decay, keep = [], []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            matrix = name.endswith("weight") and isinstance(module, nn.Linear | Attention | nn.MultiheadAttention)
            (decay if matrix else keep).append(parameter)
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def train(
    observations: np.ndarray,
    actions: np.ndarray,
    episode_ends: np.ndarray,
    network_config: ChunkConfig,
    config: TrainingConfig,
    *,
    family: type[ActionNetwork] = TransformerForDiffusion,
    begin_from: Checkpoint | None = None,
    unfitted_dims: tuple[int, ...] = (),
    discrete_dims: tuple[int, ...] = (),
    state_file: str | Path | None = None,
    about: dict | None = None,
    device: str = "cpu",
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Checkpoint:
    """Train on [frames, Do] observations and [frames, Da] actions of the episodes that end (exclusively) at
    `episode_ends`; returns the EMA weights. `begin_from`: a checkpoint whose weights and normaliser are begun with;
    what it lacks begins as it is initialised, its cameras are not taught again, and what does not fit raises
    InputError. With `state_file`, the run is saved there every `save_every` steps and goes on from there; a state
    file of another run is refused with InputError. `progress(step, loss)` is called after every step; lessons of
    cameras come first and count from below 0."""
    if network_config.schedule == "flow":
        raise InputError("training is for trained schedules, got flow matching")
    _check_data(observations, actions, episode_ends, network_config)
    torch.manual_seed(config.seed)
    network = family(network_config)
    if begin_from is None:
        normaliser = Normaliser.fit(
            observations,
            actions,
            unfitted_dims=unfitted_dims,
            discrete_dims=discrete_dims,
            state_dim=network_config.state_dim,
        )
    else:
        normaliser = copy.deepcopy(begin_from.normaliser).cpu()
        _begin_from(network, begin_from)
    frame = window_frames(episode_ends, network_config, network.from_newest, network.lookback)
    data = Windows(
        normaliser.normalise("obs", torch.from_numpy(observations).float()).to(device),
        normaliser.normalise("action", torch.from_numpy(actions).float()).to(device),
        torch.from_numpy(frame).to(device),
    )
    network = network.to(device)
    network.begin_training(data.actions[data.frame[:, -network_config.horizon :]], config.seed)
    ema = copy.deepcopy(network).eval().requires_grad_(False)
    optim = optimiser(network, config)
    run = {
        "family": family.family,
        "network": network_config.to_dict(),
        "training": asdict(config),
        "data": _digest(data.observations, data.actions, data.frame),
    }
    if begin_from is not None:
        run["begin_from"] = _digest(*begin_from.network.state_dict().values())
    taught = begin_from is not None and any(key.startswith("cameras.") for key in begin_from.network.state_dict())
    begun = state_file is not None and Path(state_file).is_file()
    first = resume_state(state_file, run, network, ema, optim) if state_file else 0
    network.train()
    if network_config.lessons:
        cameras = cast(Cameras, network.cameras)
        if not (begun or taught):
            teach(cameras, data.observations, network_config.lessons, config, progress)
            if state_file:
                save_state(state_file, 0, run, network, ema, optim)
        data = replace(data, observations=told(cameras, data.observations))
    for step in range(first, config.steps):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
        picks = torch.randint(len(frame), (config.batch,), generator=generator).to(device)
        for group in optim.param_groups:
            group["lr"] = learning_rate(step, config)
        error = network.loss(*data.batch(picks, network_config, network.lookback), generator)
        if not torch.isfinite(error):
            raise InputError(f"the loss is {error.item()} at step {step}; look for bad values in the data or lower lr")
        optim.zero_grad(set_to_none=True)
        error.backward()
        optim.step()
        update_ema(ema, network, ema_decay(step, config))
        progress(step, error.item())
        if state_file and (step + 1) % config.save_every == 0:
            save_state(state_file, step + 1, run, network, ema, optim)
    return Checkpoint(ema, normaliser.to(device), {**(about or {}), "training": asdict(config)})


def _begin_from(network: ActionNetwork, checkpoint: Checkpoint) -> None:
    try:
        left = network.load_state_dict(checkpoint.network.state_dict(), strict=False)
    except RuntimeError as error:
        raise InputError(
            f"the checkpoint to begin from is of another shape: {' '.join(str(error).split())[:200]}"
        ) from None
    if left.unexpected_keys:
        raise InputError(f"the checkpoint to begin from has {left.unexpected_keys[0]}, which this network has not")


def _check_data(observations: np.ndarray, actions: np.ndarray, ends: np.ndarray, config: ChunkConfig) -> None:
    wanted = ((len(actions), config.observation_dim), (len(observations), config.action_dim))
    if (observations.shape, actions.shape) != wanted:
        raise InputError(
            f"observations {observations.shape} and actions {actions.shape} do not fit the network: wanted "
            f"[frames, {config.observation_dim}] and [frames, {config.action_dim}]"
        )
    if len(ends) == 0 or (np.diff(ends, prepend=0) < 1).any() or ends[-1] != len(actions):
        raise InputError(
            f"episode ends must ascend and stop at the {len(actions)} frames; got {len(ends)} of them, the last "
            f"{ends[-1] if len(ends) else 'missing'}"
        )
    for name, values in (("observations", observations), ("actions", actions)):
        bad = np.unique(np.argwhere(~np.isfinite(values))[:, 0])
        if len(bad):
            raise InputError(f"{name} hold NaN or infinity in {len(bad)} frames, the first is {bad[0]}; mend the data")


def _digest(*tensors: Tensor) -> str:
    """A fingerprint of what a run depends on: the normalised frames and how they are cut into windows; the weights that
    it begins with."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
