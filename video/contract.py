"""The contract of a network that denoises video: positions are frames, levels are one a frame.

A causal one sees no frame after a frame's own block, so that what it computes of clean frames never changes: their keys
and values can be remembered instead of the frames being shown again.

Legend: B lanes, N frames of a call, P remembered frames, C channels, H and W pixels, Da action dimensions, L attentions
over time, T tokens of a frame, E width.
"""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from ..diffusion import Denoiser, Rows


class Memory(NamedTuple):
    """Keys and values of clean frames, oldest first, before positions are applied to them: a network places frames by
    their rank in what it sees, so that positions never grow.

    held: [B, P, L, 2, T, E]; there: [B, P] bool, which of the P hold a frame"""

    held: Tensor
    there: Tensor


class Sight(NamedTuple):
    """`Rows.state` of a call to a frame denoiser. first: [B] int64, the stream's first frame: positions before it do
    not exist and are not seen; memory: what is remembered of frames before the first position of the call, or None."""

    first: Tensor
    memory: Memory | None = None


class FrameDenoiser(Denoiser):
    """A denoiser of frames x [B, N, C, H, W] with labels [B, N].

    The frames of a call are consecutive. `rows.conditioning` is each frame's action [B, N, Da], or None, which is the
    action 0; `rows.state` is a `Sight`, or None: all positions exist and nothing is remembered.

    frames        frames that it was trained to see at once
    causal_block  b: a frame sees those of its block of b positions and of blocks before; 0: it sees all
    """

    levels = "position"
    frames: int
    causal_block: int = 0

    @abstractmethod
    def causal(self, block: int) -> "FrameDenoiser":
        """The same weights, seeing block by block. Block boundaries are the multiples of `block` of the position
        ids."""

    @abstractmethod
    def remember(self, x: Tensor, label: Tensor, context: object, rows: Rows) -> Tensor:
        """What `Memory.held` keeps of the frames x [B, N, C, H, W]: [B, N, L, 2, T, E], told as for `predict`."""
