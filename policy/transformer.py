"""The transformer of Diffusion Policy (Chi et al. 2023) as a list of residual blocks.

Its state_dict is that of the published `TransformerForDiffusion`, so its checkpoints load strictly; its forward pass
equals `torch.nn.TransformerDecoder` (pre-norm, exact GELU, no final norm of its own) between the same embeddings.

    memory  = encoder(time token, observation tokens)          the conditioning, [B, S, E]
    x       = embed(noisy actions) + positions                 [B, T, E]
    for block in blocks: x = x + block.branch(x, memory)       self-attention, cross-attention, feed-forward a layer
    out     = head(ln_f(x))                                    [B, T, Da]

Legend: B lanes, T action rows, To observation steps, S = 1 + To memory tokens, E width, H heads, Da, Do.
"""

from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import Affine, Anatomy, Asked, Block, Layer, Schedule, schedule
from .cameras import eyes
from .config import TransformerConfig
from .network import ChunkNetwork, frequencies, sinusoid


class Attention(nn.Module):
    """Multi-head attention with torch.nn.MultiheadAttention's parameters."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor | None, mask: Tensor | None) -> Tensor:
        """x: [B, T, E] asks; memory: [B, S, E] answers (None: x itself); mask: [T, S], 0 or -inf."""
        B, T, E = x.shape
        if memory is None:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            q = F.linear(x, self.in_proj_weight[:E], self.in_proj_bias[:E])
            k, v = F.linear(memory, self.in_proj_weight[E:], self.in_proj_bias[E:]).chunk(2, -1)
        q, k, v = (t.view(B, -1, self.heads, E // self.heads).transpose(1, 2) for t in (q, k, v))  # [B, H, ., E / H]
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(y.transpose(1, 2).reshape(B, T, E))


class DecoderLayer(nn.Module):
    """The three residual branches of torch.nn.TransformerDecoderLayer(norm_first=True, activation="gelu")."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.multihead_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def self_attention(self, x: Tensor, context: "Context") -> Tensor:
        return self.drop(self.self_attn(self.norm1(x), None, context.mask))

    def cross_attention(self, x: Tensor, context: "Context") -> Tensor:
        return self.drop(self.multihead_attn(self.norm2(x), context.memory, context.memory_mask))

    def feed_forward(self, x: Tensor, context: "Context") -> Tensor:
        return self.drop(self.linear2(self.drop(F.gelu(self.linear1(self.norm3(x))))))


