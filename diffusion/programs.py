"""Programs: a plan compiled for one denoiser.

`build(denoiser, plan, shape)` refuses what cannot run, with a reason, and otherwise returns a static Program:
`prepare` once an observation or prompt, `start` for fresh lanes, and

    tick(state, inputs) -> (state, outputs)

One tick calls the network once per view for the positions in the window, each at its own level, takes one solver
step per moving position, hands out what reached clean and gives birth at the tail. Level, position and noise are
tensors, so no branch depends on data; lanes may be at different ticks and are reset one by one.

A finite program keeps one row a position. An endless one keeps a ring: a row holds the position ids that are equal
modulo its length, and everything a solver or an accelerator remembers of a position sits in that row and is cleared
by the next birth. In position order the ring is `behind` clean positions, `moving` ones, of which the last may still
wait, and `ahead` unborn ones, which hold what they will be born as.

Legend: B lanes, R rows, D... the shape of one position.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .births import born
from .contracts import Asked, Denoiser, Rows
from .grids import Grid
from .noise import keyed_normal
from .plans import Plan
from .predictions import conversion
from .solvers import Table, Z, solver_table
from .staircase import Staircase
from .steps import (
    Coefficients,
    History,
    columns,
    empty_history,
    gathered_coefficients,
    jump_columns,
    solver_step,
    uniform_coefficients,
)
from .views import Call, calls, lookahead_context, shown_call

if TYPE_CHECKING:
    from .executors import Executor

Look = Callable[[Tensor, int, Any, Tensor, Any], tuple[Tensor, Any]]
TickLook = Callable[[Tensor, Asked, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


class State(NamedTuple):
    """x and history: [B, R, D...]; tick, seed, birth: [B] int64 on the host; carry: [B, R, ...], what an accelerator
    keeps of each position, or None."""

    x: Tensor
    history: History
    tick: Tensor
    seed: Tensor
    birth: Tensor
    carry: Tensor | None = None


class Inputs(NamedTuple):
    """What a tick is given: the context from `prepare`, and, where needed, what new positions are born from (guess
    [B, R, D...]), the conditioning of the rows ([B, R, ...], cut to what a call sees) and the denoiser's own state."""

    context: Any
    guess: Tensor | None = None
    conditioning: Tensor | None = None
    state: Any = None


