"""A policy that answers with (chunk number, row index) shows which row of which answer every tick plays."""

from itertools import pairwise

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import Charge, ControlLoop, FollowingPolicy, Ledger, Policy, load_budget

BUDGET = load_budget(period_ms=20, deadline_ms=8)
TICK_S = BUDGET.period_s


class Rows:
    """Actions [chunk, row], chunks counted from 1 in each lane."""

    n_obs_steps, observation_dim, action_dim, calls_per_chunk = 2, 3, 2, 10

    def __init__(self, n_action_steps: int, horizon: int):
        self.n_action_steps, self.horizon = n_action_steps, horizon
        self.chunks: dict[int, int] = {}
        self.asked: list[tuple[list[int], np.ndarray]] = []

    def reset(self, lanes, seeds):
        self.chunks.update(dict.fromkeys(lanes, 0))

    def predict_with_tail(self, obs, lanes):
        self.asked.append((list(lanes), obs.copy()))
        answers = []
        for lane in lanes:
            self.chunks[lane] += 1
            answers.append([(self.chunks[lane], row) for row in range(self.horizon)])
        return np.array(answers, dtype=np.float32)

    def predict_action_chunk(self, obs, lanes):
        return self.predict_with_tail(obs, lanes)[:, : self.n_action_steps]

    def select_action(self, obs):
        return self.predict_action_chunk(obs[:, None], range(len(obs)))[:, 0]


class Following(Rows):
    """Notes what it is told; its first answer costs 10 network calls, each later one 3."""

    calls_per_chunk, continues, usual_calls = 3, False, 3

    def __init__(self, n_action_steps: int, horizon: int):
        super().__init__(n_action_steps, horizon)
        self.told: list[tuple[list[int], list[int]]] = []

    def follow(self, lanes, rows):
        assert len(self.told) == len(self.asked), "told once, before the question"
        self.told.append((list(lanes), list(rows)))

    def calls_of(self, lane):
        return 10 if self.chunks[lane] == 1 else 3


class Latencies(Charge):
    """Charges the n-th chunk of every episode the n-th number of ticks (the last one from then on)."""

    def __init__(self, *ticks: int):
        super().__init__([1.0])
        self.ticks = ticks

    def latency_s(self, seed, chunk_index):
        return self.ticks[min(chunk_index, len(self.ticks) - 1)] * TICK_S


def same(action):
    return action


def make(policy, charge=None, lanes=1, hold=same, ledger=None):
    loop = ControlLoop(policy, lanes, hold, BUDGET, charge, ledger)
    for lane in range(lanes):
        loop.begin(lane, 100 + lane, np.zeros(3))
    return loop


def run(loop, ticks, lane=0):
    """["2:5", ...]: the row 5 of chunk 2; "r" before rest, "h" before held."""
    played = []
    for _ in range(ticks):
        loop.think()
        action, kind = loop.act(lane)
        played.append({"answer": "", "rest": "r", "held": "h"}[kind] + f"{action[0]:g}:{action[1]:g}")
        loop.observe(lane, np.zeros(3))
    return played


def test_the_fake_policy_keeps_the_contract():
    assert isinstance(Rows(4, 8), Policy)


def test_in_time_every_chunk_is_played_to_its_last_row_and_then_asked_for_again():
    loop = make(Rows(3, 8))
    assert run(loop, 7) == ["1:0", "1:1", "1:2", "2:0", "2:1", "2:2", "3:0"]
    counts = {"ticks": 7, "answers": 7, "chunks": 3, "network_calls": 30}
    assert loop.counts(0) == counts | dict.fromkeys(("misses", "rest", "held", "starved", "dropped", "abandoned"), 0)


def test_an_answer_two_ticks_late_is_entered_where_the_rest_of_the_one_before_ends():
    loop = make(Rows(4, 8), Latencies(0, 2))
    assert run(loop, 12) == [
        *("1:0", "1:1", "1:2", "1:3"),
        *("r1:4", "r1:5", "2:2", "2:3"),
        *("r2:4", "r2:5", "3:2", "3:3"),
    ]


def test_held_ticks_consume_no_row():
    # The rest has 2 rows and the answer takes 4 ticks: 2 rest, 2 held, and the new answer starts at row 2.
    loop = make(Rows(4, 6), Latencies(0, 4))
    assert run(loop, 10) == ["1:0", "1:1", "1:2", "1:3", "r1:4", "r1:5", "h1:5", "h1:5", "2:2", "2:3"]
    assert loop.counts(0)["starved"] == loop.counts(0)["held"] == 2


