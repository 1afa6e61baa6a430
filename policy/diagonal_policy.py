"""The streaming policy in the loop: a queue of actions on a diagonal from clean to noise, an endless program.

Every answer is one tick: one network call with the newest observation moves every action of the queue one level down,
the block in front comes out clean, and noise is born at the tail. The first answer fills the queue first, which takes
as many ticks as an action has steps.

Legend: L lanes, S steps of an action, H actions of a block, Da.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..diffusion import History, Inputs, Plan, Program, State, build
from ..errors import InputError
from .checkpoint import Checkpoint
from .chunk_policy import DiffusionPolicy

LEAST_ENTRY = 0.9  # sigma of the entry level: below it what is born is not what the network saw there


def refuse_other_queues(plan: Plan) -> None:
    """Raises InputError where a plan is not a queue that gives a block with every call."""
    if plan.stagger != 1 or plan.view != "all":
        got = f"plan {plan.name!r} has stagger {plan.stagger} and view {plan.view}"
        raise InputError(f"{got}, wanted 1 and all: a queue that gives a block with every call")
    if plan.birth != "noise":
        raise InputError(f"plan {plan.name!r} starts from a guess ({plan.birth}); a queue is born from noise")
    if plan.execute not in (0, plan.block):
        raise InputError(f"plan {plan.name!r} executes {plan.execute}, its queue gives {plan.block} at a time")


def refuse_longer(program: Program, horizon: int) -> None:
    """Raises InputError where a queue does not fit a network of so many rows."""
    if program.rows > horizon:
        raise InputError(f"plan {program.plan.name!r} has a queue of {program.rows} rows, the network {horizon}")


class DiagonalPolicy(DiffusionPolicy):
    """Serves staggered plans; an answer is the block of H actions that became clean, and has no tail."""

    continues = True

    def __init__(
        self, checkpoint: Checkpoint, plan: Plan, width: int = 1, build: Callable[..., Program] = build
    ) -> None:
        super().__init__(checkpoint, plan, width, build)
        refuse_longer(self.program, checkpoint.network.config.horizon)
        if (sigma := float(self.program.grid.sigma[-1])) < LEAST_ENTRY:
            got = f"plan {plan.name!r} enters at a level with sigma {sigma:.2f}"
            raise InputError(f"{got}, and a queue is born from noise: enter near the top of the trained levels")
        self.n_action_steps, self.calls_per_chunk = plan.block, self.program.calls_per_tick
        self._states: dict[int, State] = {}
        self._calls: dict[int, int] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        super().reset(lanes, seeds)
        for lane in lanes:
            self._states.pop(lane, None)

    def inpaint(self, lanes: Sequence[int], rows: Sequence[np.ndarray], fixed: Sequence[int]) -> None:
        """Nothing: a block follows the one before without a seam."""

    def follow(self, lanes: Sequence[int], rows: Sequence[int]) -> None:
        """Nothing: the queue moves on by what it gave."""

    @property
    def usual_calls(self) -> int:
        return self.calls_per_chunk

    def calls_of(self, lane: int) -> int:
        return self._calls[lane]

    def _refuse(self, checkpoint: Checkpoint, plan: Plan) -> None:
        refuse_other_queues(plan)

    def _positions(self) -> None:
        return None

    def _sampled(self, obs: Tensor, lanes: Sequence[int]) -> Tensor:
        fresh = [lane for lane in lanes if lane not in self._states]
        self._calls.update(dict.fromkeys(lanes, self.calls_per_chunk))
        if fresh:
            self._fill(obs[[lanes.index(lane) for lane in fresh]], fresh)
        x, clean = self._tick(obs, lanes)
        return torch.stack([row[mask] for row, mask in zip(x, clean, strict=True)])  # H rows became clean in each lane

    def _fill(self, obs: Tensor, lanes: Sequence[int]) -> None:
        """Tick the fresh lanes until their next tick gives the first block. obs: [L, To, Do]."""
        seed, birth = self._keys(lanes)
        state = self.program.start(seed, birth, device=obs.device)
        self._keep(state, lanes)
        obs = obs[[*range(len(lanes)), *[-1] * (self.width - len(lanes))]]
        ticks = self.program.staircase.steps - 1
        for _ in range(ticks):
            self._tick(obs, lanes)
        for lane in lanes:
            self._calls[lane] += ticks * self.calls_per_chunk

    def _tick(self, obs: Tensor, lanes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """obs: [width, To, Do] -> x [L, R, Da] and which became clean [L, R], in the order of positions."""
        padded = [*lanes, *[lanes[-1]] * (self.width - len(lanes))]
        state = _together([self._states[lane] for lane in padded])
        state, out = self.program.tick(state, Inputs(self.program.prepare(obs)))
        self._keep(state, lanes)
        order, rows = out.index.argsort(1), torch.arange(self.width)[:, None]
        return out.x[rows, order][: len(lanes)], out.clean[rows, order][: len(lanes)]

    def _keep(self, state: State, lanes: Sequence[int]) -> None:
        self._states.update({lane: _lane_of(state, i) for i, lane in enumerate(lanes)})


def _lane_of(state: State, i: int) -> State:
    """The state of one lane, of width 1."""

    def one(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[i : i + 1]

    history = History(*(one(h) for h in state.history))
    return State(one(state.x), history, *(one(t) for t in state[2:]))  # type: ignore[arg-type]


def _together(states: list[State]) -> State:
    """Side by side; the inverse of `_lane_of`."""

    def all_of(tensors: list[Tensor | None]) -> Tensor | None:
        return None if tensors[0] is None else torch.cat(tensors)  # type: ignore[arg-type]

    history = History(*(all_of(list(h)) for h in zip(*(s.history for s in states), strict=True)))
    x, _, *rest = (list(part) for part in zip(*states, strict=True))
    return State(all_of(x), history, *(all_of(part) for part in rest))  # type: ignore[arg-type]
