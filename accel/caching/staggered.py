"""Block caching for staggered programs: diagonal queues and streams, whose positions are at different levels.

A schedule's axis is one shift period, `staircase.lag` ticks, and the same for all positions: refresh[b, k] says whether
block b is computed k ticks after a shift, for every position in the window; where it is not, each position's last
feature is added once more.

A shift is a tick at which a new block is in the window for the first time: in a finite program one that begins to move,
in an endless one a birth, whether the newborn moves soon or waits `ahead`. Nothing of a newborn position is cached, so
column 0 is all true. A clean position that is kept `behind` is computed and reused like any other. Features belong to
position ids: the program keeps them by row, and the network is shown them in position order, wherever the ring has its
head.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ...diffusion import Asked, Block, Program
from ...errors import InputError
from ..streams import check_stream


class CachedTicks:
    """What a tick asks (`Program.ticked`) on the schedule refresh, [blocks, lag] bool.

    computed: [blocks] int64, how often each branch was computed since this was made, for all lanes at once. Lanes at
    different phases share a call: a branch is computed where any lane needs it, and the others keep what they have, so
    that a lane's bits do not depend on its neighbours' phases.
    """

    def __init__(self, program: Program, refresh: np.ndarray) -> None:
        self.refresh = torch.tensor(refresh)
        self.computed = np.zeros(len(refresh), dtype=np.int64)
        self._denoiser = program.denoiser
        # A finite window shifts when a block begins to move, m = i lag; a ring when a block leaves it, m = S + i lag.
        self._first_shift = program.staircase.steps if program.endless else 0

    def due(self, tick: Tensor) -> Tensor:
        """[blocks, B] bool: which blocks lanes at ticks [B] compute. At tick 0, where nothing is cached, it is all; a
        call without a carry, such as the first after `Program.start_from_clip`, computes all whatever is due."""
        phase = (tick - self._first_shift) % self.refresh.shape[1]
        return self.refresh[:, phase] | (tick == 0)

    def __call__(self, x: Tensor, asked: Asked, tick: Tensor, carry: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Program.ticked`. carry: [B, N, blocks, E], each block's last feature of each position."""
        h, told, blocks = self._denoiser.enter(x, asked), self._denoiser.tell(asked), self._denoiser.blocks()
        kept = (None,) * len(blocks) if carry is None else carry.unbind(2)
        features = []
        for i, (due, last) in enumerate(zip(self.due(tick), kept, strict=True)):
            features.append(self._feature(i, blocks[i], h, told, due, last))
            h = h + features[-1]
        return self._denoiser.leave(h, asked).float(), torch.stack(features, 2)

    def _feature(self, i: int, block: Block, h: Tensor, told: object, due: Tensor, last: Tensor | None) -> Tensor:
        """[B, N, E]: new in the lanes that are due, else the last one."""
        if last is not None and not due.any():
            return last
        self.computed[i] += 1
        new = block.branch(h, told)
        if last is None or due.all():
            return new
        return torch.where(due.to(h.device).reshape(-1, *([1] * (h.dim() - 1))), new, last)


def cached_ticks(program: Program, refresh: np.ndarray) -> Program:
    """A staggered program on a cache schedule, [blocks, lag] bool, of which column 0 is all true. An all-true one gives
    the program's bits. The counts are at `.ticked.computed`. Raises InputError with the reason where it cannot be."""
    check_staggered(program)
    _check_schedule(program, refresh)
    of_a_position = float(refresh.mean()) * program.grid.steps
    return dataclasses.replace(program, ticked=CachedTicks(program, refresh), refreshes=of_a_position)


def check_staggered(program: Program) -> None:
    """Raises InputError where the ticks of a program cannot be cached, whatever the schedule."""
    lag, view = program.staircase.lag, program.plan.view
    if lag == 0:
        raise InputError("stagger is 0, wanted a diagonal: where all positions move together, cache steps of the chunk")
    if lag == 1:
        raise InputError(
            "the window shifts at every tick (a lag of 1), and newborn positions have nothing cached, so every tick "
            "would compute every block; leave it out, or use stagger 2 or more"
        )
    if view != "all":
        raise InputError(f"view is {view}, which shows positions to several calls of a tick; use view all")
    check_stream(program.denoiser)
    if program.ticked is not None:
        raise InputError("another accelerator decides already what is asked at each tick; leave one out")


def _check_schedule(program: Program, refresh: np.ndarray) -> None:
    wanted = (len(program.denoiser.blocks()), program.staircase.lag)
    if refresh.dtype != bool or refresh.shape != wanted:
        raise InputError(
            f"the schedule is {refresh.dtype} {refresh.shape}, wanted bool {wanted}: the network's blocks by the ticks "
            f"of a shift period (stagger {program.plan.stagger}, {program.staircase.steps} steps a position)"
        )
    if not refresh[:, 0].all():
        raise InputError(
            "the schedule reuses at its first tick, just after a shift, when newborn positions have nothing cached; "
            "refresh every block there"
        )
