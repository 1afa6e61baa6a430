"""Gates: accelerators that decide from the data, at every step, whether the network is needed.

    accelerators:
      gated-taylor: {threshold: 0.05, order: 1, warmup: 3}
      third-order-skip: {threshold: 0.01, first: 4, most: 4}

Every lane decides for itself, so its chunk does not depend on what the others hold; but the lanes of a batch are one
call, and so a step is saved only where no lane needs it. Each decision is read by the host, which on a GPU waits for
the device: it is counted, and it is why a program with a gate is no static graph.

`program.calls` is therefore the most that a chunk can make, and `program.rewritten.counts` says what was made.

Legend: B lanes, N positions, D... the shape of one position, E width; k = 0.. the executed step, 0 the noisiest.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..diffusion import Block, Program
from ..errors import InputError
from .contracts import Accelerator, Stage, Use
from .streams import check_stream


@dataclass
class Counts:
    """Since the program was built.

    calls       network calls that were made whole
    skips       steps that were saved: no lane needed the network
    lane_skips  lanes that did not need it, whether or not the step was saved: what each would save alone
    host_syncs  decisions that the host waited for
    """

    calls: int = 0
    skips: int = 0
    lane_skips: int = 0
    host_syncs: int = 0


class Gate:
    """A look with a decision in it. `dynamic` tells backends that no graph can hold it."""

    dynamic = True

    def __init__(self, steps: int, free: int) -> None:
        self.counts = Counts()
        self._steps, self._free = steps, free

    def _forced(self, step: int) -> bool:
        """Whether the step is whole for every lane: the first ones, and the last, which nothing corrects."""
        return self._steps - step < self._free or step == 1

    def _saved(self, skip: Tensor) -> bool:
        """Whether no lane needs the network. skip: [B] bool, on the device."""
        skipping = int(skip.sum())
        saved = skipping == len(skip)
        self.counts.host_syncs += 1
        self.counts.lane_skips += skipping
        self.counts.skips += saved
        self.counts.calls += not saved
        return saved


# -- gated Taylor ------------------------------------------------------------------------------------------------------


class Factors(NamedTuple):
    """Finite differences at each lane's last whole step: probe, whole [order + 1, B, N, E] float32, of the stream after
    the first layer and after the last; at: [B], that step."""

    probe: Tensor
    whole: Tensor
    at: Tensor


class TaylorGate(Gate):
    """What `GatedTaylor` describes."""

    def __init__(self, program: Program, threshold: float, order: int, warmup: int) -> None:
        super().__init__(program.grid.steps, warmup)
        self._denoiser, self._asked = program.denoiser, program.asked
        self._threshold, self._order = threshold, order
        blocks = program.denoiser.blocks()
        self._first = sum(block.layer == blocks[0].layer for block in blocks)  # those of the first layer
        self._rest = blocks[self._first :]

    def __call__(
        self, x: Tensor, step: int, context: Any, index: Tensor, carry: Factors | None
    ) -> tuple[Tensor, Factors | None]:
        """x: [B, N, D...] -> the network's output, from the stream or from its forecast."""
        asked = self._asked(x, step, context, index)
        told, blocks = self._denoiser.tell(asked), self._denoiser.blocks()
        self._rest = blocks[self._first :]
        h = _through(blocks[: self._first], self._denoiser.enter(x, asked), told)
        if self._forced(step):
            self.counts.calls += 1
            h, carry = self._whole(h, told, step, carry)
        else:
            assert carry is not None, "the first step is whole"
            h, carry = self._gated(h, told, step, carry)
        return self._denoiser.leave(h, asked).float(), carry

    def _gated(self, h: Tensor, told: Any, step: int, held: Factors) -> tuple[Tensor, Factors]:
        ahead = self._steps - step - held.at
        skip = self._trusted(h.float(), _forecast(held.probe, ahead))
        guess = _forecast(held.whole, ahead).to(h.dtype)
        if self._saved(skip):
            return guess, held
        h, fresh = self._whole(h, told, step, held)
        h = torch.where(_beside(skip, h), guess, h)  # a lane that skips does so whatever its neighbours need
        lanes = _beside(skip, held.probe[0])
        probe = torch.where(lanes, held.probe, fresh.probe)
        whole = torch.where(lanes, held.whole, fresh.whole)
        return h, Factors(probe, whole, torch.where(skip, held.at, fresh.at))

    def _trusted(self, actual: Tensor, forecast: Tensor) -> Tensor:
        """[B] mean|forecast - actual| < threshold mean|actual|; false for NaN."""
        error, size = ((t.abs().flatten(1).mean(1)) for t in (forecast - actual, actual))
        return error < self._threshold * size

    def _whole(self, h: Tensor, told: Any, step: int, held: Factors | None) -> tuple[Tensor, Factors]:
        """The other layers too -> the stream after the last one, and the factors of this step."""
        k = self._steps - step
        end = _through(self._rest, h, told)
        known = min(self._order, k)  # differences that the whole steps so far can give; later ones are zero
        gap = None if held is None else k - held.at
        probe = self._differences(h.float(), None if held is None else held.probe, gap, known)
        whole = self._differences(end.float(), None if held is None else held.whole, gap, known)
        return end, Factors(probe, whole, torch.full((len(h),), float(k), device=h.device))

    def _differences(self, value: Tensor, held: Tensor | None, gap: Tensor | None, known: int) -> Tensor:
        """F_0 = value, F_i+1 = (F_i - held F_i) / gap: [order + 1, B, N, E]."""
        factors = [value]
        for i in range(known):
            assert held is not None and gap is not None, "the first step knows no difference"
            factors.append((factors[i] - held[i]) / _beside(gap, value))
        return torch.stack(factors + [torch.zeros_like(value)] * (self._order - known))


