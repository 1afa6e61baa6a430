"""EMA training of a video network, resumable after a kill.

A step: a batch of windows of consecutive frames with their actions, a level for every frame (`levels.py`), and the
error of x0, v or the velocity. Some steps train the same weights block-causally. Every step's windows, levels and noise
are drawn from (seed, step), so a resumed run continues bit for bit on the same machine.

Legend: B windows, N frames of a window, F frames of the data.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import Rows
from ..errors import InputError
from ..learning import TrainingConfig, ema_decay, learning_rate, resume_state, save_state, update_ema
from .checkpoint import Beginnings, VideoCheckpoint
from .clips import Clips
from .config import VideoConfig
from .levels import check_mixture, mixed
from .network import FrameTransformer
from .values import Values

BEGINNINGS, BEGINNING = 8, 4  # of a checkpoint, and frames of each
LARGEST_WEIGHT = 5.0  # min-SNR-5 (Hang et al. 2023), in the form min(1 / sigma^2, 5), for an error of x0


@dataclass(frozen=True, kw_only=True)
class VideoTrainingConfig(TrainingConfig):
    """levels: shares of the kinds of `levels.py`; causal: share of the steps that train one frame after another;
    gradient_clip: the largest norm of a gradient."""

    steps: int = 4500
    batch: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 200
    ema_max: float = 0.998
    save_every: int = 100
    levels: dict[str, float] = field(default_factory=lambda: {"independent": 1.0})
    causal: float = 0.0
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mixture(self.levels)
        if not 0 <= self.causal <= 1 or not self.gradient_clip > 0:
            raise InputError(
                f"training causal is {self.causal} and gradient_clip {self.gradient_clip}; wanted a share, and a norm "
                "above 0"
            )


def train_video(
    clips: Clips,
    network_config: VideoConfig,
    config: VideoTrainingConfig,
    *,
    state_file: str | Path | None = None,
    about: dict | None = None,
    device: str = "cpu",
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> VideoCheckpoint:
    """Train on the windows of `clips`; returns the EMA weights. With `state_file`, the run is saved there every
    `save_every` steps and goes on from there; a state of another run is refused with InputError."""
    starts = window_starts(clips, network_config)
    torch.manual_seed(config.seed)
    network = FrameTransformer(network_config).to(device)
    values = Values(clips.kind, float(clips.attributes.get("scale", 1.0)))
    ema = copy.deepcopy(network).eval().requires_grad_(False)
    optim = _optimiser(network, config)
    digest = hashlib.sha256()
    for part in (clips.frames, clips.actions, starts):
        digest.update(np.ascontiguousarray(part).data)
    run = {"network": network_config.to_dict(), "training": asdict(config), "data": digest.hexdigest()}
    first = resume_state(state_file, run, network, ema, optim) if state_file else 0
    for step in range(first, config.steps):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        for group in optim.param_groups:
            group["lr"] = learning_rate(step, config)
        frames, actions = window_batch(clips, starts, values, network_config, config.batch, generator)
        error = window_loss(network, frames.to(device), actions.to(device), config, generator)
        if not torch.isfinite(error):
            raise InputError(f"the loss is {error.item()} at step {step}; look for bad values in the data or lower lr")
        optim.zero_grad(set_to_none=True)
        error.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
        optim.step()
        update_ema(ema, network, ema_decay(step, config))
        progress(step, error.item())
        if state_file and (step + 1) % config.save_every == 0:
            save_state(state_file, step + 1, run, network, ema, optim)
    told = {**(about or {}), "training": asdict(config)}
    return VideoCheckpoint(ema, values, told, beginnings=beginnings_of(clips))


def beginnings_of(clips: Clips) -> Beginnings:
    """Some frames from the middle of some episodes, evenly spread over those that are long enough."""
    fit = [i for i, length in enumerate(clips.lengths) if length >= BEGINNING]
    picks = [fit[i] for i in np.unique(np.linspace(0, len(fit) - 1, BEGINNINGS).astype(int))]
    middle = [clips.ends[i] - clips.lengths[i] // 2 - BEGINNING // 2 for i in picks]
    rows = np.array(middle)[:, None] + np.arange(BEGINNING)
    return Beginnings(torch.from_numpy(clips.frames[rows]), torch.from_numpy(clips.actions[rows]))


def window_starts(clips: Clips, config: VideoConfig) -> np.ndarray:
    """[M] int64, the first frame of every window. Raises InputError where the data does not fit the network."""
    wanted = (config.size, config.size, config.channels)
    if clips.frames.shape[1:] != wanted or clips.actions.shape[1] != config.action_dim:
        raise InputError(
            f"clips of {clips.frames.shape[1:]} with {clips.actions.shape[1]} action numbers do not fit the network: "
            f"wanted {wanted} and {config.action_dim}; set size, channels and action_dim"
        )
    if clips.lengths.max() < config.frames:
        raise InputError(f"the longest episode has {clips.lengths.max()} frames, a window {config.frames}; set frames")
    first = clips.ends - clips.lengths
    spans = [np.arange(start, end - config.frames + 1) for start, end in zip(first, clips.ends, strict=True)]
    return np.concatenate(spans)


def window_batch(
    clips: Clips, starts: np.ndarray, values: Values, config: VideoConfig, batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Frames [B, N, C, H, W] and actions [B, N, Da] of windows drawn from all."""
    picks = torch.randint(len(starts), (batch,), generator=generator).numpy()
    rows = starts[picks][:, None] + np.arange(config.frames)
    return values.to_network(clips.frames[rows]), torch.from_numpy(clips.actions[rows])


