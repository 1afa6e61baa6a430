"""A control loop on a clock: a command every period, whether or not the answer is there.

    every period, at t:
        take in the answer that has come meanwhile
        if an answer is wanted: ask a worker
        one after another:  wait for it until t + 0.7 deadline    (patient: however long it takes)
        beside execution:   do not wait
        command; observe

The command of a tick is late when it comes after t + deadline: that is a missed tick. Who is not patient misses
none, but for what the machine itself holds up.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from .clock import Clock
from .ladder import SPARE
from .loop import ControlLoop, Kind
from .worker import Computed, Worker


@dataclass
class RealTime:
    """Lane 0 of a control loop, its answers from a worker. `loop.charges` are not used: time is the clock's.

    patient: wait for each answer, as a controller does that has nothing else to command.
    """

    loop: ControlLoop
    worker: Worker
    clock: Clock
    patient: bool = False
    pending: Future[Computed] | None = None

    def begin(self, seed: int, observation: np.ndarray) -> None:
        """Begin an episode; what was being computed for the one before is waited for and thrown away. Garbage is
        collected here, where nothing is late: looking through all that a process holds takes longer than a deadline."""
        if self.pending is not None:
            self.worker.wait(self.pending, None)
            self.pending = None
        self.loop.begin(0, seed, observation, keeps_load=True)
        self.worker.reset([0], [seed])
        gc.collect()
        gc.freeze()

    def tick(self, start_s: float, step: Callable[[np.ndarray, Kind], np.ndarray | None]) -> float:
        """One tick that begins at `start_s`, which lies ahead or has just passed. step(action [Da], kind) commands and
        gives the next observation [Do], None where the episode is over. Returns how late the command was [s], 0 within
        the deadline."""
        self.clock.sleep_until(start_s)
        loop, deadline_s = self.loop, start_s + self.loop.budget.deadline_s
        self._collect(self.clock.now())
        if loop.wants_answer(0) and (question := loop.question([0])):
            loop.launch(question)
            self.pending = self.worker.ask(question)
        if self.pending is not None and not loop.overlap.stitch:
            self._collect(None if self.patient else start_s + (1 - SPARE) * loop.budget.deadline_s)
        action, kind = loop.act(0)
        late_s = max(0.0, self.clock.now() - deadline_s)
        loop.enter_lateness(0, late_s, "inference" if self.patient else "machine")
        observation = step(action, kind)
        if observation is not None:
            loop.observe(0, observation)
        return late_s

    def _collect(self, until_s: float | None) -> None:
        """Give the loop the answer, if it comes by then."""
        if self.pending is None or (computed := self.worker.wait(self.pending, until_s)) is None:
            return
        [given], seconds = computed
        self.loop.deliver(0, given, seconds)
        self.pending = None