class GatedTaylor(Accelerator):
    """Confidence-gated Taylor forecasting (CG-Taylor, arXiv 2508.02240).

    The first layer is always computed, and also forecast from the steps before; where the forecast is off by
    e = mean|forecast - actual| / mean|actual| < threshold, the forecast of the last layer is trusted as well and the
    layers between are left out. A forecast is sum_i F_i (k - k*)^i / i! up to `order`, k* being the last whole step,
    and F_0 = f(k*), F_i+1 = (F_i - F_i at the whole step before) / (steps between). The first `warmup` steps and the
    last are whole. Both forecasts, of the first layer's output and of the last one's, are of the same order.
    """

    name, stage = "gated-taylor", Stage.SCHEDULE

    def rewrite(self, program: Program, settings: Mapping[str, Any], use: Use) -> Program:
        """Refused: a network that lists no blocks or has one layer, and a warm-up that gives too few differences or
        leaves no step to skip."""
        values = _values(settings, threshold=None, order=1, warmup=3)
        threshold = _positive("threshold", values["threshold"])
        order, warmup = _whole_number("order", values["order"], 0), _whole_number("warmup", values["warmup"], 1)
        if warmup <= order:
            raise InputError(f"warmup is {warmup}: order {order} needs {order + 1} whole steps; set it to {order + 1}")
        _refuse_schedule(program)
        layers = {block.layer for block in program.denoiser.blocks()}
        if len(layers) < 2:
            raise InputError(
                f"{type(program.denoiser).__name__} lists {len(layers)} layers (Denoiser.blocks): the first is always "
                "computed, so there is nothing to skip; it needs 2"
            )
        check_stream(program.denoiser)
        _refuse_short("warmup", program.grid.steps, warmup)
        return dataclasses.replace(program, rewritten=TaylorGate(program, threshold, order, warmup), skipped=0)


def _through(blocks: Sequence[Block], h: Tensor, told: Any) -> Tensor:
    for block in blocks:
        h = h + block.branch(h, told)
    return h


def _forecast(factors: Tensor, ahead: Tensor) -> Tensor:
    """sum_i F_i ahead^i / i!; factors: [order + 1, B, N, E], ahead: [B]."""
    ahead = _beside(ahead, factors[0])
    return sum((f * ahead**i / math.factorial(i) for i, f in enumerate(factors[1:], 1)), factors[0])