def window_loss(
    network: FrameTransformer, frames: Tensor, actions: Tensor, config: VideoTrainingConfig, generator: torch.Generator
) -> Tensor:
    """A scalar: the mean error over frames that are not clean, at drawn levels. frames: [B, N, C, H, W]."""
    B, N = frames.shape[:2]
    seeing = network
    if config.causal and torch.rand((), generator=generator) < config.causal:
        seeing = network.causal(1)
    label, a, s = drawn_noise(network, config.levels, B, N, generator)
    noise = torch.randn(frames.shape, generator=generator).to(frames.device)
    index = torch.arange(N).expand(B, -1)
    label, a, s, index = (part.to(frames.device) for part in (label, a, s, index))
    a, s = a[..., None, None, None], s[..., None, None, None]
    out = seeing.predict(a * frames + s * noise, label, (), Rows(index, actions)).x
    prediction = network.prediction
    target = {"sample": frames, "v": a * noise - s * frames, "velocity": noise - frames}[prediction]
    error = F.mse_loss(out, target, reduction="none").mean((2, 3, 4))
    noised = (s > 0).flatten(1).float()
    weight = (1 / s.flatten(1).clamp(min=1e-3) ** 2).clamp(max=LARGEST_WEIGHT) if prediction == "sample" else 1.0
    return (error * weight * noised).sum() / noised.sum().clamp(min=1)


def drawn_noise(
    network: FrameTransformer, levels: dict[str, float], B: int, N: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """label, alpha, sigma: [B, N] float32 each; level 0 is clean, told 0."""
    if network.schedule.is_flow:
        top = 1000
        sigma = mixed(levels, generator, B, N, top + 1) / top
        return sigma, 1 - sigma, sigma
    t = mixed(levels, generator, B, N, network.schedule.train_levels)
    alpha_bar = torch.from_numpy(network.schedule.alpha_bar).float()[t]
    alpha_bar = torch.where(t == 0, torch.ones_like(alpha_bar), alpha_bar)
    return t.float(), alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def _optimiser(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; matrices decay, the rest does not."""
    decay = [p for p in network.parameters() if p.dim() > 1]
    keep = [p for p in network.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
