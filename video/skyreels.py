"""The SkyReels-V2 diffusion-forcing transformer (Chen et al. 2025, arXiv 2504.13074): one attention over the tokens of
all frames, one over the prompt, then a feed-forward.

    h = embed(patches)                                                        [B, N, T, E]
    h = h + gate1 * self_attention(norm(h) * (1 + scale1) + shift1)
    h = h + cross_attention(norm(h), prompt)
    h = h + gate2 * feed_forward(norm(h) * (1 + scale2) + shift2)
    out = unpatch(head(norm(h) * (1 + scale) + shift))                        [B, N, C, H, W]

Shift, scale and gate come from a frame's own timestep. Queries and keys are normed over all heads (RMS) and turned by
rotary angles, a part of a head each for time, row and column; time is the rank among the frames that a call sees.

`SkyReelsDenoiser.from_diffusers` lays the weights out for speed: query, key and value are one product; the two numbers
of a rotary pair lie half a head apart, which moves queries and keys alike and so changes no product of them; the frame
rate, which stays, is a part of a bias.

Legend: B lanes, N frames of a call, P remembered frames, T tokens of a frame, E width, h heads, d = E / h, S tokens of
the prompt, C channels, H and W the height and width of a latent frame.
"""

import copy
import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..diffusion import Asked, Block, Rows, schedule
from ..errors import InputError
from .contract import FrameDenoiser, Memory, Sight
from .network import LABELS, seen
from .skyreels_weights import our_state

BRANCHES = ("self_attention", "cross_attention", "feed_forward")


@dataclass(frozen=True, kw_only=True)
class SkyReelsConfig:
    """size: H, W; the rest as diffusers has it. patch_size: frames, rows and columns of a token; freq_dim: numbers that
    tell a timestep; cross_attn_norm: whether there is a norm before cross-attention; eps: of all norms."""

    size: tuple[int, int]
    patch_size: tuple[int, int, int]
    in_channels: int
    out_channels: int | None
    num_attention_heads: int
    attention_head_dim: int
    text_dim: int
    freq_dim: int
    ffn_dim: int
    num_layers: int
    cross_attn_norm: bool
    eps: float

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of a frame."""
        return self.size[0] // self.patch_size[1], self.size[1] // self.patch_size[2]

    @staticmethod
    def of(theirs: Any, size: tuple[int, int]) -> "SkyReelsConfig":
        """From the configuration of diffusers. Raises InputError for what this network cannot be."""
        frames, p, q = theirs.patch_size
        if frames != 1:
            raise InputError(f"patches of {frames} frames mix levels, wanted patches of 1 frame")
        if theirs.image_dim is not None or theirs.added_kv_proj_dim is not None:
            raise InputError("this transformer attends to an image as well, wanted a text-to-video one")
        if size[0] % p or size[1] % q:
            raise InputError(f"latents of {size[0]} x {size[1]} do not divide into patches of {p} x {q}")
        names = [item.name for item in fields(SkyReelsConfig) if item.name != "size"]
        return SkyReelsConfig(size=size, **{name: getattr(theirs, name) for name in names})


class Told(NamedTuple):
    """What the blocks of a call are told. modulation: [B, N, 1, 6 E] fp32, before a layer's own part is added; text:
    [B, layers, 2, h, S, d]; cos, sin: [(P + N) T, 1, d] fp32, of the rotary positions; mask: [B, 1, N T, (P + N) T],
    0 where a token is seen and -inf elsewhere, or None: all are; memory: [B, P, layers, 2, T, E], or None; kept: where
    keys and values are put, layer by layer, or None."""

    modulation: Tensor
    text: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    memory: Tensor | None
    kept: list[Tensor] | None = None


class Layer(nn.Module):
    def __init__(self, config: SkyReelsConfig, number: int) -> None:
        super().__init__()
        E, self.heads, self.eps, self.number = config.width, config.num_attention_heads, config.eps, number
        self.self_in, self.self_out = nn.Linear(E, 3 * E), nn.Linear(E, E)
        self.self_query_norm, self.self_key_norm = nn.RMSNorm(E, self.eps), nn.RMSNorm(E, self.eps)
        self.cross_norm = nn.LayerNorm(E, self.eps) if config.cross_attn_norm else nn.Identity()
        self.cross_query, self.cross_text, self.cross_out = nn.Linear(E, E), nn.Linear(E, 2 * E), nn.Linear(E, E)
        self.cross_query_norm, self.cross_key_norm = nn.RMSNorm(E, self.eps), nn.RMSNorm(E, self.eps)
        self.up, self.down = nn.Linear(E, config.ffn_dim), nn.Linear(config.ffn_dim, E)
        self.modulation = nn.Parameter(torch.zeros(6 * E))

    def self_attention(self, h: Tensor, told: Told) -> Tensor:
        x, gate = self._modulated(h, told, 0)
        q, k, v = self.self_in(x).chunk(3, -1)
        q, k = self.self_query_norm(q), self.self_key_norm(k)
        if told.kept is not None:
            told.kept.append(torch.stack([k, v], 2))
        if told.memory is not None:
            held = told.memory[:, :, self.number]  # [B, P, 2, T, E]
            k, v = torch.cat([held[:, :, 0], k], 1), torch.cat([held[:, :, 1], v], 1)
        q, k, v = (part.reshape(h.shape[0], -1, self.heads, h.shape[-1] // self.heads) for part in (q, k, v))
        last = told.cos.shape[0] - q.shape[1]
        q, k = turned(q, told.cos[last:], told.sin[last:]), turned(k, told.cos, told.sin)
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)), attn_mask=told.mask)
        return (gate * self.self_out(y.transpose(1, 2).reshape(h.shape))).to(h.dtype)

    def cross_attention(self, h: Tensor, told: Told) -> Tensor:
        q = self.cross_query_norm(self.cross_query(self.cross_norm(h)))
        k, v = told.text[:, self.number].unbind(1)
        q = q.reshape(h.shape[0], -1, self.heads, h.shape[-1] // self.heads).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.cross_out(y.transpose(1, 2).reshape(h.shape))

    def feed_forward(self, h: Tensor, told: Told) -> Tensor:
        x, gate = self._modulated(h, told, 1)
        return (gate * self.down(F.gelu(self.up(x), approximate="tanh"))).to(h.dtype)

    def read(self, text: Tensor) -> Tensor:
        """[B, S, E] -> keys and values [B, 2, h, S, d]."""
        k, v = self.cross_text(text).chunk(2, -1)
        return rearrange(torch.stack([self.cross_key_norm(k), v], 1), "b two s (h d) -> b two h s d", h=self.heads)

    def _modulated(self, h: Tensor, told: Told, branch: int) -> tuple[Tensor, Tensor]:
        """The normed and modulated stream, in its own precision, and the branch's gate in fp32."""
        E = h.shape[-1]
        part = slice(3 * branch * E, 3 * (branch + 1) * E)
        shift, scale, gate = (told.modulation[..., part] + self.modulation[part].float()).chunk(3, -1)
        return _normed(h, shift, scale, self.eps), gate