# -- third-order skip --------------------------------------------------------------------------------------------------


class Moves(NamedTuple):
    """x: [B, N, D...] at the step before; last: up to three moves d [B], oldest first; out: [B, N, D...], the output
    that a lane reuses; run: [B], its steps without the network in a row."""

    x: Tensor
    last: tuple[Tensor, ...]
    out: Tensor
    run: Tensor


class SkipGate(Gate):
    """What `ThirdOrderSkip` describes."""

    def __init__(self, program: Program, threshold: float, first: int, most: int) -> None:
        super().__init__(program.grid.steps, first)
        self._ask, self._threshold, self._most = program.look, threshold, most

    def __call__(self, x: Tensor, step: int, context: Any, index: Tensor, carry: Moves | None) -> tuple[Tensor, Moves]:
        """x: [B, N, D...] -> the network's output, or its last one."""
        moves: tuple[Tensor, ...] = ()
        if carry is not None:
            moves = (*carry.last, (x - carry.x).abs().flatten(1).mean(1))[-3:]
        if self._forced(step):
            self.counts.calls += 1
            out, _ = self._ask(x, step, context, index, None)
            return out, Moves(x, moves, out, torch.zeros(len(x), device=x.device))
        assert carry is not None, "the first step is whole"
        skip = self._smooth(moves) & (carry.run < self._most)
        out = carry.out
        if not self._saved(skip):
            fresh, _ = self._ask(x, step, context, index, None)
            out = torch.where(_beside(skip, fresh), out, fresh)  # what the lane would do alone
        return out, Moves(x, moves, out, torch.where(skip, carry.run + 1, 0.0))

    def _smooth(self, moves: tuple[Tensor, ...]) -> Tensor:
        """[B] |(d_k + d_k-2) / 2 - d_k-1| <= threshold d_k-1; false for NaN."""
        before, middle, now = moves
        return ((now + before) / 2 - middle).abs() <= self._threshold * middle


class ThirdOrderSkip(Accelerator):
    """Whole network calls are skipped while the sample moves smoothly (AdaptiveDiffusion, NeurIPS 2024).

    d_k = mean|x_k - x_k-1|. Where |(d_k + d_k-2) / 2 - d_k-1| <= threshold d_k-1 the last output is used again, at most
    `most` times in a row; the first `first` steps and the last ask the network. With a solver that adds fresh noise
    (ddpm), d measures that noise as well.
    """

    name, stage = "third-order-skip", Stage.SCHEDULE

    def rewrite(self, program: Program, settings: Mapping[str, Any], use: Use) -> Program:
        """Refused: fewer than three first steps, which give no third difference, and a grid with none to skip."""
        values = _values(settings, threshold=None, first=4, most=4)
        threshold = _positive("threshold", values["threshold"])
        first, most = _whole_number("first", values["first"], 3), _whole_number("most", values["most"], 1)
        _refuse_schedule(program)
        _refuse_short("first", program.grid.steps, first)
        return dataclasses.replace(program, rewritten=SkipGate(program, threshold, first, most), skipped=0)


# -- settings ----------------------------------------------------------------------------------------------------------


def _beside(lanes: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1...]"""
    return lanes.reshape(-1, *([1] * (like.dim() - 1)))


def _values(settings: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    unknown = sorted(str(name) for name in settings if name not in defaults)
    if unknown:
        raise InputError(f"unknown {', '.join(unknown)}; settings: {', '.join(defaults)}")
    return {**defaults, **settings}


def _positive(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InputError(f"{name} is {value!r}, wanted a number above 0 (at 0 it would do nothing)")
    return float(value)


def _whole_number(name: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise InputError(f"{name} is {value!r}, wanted a whole number from {least}")
    return value


def _refuse_schedule(program: Program) -> None:
    if program.rewritten is not None:
        raise InputError("another accelerator decides already what is computed at which step; leave one of them out")


def _refuse_short(name: str, steps: int, whole: int) -> None:
    if whole >= steps - 1:
        raise InputError(
            f"{name} {whole} and the last step are all {steps} steps, so it would do nothing; leave it out"
        )
