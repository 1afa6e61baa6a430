"""Streams: an endless program with actions in and clean frames out.

    stream = Stream(network, stream_plan("rolling", network.schedule, network.frames), shape=(3, 64, 64), seeds=[0])
    frame = stream.advance(action)          # [B, b, C, H, W], the next block of frames

A frame of the stream depends on its seed, on the actions and efforts that were given, and on nothing else.

Legend: B lanes, b frames of a block, k of a prompt, R rows of the ring, C, H, W, Da.
"""

import copy
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..diffusion import Inputs, Program, Rows, build
from ..errors import InputError
from .contract import FrameDenoiser, Memory, Sight
from .past import empty_memory, remembered
from .plans import StreamPlan, stream_plan

EVER = -(2**62)  # the first frame of a stream all of whose rows exist
VISIBLE = 0.25  # of a range of 2: what a pixel must differ by to be called a reaction
LONGEST_REACTION = 32  # frames


class Effort(IntEnum):
    """What a block may cost, dearest first; all but the first give another video than they would with more time.

    EARLY  the block in front comes out a level early, as its x0 is told there; the others jump as far
    SKIP   two levels a call
    SHORT  so, and without the clean and the unborn frames in sight
    """

    FULL = 0
    EARLY = 1
    SKIP = 2
    SHORT = 3


class Reaction(NamedTuple):
    """frames: how many come out until one is visibly another when the action changes; calls: network calls for them."""

    frames: int
    calls: int