class Decoder(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = config
        self.layers = nn.ModuleList(DecoderLayer(c.width, c.heads, c.p_drop_attn) for _ in range(c.layers))


class Context(NamedTuple):
    """What the blocks of one call attend to. memory: [B, S, E]; masks: [T, T] and [T, S], or None."""

    memory: Tensor
    mask: Tensor | None
    memory_mask: Tensor | None


class TransformerForDiffusion(ChunkNetwork):
    """Predicts the noise of T action rows, given To observations and one level a sample."""

    family: ClassVar[str] = "diffusion-transformer"
    from_newest: ClassVar[bool] = False
    levels = "sample"
    config: TransformerConfig
    windows = False  # its positions are those of the whole chunk
    schedule: Schedule
    mask: Tensor | None
    memory_mask: Tensor | None
    _frequency: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.prediction, self.clip = c.prediction, c.clip
        self.schedule = schedule(c.schedule, c.train_levels)
        T, S, E = c.horizon, 1 + c.n_obs_steps, c.width
        self._dummy_variable = nn.Parameter(torch.empty(0))  # the published state_dict has one
        self.input_emb = nn.Linear(c.action_dim, E)
        self.pos_emb = nn.Parameter(torch.zeros(1, T, E))
        self.cond_obs_emb = nn.Linear(c.feature_dim, E)
        self.cond_pos_emb = nn.Parameter(torch.zeros(1, S, E))
        self.drop = nn.Dropout(c.p_drop_emb)
        self.encoder: nn.Module
        if c.n_cond_layers:
            layer = nn.TransformerEncoderLayer(
                E, c.heads, 4 * E, c.p_drop_attn, F.gelu, batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, c.n_cond_layers, enable_nested_tensor=False)
        else:
            self.encoder = nn.Sequential(nn.Linear(E, 4 * E), nn.Mish(), nn.Linear(4 * E, E))
        self.decoder = Decoder(c)
        self.ln_f = nn.LayerNorm(E)
        self.head = nn.Linear(E, c.action_dim)
        row, slot = torch.arange(T)[:, None], torch.arange(S)[None]
        self.mask, self.memory_mask = None, None
        if c.causal:  # row i sees rows up to i, the time token, and the observations up to its own
            del self.mask, self.memory_mask
            self.register_buffer("mask", _additive(row >= torch.arange(T)[None]))
            self.register_buffer("memory_mask", _additive(row >= slot - 1))
        self.apply(_initialise)
        nn.init.normal_(self.pos_emb, std=0.02)
        nn.init.normal_(self.cond_pos_emb, std=0.02)
        if c.fan_in_init:
            crossing = (cast(DecoderLayer, layer).multihead_attn for layer in self.decoder.layers)
            for module in (self.cond_obs_emb, *self.encoder.modules(), *crossing):
                _initialise(module, std=None)
        self.cameras = eyes(c)  # after `apply`: it begins as it was made
        self.register_buffer("_frequency", frequencies(E), persistent=False)

    def blocks(self) -> list[Block]:
        """Three residual branches a layer, in order."""
        names = ("self_attention", "cross_attention", "feed_forward")
        layers = enumerate(self.decoder.layers)
        return [Block(f"{i}.{name}", name, i, getattr(layer, name)) for i, layer in layers for name in names]

    def anatomy(self) -> Anatomy:
        """The weights by their place; views, so that nothing is held twice."""
        c = self.config
        layers = tuple(_layer(cast(DecoderLayer, layer)) for layer in self.decoder.layers)
        return Anatomy(
            embed=_affine(self.input_emb),
            positions=self.pos_emb[0],
            layers=layers,
            norm=_affine(self.ln_f),
            head=_affine(self.head),
            heads=c.heads,
            causal=c.causal,
            memory_mask=self.memory_mask,
            mixed_memory=c.n_cond_layers > 0,
            memory=self._memory,
            time_memory=lambda label: self.encoder(self._time_token(label))[:, 0],
            answer=(c.n_obs_steps - 1, c.n_obs_steps - 1 + c.n_action_steps),
        )

    def prepare(self, obs: Tensor) -> Tensor:
        """obs: [B, To, Do], normalised -> [B, To, E] observation tokens, of the state and what its cameras
        tell; through the encoder where it acts on each token alone (n_cond_layers 0)."""
        tokens = self.drop(self.cond_obs_emb(self.cameras(obs)) + self.cond_pos_emb[:, 1:])
        return tokens if self.config.n_cond_layers else self.encoder(tokens)

    def enter(self, x: Tensor, asked: Asked) -> Tensor:
        """x: [B, T', Da] with T' <= T -> [B, T', E]."""
        return self.drop(self.input_emb(x) + self.pos_emb[:, : x.shape[1]])

    def tell(self, asked: Asked) -> "Context":
        """asked.label: [B, T'], equal along each sample; asked.context: from `prepare`."""
        T = asked.label.shape[1]
        memory = self._memory(asked.label[:, 0], asked.context)
        if not self.config.causal:
            return Context(memory, None, None)
        return Context(memory, self.mask[:T, :T], self.memory_mask[:T])  # type: ignore[index]

    def leave(self, h: Tensor, asked: Asked) -> Tensor:
        return self.head(self.ln_f(h))

    def _memory(self, label: Tensor, context: Tensor) -> Tensor:
        """[B, S, E]: the time token in front of the observation tokens."""
        time = self._time_token(label)
        if self.config.n_cond_layers:
            return self.encoder(torch.cat([time, context], 1))
        return torch.cat([self.encoder(time), context], 1)

    def _time_token(self, label: Tensor) -> Tensor:
        """[B] -> [B, 1, E], before the encoder."""
        return self.drop(sinusoid(label, self._frequency)[:, None] + self.cond_pos_emb[:, :1])


def _affine(module: nn.Linear | nn.LayerNorm) -> Affine:
    return Affine(module.weight, module.bias)


def _layer(layer: DecoderLayer) -> Layer:
    own, cross = layer.self_attn, layer.multihead_attn
    return Layer(
        norm1=_affine(layer.norm1),
        self_in=Affine(own.in_proj_weight, own.in_proj_bias),
        self_out=_affine(own.out_proj),
        norm2=_affine(layer.norm2),
        cross_in=Affine(cross.in_proj_weight, cross.in_proj_bias),
        cross_out=_affine(cross.out_proj),
        norm3=_affine(layer.norm3),
        up=_affine(layer.linear1),
        down=_affine(layer.linear2),
    )


def _additive(visible: Tensor) -> Tensor:
    return torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))


def _initialise(module: nn.Module, std: float | None = 0.02) -> None:
    """Weights of linear layers and of attention's inputs, biases 0. std None: 1 / sqrt(inputs), which passes a signal
    on about as large as it came; 0.02 passes on a quarter of it at width 128, layer after layer."""
    if isinstance(module, nn.Linear | Attention | nn.MultiheadAttention):
        weight = module.weight if isinstance(module, nn.Linear) else module.in_proj_weight
        nn.init.normal_(weight, std=weight.shape[1] ** -0.5 if std is None else std)
        bias = module.bias if isinstance(module, nn.Linear) else module.in_proj_bias
        nn.init.zeros_(bias)
