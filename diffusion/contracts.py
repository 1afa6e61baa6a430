"""The contracts of whatever the engine denoises.

Legend: B lanes, N positions, D... the shape of one position.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .schedules import Schedule


class Prediction(NamedTuple):
    """x: [B, N, D...] in the denoiser's own parameterisation; score: [B] confidence of a lane, or None."""

    x: Tensor
    score: Tensor | None = None


class Rows(NamedTuple):
    """What a network call is told of its positions: index [B, N] int64 position ids; conditioning, such as a frame's
    action, and state, such as KV, as the denoiser defines them; step, the grid level of all positions, where they
    share one: a number that is known before the program runs, or a scalar tensor in a graph of one step."""

    index: Tensor
    conditioning: Any = None
    state: Any = None
    step: int | Tensor | None = None


class Asked(NamedTuple):
    """What one network call is asked beside x: label [B, N], the context from `prepare`, rows."""

    label: Tensor
    context: Any
    rows: Rows | None = None


class Denoiser(ABC):
    """A network that the engine can run.

    It writes `predict`; or, where it is a residual stream, the parts of one, so that accelerators can see and skip its
    branches: `predict` then is leave(h) after h = enter(x) and h = h + branch(h, told) for each of its blocks.

    levels      "sample": one level a lane, so plans that mix levels are refused; "position": a level a position
    prediction  "epsilon", "sample", "v" or "velocity"
    schedule    what it was trained with
    windows     whether a call may see a part of the positions; False: plans that cut the window are refused
    clip        x0 is clamped to [-clip, clip] before every solver step; None: never
    scores      whether `predict` gives a lane's confidence beside its output
    lanes_at    the axis along which lanes lie in the tensors of a context
    """

    levels: str = "sample"
    prediction: str = "epsilon"
    windows: bool = True
    schedule: Schedule
    clip: float | None = None
    scores: bool = False
    lanes_at: int = 0

    @abstractmethod
    def prepare(self, obs: Tensor) -> Any:
        """Everything that does not depend on the level, once an observation or prompt. Its result is read only."""

    def predict(self, x: Tensor, label: Tensor, context: Any, rows: Rows | None = None) -> Prediction:
        """x: [B, N, D...]; label: [B, N] float32, the grid's label of each position's level ("sample" denoisers may
        read any column); rows: always given by the engine. Must be a pure function: equal arguments, equal result, at
        a fixed batch width whatever the other lanes hold."""
        asked = Asked(label, context, rows)
        h, told = self.enter(x, asked), self.tell(asked)
        for block in self.blocks():
            h = h + block.branch(h, told)
        return Prediction(self.leave(h, asked))

    def repeated(self, context: Any, times: int) -> Any:
        """The context of all lanes, `times` times one after another."""

        def copies(tensor: Tensor) -> Tensor:
            return torch.cat([tensor] * times, self.lanes_at)

        return tree_map_only(Tensor, copies, context)

    def first_lanes(self, context: Any, lanes: int) -> Any:
        """The context of the first lanes alone."""
        return tree_map_only(Tensor, lambda tensor: tensor.narrow(self.lanes_at, 0, lanes), context)

    def blocks(self) -> list["Block"]:
        """The residual branches in order, so that accelerators can see them; empty where a network lists none."""
        return []

    @property
    def is_stream(self) -> bool:
        """Whether it shows itself as a residual stream: blocks, and what stands before and after them."""
        parts = ("enter", "tell", "leave")
        return all(getattr(type(self), part) is not getattr(Denoiser, part) for part in parts) and bool(self.blocks())

    def enter(self, x: Tensor, asked: Asked) -> Tensor:
        """[B, N, D...] -> the residual stream [B, N, E] before the first block."""
        raise NotImplementedError(f"{type(self).__name__} writes neither predict nor enter")

    def tell(self, asked: Asked) -> Any:
        """What all blocks of this call are told; a tuple of tensors, or nested ones, where a compiler shall take it."""
        raise NotImplementedError(f"{type(self).__name__} lists blocks and does not tell them anything")

    def leave(self, h: Tensor, asked: Asked) -> Tensor:
        """The residual stream after the last block -> the network's output [B, N, D...]."""
        raise NotImplementedError(f"{type(self).__name__} lists blocks and does not leave the stream")

    def anatomy(self) -> "Anatomy | None":
        """The weights of a pre-norm transformer decoder, so that accelerators can rewrite it; None for others."""
        return None


@dataclass(frozen=True)
class Block:
    """One residual branch: h <- h + branch(h, told), told what `Denoiser.tell` gave.

    kind: "self_attention", "cross_attention", "feed_forward", or "convolution_C" of C channels: blocks of one kind cost
    about the same. layer counts from 0.
    """

    name: str
    kind: str
    layer: int
    branch: Callable[[Tensor, Any], Tensor]


class Affine(NamedTuple):
    """weight and bias of a linear map ([out, in], [out]), or scale and shift of a norm ([E], [E])."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Layer:
    """One pre-norm layer: x += SA(norm1 x); x += CA(norm2 x, memory); x += down(gelu(up(norm3 x))).

    self_in, cross_in: [3E, E], query, key and value below each other, as torch.nn.MultiheadAttention has them.
    """

    norm1: Affine
    self_in: Affine
    self_out: Affine
    norm2: Affine
    cross_in: Affine
    cross_out: Affine
    norm3: Affine
    up: Affine
    down: Affine


@dataclass(frozen=True)
class Anatomy:
    """A transformer decoder as weights: head(norm(layers(embed(x) + positions))), T rows of width E, S memory tokens.

    memory(label [B], context) -> [B, S, E], the time token and then the observation tokens, from what `prepare` gave.
    Where tokens do not see each other on their way there (mixed_memory false), the context is the observation tokens
    as the layers attend to them, and time_memory([K] labels) -> [K, E] gives the time tokens.

    memory_mask: [T, S], additive, None where everything is seen; causal: row i sees rows up to i alone
    answer: the rows that are executed, start and stop
    """

    embed: Affine
    positions: Tensor
    layers: tuple[Layer, ...]
    norm: Affine
    head: Affine
    heads: int
    causal: bool
    memory_mask: Tensor | None
    mixed_memory: bool
    memory: Callable[[Tensor, Any], Tensor]
    time_memory: Callable[[Tensor], Tensor]
    answer: tuple[int, int]
