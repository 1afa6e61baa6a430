"""Evaluation: the same seeds for every plan, in worker processes, the same result for any number of them.

Each worker holds environments and a copy of the policy, at the same batch width whatever the number of workers, and
takes the next episode whenever a lane is free. Nothing an episode depends on is shared.
"""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from ..errors import InputError, RunFailed
from ..runtime import Charge, LatencyBudget, Ledger, Overlap, Policy
from .disturbances import Disturbance, make_disturbed
from .episodes import Episode, play
from .tasks import find_task

LANES = 16  # environments a worker plays at once, and the width of every policy call

PolicyMaker = Callable[[int], Policy]  # width -> policy; picklable, called in the worker


@dataclass(frozen=True)
class Job:
    """One row of an evaluation: a task, a policy, the episodes' seeds and what disturbs them."""

    task: str
    make_policy: PolicyMaker
    seeds: tuple[int, ...]
    budget: LatencyBudget
    charges: tuple[Charge, ...] = (Charge.none(),)  # of each rung, where the policy is a ladder
    disturbance: Disturbance = field(default_factory=Disturbance)
    overlap: Overlap = field(default_factory=Overlap)


class Evaluator:
    """Worker processes that play jobs one after another; a context manager.

    with Evaluator(workers=2) as evaluator:
        episodes, ledger = evaluator.run(job, on_episode=lambda episode: bar.update())
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError(f"got {workers} workers, wanted at least 1")
        context = multiprocessing.get_context("spawn")
        self._broken = False
        self._next = context.Value("q", 0)
        self._results: Any = context.Queue()
        self._inboxes = [context.SimpleQueue() for _ in range(workers)]
        self._workers = [
            context.Process(target=_work, args=(inbox, self._results, self._next), daemon=True)
            for inbox in self._inboxes
        ]

    def __enter__(self) -> "Evaluator":
        with _one_thread():
            for worker in self._workers:
                worker.start()
        for _ in self._workers:  # so that nothing that is timed next runs beside their start
            self._take()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()

    def run(
        self, job: Job, on_episode: Callable[[Episode], None] = lambda episode: None
    ) -> tuple[list[Episode], Ledger]:
        """Play all seeds of a job; the episodes in the order of their seeds, and the workers' ledgers merged.

        Raises InputError for what is wrong with the job, RunFailed where a worker broke.
        """
        if self._broken:
            raise RunFailed("an earlier job of this evaluator failed, its workers may still be at it; start another")
        self._broken = True  # until this one has ended well
        self._next.value = 0
        for inbox in self._inboxes:
            inbox.put(job)
        episodes: dict[int, Episode] = {}
        ledger, busy = Ledger(), len(self._workers)
        while busy:
            kind, value = self._take()
            if kind == "episode":
                episodes[value.index] = value
                on_episode(value)
            elif kind == "ledger":
                ledger.merge(Ledger.from_dict(value))
                busy -= 1
            else:
                raise (InputError if kind == "input" else RunFailed)(value)
        self._broken = False
        return [episodes[i] for i in range(len(job.seeds))], ledger

    def _take(self) -> tuple[str, Any]:
        while True:
            try:
                return self._results.get(timeout=1.0)
            except queue.Empty:
                dead = [worker for worker in self._workers if not worker.is_alive()]
                if dead:
                    raise RunFailed(
                        f"a worker ended with code {dead[0].exitcode} in the middle of an episode (out of memory?); "
                        "finished rows are kept, run the same command again with fewer --workers"
                    ) from None


def _work(inbox: Any, results: Any, following: Any) -> None:
    """A worker process: play jobs until terminated. Environments are kept from one job to the next."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    results.put(("ready", None))
    envs: dict[tuple[str, Disturbance], list[gymnasium.Env]] = {}
    while True:
        job: Job = inbox.get()
        ledger = Ledger()
        try:
            task = find_task(job.task)
            lanes = envs.setdefault((job.task, job.disturbance), [])
            wanted = min(LANES, len(job.seeds))
            lanes.extend(make_disturbed(task, job.disturbance) for _ in range(wanted - len(lanes)))
            todo = _share(job.seeds, following)
            policy, played = job.make_policy(LANES), lanes[:wanted]
            for episode in play(task, policy, played, todo, job.budget, job.charges, ledger, job.overlap):
                results.put(("episode", episode))
            results.put(("ledger", ledger.to_dict()))
        except InputError as error:
            results.put(("input", str(error)))
        except Exception:  # whatever broke is told to the parent, which ends the run
            results.put(("failed", "a worker broke: " + " | ".join(traceback.format_exc().strip().splitlines()[-3:])))


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers; they notice by themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _share(seeds: Sequence[int], following: Any) -> Iterator[tuple[int, int]]:
    """(index, seed) of the next episode that no worker has taken yet."""
    while True:
        with following.get_lock():
            index = following.value
            following.value = index + 1
        if index >= len(seeds):
            return
        yield index, seeds[index]


class _one_thread:
    """Workers start with one thread each: results then cannot depend on how many cores a machine has, and workers
    do not fight for them."""

    NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

    def __enter__(self) -> None:
        self._saved = {name: os.environ.get(name) for name in self.NAMES}
        os.environ.update(dict.fromkeys(self.NAMES, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
