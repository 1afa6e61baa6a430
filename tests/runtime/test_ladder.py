"""The ladder: which rung fits, what it learns of the load, and that a change of rung breaks nothing."""

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import Charge, ControlLoop, Overlap, load_budget, measured_costs
from ontick.runtime.ladder import Ladder, LadderPolicy

BUDGET = load_budget(period_ms=50, deadline_ms=40)


class Counting:
    """Row i of the n-th answer of a lane is (number, i); it notes what it is told."""

    n_obs_steps, observation_dim, action_dim, calls_per_chunk, continues = 1, 1, 2, 4, False
    usual_calls = 4

    def __init__(self, number, n_action_steps=2, horizon=8):
        self.number, self.n_action_steps, self.horizon = number, n_action_steps, horizon
        self.adopted, self.followed = [], []

    def reset(self, lanes, seeds):
        self.adopted, self.followed = [], []

    def adopt(self, lanes, last, answers):
        self.adopted.append((list(lanes), [rows.tolist() for rows in last], list(answers)))

    def follow(self, lanes, rows):
        self.followed.append((list(lanes), list(rows)))

    def calls_of(self, lane):
        return self.calls_per_chunk

    def predict_with_tail(self, obs, lanes):
        rows = np.stack([np.full(self.horizon, self.number), np.arange(self.horizon)], -1)
        return np.repeat(rows[None], len(lanes), 0).astype(np.float32)

    predict_action_chunk = select_action = predict_with_tail


class Steps(Charge):
    """The n-th answer of an episode takes the n-th time [s], the last one from then on."""

    def __init__(self, *latencies_s):
        super().__init__([1.0])
        self.times = latencies_s

    def latency_s(self, seed, chunk_index):
        return self.times[min(chunk_index, len(self.times) - 1)]


def test_the_dearest_rung_that_fits_is_taken():
    ladder = Ladder([0.025, 0.010, 0.002])
    assert [ladder.choose(left) for left in (0.04, 0.02, 0.005, 0.001)] == [0, 1, 2, 2], "the cheapest where none fits"


def test_load_seen_on_one_rung_counts_for_all_and_is_forgotten_after_answers_without_it():
    ladder = Ladder([0.025, 0.010, 0.002])
    ladder.took(0, 0.060)
    assert ladder.choose(0.04) == 1
    for _ in range(20):
        assert ladder.choose(0.04) == 1, "the worst of the last answers decides"
        ladder.took(1, 0.010)
    assert ladder.choose(0.04) == 0


def test_a_machine_faster_than_measured_is_no_reason_to_take_a_dearer_rung():
    ladder = Ladder([0.050, 0.010])
    ladder.took(1, 0.001)
    assert ladder.choose(0.04) == 1


@pytest.mark.parametrize("costs", [[], [0.01, 0.02]])
def test_rungs_that_do_not_get_cheaper_are_refused(costs):
    with pytest.raises(InputError, match="dearest first"):
        Ladder(costs)


def test_a_queue_is_refused():
    queue = Counting(1)
    queue.continues = True
    with pytest.raises(InputError, match="cannot take over"):
        LadderPolicy(["diagonal-1"], [queue], [0.01])


def laddered(*charges, costs=(0.025, 0.010), ticks=40):
    rungs = [Counting(1), Counting(2)]
    policy = LadderPolicy(["dear", "cheap"], rungs, costs)
    loop = ControlLoop(policy, 1, lambda last: last, BUDGET, list(charges))
    loop.begin(0, 7, np.zeros(1))
    played = []
    for _ in range(ticks):
        loop.think()
        action, kind = loop.act(0)
        played.append((kind, *action.astype(int).tolist()))
        loop.observe(0, np.zeros(1))
    return loop, rungs, played


def test_with_room_for_the_top_rung_it_is_the_plan_itself():
    loop, rungs, played = laddered(Steps(0.025), Steps(0.01))
    plain = ControlLoop(Counting(1), 1, lambda last: last, BUDGET, Steps(0.025))
    plain.begin(0, 7, np.zeros(1))
    alone = []
    for _ in range(40):
        plain.think()
        action, kind = plain.act(0)
        alone.append((kind, *action.astype(int).tolist()))
        plain.observe(0, np.zeros(1))
    assert played == alone and loop.rungs(0) == {"dear": 40} and not rungs[0].adopted


