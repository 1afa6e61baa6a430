"""What a causal stream remembers: keys and values of clean frames, oldest first, the newest at the right end.

Its shape never changes; while there are fewer frames than it holds, the places at its left end are empty. When it is
full the oldest frame that is no sink goes (StreamingLLM, Xiao et al. 2024), and what is left closes up, so that the
positions of frames are their ranks and stay within what the network was trained with.
"""

import torch
from torch import Tensor

from .contract import Memory


def empty_memory(like: Tensor, frames: int) -> Memory:
    """like: [B, N, L, 2, T, E], what a network remembers of some frames -> a memory of `frames` empty places."""
    B, _, *rest = like.shape
    there = torch.zeros(B, frames, dtype=torch.bool, device=like.device)
    return Memory(like.new_zeros(B, frames, *rest), there)


def remembered(memory: Memory, new: Tensor, sinks: int) -> Memory:
    """`memory` with the frames new [B, N, L, 2, T, E] at its end, as many as it has places for. All lanes hold equally
    many frames."""
    places, count = memory.there.shape[1], int(memory.there[0].sum())
    frames = torch.cat([memory.held[:, places - count :], new], 1)
    over = max(0, frames.shape[1] - places)
    if over:
        frames = torch.cat([frames[:, :sinks], frames[:, sinks + over :]], 1)
    missing = places - frames.shape[1]
    held = torch.cat([memory.held.new_zeros(len(frames), missing, *frames.shape[2:]), frames], 1)
    there = (torch.arange(places, device=held.device) >= missing).expand(len(frames), -1)
    return Memory(held, there)
