"""The space-time transformer: every layer attends within a frame, then along time at each place, then feeds forward.

    h = embed(patches) + places                                  [B, N, T, E]
    for block in blocks: h = h + gate * branch(norm(h) * (1 + scale) + shift)
    out = unpatch(head(norm(h)))                                 [B, N, C, H, W]

Shift, scale and gate are a frame's own: they come from its noise level and its action (adaLN, Peebles and Xie 2023,
with one projection for all layers as in PixArt, Chen et al. 2024). Time is told by rotary positions (Su et al. 2021),
counted from the first frame that a call sees.

Legend: B lanes, N frames of a call, P remembered frames, T tokens of a frame, E width, h heads, d = E / h.
"""

import copy
import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..diffusion import Asked, Block, Rows, schedule
from .config import VideoConfig
from .contract import FrameDenoiser, Memory, Sight

BRANCHES = ("space", "time", "feed_forward")
LABELS = 1000.0  # the labels of flow matching, 0 to 1, are spread over as many as trained schedules have


class Told(NamedTuple):
    """What the blocks of a call are told. modulation: [B, N, 1, 9 E], before a layer's own part is added; cos, sin:
    [P + N, d / 2], of the rotary positions; mask: [B, 1, N, P + N] bool, what is seen, or None: everything; memory:
    [B, P, layers, 2, T, E], or None; kept: where keys and values are put, layer by layer, or None."""

    modulation: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    memory: Tensor | None
    kept: list[Tensor] | None = None


