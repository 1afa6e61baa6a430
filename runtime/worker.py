"""Where answers are computed: beside the loop that plays them, in a process or a thread of its own."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

from .clock import Clock, WallClock
from .contracts import Policy
from .questions import Given, Question, answer

Computed = tuple[list[Given], float]  # an answer and the seconds that it took

_mine = threading.local()  # the policy of a worker, whose thread alone asks it


class Worker:
    """Computes one question at a time; a context manager.

        with Worker.process(make_policy) as worker:
            worker.reset([0], [7])
            pending = worker.ask(question)
            computed = worker.wait(pending, until_s)        # None while it is not there

    make_policy: makes the policy where it will be asked; picklable, for a process.
    """

    def __init__(self, executor: Executor, clock: Clock) -> None:
        self._executor, self.clock = executor, clock

    @classmethod
    def process(cls, make_policy: Callable[[], Policy], clock: Clock | None = None) -> Worker:
        """In a process of its own, whose work never holds up the loop's interpreter."""
        context = multiprocessing.get_context("spawn")
        return cls(ProcessPoolExecutor(1, context, _begin, (make_policy,)), clock or WallClock())

    @classmethod
    def thread(cls, make_policy: Callable[[], Policy], clock: Clock | None = None) -> Worker:
        """In a thread of this process."""
        return cls(ThreadPoolExecutor(1, "inference", _begin, (make_policy,)), clock or WallClock())

    def __enter__(self) -> Worker:
        self._executor.submit(_ready).result()
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
    _mine.policy = make_policy()


def _ready() -> None:
    """Done when the policy is made."""


def _reset(lanes: list[int], seeds: list[int]) -> None:
    _mine.policy.reset(lanes, seeds)


def _compute(question: Question) -> Computed:
    clock = WallClock()
    start_s = clock.now()
    given = answer(_mine.policy, question)
    return given, clock.now() - start_s
