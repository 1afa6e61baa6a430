"""A control loop on a clock. The clock is virtual and computing costs what a test says, so that every run is the
same."""

import functools
import time

import numpy as np
import pytest

from ontick.commands.families import checkpoint_for, parse_candidate, policy_maker
from ontick.errors import InputError
from ontick.runtime import ControlLoop, Overlap, VirtualClock, WallClock, load_budget
from ontick.runtime.ladder import LadderPolicy
from ontick.runtime.questions import answer
from ontick.runtime.realtime import RealTime
from ontick.runtime.worker import Worker

BUDGET = load_budget(period_ms=50, deadline_ms=40)


class Rows:
    """Row i of the n-th answer is (n, i)."""

    n_obs_steps, observation_dim, action_dim, calls_per_chunk = 1, 1, 2, 1

    def __init__(self, n_action_steps=2, horizon=8):
        self.n_action_steps, self.horizon, self.n = n_action_steps, horizon, 0

    def reset(self, lanes, seeds):
        self.n = 0

    def predict_with_tail(self, obs, lanes):
        self.n += 1
        rows = np.stack([np.full(self.horizon, self.n), np.arange(self.horizon)], -1)
        return np.repeat(rows[None], len(lanes), 0).astype(np.float32)

    predict_action_chunk = select_action = predict_with_tail


class Slow(Rows):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def predict_with_tail(self, obs, lanes):
        time.sleep(self.seconds)
        return super().predict_with_tail(obs, lanes)


class Pretended:
    """A worker that takes, on a virtual clock, what `seconds(answer number, rung)` says."""

    def __init__(self, policy, clock, seconds):
        self.policy, self.clock, self.seconds, self.asked = policy, clock, seconds, 0

    def reset(self, lanes, seeds):
        self.policy.reset(lanes, seeds)

    def ask(self, question):
        rung = 0 if question.rungs is None else question.rungs[0]
        took = self.seconds(self.asked, rung)
        self.asked += 1
        return self.clock.now() + took, answer(self.policy, question), took

    def wait(self, pending, until_s):
        done_s, given, took = pending
        if until_s is not None and done_s > until_s:
            self.clock.sleep_until(until_s)
            return None
        self.clock.sleep_until(done_s)
        return given, took


def driven(policy, seconds, ticks=40, overlap=None, patient=False):
    """The loop after so many ticks, what each played, and how late [s]."""
    clock = VirtualClock()
    loop = ControlLoop(policy, 1, lambda last: last, BUDGET, overlap=overlap)
    run = RealTime(loop, Pretended(policy, clock, seconds), clock, patient)
    run.begin(7, np.zeros(1))
    played, late_s = [], []

    def step(action, kind):
        played.append(("" if kind == "answer" else kind[0]) + f"{action[0]:g}:{action[1]:g}")
        return np.zeros(1)

    for i in range(ticks):
        late_s.append(run.tick(i * BUDGET.period_s, step))
    return loop, played, late_s


def test_answers_in_time_are_played_from_the_tick_that_asked():
    _loop, played, late_s = driven(Rows(), lambda n, rung: 0.025, ticks=5)
    assert played == ["1:0", "1:1", "2:0", "2:1", "3:0"] and not any(late_s)


def test_who_is_patient_commands_late_and_who_is_not_plays_the_rest():
    def slow(n, rung):
        return 0.025 if n == 0 else 0.12

    _, played, late_s = driven(Rows(), slow, ticks=6, patient=True)
    assert played[:4] == ["1:0", "1:1", "2:0", "2:1"] and max(late_s) >= 0.079
    loop, played, late_s = driven(Rows(), slow, ticks=8)
    assert played[:6] == ["1:0", "1:1", "r1:2", "r1:3", "2:2", "2:3"] and not any(late_s)
    assert loop.ledger.counter("misses") == 0


def test_beside_execution_nothing_is_waited_for_and_no_tick_starves():
    _loop, played, late_s = driven(Rows(4, 16), lambda n, rung: 0.13, overlap=Overlap("replace"))
    first = played.index("1:0")
    assert first == 3 and not any(late_s)
    assert all(tick[0] not in "rh" for tick in played[first:])


def test_a_late_answer_is_entered_by_the_rows_that_were_consumed():
    _, played, _ = driven(Rows(2, 16), lambda n, rung: 0.025 if n == 0 else 0.22, ticks=9)
    assert played == ["1:0", "1:1", "r1:2", "r1:3", "r1:4", "r1:5", "2:4", "2:5", "2:6"]


