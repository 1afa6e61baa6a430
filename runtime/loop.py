"""The control loop: one action a tick for every lane, whether or not the answer is there.

A tick is one step of the environment, one period of the budget. In a lane's tick the caller does

    if loop.wants_answer(lane): loop.think([lane])      # or think() once, for all lanes that want one
    action, kind = loop.act(lane)
    observation = step the environment with the action
    loop.observe(lane, observation)

An answer that comes within the deadline is played from its row 0 at the tick that asked. A later one, d ticks late,
finds the world moved on: meanwhile the rest of the previous answer was played, then the last action was held. It is
then entered at the row that follows the rows consumed since its observation. Consumption is counted, never
estimated from the latency: held ticks consume nothing, so no row is skipped that was not played.

With an `Overlap` that stitches, inference runs beside execution: the next answer is asked for while rows of the chunk
are left, as many as answers have lately taken ticks. It is entered when it comes, at the row that follows those
consumed, as above, in the place of what is left; then a seam joins old rows and new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ..errors import InputError
from .budget import LatencyBudget
from .charge import Charge
from .checks import checked, refuse_not_finite
from .contracts import FollowingPolicy, Policy
from .ladder import Ladder, LadderPolicy
from .lane import UNKNOWN, Answer, Lane
from .ledger import Ledger
from .overlap import Overlap, blended, limited
from .questions import Given, Question, answer, can_inpaint

Kind = Literal["answer", "rest", "held"]


class ControlLoop:
    """Plays a policy's chunks over `lanes` lanes under a budget, charging each answer its latency.

    `hold` turns the last action into the one to command when there is nothing to play: the identity for positions,
    zeros for displacements. `v_max` [Da], units of the command a second: what a seam is limited to where `overlap`
    stitches, infinite in dimensions that switch, such as grippers. No clock is read: the same seeds, policy and charge
    give the same run bit for bit.

    A `LadderPolicy` is charged by its rungs, one charge each: every lane has a ladder of its own, which takes the
    dearest rung that fits.
    """

    def __init__(
        self,
        policy: Policy,
        lanes: int,
        hold: Callable[[np.ndarray], np.ndarray],
        budget: LatencyBudget,
        charge: Charge | Sequence[Charge] | None = None,
        ledger: Ledger | None = None,
        overlap: Overlap | None = None,
        v_max: np.ndarray | None = None,
    ):
        self.policy, self.hold, self.budget = policy, hold, budget
        self.overlap = overlap or Overlap()
        if self.overlap.stitch == "inpaint" and not can_inpaint(policy):
            raise InputError("stitch inpaint needs a policy that can be told what was played; use blend or replace")
        # [Da], a tick
        self.most = np.full(policy.action_dim, np.inf) if v_max is None else np.asarray(v_max) * budget.period_s
        self.switches = np.zeros(policy.action_dim, bool) if v_max is None else np.isinf(self.most)  # are never mixed
        rungs = len(policy.rungs) if isinstance(policy, LadderPolicy) else 1
        self.charges = list(charge) if isinstance(charge, Sequence) else [charge or Charge.none()] * rungs
        if len(self.charges) != rungs:
            raise InputError(f"got {len(self.charges)} charges for {rungs} plans, wanted one each")
        self.ledger = ledger if ledger is not None else Ledger()
        self._lanes: list[Lane | None] = [None] * lanes

    def begin(
        self,
        lane: int,
        seed: int,
        observation: np.ndarray,
        neutral: np.ndarray | None = None,
        keeps_load: bool = False,
    ) -> None:
        """Begin an episode: resets the policy's lane and fills the history with the first observation [Do].

        `neutral` [Da] is what `hold` is given until the first answer is there; zeros by default. keeps_load: the lane's
        ladder remembers how slow the machine was in the episode before; in charged time episodes are independent.
        """
        first = checked(observation, self.policy.observation_dim, f"lane {lane}, seed {seed}, tick 0")
        start = np.zeros(self.policy.action_dim) if neutral is None else neutral
        history = np.repeat(first[None], self.policy.n_obs_steps, axis=0)
        ladder = Ladder(self.policy.costs_s) if isinstance(self.policy, LadderPolicy) else None
        if keeps_load and (before := self._lanes[lane]) is not None:
            ladder = before.ladder
        self._lanes[lane] = Lane(int(seed), history, np.array(start, dtype=np.float32), ladder=ladder)
        self.policy.reset([lane], [int(seed)])

    def observe(self, lane: int, observation: np.ndarray) -> None:
        """Enter what was seen [Do] after the last action. Raises InputError if it is not finite or misshapen."""
        state = self._state(lane)
        newest = checked(observation, self.policy.observation_dim, self._where(lane))
        state.history = np.concatenate([state.history[1:], newest[None]])

    def wants_answer(self, lane: int) -> bool:
        """Whether no answer is on the lane's way and it has played its chunk, or will have when an answer can come."""
        state = self._lanes[lane]
        if state is None or state.in_flight is not None:
            return False
        return state.current is None or state.current.left <= self._lead(state)

    def _rung(self, lane: int) -> int:
        """The rung of the lane's ladder that fits the time left; 0 where there is no ladder."""
        state = self._state(lane)
        if state.ladder is None:
            return 0
        left = state.current.left if self.overlap.stitch and state.current is not None else 0
        return state.ladder.choose(max(self.budget.deadline_s, left * self.budget.period_s))

    def _lead(self, state: Lane) -> int:
        """Ticks by which to ask before the chunk is over."""
        return max(state.delays, default=0) if self.overlap.stitch else 0

    def think(self, lanes: Sequence[int] | None = None) -> list[int]:
        """Ask the policy once for all lanes (or those of `lanes`) that want an answer; returns them, in order."""
        candidates = range(len(self._lanes)) if lanes is None else sorted(set(lanes))
        question = self.question([lane for lane in candidates if self.wants_answer(lane)])
        if question is None:
            return []
        rungs = question.rungs or [0] * len(question.lanes)
        for lane, rung, given in zip(question.lanes, rungs, answer(self.policy, question), strict=True):
            charge = self.charges[rung]
            latency_s, ticks = charge.of(self._state(lane).seed, self._state(lane).chunks, given.share, self.budget)
            self._ask(lane, rung)
            self._give(lane, given, None if charge.is_free else latency_s, ticks)
            if not charge.is_free:
                self._judge(lane, latency_s)
        return list(question.lanes)

    def question(self, lanes: Sequence[int]) -> Question | None:
        """What to ask for these lanes; None where there are none."""
        if not lanes:
            return None
        return Question(
            tuple(lanes),
            obs=np.stack([self._state(lane).history for lane in lanes]),
            behind=tuple(self._state(lane).consumed for lane in lanes),
            kept=tuple(self._kept(lane) for lane in lanes) if self.overlap.stitch == "inpaint" else None,
            rungs=tuple(self._rung(lane) for lane in lanes) if isinstance(self.policy, LadderPolicy) else None,
        )

    def _kept(self, lane: int) -> tuple[np.ndarray, int]:
        """What the answer is to agree with: [m, Da] rows that are left, of which so many will have been played. None
        where none will: then there is nothing to join."""
        state = self._state(lane)
        current, lead = state.current, self._lead(state)
        if current is None or not lead:
            return np.zeros((0, self.policy.action_dim)), 0
        return current.rows[current.next_row :], lead

    def launch(self, question: Question) -> None:
        """Answers to this question are being computed, for as long as it takes: on the wall clock, in the place of
        `think`."""
        for lane, rung in zip(question.lanes, question.rungs or [0] * len(question.lanes), strict=True):
            self._ask(lane, rung)

    def deliver(self, lane: int, given: Given, latency_s: float, rung: int | None = None) -> None:
        """The answer that was launched has come; it is played from this tick on. rung: who gave it, where that is not
        who was asked."""
        state = self._state(lane)
        assert state.in_flight is not None, "launched before"
        if rung is not None and isinstance(self.policy, LadderPolicy):
            state.in_flight.rung, state.in_flight.plan = rung, self.policy.names[rung]
        self._give(lane, given, latency_s, state.tick - state.in_flight.asked_at_tick)

    def abandon(self, lane: int) -> None:
        """The answer that was launched is not coming, or may not be played; another one may be asked for."""
        self._state(lane).in_flight = None
        self._count(self._state(lane), "abandoned")

    def act(self, lane: int) -> tuple[np.ndarray, Kind]:
        """The action [Da] of this tick and what it is: a row of the answer, of the rest of the one before, or held.

        It always returns an action: with nothing to play, `hold` is commanded and counted as starved.
        """
        state = self._state(lane)
        action, kind = self._next_action(state)
        action = self._within_limits(state, np.array(action, dtype=np.float32), kind)
        if state.is_at_seam:
            jump = np.abs(action - state.last_action)[np.isfinite(self.most)]
            state.seam_jump_max = max(state.seam_jump_max, float(jump.max(initial=0.0)))
        state.last_action, state.is_at_seam = action, False
        if state.current is not None:
            self.ledger.record("age", (state.tick - state.current.asked_at_tick) * self.budget.period_s)
        if state.ladder is not None:
            state.rungs[state.current.plan if kind == "answer" and state.current is not None else "rest"] += 1
        state.tick += 1
        self._land(state)  # before the next tick, which may then ask for another
        return state.last_action.copy(), kind

    def counts(self, lane: int) -> dict[str, int]:
        """The lane's counters since `begin`: chunks, network_calls, misses, and ticks by what was commanded."""
        state = self._state(lane)
        names = ("chunks", "network_calls", "misses", "answers", "rest", "held", "starved", "dropped", "abandoned")
        return {"ticks": state.tick, **{name: state.counts[name] for name in names}}

    def rungs(self, lane: int) -> dict[str, int]:
        """Ticks by the rung whose answer was played; "rest": by none, the rest or a held action. Empty without a
        ladder."""
        return dict(self._state(lane).rungs)

    def seam_jump_max(self, lane: int) -> float:
        """The most by which a command differed from the one before where an answer followed another, over the
        dimensions that `v_max` limits; 0 where it limits none."""
        return self._state(lane).seam_jump_max

    def _ask(self, lane: int, rung: int) -> None:
        """An answer of the lane is on its way from now on."""
        state = self._state(lane)
        name = self.policy.names[rung] if isinstance(self.policy, LadderPolicy) else ""
        state.in_flight, state.ticks_to_wait = Answer(asked_at_tick=state.tick, rung=rung, plan=name), UNKNOWN
        state.consumed = state.overdue = 0
        state.chunks += 1
        self._count(state, "chunks")

    def _give(self, lane: int, given: Given, latency_s: float | None, ticks: int) -> None:
        """What the answer on its way is, how long it took (None: nothing is charged and nothing entered), and the ticks
        between its question and the one from which it can be played."""
        state = self._state(lane)
        assert state.in_flight is not None, "asked before"
        refuse_not_finite(given.rows, self._where(lane))
        state.in_flight.rows, state.in_flight.steps = np.array(given.rows), given.steps
        state.ticks_to_wait = ticks - (state.tick - state.in_flight.asked_at_tick)
        state.delays.append(ticks)
        self._count(state, "network_calls", given.calls)
        if latency_s is not None:
            if state.ladder is not None:
                state.ladder.took(state.in_flight.rung, latency_s / given.share)
            self.ledger.record("chunk", latency_s)
            self.ledger.record("inference", latency_s)
        self._land(state)

    def _land(self, state: Lane) -> None:
        """Make the answer in flight the current one when its wait is over."""
        new, old = state.in_flight, state.current
        if new is None or state.ticks_to_wait > 0:
            return
        continues = isinstance(self.policy, FollowingPolicy) and self.policy.continues
        if continues and old is not None and old.left:
            return  # its rows come after these
        state.in_flight = None
        is_late = old is not None and state.overdue > 0 and not continues  # of a queue no row may be missing
        state.has_dropped = self.overlap.late == "drop" and is_late and not state.has_dropped
        if state.has_dropped:
            self._count(state, "dropped")
            return
        self._enter(state, new, 0 if continues else state.consumed)
        if old is not None and self.overlap.stitch == "blend" and state.consumed and not continues:
            left = old.rows[old.next_row :]
            new.rows[new.next_row :] = blended(left, new.rows[new.next_row :], self.switches)
        state.current = new
        state.is_at_seam = old is not None
        state.is_behind = old is not None and self.overlap.stitch is not None

    def _enter(self, state: Lane, answer: Answer, row: int) -> None:
        """Play from `row` on. Up to row Ta; where that is past, the tail, so that a late answer counts. Beside
        execution Ta rows, or as many as the next answer takes, whatever the row."""
        Ta, Th = answer.steps, len(answer.rows)
        answer.next_row = min(row, Th - 1)
        if self.overlap.stitch:
            answer.end = min(answer.next_row + max(Ta, self._lead(state)), Th)
        else:
            answer.end = Ta if answer.next_row < Ta else Th

    def _next_action(self, state: Lane) -> tuple[np.ndarray, Kind]:
        current = state.current
        is_over = current is None or not current.left
        if state.in_flight is not None:
            state.ticks_to_wait -= 1
            state.overdue += is_over
        if current is not None and not is_over:
            state.consumed += 1
            self._count(state, "answers")
            return current.take(), "answer"
        if current is not None and current.has_rest and self.overlap.late != "hold":
            state.consumed += 1
            self._count(state, "rest")
            return current.take(), "rest"
        self._count(state, "held")
        self._count(state, "starved")
        return self.hold(state.last_action), "held"

    def _within_limits(self, state: Lane, action: np.ndarray, kind: Kind) -> np.ndarray:
        """The command: the action, or since a seam what v_max allows of it until it has caught up. Holding is never
        limited: it must stop at once."""
        if not state.is_behind or kind == "held":
            return action
        command = limited(action, state.last_action, self.most).astype(np.float32)
        state.is_behind = not np.array_equal(command, action)
        return command

    def _count(self, state: Lane, event: str, n: int = 1) -> None:
        state.counts[event] += n
        self.ledger.count(event, n)

    def _state(self, lane: int) -> Lane:
        state = self._lanes[lane]
        if state is None:
            raise RuntimeError(f"lane {lane} has no episode: call begin() first")
        return state

    def _where(self, lane: int) -> str:
        return f"lane {lane}, seed {self._state(lane).seed}, tick {self._state(lane).tick}"

    def _judge(self, lane: int, latency_s: float) -> None:
        """Enter how late a charged answer was."""
        self.enter_lateness(lane, max(0, round((latency_s - self.budget.deadline_s) * 1e9)) / 1e9, "inference")

    def enter_lateness(self, lane: int, late_s: float, cause: str) -> None:
        """A deadline was met, late_s = 0, or missed by so much, and why."""
        self.ledger.record("lateness", late_s)
        if late_s:
            self._state(lane).counts["misses"] += 1
            self.ledger.miss(cause)