class Outputs(NamedTuple):
    """x: [B, R, D...] after the tick; index: [B, R] position ids; clean: [B, R], which became clean in this tick."""

    x: Tensor
    index: Tensor
    clean: Tensor


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled plan; made by `build` alone, and rewritten by accelerators with `dataclasses.replace`.

    rewritten (x, step, context, index, carry) -> (output, carry): what the unrolled chunk asks at one step;
              None: the network's output. An accelerator that skips calls wraps `look` and keeps what it needs in
              `carry`, which is None when a chunk begins, so that nothing outlives a chunk. `step` is a Python number,
              so no branch depends on data.
    ticked    (x, asked, tick, carry) -> (output, carry): what a tick's one call asks, where the view is `all`; None:
              the network's output. x, output [B, R, D...] and carry [B, R, ...] in position order, tick [B] on the
              host; carry is what the tick before gave for the same positions, None where it gave nothing. Where a tick
              shows a part of the positions, R is the part's, and nothing may be carried
    skipped   network calls of a chunk that a rewritten look leaves out
    refreshes how often a residual branch is computed in a chunk, or, in a staggered program, in a position's steps, the
              mean over blocks; None: at every call
    executor  runs the unrolled chunk; None: eagerly
    """

    denoiser: Denoiser
    plan: Plan
    grid: Grid
    table: Table
    staircase: Staircase
    shape: tuple[int, ...]
    rows: int
    endless: bool
    behind: int
    views: tuple[Call, ...]
    uniform: list[Coefficients]
    stacked: Tensor  # [S + 1, 18] float32, the same for levels that differ
    rewritten: Look | None = None
    ticked: TickLook | None = None
    skipped: int = 0
    refreshes: float | None = None
    executor: "Executor | None" = None
    ahead: int = 0
    _jumps: dict[int, Tensor] = field(init=False, default_factory=dict, compare=False, repr=False)

    @property
    def ticks(self) -> int:
        """Ticks of a finite program."""
        return self.staircase.ticks(self.rows)

    @property
    def calls_per_tick(self) -> int:
        return len(self.views)

    @property
    def moving(self) -> int:
        """Rows of the positions that move, or wait for their first step, all of a finite program's."""
        return self.rows - self.behind - self.ahead

    @property
    def moves_together(self) -> bool:
        """Whether all positions share a level and one call sees them all: what can be unrolled."""
        return not self.staircase.lag and len(self.views) == 1

    @property
    def calls(self) -> int:
        """Network calls of a finite program."""
        return self.ticks * self.calls_per_tick - self.skipped

    @property
    def backend(self) -> str:
        """What its chunks run on."""
        return "eager" if self.executor is None else self.executor.name

    @property
    def dynamic(self) -> bool:
        """Whether the data decide how often the network is called; `calls` is then the most."""
        return getattr(self.rewritten, "dynamic", False) or getattr(self.executor, "dynamic", False)

    @property
    def look(self) -> Look:
        return self.rewritten or self._plain_look

    def prepare(self, obs: Any) -> Any:
        return self.denoiser.prepare(obs)

    # -- noise ---------------------------------------------------------------------------------------------------

    def noise(self, seed: Tensor, birth: Tensor, index: Tensor, level: Tensor, device: torch.device) -> Tensor:
        """[..., B, R, D...] by key (seed, birth, position, level); seed, birth [B], index [B, R], level [..., B, R]."""
        z = keyed_normal(seed[:, None], birth[:, None], index, level, math.prod(self.shape))
        return z.reshape(*level.shape, *self.shape).to(device)

    def _noise_where(self, mask: Tensor, keys: tuple[Tensor, Tensor], index: Tensor, level: Tensor, device) -> Tensor:
        """[B, R, D...]: `noise` where the mask [B, R] holds, zeros elsewhere, which cost nothing. keys: seed, birth."""
        seed, birth = (key[:, None].expand_as(index)[mask] for key in keys)
        z = torch.zeros(*index.shape, math.prod(self.shape))
        z[mask] = keyed_normal(seed, birth, index[mask], level[mask], math.prod(self.shape))
        return z.reshape(*index.shape, *self.shape).to(device)

    # -- positions -----------------------------------------------------------------------------------------------

    def index(self, tick: Tensor) -> Tensor:
        """[B, R] position ids held by the rows at `tick` [B]. Ids below 0 lie before the stream and are clean."""
        row = torch.arange(self.rows)[None]
        if not self.endless:
            return row.expand(len(tick), -1)
        done = ((tick - self.staircase.steps).div(self.staircase.lag, rounding_mode="floor") + 1).clamp(min=0)
        first = (done * self.staircase.block - self.behind)[:, None]
        return first + (row - first) % self.rows

    def level(self, tick: Tensor, index: Tensor) -> Tensor:
        """[B, R] grid levels of positions `index` after `tick` ticks."""
        return self.staircase.steps - self.staircase.done(tick[:, None], index)

    # -- life ----------------------------------------------------------------------------------------------------

    def start(
        self,
        seed: Tensor,
        birth: Tensor,
        guess: Tensor | None = None,
        device: Any = "cpu",
        before: Tensor | None = None,
    ) -> State:
        """Fresh lanes: every row at its entry level. seed, birth: [B] int64; guess: [B, R, D...].

        before: [B, k, D...], clean positions of ids -k..-1, such as a prompt, of which the last `behind` are kept in
        sight; rows of ids below -k are zero. Raises InputError for another shape, and where none would be kept.
        """
        tick = torch.zeros_like(seed)
        index = self.index(tick)
        guess = guess if guess is None or self.endless else guess[:, : self.rows]  # fewer where no tail is computed
        x = self._birth(seed, birth, index, guess, torch.device(device), index >= 0)
        past = torch.zeros_like(x) if before is None else self._prompt(before, index, x)
        x = torch.where(_spread(index < 0, x).to(x.device), past, x)
        return State(x, empty_history(self.table, x), tick, seed, birth)

    def start_from_clip(self, seed: Tensor, birth: Tensor, clip: Tensor, device: Any = "cpu") -> State:
        """Lanes whose ring is full, made from a clip: FIFO-Diffusion's start (Kim et al. 2024, section 4.1).

        seed, birth: [B] int64; clip: [B, f, D...], f >= 1 clean positions. The tick is S - 1, so that position 0 is a
        step from clean. The clip's frames are the last f of the `moving` positions and its first is repeated before
        them: position i, at its level k, holds alpha_k clip[max(0, i - moving + f)] + sigma_k z, with z by key (seed,
        birth, i, k). Ids below 0 hold the clip's frame clean (FIFO noises these to the lowest level), unborn positions
        what they will be born as, and a multistep solver remembers a path that told this clip. The first
        `warm_up_positions(f)` that come out are to be thrown away. Raises InputError for another shape, for a finite
        program, and where unborn positions start from a guess.
        """
        self._check_positions("clip", clip, len(seed))
        self.warm_up_positions(clip.shape[1])  # refuses finite programs and empty clips
        tick = torch.full_like(seed, self.grid.steps - 1)
        index = self.index(tick)
        level = self.level(tick, index)
        moves, device = (index >= 0) & (index < self.moving), torch.device(device)
        frame = (index + clip.shape[1] - self.moving).clamp(min=0, max=clip.shape[1] - 1)
        x0 = clip.to(device, torch.float32)[torch.arange(len(clip))[:, None], frame]
        z = self._noise_where(moves, (seed, birth), index, level, device)
        x = self._noised(x0, z, level)
        if self.ahead:
            unborn = index >= self.moving
            born_as = self._birth(seed, birth, index, None, device, unborn)
            x = torch.where(_spread(unborn, x).to(device), born_as, x)
        path = History(self._noised(x0, z, (level + 1).clamp(max=self.grid.steps)), x0, x0)
        kept = zip(empty_history(self.table, x), path, strict=True)
        resting = (~moves).to(device)
        history = History(*(None if empty is None else _cleared(resting, told) for empty, told in kept))
        return State(x, history, tick, seed, birth)

    def warm_up_positions(self, frames: int) -> int:
        """How many positions come out before those made of a clip of f = `frames` frames (`start_from_clip`):
        max(0, moving - f). Raises InputError for a finite program and for no frames."""
        if not self.endless:
            raise InputError(
                f"plan {self.plan.name!r} was built for {self.rows} positions; a clip starts endless streams"
            )
        if frames < 1:
            raise InputError("a clip of no frames was given, wanted [B, f, D...] with 1 or more")
        return max(0, self.moving - frames)

    def _noised(self, x0: Tensor, z: Tensor, level: Tensor) -> Tensor:
        """alpha_k x0 + sigma_k z at levels k [B, R]; x0 itself at level 0."""
        alpha, sigma = (torch.from_numpy(v).float()[level].to(x0.device) for v in (self.grid.alpha, self.grid.sigma))
        return _spread(alpha, x0) * x0 + _spread(sigma, x0) * z

    def _prompt(self, before: Tensor, index: Tensor, x: Tensor) -> Tensor:
        """[B, R, D...] like x: of ids -k..-1 the positions of `before`, zeros elsewhere."""
        self._check_positions("before", before, len(x))
        k = before.shape[1]
        if k and not self.behind:
            raise InputError(
                f"plan {self.plan.name!r} keeps no clean positions in sight, and {k} were given; use behind"
            )
        if not k:
            return torch.zeros_like(x)
        held = (index + k >= 0) & (index < 0)
        picked = before.to(x)[torch.arange(len(x))[:, None], (index + k).clamp(0, k - 1)]
        return torch.where(_spread(held, x).to(x.device), picked, torch.zeros_like(x))

    def _check_positions(self, what: str, given: Tensor, lanes: int) -> None:
        if given.dim() < 2 or (given.shape[0], *given.shape[2:]) != (lanes, *self.shape):
            wanted = ", ".join(str(n) for n in (lanes, "positions", *self.shape))
            raise InputError(f"{what} is {list(given.shape)}, wanted [{wanted}]")

    def reset(self, state: State, lanes: Tensor, fresh: State) -> State:
        """`state` with the lanes of the mask [B] taken from `fresh`. Raises InputError where one of the two carries an
        accelerator's features and lanes of the other, which has none, are past tick 0."""
        self._check_carries(state, lanes, fresh)

        def pick(old: Tensor | None, new: Tensor | None) -> Tensor | None:
            if old is None or new is None:
                return old
            return torch.where(lanes.to(old.device).reshape(-1, *([1] * (old.dim() - 1))), new, old)

        history = History(*(pick(o, n) for o, n in zip(state.history, fresh.history, strict=True)))
        x, *keys = (pick(o, n) for o, n in zip(_tensors(state), _tensors(fresh), strict=True))
        carry = pick(_or_zeros(state.carry, fresh.carry), _or_zeros(fresh.carry, state.carry))
        return State(x, history, *keys, carry)  # type: ignore[arg-type]

    def _check_carries(self, state: State, lanes: Tensor, fresh: State) -> None:
        lanes = lanes.to(state.tick.device)
        late = fresh.tick[lanes] if fresh.carry is None else state.tick[~lanes]
        if (state.carry is None) != (fresh.carry is None) and late.any():
            raise InputError(
                "lanes past tick 0 that carry nothing were put beside lanes that carry features; tick them by "
                "themselves first, or drop what the others carry"
            )

    def tick(
        self,
        state: State,
        inputs: Inputs,
        stride: int = 1,
        shown: slice | None = None,
        until: int | None = None,
    ) -> tuple[State, Outputs]:
        """One tick of all lanes, each at its own place on the staircase; or `stride` ticks with one network call.

        stride: every position moves as many levels as it would in so many ticks, in one solver step. In an endless
                program it must divide the lag and every lane's tick, so that nothing begins to move in between
        shown:  the positions, counted in position order from the ring's first, that the call sees, where the view is
                `all`: every moving one, and of the others as many as wanted
        until:  positions from this on never move: the stream ends before them

        Raises InputError for another stride, for one above 1 of a multistep solver, for a moving position that is not
        shown, and for both where an accelerator carries features from tick to tick (drop them: `carry=None`).
        """
        x, device = state.x, state.x.device
        self._check_stride(state.tick, stride)
        index = self.index(state.tick)
        level = self.level(state.tick, index)
        target = self.level(state.tick + stride, index)
        moves = level != target
        if until is not None:
            moves &= index < until
        views = self.views if shown is None else self._shown(shown, index, moves)
        c = self._coefficients(stride, level, target, x)
        out, carry = self._look(state, index, level, inputs, views, whole=stride == 1 and shown is None)
        z = None
        if self.table.uses(Z):
            z = self._noise_where(moves, (state.seed, state.birth), index, target, device)
        after, history = solver_step(x, out, state.history, z, c, self.denoiser.clip)
        mask = _spread(moves, x).to(device)
        x = torch.where(mask, after, x)
        history = History(*(_where(mask, n, o) for n, o in zip(history, state.history, strict=True)))
        outputs = Outputs(x, index, moves & (target == 0))
        state = State(x, history, state.tick + stride, state.seed, state.birth, carry)
        return (self._give_birth(state, index, inputs.guess) if self.endless else state), outputs

    def _check_stride(self, tick: Tensor, stride: int) -> None:
        if stride < 1:
            raise InputError(f"stride is {stride}, wanted 1 tick or more")
        lag = self.staircase.lag
        if self.endless and lag % stride:
            raise InputError(f"stride is {stride}, wanted a divisor of the {lag} ticks between two births")
        if self.endless and (tick % stride).any():
            raise InputError(
                f"a stride of {stride} from tick {int(tick[tick % stride != 0][0])} could pass over a birth; "
                f"tick with stride 1 up to a multiple of {stride}"
            )

    def _shown(self, shown: slice, index: Tensor, moves: Tensor) -> tuple[Call, ...]:
        """The one call of a tick that shows a part of the positions. moves: [B, R], by row."""
        if self.plan.view != "all":
            raise InputError(f"plan {self.plan.name!r}: view {self.plan.view} shows parts by itself; use view all")
        call = shown_call(shown, self.rows)
        moving = moves.gather(1, index.argsort(1))
        if moving[:, : call.start].any() or moving[:, call.stop :].any():
            ids = moving.any(0).nonzero()[:, 0].tolist()
            shown_ids = f"{call.start} to {call.stop - 1}"
            raise InputError(
                f"positions {shown_ids} of the ring were shown, and {ids[0]} to {ids[-1]} move; show these"
            )
        return (call,)

    def _coefficients(self, stride: int, level: Tensor, target: Tensor, x: Tensor) -> Coefficients:
        """Of the steps from level to target, [B, R] each."""
        if stride == 1:
            return gathered_coefficients(self.stacked, level, x, self.table.corrected is not None)
        most = min(stride, self.grid.steps)
        if most not in self._jumps:
            convert = conversion(self.denoiser.prediction, self.grid)
            plan = self.plan
            self._jumps[most] = jump_columns(plan.solver, self.grid, plan.eta, plan.gamma, convert, most)
        return gathered_coefficients(self._jumps[most], (level - target) * (self.grid.steps + 1) + level, x, False)

    def _plain_look(self, x: Tensor, step: int, context: Any, index: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """The network's output with all positions at level `step`: the tick's look where nothing is mixed. Its carry is
        the lanes' confidence, of a network that has one."""
        prediction = self.denoiser.predict(x, *self.asked(x, step, context, index))
        return prediction.x.float(), prediction.score

    def asked(self, x: Tensor, step: int, context: Any, index: Tensor) -> Asked:
        """What a call is asked beside x where all positions are at level `step`. x: [B, N, D...]; index: [B, N]."""
        label = x.new_full(x.shape[:2], float(self.grid.label[step]), dtype=torch.float32)
        return Asked(label, context, Rows(index, step=step))

    # -- parts of a tick -----------------------------------------------------------------------------------------

    def _look(
        self, state: State, index: Tensor, level: Tensor, inputs: Inputs, views: tuple[Call, ...], whole: bool
    ) -> tuple[Tensor, Tensor | None]:
        """[B, R, D...] network output, computed view by view in position order and laid back into rows; and the carry,
        which is shown in position order and laid back as well. whole: one tick, all positions; else nothing may be
        carried."""
        x, carry, device = state.x, state.carry, state.x.device
        _check_carry(carry, whole)
        label = torch.from_numpy(self.grid.label).float()[level].to(device)
        order = index.argsort(1)
        rows = torch.arange(len(x))[:, None]
        seen, label, ids = x[rows, order], label[rows, order], index[rows, order]
        carry = None if carry is None else carry[rows, order]
        out = torch.zeros_like(x)
        conditioning = None if inputs.conditioning is None else inputs.conditioning[rows, order]
        for call in views:
            see, keep = slice(call.start, call.stop), slice(call.keep, call.stop)
            told = Rows(ids[:, see].to(device), None if conditioning is None else conditioning[:, see], inputs.state)
            asked = Asked(label[:, see], inputs.context, told)
            result, carry = self._ask(seen[:, see], asked, state.tick, carry)
            _check_carry(carry, whole)
            out[rows, order[:, keep]] = result[:, call.keep - call.start :]
        return out, None if carry is None else carry[rows, order.argsort(1)]

    def _ask(self, x: Tensor, asked: Asked, tick: Tensor, carry: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One call. A plain one drops the carry, which would be out of date after it."""
        if self.ticked is not None:
            return self.ticked(x, asked, tick, carry)
        return self.denoiser.predict(x, *asked).x.float(), None

    def _birth(self, seed: Tensor, birth: Tensor, index: Tensor, guess: Tensor | None, device, where: Tensor) -> Tensor:
        """[B, R, D...] as born, right where the mask [B, R] holds."""
        entry = torch.full_like(index, self.grid.steps)
        z = self._noise_where(where, (seed, birth), index, entry, device)
        return born(self.plan.birth, z, guess, float(self.grid.alpha[-1]), float(self.grid.sigma[-1]))

    def _give_birth(self, state: State, old: Tensor, guess: Tensor | None) -> State:
        """Rows whose position left the ring take the next id: a birth, with an empty history and nothing carried."""
        index = self.index(state.tick)
        moved_on = index != old
        if not moved_on.any():  # on the host: where the staircase stands, not what the data are
            return state
        reborn = moved_on.to(state.x.device)
        mask = _spread(reborn, state.x)
        fresh = self._birth(state.seed, state.birth, index, guess, state.x.device, moved_on)
        history = History(*(_cleared(reborn, h) for h in state.history))
        return state._replace(x=torch.where(mask, fresh, state.x), history=history, carry=_cleared(reborn, state.carry))


def build(denoiser: Denoiser, plan: Plan, shape: tuple[int, ...], positions: int | None) -> Program:
    """Compile a plan. shape: D... of one position; positions: how many, or None for an endless stream.

    Raises InputError with the reason where the denoiser cannot run the plan.
    """
    if plan.accelerators or (plan.precision, plan.backend) != ("fp32", "eager"):
        raise InputError(f"plan {plan.name!r} has accelerators, a precision or a backend: build it with accel.build")
    try:
        grid = plan.grid.build(denoiser.schedule)
        table = solver_table(plan.solver, grid, plan.eta, plan.gamma)
    except InputError as error:
        raise InputError(f"plan {plan.name!r}: {error}") from None
    if (plan.solver == "euler") != denoiser.schedule.is_flow:
        raise InputError(
            f"plan {plan.name!r}: solver {plan.solver} does not fit schedule {denoiser.schedule.name!r} "
            "(euler is for flow matching, and flow matching for euler)"
        )
    staircase = Staircase(grid.steps, plan.stagger, plan.block)
    if staircase.lag and denoiser.levels == "sample":
        raise InputError(
            f"plan {plan.name!r} mixes levels (stagger {plan.stagger}), but this network takes one level a sample; "
            "use stagger 0 or a network trained with a level a position"
        )
    if (plan.pieces > 1 or plan.view == "lookahead") and not denoiser.windows:
        raise InputError(
            f"plan {plan.name!r}: view {plan.view} shows the network a part of the positions, and this network "
            "must see all of them; use view all"
        )
    endless, behind = positions is None, plan.behind
    if positions is None:
        rows = staircase.blocks_in_flight * plan.block
        if plan.view == "lookahead":
            behind = lookahead_context(rows, plan.pieces)
        rows += behind + plan.ahead
    elif plan.behind or plan.ahead:
        raise InputError(
            f"plan {plan.name!r}: behind {plan.behind} and ahead {plan.ahead} are for endless streams; {positions} "
            "positions are all in sight from the first tick to the last"
        )
    elif positions < 1 or positions % plan.block:
        raise InputError(f"plan {plan.name!r}: {positions} positions do not divide into blocks of {plan.block}")
    elif plan.view == "lookahead":
        raise InputError(f"plan {plan.name!r}: lookahead is for endless streams; it keeps clean positions in sight")
    else:
        rows = positions
    convert = conversion(denoiser.prediction, grid)
    return Program(
        denoiser=denoiser,
        plan=plan,
        grid=grid,
        table=table,
        staircase=staircase,
        shape=tuple(shape),
        rows=rows,
        endless=endless,
        behind=behind,
        views=calls(plan.view, rows, plan.pieces),
        uniform=uniform_coefficients(table, convert),
        stacked=torch.from_numpy(columns(table, convert)).float(),
        ahead=plan.ahead,
    )


def _tensors(state: State) -> tuple[Tensor, ...]:
    return (state.x, state.tick, state.seed, state.birth)


def _check_carry(carry: Tensor | None, whole: bool) -> None:
    if carry is not None and not whole:
        raise InputError(
            "an accelerator carries features of all positions from tick to tick, and this tick shows a part of them or "
            "strides; run it on the program without the accelerator, from a state whose carry is None"
        )


def _or_zeros(carry: Tensor | None, other: Tensor | None) -> Tensor | None:
    """`carry`; zeros where a state has none because it has not ticked yet, and the other has one."""
    return torch.zeros_like(other) if carry is None and other is not None else carry


def _cleared(rows: Tensor, held: Tensor | None) -> Tensor | None:
    """[B, R, ...] with the rows of the mask [B, R] zero."""
    return None if held is None else torch.where(_spread(rows, held), torch.zeros_like(held), held)


def _where(mask: Tensor, new: Tensor | None, old: Tensor | None) -> Tensor | None:
    return None if new is None or old is None else torch.where(mask, new, old)


def _spread(mask: Tensor, like: Tensor) -> Tensor:
    """[B, R] -> [B, R, 1...]"""
    return mask.reshape(*mask.shape, *([1] * (like.dim() - 2)))
