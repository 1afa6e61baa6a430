import threading
from contextlib import ExitStack

import numpy as np
import pytest

from ontick.runtime import WallClock, load_budget
from ontick.runtime.wire.batching import Batcher

pytest.importorskip("websockets", reason="the wire needs the package websockets")
pytest.importorskip("msgpack", reason="the wire needs the package msgpack")

WAIT_S = 10


class Toy:
    """Answers with [sum of the newest observation, the lane's seed, its answers so far]; a full batch takes as long as
    one lane. `gate`, when cleared, holds it up; an observation of BROKEN makes it raise."""

    n_obs_steps, n_action_steps, observation_dim, action_dim, calls_per_chunk = 2, 2, 3, 3, 5
    BROKEN = 666.0

    def __init__(self, width=1, gate=None, takes_s=0.0, name="toy"):
        self.width, self.gate, self.takes_s, self.name = width, gate or threading.Event(), takes_s, name
        self.seeds, self.answers, self.asked, self.threads = {}, {}, [], set()
        if gate is None:
            self.gate.set()

    def reset(self, lanes, seeds):
        for lane, seed in zip(lanes, seeds, strict=True):
            self.seeds[lane], self.answers[lane] = seed, 0

    def adopt(self, lanes, last, answers):
        self.answers.update(zip(lanes, answers, strict=True))

    def predict_with_tail(self, obs, lanes):
        self.gate.wait(WAIT_S)
        self.threads.add(threading.current_thread().name)
        if (obs == self.BROKEN).any():
            raise RuntimeError("the device has burnt out")
        if self.takes_s:
            clock = WallClock()
            clock.sleep_until(clock.now() + self.takes_s)
        self.asked.append(tuple(lanes))
        rows = [self._row(seen, lane) for seen, lane in zip(obs, lanes, strict=True)]
        for lane in lanes:
            self.answers[lane] += 1
        return np.stack(rows)

    def predict_action_chunk(self, obs, lanes):
        return self.predict_with_tail(obs, lanes)[:, :2]

    def select_action(self, obs):
        raise NotImplementedError

    def _row(self, seen, lane):
        row = np.float32([seen[-1].sum(), self.seeds[lane], self.answers[lane]])
        return np.repeat(row[None], 4, 0)


def until(holds):
    clock = WallClock()
    end_s = clock.now() + WAIT_S
    while not holds() and clock.now() < end_s:
        clock.sleep_until(clock.now() + 0.005)
    assert holds()


@pytest.fixture
def toys():
    return Toy


@pytest.fixture
def eventually():
    return until


@pytest.fixture
def batcher():
    """batcher(make, ...) -> a warm batcher of toys, ended after the test."""
    with ExitStack() as stack:

        def begin(make=lambda width: [Toy(width)], names=("toy",), budget="cpu-20hz", **options):
            made = Batcher(make, names, load_budget(budget), **options)
            stack.enter_context(made)
            made.wait(WAIT_S)
            return made

        yield begin
