"""The control loop: one action a tick for every lane, whether or not the answer is there.

A tick is one step of the environment, one period of the budget. In a lane's tick the caller does

    if loop.wants_answer(lane): loop.think([lane])      # or think() once, for all lanes that want one
    action, kind = loop.act(lane)
    observation = step the environment with the action
    loop.observe(lane, observation)

An answer that comes within the deadline is played from its row 0 at the tick that asked. A later one, d ticks late,
finds the world moved on: meanwhile the rest of the previous answer was played, then the last action was held. It is
then entered at the row that follows the rest rows consumed since its observation. Consumption is counted, never
estimated from the latency: held ticks consume nothing, so no row is skipped that was not played.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..errors import InputError
from .budget import LatencyBudget
from .charge import Charge, delay_ticks
from .contracts import FollowingPolicy, Policy
from .ledger import Ledger

Kind = Literal["answer", "rest", "held"]


@dataclass
class _Answer:
    """Actions [Th, Da], played from `next_row`; rows before `end` are the answer, from `end` on its rest."""

    rows: np.ndarray
    asked_at_tick: int
    next_row: int = 0
    end: int = 0

    @property
    def is_over(self) -> bool:
        return self.next_row >= self.end

    @property
    def has_rest(self) -> bool:
        return self.next_row < len(self.rows)

    def take(self) -> np.ndarray:
        self.next_row += 1
        return self.rows[self.next_row - 1]

    def enter_at(self, row: int, n_action_steps: int) -> None:
        """Start at `row`, up to row Ta; if the start is past that, play the tail, so that a late answer counts."""
        self.next_row = min(row, len(self.rows) - 1)
        self.end = n_action_steps if self.next_row < n_action_steps else len(self.rows)


@dataclass
class _Lane:
    """One episode."""

    seed: int
    history: np.ndarray  # [To, Do], oldest first
    last_action: np.ndarray  # [Da]
    tick: int = 0
    chunks: int = 0
    current: _Answer | None = None
    in_flight: _Answer | None = None
    ticks_to_wait: int = 0
    rest_consumed: int = 0
    counts: Counter[str] = field(default_factory=Counter)


class ControlLoop:
    """Plays a policy's chunks over `lanes` lanes under a budget, charging each answer its latency.

    `hold` turns the last action into the one to command when there is nothing to play: the identity for positions,
    zeros for displacements. No clock is read: the same seeds, policy and charge give the same run bit for bit.
    """

    def __init__(
        self,
        policy: Policy,
        lanes: int,
        hold: Callable[[np.ndarray], np.ndarray],
        budget: LatencyBudget,
        charge: Charge | None = None,
        ledger: Ledger | None = None,
    ):
        self.policy, self.hold, self.budget = policy, hold, budget
        self.charge = charge if charge is not None else Charge.none()
        self.ledger = ledger if ledger is not None else Ledger()
        self._lanes: list[_Lane | None] = [None] * lanes

    def begin(self, lane: int, seed: int, observation: np.ndarray, neutral: np.ndarray | None = None) -> None:
        """Begin an episode: resets the policy's lane and fills the history with the first observation [Do].

        `neutral` [Da] is what `hold` is given until the first answer is there; zeros by default.
        """
        first = self._checked(observation, lane, seed, tick=0)
        start = np.zeros(self.policy.action_dim) if neutral is None else neutral
        history = np.repeat(first[None], self.policy.n_obs_steps, axis=0)
        self._lanes[lane] = _Lane(int(seed), history, np.array(start, dtype=np.float32))
        self.policy.reset([lane], [int(seed)])

    def observe(self, lane: int, observation: np.ndarray) -> None:
        """Enter what was seen [Do] after the last action. Raises InputError if it is not finite or misshapen."""
        state = self._state(lane)
        newest = self._checked(observation, lane, state.seed, state.tick)
        state.history = np.concatenate([state.history[1:], newest[None]])

    def wants_answer(self, lane: int) -> bool:
        """Whether the lane has played its chunk and no answer is on its way."""
        state = self._lanes[lane]
        if state is None or state.in_flight is not None:
            return False
        return state.current is None or state.current.is_over

    def think(self, lanes: Sequence[int] | None = None) -> list[int]:
        """Ask the policy once for all lanes (or those of `lanes`) that want an answer; returns them, in order."""
        candidates = range(len(self._lanes)) if lanes is None else sorted(set(lanes))
        asking = [lane for lane in candidates if self.wants_answer(lane)]
        if asking:
            obs = np.stack([self._state(lane).history for lane in asking])  # [L, To, Do]
            if isinstance(self.policy, FollowingPolicy):
                self.policy.follow(asking, [self._rows_behind(lane) for lane in asking])
            rows = np.asarray(self.policy.predict_with_tail(obs, asking), dtype=np.float32)  # [L, Th, Da]
            self._check_answer(rows, asking)
            for lane, lane_rows in zip(asking, rows, strict=True):
                self._enter_answer(self._state(lane), lane_rows, self._calls_of(lane))
        return asking

    def _rows_behind(self, lane: int) -> int:
        current = self._state(lane).current
        return 0 if current is None else current.next_row

    def _calls_of(self, lane: int) -> int:
        policy = self.policy
        return policy.calls_of(lane) if isinstance(policy, FollowingPolicy) else policy.calls_per_chunk

    def act(self, lane: int) -> tuple[np.ndarray, Kind]:
        """The action [Da] of this tick and what it is: a row of the answer, of the rest of the one before, or held.

        It always returns an action: with nothing to play, `hold` is commanded and counted as starved.
        """
        state = self._state(lane)
        self._land(state)
        action, kind = self._next_action(state)
        state.last_action = np.array(action, dtype=np.float32)
        if state.current is not None:
            self.ledger.record("age", (state.tick - state.current.asked_at_tick) * self.budget.period_s)
        state.tick += 1
        return state.last_action.copy(), kind

    def counts(self, lane: int) -> dict[str, int]:
        """The lane's counters since `begin`: chunks, network_calls, misses, and ticks by what was commanded."""
        state = self._state(lane)
        names = ("chunks", "network_calls", "misses", "answers", "rest", "held", "starved")
        return {"ticks": state.tick, **{name: state.counts[name] for name in names}}

    def _enter_answer(self, state: _Lane, rows: np.ndarray, calls: int) -> None:
        answer = _Answer(np.array(rows), asked_at_tick=state.tick)
        # A first answer may cost more calls than those whose latencies were taken.
        latency_s = self.charge.latency_s(state.seed, state.chunks) * (calls / self.policy.calls_per_chunk)
        state.in_flight, state.ticks_to_wait, state.rest_consumed = answer, delay_ticks(latency_s, self.budget), 0
        state.chunks += 1
        self._count(state, "chunks")
        self._count(state, "network_calls", calls)
        if self.charge.is_free:
            return
        self.ledger.record("chunk", latency_s)
        self.ledger.record("inference", latency_s)
        self.ledger.record("lateness", max(0.0, latency_s - self.budget.deadline_s))
        if state.ticks_to_wait > 0:
            state.counts["misses"] += 1
            self.ledger.miss("inference")

    def _land(self, state: _Lane) -> None:
        """Make the answer in flight the current one when its wait is over."""
        if state.in_flight is None or state.ticks_to_wait > 0:
            return
        state.in_flight.enter_at(state.rest_consumed, self.policy.n_action_steps)
        state.current, state.in_flight = state.in_flight, None

    def _next_action(self, state: _Lane) -> tuple[np.ndarray, Kind]:
        current = state.current
        if state.in_flight is not None:
            state.ticks_to_wait -= 1
        if current is not None and not current.is_over:
            self._count(state, "answers")
            return current.take(), "answer"
        if current is not None and current.has_rest:
            state.rest_consumed += 1
            self._count(state, "rest")
            return current.take(), "rest"
        self._count(state, "held")
        self._count(state, "starved")
        return self.hold(state.last_action), "held"

    def _count(self, state: _Lane, event: str, n: int = 1) -> None:
        state.counts[event] += n
        self.ledger.count(event, n)

    def _state(self, lane: int) -> _Lane:
        state = self._lanes[lane]
        if state is None:
            raise RuntimeError(f"lane {lane} has no episode: call begin() first")
        return state

    def _checked(self, observation: np.ndarray, lane: int, seed: int, tick: int) -> np.ndarray:
        array = np.asarray(observation, dtype=np.float32)
        where, width = f"lane {lane}, seed {seed}, tick {tick}", self.policy.observation_dim
        if array.shape != (width,):
            fix = "use the policy that was trained for this task"
            raise InputError(f"{where}: got an observation of shape {array.shape}, wanted ({width},): {fix}")
        if not np.isfinite(array).all():
            bad = ", ".join(str(index) for index in np.flatnonzero(~np.isfinite(array))[:8])
            fix = "check the sensor or the simulation"
            raise InputError(f"{where}: got NaN or infinity in the observation at {bad}, wanted finite numbers: {fix}")
        return array

    def _check_answer(self, rows: np.ndarray, asking: Sequence[int]) -> None:
        """Refuse an answer that must not reach an actuator."""
        policy = self.policy
        fits = rows.ndim == 3 and rows.shape[0] == len(asking) and rows.shape[2] == policy.action_dim
        if not fits or rows.shape[1] < policy.n_action_steps:
            wanted = f"({len(asking)}, {policy.n_action_steps} or more, {policy.action_dim})"
            raise InputError(
                f"got actions of shape {rows.shape} from the policy, wanted {wanted}: check its checkpoint"
            )
        for lane, lane_rows in zip(asking, rows, strict=True):
            if not np.isfinite(lane_rows).all():
                state = self._state(lane)
                where = f"lane {lane}, seed {state.seed}, tick {state.tick}"
                fix = "check the checkpoint and its normaliser"
                raise InputError(f"{where}: got NaN or infinity from the policy, wanted finite actions: {fix}")
