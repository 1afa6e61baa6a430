"""Inference for many clients: one thread, the oldest question first, as many lanes at once as pays and as fits.

Every client is a lane with at most one question. The thread takes the oldest question and those that may be computed
with it: of the same plan, and agreeing with rows or not. Of the widths that a batch can have, those whose measured cost
fits the deadline come into question, and the one that costs least a question is taken; where lanes side by side cost as
much as one after another, that is one after another. Once the oldest has waited for so long that no width keeps the
deadline, there is none left to keep: then every width comes into question with which the answers are still of use, for
the sooner the queue is done, the sooner deadlines are kept again.

A plan that runs out of memory is answered for by the next one, and a width by asking one lane at a time; both are tried
again after a while.

CUDA graphs belong to the thread that captured them, so policies are made, warmed and asked in this one.

Legend: L lanes asked, W widths, P plans, To, Do, Th, Da.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError, RunFailed
from ..budget import LatencyBudget
from ..clock import Clock, WallClock
from ..contracts import AdoptingPolicy, FollowingPolicy, Policy
from ..ladder import SPARE, LadderPolicy
from ..memory import Fitting, is_out_of_memory
from ..questions import Given, Question, answer, can_inpaint

WIDTHS = (1, 2, 4, 8, 16)
WARM_UP, LEAST, MOST, TIMING_S = 3, 10, 100, 0.3  # answers, answers, answers, seconds of a width and plan
STOP_S = 10.0
PAYS = 0.95  # of what a question costs alone: where a width saves less, no wider one is made
WIDEST = 10  # deadlines that the widest batch may last

MakePolicies = Callable[[int], Sequence[Policy]]  # width -> the policies of all plans, dearest first


class Late(Exception):
    """A question waited for longer than its answer is of use."""


class Full(Exception):
    """No plan fits into memory."""


@dataclass(eq=False)
class Asked:
    """A client's question. obs: [To, Do]; plan: which of the plans is to answer; seed: begin an episode with it first;
    behind, kept [m, Da], fixed: see `runtime.questions`; until_s: when the answer is of no use any more, on the clock;
    asked_s: when it came."""

    lane: int
    obs: np.ndarray
    asked_s: float
    until_s: float = np.inf
    plan: int = 0
    seed: int | None = None
    behind: int = 0
    kept: np.ndarray | None = None
    fixed: int = 0
    answered: Future[Answered] = field(default_factory=Future)


class Answered(NamedTuple):
    """device_s: from the question's turn to its answer, the device waited for; queued_s: before that; batch: lanes that
    were computed together; plan: which of the plans answered."""

    given: Given
    device_s: float
    queued_s: float
    batch: int
    plan: int


class Batcher:
    """Answers questions in a thread of its own; a context manager.

    make_policies: width -> the policies of the plans. budget: what a batch must keep. lanes: how many clients there can
    be. A policy that cannot take over a lane from another one, such as a queue, is asked for one lane at a time.
    """

    def __init__(
        self,
        make_policies: MakePolicies,
        names: Sequence[str],
        budget: LatencyBudget,
        lanes: int = 16,
        widths: Sequence[int] = WIDTHS,
        clock: Clock | None = None,
    ) -> None:
        self.names, self.budget, self.lanes, self.clock = tuple(names), budget, lanes, clock or WallClock()
        self._make_policies, self._wanted = make_policies, tuple(widths)
        self.widths: tuple[int, ...] = ()
        self.costs_s: dict[tuple[int, int], float] = {}  # (plan, width): at the budget's percentile
        self.medians_s: dict[tuple[int, int], float] = {}
        self.least_s: dict[tuple[int, int], float] = {}  # what widths are compared by: other programs only add to it
        self.batches: dict[int, int] = {}  # lanes computed together: how often
        self.late = 0
        self._fitting = Fitting(len(self.names))
        # Once it is ready: what a controller without the policy must know of it, as plain data.
        self.facts: dict[str, Any] = {}
        self._policy: Policy
        self._waiting: deque[Asked] = deque()
        self._changed = threading.Condition()
        self._ends = False
        self._begun: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="ontick-inference", daemon=True)

    def __enter__(self) -> Batcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join(STOP_S)

    @property
    def ready(self) -> bool:
        """Whether the policies are made and warm."""
        return self._begun.done() and self._begun.exception() is None

    def wait(self, timeout_s: float | None = None) -> None:
        """Until the policies are warm. Raises what making them raised, or TimeoutError."""
        self._begun.result(timeout_s)

    def ask(self, asked: Asked) -> Future[Answered]:
        """Put a question. Its future raises Late, Full, or what the policy raised; cancelled, it is not computed."""
        with self._changed:
            self._waiting.append(asked)
            self._changed.notify()
        return asked.answered

    def fits(self, plan: int, width: int) -> bool:
        """Whether a full batch of a width keeps the budget, with room for what the machine holds up."""
        return self.costs_s[plan, width] <= (1 - SPARE) * self.budget.deadline_s

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._begin()
        except BaseException as error:
            self._begun.set_exception(error)
            return
        self._begun.set_result(None)
        while (batch := self._next()) is not None:
            self._answer(batch)

    def _begin(self) -> None:
        """Make the policies of each width as long as they pay, and measure them."""
        rungs: list[Policy] = []
        names: list[str] = []
        for width in self._wanted:
            if self._ends:
                break
            if width > 1 and (width // 2 >= self.lanes or not self._may_widen(rungs)):
                break
            try:
                policies = self._made(width)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if width > 1:  # the narrower ones serve
                    break
                told = " ".join(str(error).split())[:200] or type(error).__name__
                raise RunFailed(
                    f"no memory for {', '.join(self.names)} ({told}); serve fewer or smaller plans"
                ) from None
            rungs += policies
            names += [f"{name}, {width} wide" for name in self.names]
            self.widths = (*self.widths, width)
        self._wide = Fitting(len(self.widths))
        self._ladder = len(rungs) > 1
        # LadderPolicy hands a lane over where another width or plan gave its last answer; costs are ours.
        self._policy = LadderPolicy(names, rungs, [1.0] * len(rungs)) if self._ladder else rungs[0]
        self.facts = self._told()

    def _told(self) -> dict[str, Any]:
        policy, narrowest = self._policy, self.widths[0]
        return {
            "plan": self.names[0],
            "plans": list(self.names),
            "n_obs_steps": policy.n_obs_steps,
            "n_action_steps": policy.n_action_steps,
            "observation_dim": policy.observation_dim,
            "action_dim": policy.action_dim,
            "rows": self.rows,
            "can_inpaint": can_inpaint(policy),
            "continues": isinstance(policy, FollowingPolicy) and policy.continues,
            # Near equals may have been measured the wrong way round.
            "costs_s": np.minimum.accumulate([self.costs_s[p, narrowest] for p in range(len(self.names))]).tolist(),
        }

    def _made(self, width: int) -> list[Policy]:
        policies = list(self._make_policies(width))
        if len(policies) != len(self.names):
            raise InputError(f"got {len(policies)} policies for the plans {', '.join(self.names)}")
        for plan, policy in enumerate(policies):
            self._measure(plan, width, policy)
        return policies

    def _may_widen(self, rungs: Sequence[Policy]) -> bool:
        """Whether a wider batch can be asked, and the widest so far costs less a question than asking alone."""
        for policy in rungs:
            if (isinstance(policy, FollowingPolicy) and policy.continues) or not isinstance(policy, AdoptingPolicy):
                return False
        first, width = self.widths[0], self.widths[-1]
        if width == first:
            return True
        for plan in range(len(self.names)):
            cost_s = self.least_s[plan, width]
            if cost_s <= WIDEST * self.budget.deadline_s and cost_s / width <= PAYS * self.least_s[plan, first]:
                return True
        return False

    def _measure(self, plan: int, width: int, policy: Policy) -> None:
        """What an answer of a full batch costs."""
        lanes = list(range(width))
        obs = np.zeros((width, policy.n_obs_steps, policy.observation_dim), np.float32)
        policy.reset(lanes, lanes)
        for _ in range(WARM_UP):
            rows = policy.predict_with_tail(obs, lanes)
        self.rows = rows.shape[1] if not self.widths and plan == 0 else min(self.rows, rows.shape[1])
        times_s: list[float] = []
        while len(times_s) < LEAST or (len(times_s) < MOST and sum(times_s) < TIMING_S):
            start_s = self.clock.now()
            policy.predict_with_tail(obs, lanes)
            times_s.append(self.clock.now() - start_s)
        policy.reset(lanes, lanes)
        self.costs_s[plan, width] = float(np.percentile(times_s, self.budget.percentile))
        self.medians_s[plan, width], self.least_s[plan, width] = float(np.median(times_s)), min(times_s)

    def _width(self, plan: int, waiting: int, waited_s: float = 0.0, left_s: float = np.inf) -> int:
        """The width that costs least a question. waited_s: of the oldest; left_s: how long answers are of use still."""
        widths = self.widths[: len(self._wide.tries())]
        if waited_s + self.costs_s[plan, widths[0]] > self.budget.deadline_s:
            fitting = [width for width in widths if self.costs_s[plan, width] <= (1 - SPARE) * left_s]
        else:
            fitting = [width for width in widths if self.fits(plan, width)]
        return min(fitting or widths[:1], key=lambda width: (self.least_s[plan, width] / min(width, waiting), width))

    def _next(self) -> list[Asked] | None:
        """The questions to answer together; None at the end."""
        with self._changed:
            while not self._ends:
                self._drop()
                if self._waiting:
                    return self._take()
                self._changed.wait()
            for asked in self._waiting:
                asked.answered.cancel()
            return None

    def _drop(self) -> None:
        """Leave out what nobody waits for any more."""
        now_s, kept = self.clock.now(), deque()
        for asked in self._waiting:
            if asked.answered.cancelled():
                continue
            if now_s <= asked.until_s:
                kept.append(asked)
                continue
            self.late += 1
            waited_ms, of_use_ms = ((to_s - asked.asked_s) * 1e3 for to_s in (now_s, asked.until_s))
            _tell(asked, Late(f"waited {waited_ms:.1f} ms, its answer is of use for {of_use_ms:.1f} ms"))
        self._waiting = kept

    def _take(self) -> list[Asked]:
        first = self._waiting[0]
        like = [asked for asked in self._waiting if _kind(asked) == _kind(first)]
        now_s = self.clock.now()
        left_s = min(asked.until_s for asked in like) - now_s
        batch = like[: self._width(first.plan, len(like), now_s - first.asked_s, left_s)]
        for asked in batch:
            self._waiting.remove(asked)
        return batch

    def _answer(self, batch: list[Asked]) -> None:
        batch = [asked for asked in batch if asked.answered.set_running_or_notify_cancel()]
        if not batch:
            return None
        if len(batch) == 1:
            return self._answer_alone(batch[0])
        start_s, plan = self.clock.now(), self._fitting.tries(batch[0].plan)[0]
        try:
            given = self._compute(batch, plan)
        except Exception as error:  # of a foreign policy
            if is_out_of_memory(error):
                self._wide.failed(len(self.widths) - 1 - self.widths.index(self._wide_enough(len(batch))))
            for asked in batch:  # whose question it was shows when each is asked alone
                self._answer_alone(asked)
            return None
        return self._deliver(batch, given, start_s, plan)

    def _answer_alone(self, asked: Asked) -> None:
        start_s = self.clock.now()
        for plan in self._fitting.tries(asked.plan):
            try:
                given = self._compute([asked], plan)
            except Exception as error:  # of a foreign policy: its client is told
                if not is_out_of_memory(error):
                    return _tell(asked, error)
                self._fitting.failed(plan)
            else:
                return self._deliver([asked], given, start_s, plan)
        return _tell(asked, Full("no plan fits into memory"))

    def _deliver(self, batch: list[Asked], given: list[Given], start_s: float, plan: int) -> None:
        device_s, n = self.clock.now() - start_s, len(batch)
        self.batches[n] = self.batches.get(n, 0) + 1
        self._fitting.answered()
        self._wide.answered()
        for asked, one in zip(batch, given, strict=True):
            _tell(asked, Answered(one, device_s, start_s - asked.asked_s, n, plan))

    def _wide_enough(self, lanes: int) -> int:
        return next((width for width in self.widths if width >= lanes), self.widths[-1])

    def _compute(self, batch: list[Asked], plan: int) -> list[Given]:
        fresh = [asked for asked in batch if asked.seed is not None]
        if fresh:
            self._policy.reset([asked.lane for asked in fresh], [int(asked.seed or 0) for asked in fresh])
            for asked in fresh:
                asked.seed = None  # once, even where it is asked again alone
        lanes, width = tuple(asked.lane for asked in batch), self._wide_enough(len(batch))
        rungs = (self.widths.index(width) * len(self.names) + plan,) * len(batch) if self._ladder else None
        kept = None
        if batch[0].kept is not None:
            kept = tuple((asked.kept, asked.fixed) for asked in batch if asked.kept is not None)
        obs = np.stack([asked.obs for asked in batch])
        return answer(self._policy, Question(lanes, obs, tuple(asked.behind for asked in batch), kept, rungs))


def _kind(asked: Asked) -> tuple[int, bool]:
    return asked.plan, asked.kept is not None


def _tell(asked: Asked, what: Answered | Exception) -> None:
    try:
        if isinstance(what, Exception):
            asked.answered.set_exception(what)
        else:
            asked.answered.set_result(what)
    except InvalidStateError:
        pass  # whoever asked has left
