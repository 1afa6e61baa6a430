"""Where answers are computed: beside the loop that plays them, in a process or a thread of its own."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

import numpy as np

from .clock import Clock, WallClock
from .contracts import Policy
from .ladder import LadderPolicy
from .questions import Given, Question, answer

Computed = tuple[list[Given], float]  # an answer and the seconds that it took
WARM_UP = 3  # answers of a policy, or of each rung

_mine = threading.local()  # the policy of a worker, whose thread alone asks it


class Worker:
    """Computes one question at a time; a context manager.

        with Worker.process(make_policy) as worker:
            worker.reset([0], [7])
            pending = worker.ask(question)
            computed = worker.wait(pending, until_s)        # None while it is not there

    make_policy: makes the policy where it will be asked; picklable, for a process. The policy is warm when the block
    begins, which raises what making it raised.
    """

    def __init__(self, executor: Executor, make_policy: Callable[[], Policy], clock: Clock | None) -> None:
        self._executor, self._make_policy, self.clock = executor, make_policy, clock or WallClock()

    @classmethod
    def process(cls, make_policy: Callable[[], Policy], clock: Clock | None = None) -> Worker:
        """In a process of its own, whose work never holds up the loop's interpreter."""
        context = multiprocessing.get_context("spawn")
        return cls(ProcessPoolExecutor(1, context), make_policy, clock)

    @classmethod
    def thread(cls, make_policy: Callable[[], Policy], clock: Clock | None = None) -> Worker:
        """In a thread of this process."""
        return cls(ThreadPoolExecutor(1, "inference"), make_policy, clock)

    def __enter__(self) -> Worker:
        try:
            self._executor.submit(_begin, self._make_policy).result()
        except BaseException:
            self._executor.shutdown(cancel_futures=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin episodes in these lanes, after what is being computed."""
        self._executor.submit(_reset, list(lanes), list(seeds)).result()

    def ask(self, question: Question) -> Future[Computed]:
        """Begin to compute an answer."""
        return self._executor.submit(_compute, question)

    def wait(self, pending: Future[Computed], until_s: float | None) -> Computed | None:
        """The answer, if it is there by `until_s` on the clock; None: however long it takes. Raises what the policy
        raised."""
        try:
            return pending.result(None if until_s is None else max(0.0, until_s - self.clock.now()))
        except FutureTimeout:
            return None


def _begin(make_policy: Callable[[], Policy]) -> None:
    """Make the policy and give the first answers, which are slow, for nobody."""
    policy = _mine.policy = make_policy()
    policy.reset([0], [0])
    obs = np.zeros((1, policy.n_obs_steps, policy.observation_dim), np.float32)
    for rung in range(len(policy.rungs) if isinstance(policy, LadderPolicy) else 1):
        rungs = (rung,) if isinstance(policy, LadderPolicy) else None
        for _ in range(WARM_UP):
            answer(policy, Question((0,), obs, (0,), None, rungs))


def _reset(lanes: list[int], seeds: list[int]) -> None:
    _mine.policy.reset(lanes, seeds)


def _compute(question: Question) -> Computed:
    clock = WallClock()
    start_s = clock.now()
    given = answer(_mine.policy, question)
    return given, clock.now() - start_s
