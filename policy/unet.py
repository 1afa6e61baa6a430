"""The 1D U-Net of Diffusion Policy (Chi et al. 2023) as a list of residual blocks.

Its state_dict is that of the published `ConditionalUnet1D`, so its checkpoints load strictly; LeRobot's network is the
same under other names (`foreign.lerobot`).

A U-Net is no stream of one width, so its stream holds every level's features side by side, zero until they are written:

    h = [x | down 0 | down 1 | ... | middle | up 0 | ...]        [B, N, Da + sum of slots]

Level i has N / 2^i places of C_i channels; its slot has N rows of C_i / 2^i, the same numbers. A block reads the slots
it needs and adds to one: the first of a level writes it, the second is a residual branch on it. So a block that is
cached leaves its level as it was, and what lies deeper with it (DeepCache, Ma et al., CVPR 2024, is one such schedule).

Legend: B lanes, N action rows, To observation steps, C channels, n places of a level, Da, Do; F features (`cameras`).
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..diffusion import Asked, Block, Schedule, schedule
from .cameras import eyes
from .config import UNetConfig
from .network import ChunkNetwork, frequencies, sinusoid


class ConvolutionBlock(nn.Module):
    """Convolution, group norm, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.block = nn.Sequential(convolution, nn.GroupNorm(groups, outputs), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two convolution blocks; what is known enters between them, as a shift of each channel and, by choice, a scale."""

    def __init__(self, inputs: int, outputs: int, known: int, config: UNetConfig) -> None:
        super().__init__()
        self.outputs, self.scales = outputs, config.film_scale
        sizes = ((inputs, outputs), (outputs, outputs))
        self.blocks = nn.ModuleList(ConvolutionBlock(a, b, config.kernel_size, config.groups) for a, b in sizes)
        told = nn.Linear(known, outputs * (1 + self.scales))
        self.cond_encoder = nn.Sequential(nn.Mish(), told, nn.Identity())
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def branch(self, x: Tensor, known: Tensor) -> Tensor:
        """x: [B, inputs, n]; known: [B, E] -> [B, outputs, n], without what the residual path adds."""
        told = self.cond_encoder(known)[..., None]
        out = self.blocks[0](x)
        if self.scales:
            scale, shift = told.chunk(2, 1)
            out = scale * out + shift
        else:
            out = out + told
        return self.blocks[1](out)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        return self.branch(x, known) + self.residual_conv(x)


class Downsample(nn.Module):
    """[B, C, n] -> [B, C, n / 2]"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """[B, C, n] -> [B, C, 2 n]"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Slot(NamedTuple):
    """A level's columns of the stream: [start, stop), N rows; `factor` rows of it are a place of the level."""

    start: int
    stop: int
    factor: int

    def read(self, h: Tensor) -> Tensor:
        """[B, N, E] -> [B, C, n]"""
        return rearrange(h[..., self.start : self.stop], "b (n f) c -> b (c f) n", f=self.factor)

    def place(self, x: Tensor, width: int) -> Tensor:
        """[B, C, n] -> [B, N, width], zero elsewhere."""
        rows = rearrange(x, "b (c f) n -> b (n f) c", f=self.factor)
        return F.pad(rows, (self.start, width - self.stop))


class ConditionalUnet1D(ChunkNetwork):
    """Predicts the noise of N action rows, given To observations and one level a sample."""

    family: ClassVar[str] = "diffusion-unet"
    from_newest: ClassVar[bool] = False
    levels = "sample"
    config: UNetConfig
    windows = False  # it convolves over the whole chunk
    schedule: Schedule
    _frequency: Tensor

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c = self.config = config
        self.prediction, self.clip = c.prediction, c.clip
        self.schedule = schedule(c.schedule, c.train_levels)
        S, dims, L = c.step_width, c.down_dims, len(c.down_dims)
        known = S + c.n_obs_steps * c.feature_dim
        inputs = (c.action_dim, *dims[:-1])
        step = (nn.Identity(), nn.Linear(S, 4 * S), nn.Mish(), nn.Linear(4 * S, S))  # the sinusoid was at place 0
        self.diffusion_step_encoder = nn.Sequential(*step)

        def level(a: int, b: int, between: nn.Module) -> nn.ModuleList:
            return nn.ModuleList([ResidualBlock(a, b, known, c), ResidualBlock(b, b, known, c), between])

        self.down_modules = nn.ModuleList(
            level(inputs[i], dims[i], Downsample(dims[i]) if i < L - 1 else nn.Identity()) for i in range(L)
        )
        self.mid_modules = nn.ModuleList(ResidualBlock(dims[-1], dims[-1], known, c) for _ in range(2))
        # Every level upsamples: the topmost skip, of the level without any downsampling before it, is not used.
        self.up_modules = nn.ModuleList(
            level(2 * dims[i], dims[i - 1], Upsample(dims[i - 1])) for i in range(L - 1, 0, -1)
        )
        top = ConvolutionBlock(dims[0], dims[0], c.kernel_size, c.groups)
        self.final_conv = nn.Sequential(top, nn.Conv1d(dims[0], c.action_dim, 1))
        self.cameras = eyes(c)
        self.register_buffer("_frequency", frequencies(S), persistent=False)
        self._lay_out()

    def blocks(self) -> list[Block]:
        """Two a level, down, in the middle and up, in order."""
        return [self._block(i, name, *parts) for i, (name, parts) in enumerate(self._parts())]

    def prepare(self, obs: Tensor) -> Tensor:
        """obs: [B, To, Do], normalised -> [B, To F], the state and what the cameras tell of each step."""
        return self.cameras(obs).flatten(1)

    def enter(self, x: Tensor, asked: Asked) -> Tensor:
        """x: [B, N, Da] -> [B, N, E], all slots but the first zero."""
        return F.pad(x, (0, self._width - x.shape[-1]))

    def tell(self, asked: Asked) -> tuple[Tensor]:
        """[B, S + To F]: the level's embedding and the observations."""
        step = self.diffusion_step_encoder(sinusoid(asked.label[:, 0], self._frequency))
        return (torch.cat([step, asked.context], 1),)

    def leave(self, h: Tensor, asked: Asked) -> Tensor:
        up: Any = self.up_modules[-1]
        return self.final_conv(up[2](self._up[-1].read(h))).transpose(1, 2)

    def _lay_out(self) -> None:
        """Where each level lies in the stream."""
        dims, L = self.config.down_dims, len(self.config.down_dims)
        levels = [(dims[i], i) for i in range(L)] + [(dims[-1], L - 1)]  # down, middle
        levels += [(dims[i - 1], i) for i in range(L - 1, 0, -1)]  # up
        start, slots = self.config.action_dim, []
        for channels, level in levels:
            stop = start + (channels >> level)
            slots.append(Slot(start, stop, 1 << level))
            start = stop
        self._width, self._given = start, Slot(0, self.config.action_dim, 1)
        self._down, self._middle, self._up = slots[:L], slots[L], slots[L + 1 :]

    def _parts(self) -> list[tuple[str, tuple[ResidualBlock, Callable[[Tensor], Tensor] | None, Slot]]]:
        """Of every block: its name, module, what it reads (None: the slot itself) and the slot that it adds to."""
        parts: list[Any] = []

        def add(name: str, first: Any, second: Any, read: Callable[[Tensor], Tensor], slot: Slot) -> None:
            parts.extend([(f"{name}.0", (first, read, slot)), (f"{name}.1", (second, None, slot))])

        read = self._given.read
        for i, (slot, level) in enumerate(zip(self._down, self.down_modules, strict=True)):
            add(f"down.{i}", level[0], level[1], read, slot)  # type: ignore[index]
            read = _after(slot, level[2])  # type: ignore[index]
        add("middle", self.mid_modules[0], self.mid_modules[1], read, self._middle)
        read = self._middle.read
        for i, (slot, level) in enumerate(zip(self._up, self.up_modules, strict=True)):
            add(f"up.{i}", level[0], level[1], _beside(read, self._down[-1 - i]), slot)  # type: ignore[index]
            read = _after(slot, level[2])  # type: ignore[index]
        return parts

    def _block(
        self, i: int, name: str, module: ResidualBlock, read: Callable[[Tensor], Tensor] | None, slot: Slot
    ) -> Block:
        def write(h: Tensor, told: tuple[Tensor]) -> Tensor:
            out = module.branch(slot.read(h), told[0]) if read is None else module(read(h), told[0])
            return slot.place(out, self._width)

        return Block(name, f"convolution_{module.outputs}", i // 2, write)


def _after(slot: Slot, between: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda h: between(slot.read(h))


def _beside(read: Callable[[Tensor], Tensor], skip: Slot) -> Callable[[Tensor], Tensor]:
    return lambda h: torch.cat([read(h), skip.read(h)], 1)