class Stream:
    """An endless video. `seeds`: one a lane; `prompt`: [B, k, C, H, W], what came before the first frame, with its
    actions [B, k, Da]; `length`: frames after which the stream ends (None: never), so that none is begun in vain.

    frames          emitted so far
    calls           network calls so far; frames_seen: positions that they saw, all lanes counted as one
    levels_by_call  `levels` before each call of the last block
    Raises InputError where plan, network and prompt do not fit.
    """

    def __init__(
        self,
        network: FrameDenoiser,
        plan: StreamPlan,
        shape: tuple[int, ...],
        *,
        seeds: Sequence[int] = (0,),
        action_dim: int = 0,
        prompt: Tensor | None = None,
        prompt_actions: Tensor | None = None,
        length: int | None = None,
        context: Any = (),
        device: str | torch.device = "cpu",
        build: Callable[..., Program] = build,
        program: Program | None = None,
    ) -> None:
        seeing = network.causal(plan.plan.block) if plan.causal and network.causal_block != plan.plan.block else network
        self.plan, self.network, self.device = plan, seeing, torch.device(device)
        self.program = build(seeing, plan.plan, shape, None) if program is None else program
        self.frames = self.calls = self.frames_seen = 0
        self.levels_by_call: list[list[float]] = []
        self._length, self._context, self._build = length, context, build
        self._seed = torch.tensor([int(seed) for seed in seeds], dtype=torch.int64)
        self._birth = torch.zeros_like(self._seed)
        B, k = len(self._seed), 0 if prompt is None or prompt.dim() < 2 else prompt.shape[1]
        self._prompt = prompt if prompt is None else prompt.to(self.device, torch.float32)
        self._first, self._out, self._warm_up = -k, 0, 0
        self._memory: Memory | None = None
        self._actions = torch.zeros(B, self.program.rows, action_dim)
        self._shape, self._action_dim = shape, action_dim
        self._prompt_actions = torch.zeros(B, k, action_dim) if prompt_actions is None else prompt_actions.cpu()
        if prompt is not None and prompt.shape != (B, k, *shape):
            raise InputError(f"the prompt is {tuple(prompt.shape)}, wanted {(B, 'frames', *shape)}")
        if k and not (plan.plan.behind or plan.memory or plan.clip):
            raise InputError(f"plan {plan.name!r} keeps no past frames in sight, and a prompt of {k} was given")
        if self._prompt_actions.shape != (B, k, action_dim):
            got = tuple(self._prompt_actions.shape)
            raise InputError(f"actions of the prompt are {got}, wanted {(B, k, action_dim)}")
        self._state: Any = None

    @property
    def block(self) -> int:
        """b: frames that come out together."""
        return self.plan.plan.block

    @property
    def levels(self) -> list[float]:
        """Share of noise of the frames that are being drawn, in order, of lane 0."""
        program = self.program
        if self._state is None:
            return [1.0] * program.moving
        index = program.index(self._state.tick)[:1].sort(1).values[:, program.behind : program.rows - program.ahead]
        level = program.level(self._state.tick[:1], index)[0]
        sigma = torch.from_numpy(self.program.grid.sigma)[level]
        return [round(float(s), 3) for s in sigma]

    @property
    def efforts(self) -> tuple[Effort, ...]:
        """The efforts that this plan can tell apart, dearest first."""
        program, lag = self.program, self.program.staircase.lag
        if program.table.next[:, 3:6].any() or program.refreshes is not None:
            return (Effort.FULL,)  # a multistep solver, or cached features: neither jumps
        even = lag % 2 == 0 and program.grid.steps % 2 == 0
        known = [Effort.FULL]
        if even and lag > 2:
            known.append(Effort.EARLY)
        if even:
            known.append(Effort.SKIP)
        if self.plan.plan.view == "all" and program.rows > program.moving:
            known.append(Effort.SHORT)
        return tuple(known)

    def calls_of(self, effort: Effort) -> int:
        """Network calls of a block at an effort, once the ring is full."""
        return len(self._strides(effort)) * self.program.calls_per_tick + bool(self.plan.memory)

    def advance(self, actions: Tensor | None = None, effort: Effort = Effort.FULL) -> Tensor:
        """The next block, [B, b, C, H, W].

        actions: [Da], held from the next frame on; or [n, Da] or [B, n, Da], of the next n frames, of which the last is
        held. Frames that are on their way are told of a change as well.
        """
        if self._length is not None and self.frames >= self._length:
            raise InputError(f"the stream has ended after {self._length} frames")
        given = self._checked(actions)
        if self._state is None:
            self._begin(given)
        out = self._block(given, effort)
        while self._out <= self._warm_up:  # frames of a clip's start that are thrown away
            out = self._block(given, effort)
        self.frames += out.shape[1]
        return out

    def fork(self) -> "Stream":
        """Another stream that goes on from here."""
        other = copy.copy(self)
        other._actions = self._actions.clone()
        return other

    def reaction(self, action: Tensor, other: Tensor) -> Reaction | None:
        """Frames and calls from a change of the action to the first frame that shows it, by drawing what follows twice:
        with `action` held and with `other` [Da]. None where no frame of the next `LONGEST_REACTION` shows it."""
        one, two, before = self.fork(), self.fork(), self.calls
        for done in range(0, LONGEST_REACTION, self.block):
            shown = (one.advance(action) - two.advance(other)).abs().amax((0, 2, 3, 4)) > VISIBLE
            if shown.any():
                return Reaction(done + int(shown.nonzero()[0]) + 1, two.calls - before)
        return None

    # -- beginning ------------------------------------------------------------------------------------------------

    def _begin(self, actions: Tensor) -> None:
        program = self.program
        if self.plan.clip:
            return self._begin_from_clip(actions)
        before = self._prompt if self.plan.plan.behind else None
        self._state = program.start(self._seed, self._birth, device=self.device, before=before)
        if before is not None:
            self._tell_prompt()
        if self.plan.memory:
            self._memory = self._nothing_remembered()
            self._remember_prompt()
        return None

    def _begin_from_clip(self, actions: Tensor) -> None:
        """The clip is a block of `full`, after the prompt where there is one: so it is shorter than FIFO's by the clean
        frames that the network sees beside it."""
        program = self.program
        first = Stream(
            self.network,
            stream_plan("full", self.network.schedule, self.plan.clip, steps=program.grid.steps),
            self._shape,
            seeds=self._seed.tolist(),
            action_dim=self._action_dim,
            prompt=self._prompt,
            prompt_actions=self._prompt_actions,
            context=self._context,
            device=self.device,
        )
        clip = first.advance(actions)
        self.calls, self.frames_seen = first.calls, first.frames_seen
        self._state = program.start_from_clip(self._seed, self._birth, clip, self.device)
        self._warm_up, self._first = program.warm_up_positions(clip.shape[1]), EVER

    def _tell_prompt(self) -> None:
        """Rows of negative ids are told the prompt's actions."""
        index = self.program.index(self._state.tick)
        k = self._prompt_actions.shape[1]
        place = (index + k).clamp(min=0, max=max(0, k - 1))
        told = self._prompt_actions[torch.arange(len(index))[:, None], place]
        self._actions = torch.where(((index < 0) & (index >= -k))[..., None], told, self._actions)

    def _nothing_remembered(self) -> Memory:
        """Empty, in the shape that it always has."""
        frames = torch.zeros(len(self._seed), self.block, *self._shape, device=self.device)
        with torch.inference_mode():
            new = self.network.remember(frames, *self._clean(frames, torch.arange(self.block), None))
        return empty_memory(new, self.plan.memory)

    def _clean(self, frames: Tensor, index: Tensor, actions: Tensor | None) -> tuple[Tensor, Any, Rows]:
        """What `remember` is told beside frames [B, b, ...], all of them clean."""
        label = torch.full(frames.shape[:2], float(self.program.grid.label[0]), device=self.device)
        index = index.expand(len(frames), -1).to(self.device)
        return label, self._context, Rows(index, actions, self._sight())

    def _remember_prompt(self) -> None:
        """Block by block, as if each had been drawn; what does not fill a block is at the far end."""
        if self._prompt is None:
            return
        k = self._prompt.shape[1]
        for i in range(k % self.block, k, self.block):
            part, index = slice(i, i + self.block), torch.arange(i, i + self.block) - k
            self._keep(self._prompt[:, part], index.expand(len(self._seed), -1), self._prompt_actions[:, part])

    # -- a block ----------------------------------------------------------------------------------------------------

    def _strides(self, effort: Effort) -> list[int]:
        lag = self.program.staircase.lag
        if effort not in self.efforts:
            raise InputError(f"plan {self.plan.name!r} has no effort {Effort(effort).name}")
        if effort is Effort.EARLY:
            return [1] * (lag - 2) + [2]
        jumps = Effort.SKIP in self.efforts and effort in (Effort.SKIP, Effort.SHORT)
        return [2] * (lag // 2) if jumps else [1] * lag

    def _block(self, actions: Tensor, effort: Effort) -> Tensor:
        """Tick until a block is clean."""
        strides = self._strides(effort)
        index = self.program.index(self._state.tick)
        self._tell(actions, index)
        step, self.levels_by_call = 0, []
        while True:
            self.levels_by_call.append(self.levels)
            stride = strides[step % len(strides)]
            out = self._tick(1 if int(self._state.tick[0]) % stride else stride, effort)
            step += 1
            if out.clean[0].any():
                return self._taken(out)

    def _tick(self, stride: int, effort: Effort) -> Any:
        shown, until = self._shown(effort), None if self._length is None else self._warm_up + self._length
        inputs = Inputs(self._context, conditioning=self._conditioning(), state=self._sight())
        with torch.inference_mode():
            self._state, out = self.program.tick(self._state, inputs, stride, shown, until)
        self.calls += self.program.calls_per_tick
        seen = sum(call.stop - call.start for call in self.program.views)
        self.frames_seen += seen if shown is None else shown.stop - shown.start
        return out

    def _shown(self, effort: Effort) -> slice | None:
        """Which positions of the ring a call sees; None: all."""
        program, tick = self.program, self._state.tick[:1]
        first, stop = 0, program.rows
        if effort is Effort.SHORT:
            first, stop = program.behind, program.rows - program.ahead
        if self.plan.plan.view != "all":
            return None
        lowest = int(program.index(tick).min())
        if self._length is not None:
            stop = min(stop, self._warm_up + self._length - lowest)
        if self.plan.grows and int(tick) < program.staircase.steps:
            begun = (int(tick) // program.staircase.lag + 1) * self.block
            stop = min(stop, begun - lowest)
        return None if (first, stop) == (0, program.rows) else slice(first, stop)

    def _taken(self, out: Any) -> Tensor:
        """The clean frames of a tick in order; remembered where the plan does."""
        order = out.index.argsort(1)
        rows = torch.arange(len(order))[:, None]
        picked = order[out.clean[rows, order]].reshape(len(order), -1)
        frames = out.x[rows, picked]
        self._out += frames.shape[1]
        if self.plan.memory:
            self._keep(frames, out.index[rows, picked], self._actions[rows, picked])
        return frames.clone()

    def _keep(self, frames: Tensor, index: Tensor, actions: Tensor) -> None:
        """One more call, at the clean level, writes the keys and values of a block."""
        assert self._memory is not None, "it begins empty"
        told = self._clean(frames, index, actions.to(self.device) if self._action_dim else None)
        with torch.inference_mode():
            self._memory = remembered(self._memory, self.network.remember(frames, *told), self.plan.sinks)
        self.calls += 1
        self.frames_seen += frames.shape[1]

    def _sight(self) -> Sight | None:
        """None where every position of a call exists and nothing is remembered."""
        if not (self.plan.plan.behind or self.plan.memory) or self._first == EVER:
            return None
        first = torch.full((len(self._seed),), self._first, device=self.device)
        return Sight(first, self._memory if self.plan.memory else None)

    # -- actions ----------------------------------------------------------------------------------------------------

    def _checked(self, actions: Tensor | None) -> Tensor:
        """[B, n, Da]"""
        B, Da = len(self._seed), self._action_dim
        if actions is None:
            return torch.zeros(B, 1, Da)
        actions = torch.as_tensor(actions, dtype=torch.float32).cpu()
        while actions.dim() < 3:
            actions = actions[None]
        if actions.shape[0] not in (1, B) or actions.shape[1] < 1 or actions.shape[2] != Da:
            raise InputError(f"actions are {tuple(actions.shape)}, wanted [Da], [n, Da] or [B, n, Da] with Da {Da}")
        if not actions.isfinite().all():
            raise InputError("actions hold NaN or infinity; wanted finite numbers")
        return actions.expand(B, -1, -1)

    def _tell(self, actions: Tensor, index: Tensor) -> None:
        """Rows of frames that are not out yet are told their action; the others keep what they were told."""
        place = (index - self._warm_up - self.frames).clamp(min=0, max=actions.shape[1] - 1)
        told = actions[torch.arange(len(index))[:, None], place]
        self._actions = torch.where((index >= self._out)[..., None], told, self._actions)

    def _conditioning(self) -> Tensor | None:
        return self._actions.to(self.device) if self._action_dim else None


def memory_bytes(memory: Memory | None) -> int:
    """What a memory holds."""
    return 0 if memory is None else memory.held.numel() * memory.held.element_size()
