"""A pre-norm transformer decoder, rewritten so that nothing is computed twice and little is computed at all.

The network is the plain one's function, up to fp32 rounding; what is rewritten is where and when it is computed:

    memory      keys and values of the observation tokens, once a chunk             (in `prepare`)
    time_table  keys and values of the time token, once a program, a table over the levels of its grid
    fold        cross-attention as two thin products. A layer attends to S memory tokens with H heads, so all that it
                can do to x^ = normalise(x) is, per head h and token s,
                    score = x^ . K~ + c,    K~ = g * (W_q^T k) / sqrt(d),    c = (b W_q^T k + b_q k) / sqrt(d)
                    out   = sum_hs softmax_s(score) V~,                      V~ = W_o v + b_o / H
                with g, b the norm's scale and shift: [T, E] x [E, HS] and [T, HS] x [HS, E] in the place of products
                with W_q and W_o. b_o / H is exact because a head's weights sum to one.
    rows        only the first are computed: causal attention never looks at those after the last executed one
    weights     each norm's scale and shift merged into the product that follows it, the embedding's bias into the
                positions; matrices laid out as they are read

Legend: L layers, B lanes, T rows, E width, H heads, d = E / H, S = 1 + To memory tokens (time first), G grid levels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import Affine, Anatomy, Asked, Block, Denoiser, Layer
from .linears import Linear, Normed, normed_linear


@dataclass(frozen=True)
class Rewrites:
    """Which parts of the network are rewritten; `fold` needs `memory` and `time_table`. rows: how many are computed."""

    memory: bool = True
    time_table: bool = True
    fold: bool = True
    rows: int | None = None  # None: all
    weights: bool = True


class Memory(NamedTuple):
    """What cross-attention reads. Folded: key, value [L, B, H, s, E], bias [L, B, T, H, s]; else key, value
    [L, B, H, s, d] and bias None (the mask is added by the attention)."""

    key: Tensor
    value: Tensor
    bias: Tensor | None


class ExactDecoder(nn.Module, Denoiser):
    """The rewritten network. labels: [G], those of the grid's levels 1..G; precision: see `ontick.accel.precision`."""

    levels = "sample"
    windows = False
    embed: Linear
    head: Normed
    positions: Tensor
    time_key: Tensor
    time_value: Tensor
    time_bias: Tensor | None

    def __init__(self, plain: Denoiser, labels: Tensor, rewrites: Rewrites, precision: str = "fp32") -> None:
        super().__init__()
        anatomy = plain.anatomy()
        assert anatomy is not None, "the accelerator has checked this"
        self._made_from = (plain, labels, rewrites)
        self.prediction, self.schedule, self.clip = plain.prediction, plain.schedule, plain.clip
        self.rewrites, self.precision, self.heads = rewrites, precision, anatomy.heads
        self.lanes_at = 1 if rewrites.memory else plain.lanes_at
        self._tokens, self._memory, self._time_memory = plain.prepare, anatomy.memory, anatomy.time_memory
        self._cross = _CrossWeights(anatomy, rewrites.rows)
        self._tables(labels.to(anatomy.positions), anatomy.time_memory)
        self.embed = Linear(anatomy.embed, precision, rewrites.weights)
        self.register_buffer("positions", anatomy.positions[: rewrites.rows].clone())
        if rewrites.weights:
            self.positions = self.positions + anatomy.embed.bias
            self.embed.bias = None
        self.layers = nn.ModuleList(_Layer(layer, anatomy, rewrites, precision) for layer in anatomy.layers)
        self.head = normed_linear(anatomy.norm, anatomy.head, precision, rewrites.weights)
        if precision == "bf16":
            self.to(torch.bfloat16)
        self.requires_grad_(False)

    def at_precision(self, precision: str) -> "ExactDecoder":
        """The same network at another precision."""
        return ExactDecoder(*self._made_from, precision)

    # -- the contract ---------------------------------------------------------------------------------------------

    def prepare(self, obs: Tensor) -> tuple[Tensor, ...]:
        """obs, as the plain network takes it -> the observation tokens' part of `Memory`, or the tokens themselves."""
        tokens = self._tokens(obs)
        if not self.rewrites.memory:
            return (tokens,)
        return tuple(tensor for tensor in self._typed(self._part(tokens, 1)) if tensor is not None)

    def enter(self, x: Tensor, asked: Asked) -> Tensor:
        """x: [B, T, D] -> [B, T, E]."""
        return self.embed(x.to(self.positions.dtype)) + self.positions

    def tell(self, asked: Asked) -> Memory:
        """asked.label: [B, T], not read where asked.rows.step is given; asked.context: from `prepare`."""
        return self.memory(asked.label, asked.context, None if asked.rows is None else asked.rows.step)

    def leave(self, h: Tensor, asked: Asked) -> Tensor:
        return self.head(h)

    def blocks(self) -> list[Block]:
        """Three residual branches a layer, in order, each told the call's `Memory`."""
        layers = [cast(_Layer, layer) for layer in self.layers]
        return [block for i, layer in enumerate(layers) for block in layer.blocks(i, self._attend(i))]

    def weight_bytes(self) -> int:
        """Bytes that one call reads: all weights, and of the tables one level. Without a time table what makes the time
        token is read too, and not counted: it is the plain network's own."""
        own = [*self.layers.parameters(), *self.layers.buffers(), *self.embed.buffers(), *self.head.buffers()]
        own.append(self.positions)
        if self.rewrites.time_table:
            own += [t[0] for t in (self.time_key, self.time_value, self.time_bias) if t is not None]
        if not (self.rewrites.time_table and self.rewrites.memory):
            own += [self._cross.kv, self._cross.kv_bias]
        return sum(t.numel() * t.element_size() for t in own)

    def branch_bytes(self) -> list[int]:
        """Those of each block: its weights, and of folded cross-attention one level of its table."""
        sizes = []
        for i, layer in enumerate(cast(_Layer, layer) for layer in self.layers):
            fold = [t[0, i] for t in (self.time_key, self.time_value, self.time_bias) if t is not None]
            cross = fold if self.rewrites.fold else [*layer.query.buffers(), *layer.cross_out.buffers()]
            parts = ([layer.self_in, layer.self_out], cross, [layer.up, layer.down])
            for part in parts:
                tensors = [t for p in part for t in (p.buffers() if isinstance(p, nn.Module) else [p])]
                sizes.append(sum(t.numel() * t.element_size() for t in tensors))
        return sizes

    # -- memory ---------------------------------------------------------------------------------------------------

    def memory(self, label: Tensor, context: tuple[Tensor, ...], step: int | Tensor | None) -> Memory:
        """Time token and observation tokens side by side; what is in no table is computed now, in fp32."""
        if not (self.rewrites.memory or self.rewrites.time_table):
            return self._typed(self._part(self._memory(label[:, 0], context[0]), 0))
        time = self._time_part(label, step)
        seen = self._part(context[0], 1) if not self.rewrites.memory else Memory(*context, *[None] * (3 - len(context)))
        bias = None
        if time.bias is not None and seen.bias is not None:
            bias = torch.cat([time.bias.expand(-1, seen.bias.shape[1], -1, -1, -1), seen.bias], -1)
        B = seen.key.shape[1]
        key = torch.cat([time.key.expand(-1, B, -1, -1, -1), seen.key], 3)
        value = torch.cat([time.value.expand(-1, B, -1, -1, -1), seen.value], 3)
        return self._typed(Memory(key, value, bias))

    def _typed(self, memory: Memory) -> Memory:
        dtype = self.positions.dtype
        return Memory(*(None if tensor is None else tensor.to(dtype) for tensor in memory))  # type: ignore[arg-type]

    def _tables(self, labels: Tensor, time_memory: Callable[[Tensor], Tensor]) -> None:
        """The time token's `Memory` at every level of the grid, [G, L, H, 1, .]; its bias [G, L, T, H, 1]."""
        self.labels = labels  # no buffer: bf16 would round them
        if not self.rewrites.time_table:
            return
        part = self._part(time_memory(labels)[:, None], 0)
        for name, tensor in zip(("time_key", "time_value", "time_bias"), part, strict=True):
            self.register_buffer(name, None if tensor is None else tensor.transpose(0, 1).contiguous())

    def _time_part(self, label: Tensor, step: int | Tensor | None) -> Memory:
        if not self.rewrites.time_table:
            return self._part(self._time_memory(label[:, 0])[:, None], 0)
        if isinstance(step, int):  # level k of the grid is entry k - 1 of the table: a view
            pick = lambda table: table[step - 1][:, None]  # noqa: E731
        else:
            level = (self.labels - label[:, :1]).abs().argmin(1) if step is None else step.reshape(1) - 1  # [B or 1]
            pick = lambda table: table.index_select(0, level).transpose(0, 1)  # noqa: E731
        tables = (self.time_key, self.time_value, self.time_bias)
        return Memory(*(None if table is None else pick(table) for table in tables))  # type: ignore[arg-type]

    def _part(self, tokens: Tensor, first: int) -> Memory:
        """tokens: [B, s, E], which stand at the memory's places first.. -> their part of `Memory`."""
        key, value = self._cross.project(tokens)
        if not self.rewrites.fold:
            return Memory(key, value, None)
        return self._cross.fold(key, value, slice(first, first + tokens.shape[1]))

    def _attend(self, layer: int) -> Callable[[Tensor, Memory], Tensor]:
        """The cross-attention of a layer on its slice of the memory."""
        if self.rewrites.fold:
            return lambda x, memory: _folded(x, memory, layer, self.heads)
        part = cast(_Layer, self.layers[layer])
        return lambda x, memory: part.attend(x, memory.key[layer], memory.value[layer], self._cross.mask)