def test_the_ladder_serves_every_tick_through_a_load_that_comes_and_goes():
    """Ten times slower from the 20th answer to the 60th: the first loaded answer is covered by the rest of the one
    before, then a cheaper rung fits, and when the load is gone the dear one comes back."""
    rungs = [Rows(1, 8), Rows(1, 8), Rows(1, 8)]
    costs = (0.025, 0.010, 0.002)

    def seconds(n, rung):
        return costs[rung] * (10 if 20 <= n < 60 else 1)

    policy = LadderPolicy(["dear", "middle", "cheap"], rungs, costs)
    loop, _played, late_s = driven(policy, seconds, ticks=140)
    ticks = loop.rungs(0)
    assert not any(late_s) and loop.counts(0)["starved"] == 0
    assert sum(n for name, n in ticks.items() if name != "rest") >= 0.9 * 140
    assert ticks["dear"] > 40 and ticks["cheap"] > 20
    _alone, _, late_s = driven(Rows(1, 8), lambda n, rung: seconds(n, 0), ticks=140, patient=True)
    assert sum(late > 0 for late in late_s) > 30 and _alone.counts(0)["misses"] == sum(late > 0 for late in late_s)


def test_a_new_episode_begins_with_the_load_of_the_one_before():
    policy = LadderPolicy(["dear", "cheap"], [Rows(1, 8), Rows(1, 8)], (0.025, 0.002))
    clock = VirtualClock()
    loop = ControlLoop(policy, 1, lambda last: last, BUDGET)
    run = RealTime(loop, Pretended(policy, clock, lambda n, rung: (0.25, 0.02)[rung]), clock)
    for episode in range(2):
        run.begin(episode, np.zeros(1))
        for i in range(20):
            run.tick((20 * episode + i) * BUDGET.period_s, lambda action, kind: np.zeros(1))
    assert loop.rungs(0) == {"cheap": 20}
    loop.begin(0, 2, np.zeros(1))
    assert loop.question([0]).rungs == (0,), "in charged time an episode is independent of the one before"


def test_a_new_episode_throws_away_what_was_being_computed():
    clock = VirtualClock()
    policy = Rows()
    loop = ControlLoop(policy, 1, lambda last: last, BUDGET)
    run = RealTime(loop, Pretended(policy, clock, lambda n, rung: 0.5), clock)
    run.begin(7, np.zeros(1))
    run.tick(0.0, lambda action, kind: np.zeros(1))
    assert run.pending is not None
    run.begin(8, np.zeros(1))
    assert run.pending is None and loop.counts(0)["ticks"] == 0


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_worker_computes_what_the_policy_itself_answers(kind):
    candidate = parse_candidate("ddim-2")
    make = functools.partial(policy_maker(candidate, checkpoint_for("ontick/Avoid-v0", candidate, None)), 1)
    policy = make()
    loop = ControlLoop(policy, 1, lambda last: last, BUDGET)
    loop.begin(0, 7, np.zeros(policy.observation_dim))
    question = loop.question([0])
    [wanted] = answer(policy, question)
    with getattr(Worker, kind)(make) as worker:
        worker.reset([0], [7])
        [given], seconds = worker.wait(worker.ask(question), None)
    assert np.array_equal(given.rows, wanted.rows) and given[1:] == wanted[1:] and seconds > 0


def test_each_worker_asks_its_own_policy():
    with Worker.thread(lambda: Rows(2, 8)) as first, Worker.thread(lambda: Rows(2, 5)) as second:
        loop = ControlLoop(Rows(), 1, lambda last: last, BUDGET)
        loop.begin(0, 7, np.zeros(1))
        pending = [worker.ask(loop.question([0])) for worker in (first, second)]
        rows = [worker.wait(ask, None)[0][0].rows for worker, ask in zip((first, second), pending, strict=True)]
    assert [len(of) for of in rows] == [8, 5]


def test_a_policy_that_cannot_be_made_says_why():
    def make():
        raise InputError("no such checkpoint")

    with pytest.raises(InputError, match="no such checkpoint"), Worker.thread(make):
        pass


def test_who_waits_for_a_worker_waits_no_longer_than_told():
    with Worker.thread(functools.partial(Slow, 0.3)) as worker:
        worker.reset([0], [7])
        loop = ControlLoop(Rows(), 1, lambda last: last, BUDGET)
        loop.begin(0, 7, np.zeros(1))
        pending = worker.ask(loop.question([0]))
        assert worker.wait(pending, WallClock().now()) is None
        assert worker.wait(pending, None) is not None