class SkyReelsDenoiser(nn.Module, FrameDenoiser):
    """Predicts the velocity of latent frames [B, N, C, H, W], each at its own level; N is free.

    whole_timesteps: a network is told 1000 label; with it what its own sampler tells, which cuts to whole numbers and
                     tells frames of pure noise 999. A prompt is embeddings [B, S, text_dim], prepared once.
    """

    family: ClassVar[str] = "skyreels-v2"
    prediction = "velocity"

    def __init__(self, config: SkyReelsConfig, frames: int = 25, whole_timesteps: bool = False) -> None:
        super().__init__()
        c = self.config = config
        self.frames, self.whole_timesteps, self.schedule = frames, whole_timesteps, schedule("flow")
        E, numbers = c.width, math.prod(c.patch_size)
        self.embed, self.head = (
            nn.Linear(numbers * c.in_channels, E),
            nn.Linear(E, numbers * (c.out_channels or c.in_channels)),
        )
        self.level = nn.Sequential(nn.Linear(c.freq_dim, E), nn.SiLU(), nn.Linear(E, E))
        self.text = nn.Sequential(nn.Linear(c.text_dim, E), nn.GELU(approximate="tanh"), nn.Linear(E, E))
        self.modulation = nn.Linear(E, 6 * E)
        self.head_modulation = nn.Parameter(torch.zeros(2 * E))
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_layers))
        self._tables: dict[torch.device, Tensor] = {}

    @classmethod
    def from_diffusers(
        cls, model: Any, size: tuple[int, int], *, frames: int = 25, whole_timesteps: bool = False, fps: int = 24
    ) -> "SkyReelsDenoiser":
        """The network of a `SkyReelsV2Transformer3DModel` for latents of H x W = `size`, causal where that is; it has
        weights of its own. fps: of networks that are told. Raises InputError where it is another kind of transformer,
        and torch's RuntimeError where a weight is missing or left over."""
        config, weight = SkyReelsConfig.of(model.config, size), next(model.parameters())
        network = cls(config, frames, whole_timesteps).to(weight.device, weight.dtype)
        network.load_state_dict(our_state(dict(model.state_dict()), config, fps), strict=True)
        block = model.config.num_frame_per_block
        return (network.causal(block) if block > 1 else network).eval().requires_grad_(False)

    def causal(self, block: int) -> "SkyReelsDenoiser":
        """Shares every weight with this network."""
        other = copy.copy(self)
        other.causal_block = block
        return other

    def prepare(self, obs: Tensor) -> Tensor:
        """Embeddings of the prompt [B, S, text_dim] -> every layer's keys and values of it, [B, layers, 2, h, S, d]."""
        text = self.text(obs.to(self.head.weight))
        return torch.stack([layer.read(text) for layer in self.layers], 1)  # type: ignore[operator]

    def blocks(self) -> list[Block]:
        told_apart = ((i, layer, kind) for i, layer in enumerate(self.layers) for kind in BRANCHES)
        return [Block(f"{i}.{kind}", kind, i, getattr(layer, kind)) for i, layer, kind in told_apart]

    def enter(self, x: Tensor, asked: Asked) -> Tensor:
        _, p, q = self.config.patch_size
        patches = rearrange(x, "b n c (y p) (x q) -> b n (y x) (c p q)", p=p, q=q)
        return self.embed(patches.to(self.head.weight.dtype))

    def tell(self, asked: Asked) -> Told:
        N, rows = asked.label.shape[1], asked.rows
        sight = rows.state if rows is not None and isinstance(rows.state, Sight) else None
        memory = None if sight is None or not isinstance(sight.memory, Memory) else sight.memory
        there = N if memory is None else N + memory.there.shape[1]
        modulation = self.modulation(F.silu(self._level(asked.label)))[:, :, None].float()
        held = None if memory is None else memory.held.to(self.head.weight.dtype)
        return Told(modulation, asked.context, *self._rotary(there, asked.label), self._mask(asked, sight), held)

    def leave(self, h: Tensor, asked: Asked) -> Tensor:
        c, level = self.config, self._level(asked.label)[:, :, None].float()
        shift, scale = (self.head_modulation.float() + torch.cat([level, level], -1)).chunk(2, -1)
        patches = self.head(_normed(h, shift, scale, c.eps))
        _, p, q = c.patch_size
        return rearrange(patches, "b n (y x) (p q c) -> b n c (y p) (x q)", y=c.grid[0], p=p, q=q)

    def remember(self, x: Tensor, label: Tensor, context: object, rows: Rows) -> Tensor:
        asked = Asked(label, context, rows)
        h, told = self.enter(x, asked), self.tell(asked)._replace(kept=[])
        for block in self.blocks()[:-2]:  # the last layer's other branches change no key
            h = h + block.branch(h, told)
        assert told.kept is not None
        return torch.stack(told.kept, 2)

    def _level(self, label: Tensor) -> Tensor:
        """[B, N] -> [B, N, E]: what a frame is told of its timestep. Angles reach 1000, so they are fp64."""
        time, half = label * LABELS, self.config.freq_dim // 2
        if self.whole_timesteps:
            time = time.floor().clamp(max=LABELS - 1)
        speed = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=label.device) / half)
        angle = time.double()[..., None] * speed
        return self.level(torch.cat([angle.cos(), angle.sin()], -1).to(self.head.weight.dtype))

    def _rotary(self, frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """[frames T, 1, d] each, cut from one table a device, which grows where it is too short."""
        T = math.prod(self.config.grid)
        if like.device not in self._tables or self._tables[like.device].shape[1] < frames * T:
            with torch.inference_mode(False):  # so that training can use it as well
                self._tables[like.device] = rotary_table(frames, self.config).to(like.device)
        cos, sin = self._tables[like.device][:, : frames * T].unbind()
        return cos, sin

    def _mask(self, asked: Asked, sight: Sight | None) -> Tensor | None:
        """See `Told.mask`; the same for all tokens of a frame."""
        frames = seen(asked, sight, self.causal_block)
        if frames is None:
            return None
        T, (B, _, N, M) = math.prod(self.config.grid), frames.shape
        mask = torch.zeros(frames.shape, dtype=self.head.weight.dtype, device=frames.device)
        mask = mask.masked_fill(~frames, float("-inf"))[:, :, :, None, :, None]
        return mask.expand(B, 1, N, T, M, T).reshape(B, 1, N * T, M * T)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: [B, M, h, d], its pairs (i, i + d / 2) turned by the angles of `rotary_table`."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)


def rotary_table(frames: int, config: SkyReelsConfig) -> Tensor:
    """cos and signed sin [2, frames T, 1, d] fp32: pair i of an axis of width w turns by place / 10000^(2 i / w). Row
    and column have 2 (d // 6) numbers of a head each, time the rest."""
    d = config.attention_head_dim
    widths = (d - 4 * (d // 6), 2 * (d // 6), 2 * (d // 6))
    places = np.indices((frames, *config.grid)).reshape(3, -1, 1)
    speeds = (10000.0 ** (-np.arange(0, width, 2) / width) for width in widths)
    angle = np.concatenate([place * speed for place, speed in zip(places, speeds, strict=True)], 1)
    cos, sin = np.cos(angle), np.sin(angle)
    return torch.from_numpy(np.stack([np.c_[cos, cos], np.c_[-sin, sin]])).float()[:, :, None]


def _normed(h: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """norm(h) * (1 + scale) + shift, computed in fp32. shift, scale: [B, N, 1, E]."""
    return torch.addcmul(shift, F.layer_norm(h.float(), h.shape[-1:], eps=eps), 1 + scale).to(h.dtype)