def _folded(x: Tensor, memory: Memory, layer: int, heads: int) -> Tensor:
    """x: [B, T, E] -> [B, T, E], by the two products of `fold`."""
    B, T, E = x.shape
    assert memory.bias is not None
    x = F.layer_norm(x, (E,))
    key, value = (m[layer].reshape(B, -1, E) for m in (memory.key, memory.value))  # [B, HS, E]
    bias = memory.bias[layer].reshape(B, T, -1)
    score = torch.baddbmm(bias, x, key.transpose(1, 2))
    weight = score.reshape(B, T, heads, -1).softmax(-1).reshape(B, T, -1)
    return torch.bmm(weight, value)


class _CrossWeights:
    """Cross-attention's weights of all layers, stacked, as `prepare` needs them: fp32, read once a chunk."""

    def __init__(self, anatomy: Anatomy, rows: int | None) -> None:
        layers, H = anatomy.layers, anatomy.heads
        E = anatomy.positions.shape[1]
        weight = torch.stack([layer.cross_in.weight for layer in layers])  # [L, 3E, E]
        bias = torch.stack([layer.cross_in.bias for layer in layers])
        self.heads, self.T = H, len(anatomy.positions[:rows])
        self.mask = None if anatomy.memory_mask is None else anatomy.memory_mask[:rows]
        self.kv, self.kv_bias = weight[:, E:], bias[:, E:]
        scale, shift = (torch.stack([layer.norm2[i] for layer in layers]) for i in (0, 1))
        query = weight[:, :E]
        self.query = (query * scale[:, None]).unflatten(1, (H, -1)) / (E // H) ** 0.5  # [L, H, d, E]
        offset = bias[:, :E] + torch.einsum("lfe,le->lf", query, shift)
        self.query_bias = offset.unflatten(1, (H, -1)) / (E // H) ** 0.5  # [L, H, d]
        self.out = torch.stack([layer.cross_out.weight for layer in layers]).unflatten(2, (H, -1))  # [L, E, H, d]
        self.out_bias = torch.stack([layer.cross_out.bias for layer in layers])[:, None, None, None] / H

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, s, E] -> key, value [L, B, H, s, d] of every layer."""
        both = torch.einsum("bse,lfe->lbsf", tokens, self.kv) + self.kv_bias[:, None, None]
        key, value = (t.unflatten(3, (self.heads, -1)).transpose(2, 3) for t in both.chunk(2, -1))
        return key, value

    def fold(self, key: Tensor, value: Tensor, places: slice) -> Memory:
        """key, value: [L, B, H, s, d] -> `Memory`, folded, with the mask's columns `places` in its bias."""
        folded_key = torch.einsum("lhde,lbhsd->lbhse", self.query, key)
        folded_value = torch.einsum("lehd,lbhsd->lbhse", self.out, value) + self.out_bias
        bias = torch.einsum("lhd,lbhsd->lbhs", self.query_bias, key)[:, :, None].expand(-1, -1, self.T, -1, -1)
        if self.mask is not None:
            bias = bias + self.mask[:, None, places]
        return Memory(folded_key, folded_value, bias)


class _Layer(nn.Module):
    """What one layer reads at every call."""

    def __init__(self, layer: Layer, anatomy: Anatomy, rewrites: Rewrites, precision: str) -> None:
        super().__init__()
        merge = rewrites.weights
        self.heads, self.causal = anatomy.heads, anatomy.causal
        self.self_in = normed_linear(layer.norm1, layer.self_in, precision, merge)
        self.self_out = Linear(layer.self_out, precision, merge)
        self.up = normed_linear(layer.norm3, layer.up, precision, merge)
        self.down = Linear(layer.down, precision, merge)
        if not rewrites.fold:
            E = len(layer.norm2.weight)
            query = Affine(layer.cross_in.weight[:E], layer.cross_in.bias[:E])
            self.query = normed_linear(layer.norm2, query, precision, merge)
            self.cross_out = Linear(layer.cross_out, precision, merge)

    def blocks(self, i: int, cross: Callable[[Tensor, Memory], Tensor]) -> list[Block]:
        branches = {"self_attention": self.self_attention, "cross_attention": cross, "feed_forward": self.feed_forward}
        return [Block(f"{i}.{kind}", kind, i, branch) for kind, branch in branches.items()]

    def self_attention(self, x: Tensor, memory: Memory) -> Tensor:
        B, T, E = x.shape
        # [B, H, T, d] each. One view and permute of all three would do, but OpenVINO (2026.4) compiles it wrongly where
        # T is H, without a word.
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2) for part in self.self_in(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.self_out(y.transpose(1, 2).reshape(B, T, E))

    def attend(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Cross-attention that is not folded. key, value: [B, H, S, d]; mask: [T, S]."""
        B, T, E = x.shape
        q = self.query(x).view(B, T, self.heads, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, key, value, attn_mask=None if mask is None else mask.to(q.dtype))
        return self.cross_out(y.transpose(1, 2).reshape(B, T, E))

    def feed_forward(self, x: Tensor, memory: Memory) -> Tensor:
        return self.down(F.gelu(self.up(x)))