def test_a_load_costs_one_late_answer_and_then_the_cheaper_rung_is_in_time():
    loop, _, _played = laddered(Steps(0.025, 0.025, 0.09, 0.03), Steps(0.025), ticks=24)
    assert loop.counts(0)["misses"] == 1
    assert loop.rungs(0)["cheap"] >= 4
    assert loop.counts(0)["starved"] == 0, "the rest of the answer before covers the late one"


def test_where_no_rung_fits_the_rest_is_played_then_held_until_the_cheapest_answers():
    loop, _, played = laddered(Steps(0.025, 0.5), Steps(0.9, 0.9, 0.3, 0.02), ticks=200)
    kinds = [kind for kind, *_ in played]
    assert kinds[2] == "rest" and "held" in kinds and loop.rungs(0)["rest"] > 5
    assert set(kinds[-20:]) == {"answer"}, "when the load is gone it answers in time again"


def test_a_rung_is_told_another_rungs_answer_before_it_follows_from_it():
    _, rungs, _ = laddered(Steps(0.025, 0.09), Steps(0.01), ticks=20)
    _dear, cheap = rungs
    lanes, [rows], answers = cheap.adopted[0]
    assert lanes == [0] and rows[3] == [1, 3] and answers == [2]
    assert len(cheap.adopted) == 1, "once: from then on it follows from its own"
    assert len(cheap.followed) >= 1


@pytest.mark.parametrize("stitch", ["replace", "blend"])
def test_a_change_of_rung_breaks_no_seam(stitch):
    v_max = np.array([30.0, np.inf])  # 1.5 a tick; the rungs' answers are 100 apart in the first dimension
    policy = LadderPolicy(["dear", "cheap"], [Counting(100), Counting(200)], (0.025, 0.010))
    charges = [Steps(0.025, 0.09), Steps(0.01)]
    loop = ControlLoop(policy, 1, lambda last: last, BUDGET, charges, None, Overlap(stitch), v_max)
    loop.begin(0, 7, np.zeros(1), neutral=np.array([100.0, 0.0]))
    commands = [loop.act(0)[0] for _ in range(40) if loop.think() is not None and loop.observe(0, np.zeros(1)) is None]
    assert loop.rungs(0)["dear"] and loop.rungs(0)["cheap"]
    assert np.abs(np.diff(np.array(commands)[:, 0])).max() <= 1.5 + 1e-4


@pytest.mark.parametrize("change", [{"n_obs_steps": 2}, {"action_dim": 3}])
def test_rungs_that_see_or_answer_other_shapes_are_refused(change):
    other = Counting(2)
    vars(other).update(change)
    with pytest.raises(InputError, match="other shapes"):
        LadderPolicy(["dear", "cheap"], [Counting(1), other], (0.025, 0.010))


def test_each_rung_needs_a_charge():
    policy = LadderPolicy(["dear", "cheap"], [Counting(1), Counting(2)], (0.025, 0.010))
    with pytest.raises(InputError, match="1 charges for 2 plans"):
        ControlLoop(policy, 1, lambda last: last, BUDGET, [Charge.none()])
    loop = ControlLoop(policy, 1, lambda last: last, BUDGET)
    loop.begin(0, 7, np.zeros(1))
    assert loop.think() == [0]


def test_costs_are_measured_rung_by_rung():
    costs_s = measured_costs([Counting(1), Counting(2)], BUDGET, n=5)
    assert len(costs_s) == 2 and all(0 < cost < 0.1 for cost in costs_s)


def test_ticks_are_counted_by_rung():
    loop, _, played = laddered(Steps(0.025, 0.09), Steps(0.01), ticks=30)
    counted = loop.rungs(0)
    for name, number in (("dear", 1), ("cheap", 2)):
        assert counted[name] == sum(kind == "answer" and first == number for kind, first, _ in played)
    assert sum(counted.values()) == 30