def test_before_the_first_answer_the_neutral_action_is_held():
    policy = Rows(2, 4)
    loop = ControlLoop(policy, 1, same, BUDGET, Latencies(2))
    loop.begin(0, 7, np.zeros(3), neutral=np.array([-1.0, -2.0]))
    assert run(loop, 4) == ["h-1:-2", "h-1:-2", "1:0", "1:1"]


def test_holding_asks_the_caller_what_it_means():
    loop = make(Rows(2, 2), Latencies(0, 1), hold=lambda last: last * 0)
    assert run(loop, 5) == ["1:0", "1:1", "h0:0", "2:0", "2:1"]


def test_a_policy_slower_than_its_chunk_still_plays_the_rows_that_remain():
    # The rest lasts longer than a chunk, so the answer arrives past its row Ta.
    loop = make(Rows(2, 6), Latencies(0, 3))
    played = run(loop, 12)
    assert played == [
        *("1:0", "1:1", "r1:2", "r1:3", "r1:4"),
        *("2:3", "2:4", "2:5"),
        *("h2:5", "h2:5", "h2:5", "3:0"),
    ]


def test_an_answer_shorter_than_the_rest_it_replaces_plays_its_last_row():
    class Shrinking(Rows):
        def predict_with_tail(self, obs, lanes):
            rows = super().predict_with_tail(obs, lanes)
            self.horizon = 4
            return rows

    played = run(make(Shrinking(2, 8), Latencies(0, 6)), 9)
    assert played[2:] == ["r1:2", "r1:3", "r1:4", "r1:5", "r1:6", "r1:7", "2:3"]


@pytest.mark.parametrize("ticks_late", [1, 5, 50])
@pytest.mark.parametrize(("n_action_steps", "horizon"), [(1, 1), (1, 16), (4, 4), (8, 16)])
def test_however_slow_a_policy_every_answer_plays_at_least_one_row(n_action_steps, horizon, ticks_late):
    loop = make(Rows(n_action_steps, horizon), Latencies(ticks_late))
    played = run(loop, 6 * (ticks_late + horizon))
    answered = {tick.split(":")[0] for tick in played if tick[0] not in "rh"}
    assert len(answered) >= 4
    assert answered >= {str(chunk) for chunk in range(1, loop.counts(0)["chunks"])}


@pytest.mark.parametrize("ticks_late", range(9))
def test_no_row_is_skipped_that_was_not_played(ticks_late):
    played = run(make(Rows(4, 9), Latencies(0, ticks_late)), 60)
    rows = [int(tick.split(":")[1]) for tick in played if tick[0] != "h"]
    for before, after in pairwise(rows):
        assert after <= before + 1, "a row follows the one before, or an answer starts at its front"


def test_the_history_is_padded_with_the_first_observation_and_then_slides():
    policy = Rows(1, 1)
    loop = ControlLoop(policy, 1, same, BUDGET)
    loop.begin(0, 7, np.full(3, 1.0))
    for value in (2.0, 3.0):
        loop.think()
        loop.act(0)
        loop.observe(0, np.full(3, value))
    loop.think()
    assert [obs[0, :, 0].tolist() for _, obs in policy.asked] == [[1, 1], [1, 2], [2, 3]]
    assert policy.asked[0][1].dtype == np.float32


def test_all_lanes_that_want_an_answer_are_asked_in_one_call_in_order():
    policy = Rows(2, 2)
    loop = make(policy, lanes=3)
    assert loop.think([2, 0]) == [0, 2] and loop.think() == [1] and loop.think() == []
    assert [lanes for lanes, _ in policy.asked] == [[0, 2], [1]]


def test_a_lane_plays_the_same_whatever_lanes_run_beside_it():
    charge = Charge(np.linspace(0.0, 0.1, 57))

    def episodes(lanes: list[int]) -> dict[int, list[str]]:
        loop = make(Rows(4, 8), charge, lanes=3)
        played = {lane: [] for lane in lanes}
        for _ in range(60):
            loop.think(lanes)
            for lane in lanes:
                action, kind = loop.act(lane)
                played[lane].append(f"{kind} {action.tolist()}")
                loop.observe(lane, np.zeros(3))
        return played

    together = episodes([0, 1, 2])
    assert together[0] != together[1]
    for lane in range(3):
        assert episodes([lane])[lane] == together[lane]


def test_a_new_episode_forgets_the_one_before():
    loop = make(Rows(3, 8), Latencies(0, 2))
    first = run(loop, 10)
    loop.begin(0, 100, np.zeros(3))
    assert run(loop, 10) == first and loop.counts(0)["ticks"] == 10


def test_an_action_that_is_kept_does_not_change_afterwards():
    loop = make(Rows(2, 2))
    loop.think()
    action, _ = loop.act(0)
    action += 100
    loop.observe(0, np.zeros(3))
    assert loop.act(0)[0].tolist() == [1, 1]


