"""Drafts for a checkpoint: `ontick calibrate CHECKPOINT --plan draft-K --data DEMOS`.

Puts windows of demonstrations and a small regression beside the checkpoint's weights, where plans draft-K and
draft-regression-K find them, and tells how far both are from demonstrations that they have not seen.

Legend: N windows, To, Ta, Tp, Da.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..diffusion import load_plan
from ..envs.dataset import read_demonstrations
from ..envs.demonstrations import Demonstrations
from ..errors import InputError
from ..files import check_place
from ..policy import Checkpoint, load_checkpoint
from ..policy.draft_policy import SOURCES
from ..policy.drafts import BANK, FILE, Drafts
from ..policy.training import Windows, window_frames
from .families import DIFFUSION, check_device

HELD_OUT = 10  # one episode in so many is kept for the error that is told
AT_ONCE = 64  # windows whose distances to the bank are in memory together


def run(options: argparse.Namespace) -> int:
    """Check everything first, then fit, judge and write."""
    _check(options)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(options.checkpoint, options.device)
    if checkpoint.network.family != DIFFUSION:
        got = checkpoint.network.family
        raise InputError(f"{options.checkpoint} is of the family {got}, and drafts are for a {DIFFUSION}")
    out = check_place(options.out or Path(options.checkpoint) / FILE)
    if out.is_dir() or out.suffix != ".safetensors":
        raise InputError(f"--out {out}: wanted the name of a .safetensors file")
    bank = BANK if options.samples is None else options.samples
    seen, held_out = split_windows(checkpoint, read_demonstrations(options.data), options.data)
    config = checkpoint.network.config
    about = {"windows": len(seen.frame), "seed": options.seed}
    drafts = Drafts.fit(seen, config, checkpoint.normaliser, seed=options.seed, bank=bank, about=about)
    rms = {
        "nearest": held_out_rms(drafts.nearest, held_out, checkpoint),
        "regression": held_out_rms(drafts.regressed, held_out, checkpoint),
    }
    drafts.about["held_out"] = {"windows": len(held_out.frame), "action_rms": rms}
    drafts.save(out)
    print(f"bank: {len(drafts.chunks)} of {len(seen.frame)} windows")
    told = ", ".join(f"{name} {value:.4f}" for name, value in rms.items())
    print(f"executed actions, on {len(held_out.frame)} windows of other episodes: RMS from the demonstration {told}")
    print(f"drafts: {out}")
    return 0


def split_windows(checkpoint: Checkpoint, data: Demonstrations, origin: str = "data") -> tuple[Windows, Windows]:
    """The checkpoint's training windows of the demonstrations, normalised: those of most episodes, and those of one
    episode in HELD_OUT, at least of one. Raises InputError."""
    config, normaliser = checkpoint.network.config, checkpoint.normaliser
    got, wanted = (data.observations.shape[1], data.actions.shape[1]), (config.observation_dim, config.action_dim)
    if got != wanted:
        raise InputError(f"{origin} has observations and actions of {got} numbers, the checkpoint takes {wanted}")
    if len(data) < 2:
        raise InputError(f"{origin} has {len(data)} episode, wanted 2 or more: one is kept to judge the drafts by")
    device = normaliser.obs_scale.device
    observations = normaliser.normalise("obs", torch.from_numpy(data.observations).to(device))
    actions = normaliser.normalise("action", torch.from_numpy(data.actions).to(device))
    frame = window_frames(data.episode_ends, config, checkpoint.network.from_newest)
    episode = np.searchsorted(data.episode_ends, frame[:, 0], side="right")
    kept = np.isin(episode, _spread(len(data), max(1, len(data) // HELD_OUT)))

    def part(mask: np.ndarray) -> Windows:
        return Windows(observations, actions, torch.from_numpy(frame[mask]).to(device))

    return part(~kept), part(kept)


@torch.inference_mode()
def held_out_rms(drafted: Callable[[Tensor], Tensor], windows: Windows, checkpoint: Checkpoint) -> float:
    """How far drafts are from demonstrations, normalised, over the Ta rows that are executed. drafted: obs [N, To, Do]
    -> [N, Tp, Da]."""
    first = checkpoint.network.first_row
    executed = slice(first, first + checkpoint.network.config.n_action_steps)
    squares = []
    for picks in torch.arange(len(windows.frame), device=windows.frame.device).split(AT_ONCE):
        obs, chunks = windows.batch(picks, checkpoint.network.config)
        squares.append((drafted(obs) - chunks)[:, executed].square())
    return float(torch.cat(squares).mean().sqrt())


def _check(options: argparse.Namespace) -> None:
    """Raises InputError where the options do not fit."""
    plan = load_plan(options.plan)
    if plan.guess.source not in SOURCES:
        raise InputError(f"--plan {options.plan} starts from {plan.guess.source}, wanted draft-K, as in draft-3")
    if options.data is None:
        raise InputError(f"--plan {options.plan}: drafts are made of demonstrations: give --data FILE")
    if options.samples is not None and not 1 <= options.samples <= BANK:
        raise InputError(f"--samples is {options.samples}, wanted 1 to {BANK} windows for the bank")
    check_device(options.device)


def _spread(n: int, k: int) -> np.ndarray:
    """k of 0..n - 1, evenly: the middle of each of k equal parts."""
    return ((np.arange(k) + 0.5) * n / k).astype(int)
