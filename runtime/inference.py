"""The process that computes answers: it takes the newest question and gives its answer, whatever happens to it.

    inference = Inference.start(open_source)        # a process of its own, warm when this returns
    inference.card                                  # what the policy is
    control(inference.questions, inference.answers)
    inference.stop()

`open_source` makes a `Source` where it will be asked: a policy on this machine, or a connection to a server.
"""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.process
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, RunFailed
from .card import PolicyCard, describe_policy
from .channel import FULL, REFUSED, Asked, Told, answer_dtype, question_dtype
from .child import ignore_interrupts, start_without_interrupts
from .clock import WallClock
from .contracts import Policy
from .faults import MEMORY, PAUSE, hold_objects
from .ladder import LadderPolicy
from .memory import Fitting, is_out_of_memory
from .questions import answer
from .rings import Ring

SLOTS = 8  # questions and answers that may wait; only the newest question is ever answered
IDLE_S = 0.2  # between two looks at whether it is still wanted
START_S, STOP_S = 300.0, 3.0  # a policy may have to be compiled


class Source(Protocol):
    """Where answers come from."""

    card: PolicyCard

    def answer(self, asked: Asked) -> Told:
        """The answer, or what became of the question; never raises for what may happen on a good day."""
        ...

    def close(self) -> None: ...


class LocalSource:
    """A policy in this process.

    A rung that runs out of memory is left, and the question is put to the next one: where none is left, the answer says
    so. After RETRY answers the dear ones are tried again.
    """

    def __init__(self, policy: Policy, card: PolicyCard) -> None:
        self.policy, self.card, self._clock = policy, card, WallClock()
        self._fitting = Fitting(len(card.plans))
        self._fails: Callable[[int], bool] = lambda rung: False

    def answer(self, asked: Asked) -> Told:
        if asked.begins:
            self.policy.reset([0], [asked.seed])
        for rung in self._fitting.tries(asked.question.rungs[0] if asked.question.rungs else 0):
            try:
                told = self._computed(asked, rung)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._fitting.failed(rung)
            else:
                self._fitting.answered()
                return told
        now_s = self._clock.now()
        return Told(asked.id, now_s, now_s - asked.time_s, 0.0, FULL, "no plan fits into memory")

    def fails(self, rungs: int) -> None:
        """From now on the first `rungs` run out of memory: a fault that is made."""
        self._fails = lambda rung: rung < rungs

    def close(self) -> None:
        """Nothing to let go of."""

    def _computed(self, asked: Asked, rung: int) -> Told:
        if self._fails(rung):
            raise MemoryError
        question = asked.question
        if isinstance(self.policy, LadderPolicy):
            question = question._replace(rungs=(rung,))
        start_s = self._clock.now()
        try:
            [given] = answer(self.policy, question)
        except InputError as error:
            now_s = self._clock.now()
            return Told(asked.id, now_s, now_s - asked.time_s, now_s - start_s, REFUSED, str(error), rung)
        now_s = self._clock.now()
        return Told(asked.id, now_s, now_s - asked.time_s, now_s - start_s, rung=rung, given=given)


def local_source(policy: Policy, plans: list[str], costs_s: list[float]) -> LocalSource:
    """A policy as a source: its first answers are given for nobody, on every rung, and tell how many rows they have."""
    obs = np.zeros((1, policy.n_obs_steps, policy.observation_dim), np.float32)
    rows = []
    for rung in range(len(plans)):
        policy.reset([0], [0])
        for _ in range(3):
            if isinstance(policy, LadderPolicy):
                policy.take([0], [rung])
            rows.append(policy.predict_with_tail(obs, [0]).shape[1])
    policy.reset([0], [0])
    return LocalSource(policy, describe_policy(policy, plans, costs_s, max(rows)))


@dataclass
class Inference:
    """The process, as its parent sees it. `fault`: what the parent tells it to do wrong."""

    process: multiprocessing.process.BaseProcess
    card: PolicyCard
    questions: Ring
    answers: Ring
    wake: Any  # a semaphore that is released with every question
    fault: Any
    _ended: Any
    _rings: Any

    @classmethod
    def start(cls, open_source: Callable[[], Source], holds_objects: bool = False) -> Inference:
        """holds_objects: for the fault that pauses it. Raises InputError and RunFailed as `open_source` did, and
        RunFailed where the process dies."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        wake, ended = context.Semaphore(0), context.Event()
        fault = context.Value("i", 0, lock=False)
        process = context.Process(
            target=_run,
            args=(open_source, holds_objects, theirs, wake, ended, fault),
            name="ontick-inference",
            daemon=True,
        )
        start_without_interrupts(process)
        theirs.close()
        try:
            if not ours.poll(START_S):
                raise RunFailed(f"the policy was not ready after {START_S:.0f} s")
            told = ours.recv()
        except EOFError:
            raise RunFailed(f"the inference process ended before it was ready (exit {process.exitcode})") from None
        except BaseException:
            process.kill()
            raise
        if isinstance(told, Exception):
            process.join(STOP_S)
            raise told
        card: PolicyCard = told
        questions, answers = Ring.create(question_dtype(card), SLOTS), Ring.create(answer_dtype(card), SLOTS)
        ours.send((questions, answers))
        return cls(process, card, questions, answers, wake, fault, ended, ours)

    def stop(self) -> None:
        """End the process and free the rings; again is no error."""
        self._ended.set()
        self.wake.release()
        self.process.join(STOP_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        for ring in (self.questions, self.answers):
            ring.close()
            ring.unlink()


def _run(open_source: Callable[[], Source], holds_objects: bool, pipe: Any, wake: Any, ended: Any, fault: Any) -> None:
    ignore_interrupts()
    _held = hold_objects() if holds_objects else []
    try:
        source = open_source()
    except (InputError, RunFailed) as error:
        pipe.send(error)
        return
    except Exception as error:  # whatever a foreign policy raises is told in one line, and by the parent
        pipe.send(RunFailed(f"the policy cannot be made: {type(error).__name__}: {error}"))
        return
    try:
        pipe.send(source.card)
        questions, answers = pipe.recv()
    except (EOFError, OSError):
        return
    try:
        _serve(source, questions, answers, wake, ended, fault)
    finally:
        source.close()
        questions.close()
        answers.close()


def _serve(source: Source, questions: Ring, answers: Ring, wake: Any, ended: Any, fault: Any) -> None:
    parent, clock = multiprocessing.parent_process(), WallClock()
    done = 0
    while not ended.is_set():
        if not wake.acquire(timeout=IDLE_S):
            if parent is not None and not parent.is_alive():
                return
            continue
        record = questions.newest()
        if record is None or record["id"] <= done:
            continue
        asked = Asked.of(record)
        done = asked.id
        if isinstance(source, LocalSource):
            source.fails(1 if fault.value == MEMORY else 0)
        if fault.value == PAUSE:
            gc.collect()
        answers.put(_answered(source, asked, answers.dtype, clock))


def _answered(source: Source, asked: Asked, dtype: np.dtype, clock: WallClock) -> np.void:
    """The answer's record. Whatever a foreign policy raises is told in one line, and the next question is answered."""
    try:
        return source.answer(asked).record(dtype)
    except Exception as error:  # of a foreign policy
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        now_s = clock.now()
        return Told(asked.id, now_s, now_s - asked.time_s, state=REFUSED, reason=reason).record(dtype)
