"""Parallel in time: many steps of a chunk in one network call (ParaDiGMS, Shih et al. 2023, algorithm 1).

A window of P steps starts at a state that is known; the others start from states that are thought to be about right.
All noise is drawn before, so that a chunk has one right trajectory, the sequential one's. An iteration

    y_i    <- the solver's step from x_i                     one network call: P lanes beside each other, each its level
    r_i    <- y_i - x_{i+1}                                  what the step says against what was thought
    x_i+1  <- y_i + m_i (r_{i-1} + m_{i-1} (r_{i-2} + ...))  m: `window_tables`, slope
    slides past every state that moved by no more than |x_new - x_old|^2 <= tolerance^2 * dim * variance of its step,
           and past the first that did: it was computed from states that did not move
    and fills the places that come into sight with what they are if x0 is what the last step of the window predicted

The published iteration has m = 1, and repeats a state where a place comes into sight. Here a step passes on what the
solver and the spread of actions say it does, and a place is guessed by the solver; either changes how fast it converges
and nothing of what it converges to. The first state of an iteration is the sequential one's, so at most S iterations
are needed, and with tolerance 0 the chunk is the sequential one up to rounding.

Every lane slides by itself: with a common stride its chunk would depend on its neighbours.

Legend: S steps, P places, B lanes, N positions, D...; place j: the state after j steps, at level S - j.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...diffusion import Asked, Chunk, Executor, History, Program, Rows, Spent, Start
from ...diffusion.steps import Coefficients, coefficients, solver_step
from .picard_graph import IterationGraph
from .window_tables import window_tables

Predict = Callable[[Tensor, Asked, Any, Any], tuple[Tensor, Any]]  # as `Program.ticked`
NO_HISTORY = History(None, None, None)


class Window(NamedTuple):
    """x: [P, B, N, D...], the states at places place..place + P - 1; place: [B] int64."""

    x: Tensor
    place: Tensor


class Given(NamedTuple):
    """What does not change in a chunk. context, index [P B, N]: of the P B lanes of a call; noise [S, B, N, D...] in
    the order of steps, or None; driven [S + 1, B, N, D...]: what it makes of a state that starts at zero."""

    context: Any
    index: Tensor
    noise: Tensor | None
    driven: Tensor


class Picard(Executor):
    """Runs programs whose solver remembers nothing. `predict`: the network's call, by default the denoiser's own."""

    dynamic = True

    def __init__(self, program: Program, window: int, tolerance: float, predict: Predict | None = None) -> None:
        self.window, self.tolerance = min(window, program.grid.steps), tolerance
        self._predict = predict
        self._graph: IterationGraph | None = None
        self._tables = window_tables(program, self.window)
        self._label = torch.from_numpy(program.grid.label).float()
        self._stacked = program.stacked.cpu()
        self._used = program.stacked[1:].any(0).tolist()

    def calling(self, predict: Predict) -> "Picard":
        """The same with another call of the network."""
        other = copy.copy(self)
        other._predict = predict
        return other

    def recorded(self, graph: IterationGraph) -> "Picard":
        """The same with an iteration as a CUDA graph."""
        other = copy.copy(self)
        other._graph = graph
        return other

    @property
    def name(self) -> str:  # type: ignore[override]
        return getattr(self._graph or self._predict, "name", "eager")

    def chunk(self, program: Program, start: Start) -> Chunk:
        """`start.guess`: what the chunk is thought to be, which the first window is filled with; None: zero, the middle
        of what actions are. It is the truth of an oracle that stands for the network until it is asked."""
        self._to(start.x.device)
        steps, given = program.grid.steps, self._given(program, start)
        guess = torch.zeros_like(start.x) if start.guess is None else start.guess
        here = torch.zeros(len(start.x), dtype=torch.int64, device=start.x.device)
        window = Window(self._led(start.x, guess, here, given), here)
        iterations = evaluations = torch.zeros(len(start.x), dtype=torch.int64)
        left = torch.full_like(iterations, steps)
        replay = self._graph and self._graph.of(
            lambda given, window: self._iterated(program, given, window, self.window), given, window
        )
        while left.any():
            width = self._width(left)
            window = replay(window) if replay else self._iterated(program, given, window, width)
            iterations, evaluations = iterations + (left > 0), evaluations + width * (left > 0)
            left = steps - window.place.cpu()
        self.spent = Spent(iterations, evaluations)
        return Chunk(window.x[0])

    # -- an iteration ---------------------------------------------------------------------------------------------

    def _iterated(self, program: Program, given: Given, window: Window, width: int) -> Window:
        """One network call for the first `width` places, and the window slid. No branch in it depends on data."""
        P, S = self.window, program.grid.steps
        after, x0 = self._stepped(program, given, window, width)
        residual = after[:-1] - window.x[1:]  # [P - 1, B, N, D...]
        carried = self._tables.carried[window.place.clamp(max=S - 1)]
        new = after + torch.einsum("bpq,qb...->pb...", carried, residual)
        moved = (new[:-1] - window.x[1:]).square().flatten(2).mean(2)  # [P - 1, B]
        limit = self._tables.limit[window.place.clamp(max=S - 1)].T * self.tolerance**2
        slide = torch.minimum(1 + (moved <= limit).cumprod(0).sum(0), S - window.place)  # [B]
        ahead = self._led(new[-1], x0, (window.place + P).clamp(max=S), given)
        known = torch.cat([window.x[:1], new, ahead[1:]])  # places place..place + 2 P - 1
        taken = slide + torch.arange(P, device=slide.device)[:, None]  # [P, B]
        return Window(known[taken, torch.arange(len(slide), device=slide.device)], window.place + slide)

    def _stepped(self, program: Program, given: Given, window: Window, width: int) -> tuple[Tensor, Tensor]:
        """The solver's step from every state, [P, B, N, D...], and the x0 that the last of them predicts. Places past
        the end take a step of level 1, which nobody reads."""
        P, S, denoiser = self.window, program.grid.steps, program.denoiser
        step = (window.place + torch.arange(P, device=window.place.device)[:, None]).clamp(max=S - 1)  # [P, B]
        level, x = (S - step).flatten(), window.x.flatten(0, 1)
        out = self._asked(denoiser, x, level, given, width * len(window.place))
        c = self._coefficients(level, x)
        z = None
        if given.noise is not None:
            z = given.noise[step, torch.arange(len(window.place), device=step.device)].flatten(0, 1)
        after, _ = solver_step(x, out, NO_HISTORY, z, c, denoiser.clip)
        B = len(window.place)
        x0 = solver_step(x[-B:], out[-B:], NO_HISTORY, None, _only_x0(c, B), denoiser.clip)[0]
        return after.unflatten(0, (P, B)), x0

    def _asked(self, denoiser: Any, x: Tensor, level: Tensor, given: Given, lanes: int) -> Tensor:
        """The network's output for the first `lanes` of x: [P B, N, D...]; zero for the rest."""
        label = self._label[level][:, None].expand(x.shape[:2])
        context = denoiser.first_lanes(given.context, lanes) if lanes < len(x) else given.context
        asked = Asked(label[:lanes], context, Rows(given.index[:lanes]))
        if self._predict is None:
            out = denoiser.predict(x[:lanes], *asked).x.float()
        else:
            out, _ = self._predict(x[:lanes], asked, None, None)
        return torch.cat([out, torch.zeros_like(x[lanes:])])

    def _width(self, left: Tensor) -> int:
        """Places of a call. One lane alone leaves out those past its end; beside others that would tell it of them, and
        a graph and a converted network have one width."""
        fixed = len(left) > 1 or self._predict is not None or self._graph is not None
        return self.window if fixed else min(self.window, int(left))

    # -- what is known beforehand -----------------------------------------------------------------------------------

    def _led(self, x: Tensor, truth: Tensor, place: Tensor, given: Given) -> Tensor:
        """[P, B, N, D...]: the states from x [B, N, D...] at `place` [B] on, where x0 is always `truth`."""
        lanes, ones = torch.arange(len(place), device=place.device), [1] * (x.dim() - 1)
        keep, pull = (table[place].T.reshape(-1, len(place), *ones) for table in (self._tables.keep, self._tables.pull))
        there = (place + torch.arange(self.window, device=place.device)[:, None]).clamp(max=len(given.driven) - 1)
        driven = given.driven[there, lanes] - keep * given.driven[place, lanes]
        return keep * x + pull * truth + driven

    def _given(self, program: Program, start: Start) -> Given:
        noise = start.noise.flip(0) if isinstance(start.noise, Tensor) else None
        if noise is None:
            driven = start.x.new_zeros(program.grid.steps + 1, *start.x.shape)
        else:
            driven = (self._tables.drives @ noise.flatten(1)).unflatten(1, start.x.shape)
        context = program.denoiser.repeated(start.context, self.window)
        return Given(context, start.index.repeat(self.window, 1), noise, driven)

    def _coefficients(self, level: Tensor, x: Tensor) -> Coefficients:
        """Those of levels [P B], for x [P B, N, D...]; columns that no step uses are left out."""
        picked, shape = self._stacked[level], (-1, *[1] * (x.dim() - 1))
        values = [picked[:, i].reshape(shape) if used else None for i, used in enumerate(self._used)]
        return coefficients(values, corrects=False)  # type: ignore[arg-type]

    def _to(self, device: torch.device) -> None:
        if self._label.device != device:
            self._tables = self._tables.to(device)
            self._label, self._stacked = self._label.to(device), self._stacked.to(device)


def _only_x0(c: Coefficients, lanes: int) -> Coefficients:
    """A step that lands on x0, of the last lanes."""
    x0 = tuple(None if value is None else value[-lanes:] for value in c.x0)  # type: ignore[index]
    return Coefficients(x0, (None, None), (None, 1.0, *[None] * 5), None)  # type: ignore[arg-type]