def test_the_ledger_sums_lanes_and_says_how_late_answers_were():
    ledger = Ledger()
    loop = make(Rows(4, 6), Latencies(0, 4), ledger=ledger)
    run(loop, 10)
    counters = {"answers": 6, "rest": 2, "held": 2, "starved": 2, "misses": 1, "chunks": 2, "network_calls": 20}
    assert ledger.summary()["counters"] == counters
    assert ledger.summary()["miss_causes"] == {"inference": 1}
    assert ledger.stage("lateness").max_s == pytest.approx(4 * TICK_S - BUDGET.deadline_s)
    # The last held tick still commands what was decided 7 ticks before.
    assert ledger.stage("age").max_s == pytest.approx(7 * TICK_S)


@pytest.mark.parametrize("bad", [np.array([0, np.nan, 0]), np.array([np.inf, 0, 0]), np.zeros(4), np.zeros((1, 3))])
def test_a_bad_observation_is_refused_with_its_lane_seed_and_tick(bad):
    loop = make(Rows(2, 2), lanes=2)
    loop.think()
    loop.act(1)
    with pytest.raises(InputError, match="lane 1, seed 101, tick 1: got"):
        loop.observe(1, bad)


def test_a_bad_answer_never_reaches_the_actuator():
    class Broken(Rows):
        def predict_with_tail(self, obs, lanes):
            rows = super().predict_with_tail(obs, lanes)
            rows[-1, -1, -1] = np.nan
            return rows

    with pytest.raises(InputError, match="lane 1, seed 101, tick 0: got NaN"):
        make(Broken(2, 4), lanes=2).think()
    with pytest.raises(InputError, match="got actions of shape"):
        make(Rows(4, 3)).think()


# -- a policy whose answer follows from the one before ----------------------------------------------------------------


def test_who_follows_keeps_that_contract_and_others_do_not():
    assert isinstance(Following(4, 8), FollowingPolicy) and not isinstance(Rows(4, 8), FollowingPolicy)


def test_it_is_told_before_each_question_how_many_rows_lie_behind():
    policy = Following(3, 8)
    run(make(policy), 7)
    assert policy.told == [([0], [0]), ([0], [3]), ([0], [3])]


@pytest.mark.parametrize("ticks_late", range(7))
@pytest.mark.parametrize(("n_action_steps", "horizon"), [(1, 8), (3, 8), (4, 4)])
def test_when_late_the_rows_behind_are_those_up_to_the_last_that_was_played(n_action_steps, horizon, ticks_late):
    policy = Following(n_action_steps, horizon)
    loop, behind, played = make(policy, Latencies(0, ticks_late)), [], (0, -1)
    for _ in range(40):
        if loop.wants_answer(0):
            behind.append(played[1] + 1)
            assert played[0] == policy.chunks[0], "what was played last is of the last answer"
        loop.think()
        action, kind = loop.act(0)
        played = played if kind == "held" else tuple(action.astype(int))
        loop.observe(0, np.zeros(3))
    assert [rows for _, [rows] in policy.told] == behind and behind[0] == 0


def test_each_lane_is_told_its_own_and_a_new_episode_begins_at_0():
    policy = Following(2, 6)
    loop = make(policy, lanes=2)
    loop.think([0])
    loop.act(0)
    loop.think([0, 1])
    for lane in (0, 1):
        loop.act(lane)
    loop.think([1, 0])
    loop.begin(1, 7, np.zeros(3))
    loop.think()
    assert policy.told == [([0], [0]), ([1], [0]), ([0], [2]), ([1], [0])]


@pytest.mark.parametrize(
    "charge", [None, Latencies(0), Latencies(0, 2), Latencies(5)], ids=["free", "in time", "late once", "late"]
)
def test_the_calls_of_an_answer_are_counted_also_when_it_is_charged_and_late(charge):
    ledger, policy = Ledger(), Following(2, 6)
    loop = make(policy, charge, lanes=2, ledger=ledger)
    for lane in (0, 1):
        run(loop, 40, lane)
    for lane in (0, 1):
        counts = loop.counts(lane)
        assert counts["chunks"] == policy.chunks[lane] > 1
        assert counts["network_calls"] == 10 + 3 * (counts["chunks"] - 1)
    assert ledger.summary()["counters"]["network_calls"] == sum(loop.counts(lane)["network_calls"] for lane in (0, 1))


def test_an_answer_of_more_calls_than_others_is_charged_in_proportion():
    ledger, policy = Ledger(), Following(4, 8)
    run(make(policy, Latencies(3), ledger=ledger), 30)
    assert ledger.stage("chunk").max_s == pytest.approx(10 * TICK_S)
    assert ledger.stage("chunk").percentile_s(50) == pytest.approx(3 * TICK_S, rel=1e-2)