class Layer(nn.Module):
    def __init__(self, config: VideoConfig, number: int) -> None:
        super().__init__()
        E, self.heads, self.number = config.width, config.heads, number
        self.side = config.size // config.patch
        self.space_in, self.space_out = nn.Linear(E, 3 * E), nn.Linear(E, E)
        self.time_in, self.time_out = nn.Linear(E, 3 * E), nn.Linear(E, E)
        self.near = nn.Conv2d(E, E, 3, padding=1, groups=E)
        self.up, self.down = nn.Linear(E, 4 * E), nn.Linear(4 * E, E)
        self.modulation = nn.Parameter(torch.zeros(9 * E))

    def space(self, h: Tensor, told: Told) -> Tensor:
        x, gate = self._modulated(h, told, 0)
        q, k, v = (
            rearrange(part, "b n t (h d) -> (b n) h t d", h=self.heads) for part in self.space_in(x).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return gate * self.space_out(rearrange(y, "(b n) h t d -> b n t (h d)", b=h.shape[0]))

    def time(self, h: Tensor, told: Told) -> Tensor:
        x, gate = self._modulated(h, told, 1)
        q, k, v = self.time_in(x).chunk(3, -1)  # [B, N, T, E]
        if told.kept is not None:
            told.kept.append(torch.stack([k, v], 2))
        if told.memory is not None:
            held = told.memory[:, :, self.number]  # [B, P, 2, T, E]
            k, v = torch.cat([held[:, :, 0], k], 1), torch.cat([held[:, :, 1], v], 1)
        q, k, v = (rearrange(part, "b n t (h d) -> (b t) h n d", h=self.heads) for part in (q, k, v))
        last = -q.shape[2]
        q, k = rotated(q, told.cos[last:], told.sin[last:]), rotated(k, told.cos, told.sin)
        mask = None if told.mask is None else told.mask.repeat_interleave(h.shape[2], 0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return gate * self.time_out(rearrange(y, "(b t) h n d -> b n t (h d)", b=h.shape[0]))

    def feed_forward(self, h: Tensor, told: Told) -> Tensor:
        x, gate = self._modulated(h, told, 2)
        side = self.side
        places = rearrange(x, "b n (y x) e -> (b n) e y x", y=side)
        x = x + rearrange(self.near(places), "(b n) e y x -> b n (y x) e", b=h.shape[0])
        return gate * self.down(F.gelu(self.up(x), approximate="tanh"))

    def _modulated(self, h: Tensor, told: Told, branch: int) -> tuple[Tensor, Tensor]:
        """The normed and modulated stream, and the branch's gate, which is 1 before training."""
        E = h.shape[-1]
        part = slice(3 * branch * E, 3 * (branch + 1) * E)
        shift, scale, gate = (told.modulation[..., part] + self.modulation[part]).chunk(3, -1)
        return F.layer_norm(h, (E,)) * (1 + scale) + shift, 1 + gate


class FrameTransformer(nn.Module, FrameDenoiser):
    """Denoises frames [B, N, C, H, W], each at its own level and with its own action; N is free."""

    family: ClassVar[str] = "space-time-transformer"

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        c = self.config = config
        self.prediction, self.clip, self.frames = c.prediction, c.clip, c.frames
        self.schedule = schedule(c.schedule, c.train_levels)
        E, numbers = c.width, c.channels * c.patch**2
        self.embed, self.head = nn.Linear(numbers, E), nn.Linear(E, numbers)
        self.places = nn.Parameter(torch.randn(c.tokens, E) * 0.02)
        self.level = nn.Sequential(nn.Linear(E, E), nn.SiLU(), nn.Linear(E, E))
        self.action = nn.Sequential(nn.Linear(c.action_dim, E), nn.SiLU(), nn.Linear(E, E)) if c.action_dim else None
        self.modulation, self.head_modulation = nn.Linear(E, 9 * E), nn.Linear(E, 2 * E)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.layers))
        self.apply(_initialise)
        for silent in (self.modulation, self.head_modulation, self.head):
            nn.init.zeros_(silent.weight)

    def causal(self, block: int) -> "FrameTransformer":
        """Shares every weight with this network."""
        other = copy.copy(self)
        other.causal_block = block
        return other

    def prepare(self, obs: object = None) -> tuple:
        """Nothing: all that frames are told is told frame by frame."""
        return ()

    def blocks(self) -> list[Block]:
        kinds = dict(zip(BRANCHES, ("self_attention", "self_attention", "feed_forward"), strict=True))
        return [
            Block(f"{i}.{branch}", kind, i, getattr(layer, branch))
            for i, layer in enumerate(self.layers)
            for branch, kind in kinds.items()
        ]

    def enter(self, x: Tensor, asked: Asked) -> Tensor:
        p = self.config.patch
        patches = rearrange(x, "b n c (y p) (x q) -> b n (y x) (c p q)", p=p, q=p)
        return self.embed(patches.to(self.places.dtype)) + self.places

    def tell(self, asked: Asked) -> Told:
        cos, sin, mask, memory = self._placed(asked)
        modulation = self.modulation(F.silu(self._condition(asked)))[:, :, None]
        return Told(modulation, cos, sin, mask, memory)

    def leave(self, h: Tensor, asked: Asked) -> Tensor:
        c = self.config
        shift, scale = self.head_modulation(F.silu(self._condition(asked)))[:, :, None].chunk(2, -1)
        patches = self.head(F.layer_norm(h, (c.width,)) * (1 + scale) + shift)
        side = c.size // c.patch
        return rearrange(patches, "b n (y x) (c p q) -> b n c (y p) (x q)", y=side, p=c.patch, q=c.patch)

    def remember(self, x: Tensor, label: Tensor, context: object, rows: Rows) -> Tensor:
        asked = Asked(label, context, rows)
        h, told = self.enter(x, asked), self.tell(asked)
        told = told._replace(kept=[])
        for block in self.blocks()[:-1]:  # the last branch changes no key
            h = h + block.branch(h, told)
        assert told.kept is not None
        return torch.stack(told.kept, 2)

    def _condition(self, asked: Asked) -> Tensor:
        """[B, N, E]: what a frame is told of its level and its action."""
        label = asked.label * (LABELS if self.schedule.is_flow else 1.0)
        half = self.config.width // 2  # frequencies in fp32 whatever the weights are in: angles reach hundreds of turns
        frequency = torch.exp(torch.arange(half, device=label.device) * (-math.log(10000) / (half - 1)))
        angle = label[..., None] * frequency
        told = self.level(torch.cat([angle.sin(), angle.cos()], -1).to(self.places.dtype))
        if self.action is None:
            return told
        actions = None if asked.rows is None else asked.rows.conditioning
        if actions is None:
            actions = asked.label.new_zeros(*asked.label.shape, self.config.action_dim)
        return told + self.action(actions.to(self.places.dtype))

    def _placed(self, asked: Asked) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """cos, sin, mask and memory of `Told`."""
        sight = None if asked.rows is None else asked.rows.state
        memory = sight.memory if isinstance(sight, Sight) else None
        remembered = 0 if memory is None else memory.there.shape[1]
        N, half = asked.label.shape[1], self.config.width // self.config.heads // 2
        speed = torch.exp(torch.arange(half, device=asked.label.device) * (-math.log(1000) / half))
        angle = torch.arange(remembered + N, device=asked.label.device)[:, None] * speed
        dtype = self.places.dtype
        held = None if memory is None else memory.held.to(dtype)
        return angle.cos().to(dtype), angle.sin().to(dtype), seen(asked, sight, self.causal_block), held


def seen(asked: Asked, sight: Sight | None, block: int) -> Tensor | None:
    """[B, 1, N, P + N] bool: which frames a frame attends to; None where it is all. A frame that does not exist sees
    itself, so that what nobody reads stays finite."""
    if sight is None and not block:
        return None
    assert asked.rows is not None
    index, (B, N) = asked.rows.index, asked.label.shape
    mask = torch.ones(B, N, N, dtype=torch.bool, device=asked.label.device)
    if block:
        number = index.div(block, rounding_mode="floor")
        mask = number[:, None, :] <= number[:, :, None]
    if sight is not None:
        there = (index >= sight.first[:, None])[:, None, :]
        mask = mask & (there | torch.eye(N, dtype=torch.bool, device=mask.device))
        if isinstance(sight.memory, Memory):
            mask = torch.cat([sight.memory.there[:, None, :].expand(-1, N, -1), mask], 2)
    return mask[:, None]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: [..., N, d], its halves turned by [N, d / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
