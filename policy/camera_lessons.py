"""Cameras that learn to tell the picture before a policy is learned, and then stay as they are.

A denoiser first learns what the state tells of the actions. Until then an encoder is of no use to it, and whatever
varied with the picture is trained away: within a hundred steps where it began at random, within some hundred where it
was taught. So encoders can be made deep spatial autoencoders (Finn et al. 2016): what they tell of a picture must
suffice to draw it again, small. What draws is thrown away. The policy is trained on what they tell, at no cost of
convolutions.

Legend: B lanes, M frames, S side of an image, s of a small one; F features (`cameras`).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..learning import TrainingConfig, learning_rate
from .cameras import Cameras

SMALL = 16  # s
WIDTH = 256  # of the hidden layer of what draws
SAMPLE = 1024  # frames whose mean and variance are the data's
BATCH = 256
DECAY = 1e-2  # of every weight


def teach(
    cameras: Cameras,
    observations: Tensor,
    lessons: int,
    config: TrainingConfig,
    progress: Callable[[int, float], None],
) -> None:
    """`lessons` steps of AdamW on observations [M, Do], normalised. The loss is the mean squared error of the small
    pictures over their variance: 1 where nothing is told. `progress(step, loss)`: steps from -lessons to -1."""
    generator = torch.Generator().manual_seed(config.seed)
    device = observations.device

    def small(frames: int) -> tuple[Tensor, Tensor]:
        """Drawn frames: images [B, cameras, 3, S, S], and the same of side s, flat [B, cameras, 3 s s]."""
        picks = torch.randint(len(observations), (frames,), generator=generator).to(device)
        images = cameras.images(observations[picks, None])
        return images, F.adaptive_avg_pool2d(images.flatten(0, 1), SMALL).view(*images.shape[:2], -1)

    _, sample = small(SAMPLE)
    mean, variance = sample.mean(0), sample.var(0).mean()
    if variance < 1e-8:
        raise InputError(f"camera_lessons is {lessons}, but the pictures never change: leave it out, or the cameras")
    draws = nn.ModuleList(_drawing(2 * cameras.keypoints, sample.shape[-1]) for _ in cameras.encoders).to(device)
    learnt = [*cameras.parameters(), *draws.parameters()]
    optim = torch.optim.AdamW(learnt, lr=config.lr, betas=config.betas, weight_decay=DECAY)
    config = replace(config, steps=lessons)  # the learning rate falls to 0 within them
    for step in range(lessons):
        for group in optim.param_groups:
            group["lr"] = learning_rate(step, config)
        images, wanted = small(config.batch)
        each = zip(draws, cameras.encoders, images.unbind(1), strict=True)
        drawn = torch.stack([draw(encoder(seen)) for draw, encoder, seen in each], 1)
        error = F.mse_loss(drawn, wanted - mean) / variance
        if not torch.isfinite(error):
            raise InputError(f"the cameras' loss is {error.item()} in lesson {step}; wanted a finite one: lower lr")
        optim.zero_grad(set_to_none=True)
        error.backward()
        optim.step()
        progress(step - lessons, error.item())


@torch.no_grad()
def told(cameras: Cameras, observations: Tensor) -> Tensor:
    """observations [M, Do] -> what `cameras`, as they are, tell of them: [M, F]."""
    training = cameras.training
    cameras.eval()
    features = torch.cat([cameras(some[:, None])[:, 0] for some in observations.split(BATCH)])
    cameras.train(training)
    return features


def _drawing(told: int, pixels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(told, WIDTH), nn.ReLU(), nn.Linear(WIDTH, pixels))
