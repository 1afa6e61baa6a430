"""Inference beside execution: when answers are asked for, where they are entered, and what a seam may do."""

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import STITCHES, Charge, ControlLoop, FixedDelay, Overlap, load_budget
from ontick.runtime.overlap import blended, limited

BUDGET = load_budget(period_ms=50, deadline_ms=40)


class Course:
    """Every answer plans the same course: row i of what is asked at place p is (p + i, the number of the answer)."""

    n_obs_steps, observation_dim, action_dim, calls_per_chunk = 1, 1, 2, 1

    def __init__(self, n_action_steps=4, horizon=20, jump=0.0):
        self.n_action_steps, self.horizon, self.jump = n_action_steps, horizon, jump
        self.chunks, self.told = 0, []

    def reset(self, lanes, seeds):
        self.chunks = 0

    def predict_with_tail(self, obs, lanes):
        self.chunks += 1
        rows = obs[:, -1, :1] + np.arange(self.horizon) + self.jump
        return np.stack([rows, np.full_like(rows, self.chunks)], -1).astype(np.float32)

    predict_action_chunk = select_action = predict_with_tail


class Inpainted(Course):
    def inpaint(self, lanes, rows, fixed):
        self.told.append((list(lanes), [kept[:, 0].tolist() for kept in rows], list(fixed)))


class Queue(Course):
    """Row 0 of an answer follows the last row of the one before."""

    continues, usual_calls = True, 1

    def follow(self, lanes, rows):
        pass

    def calls_of(self, lane):
        return 1

    def predict_with_tail(self, obs, lanes):
        self.chunks += 1
        rows = (self.chunks - 1) * self.n_action_steps + np.arange(self.n_action_steps)
        return np.stack([rows, np.full_like(rows, self.chunks)], -1)[None].astype(np.float32)


def played(policy, charge, overlap, ticks=40, v_max=None):
    """(kind, action [2]) of each tick. The world is a course: what is commanded is where it stands, and the observation
    is the place after that; held ticks leave it."""
    loop = ControlLoop(policy, 1, lambda last: last, BUDGET, charge, None, overlap, v_max)
    loop.begin(0, 7, np.zeros(1))
    out, place = [], 0.0
    for _ in range(ticks):
        loop.think()
        action, kind = loop.act(0)
        out.append((kind, action))
        place = place if kind == "held" else action[0] + 1
        loop.observe(0, np.full(1, place))
    return loop, out


def courses(out):
    return [f"{'' if kind == 'answer' else kind[0]}{action[0]:g}" for kind, action in out]


class Jittery(Charge):
    """Charges the n-th answer the n-th number of ticks, again and again."""

    def __init__(self, *ticks):
        super().__init__([1.0])
        self.ticks = ticks

    def of(self, seed, chunk_index, share, budget):
        ticks = self.ticks[chunk_index % len(self.ticks)]
        return ticks * budget.period_s, ticks


@pytest.mark.parametrize("stitch", STITCHES)
def test_without_delay_overlap_changes_nothing_bit_for_bit(stitch):
    plain, policy = played(Inpainted(), None, Overlap())[1], Inpainted()
    beside = played(policy, FixedDelay(0, BUDGET), Overlap(stitch))[1]
    assert all(rows == [[]] for _, rows, _ in policy.told), "there is nothing to agree with"
    assert [(k, a.tolist()) for k, a in plain] == [(k, a.tolist()) for k, a in beside]


@pytest.mark.parametrize("delay", range(1, 9))
def test_beside_execution_no_tick_is_starved_once_the_first_answer_is_there(delay):
    loop, out = played(Course(), FixedDelay(delay, BUDGET), Overlap("replace"))
    kinds = [kind for kind, _ in out]
    assert kinds[:delay] == ["held"] * delay and set(kinds[delay:]) == {"answer"}
    assert loop.counts(0)["starved"] == delay


@pytest.mark.parametrize("delays", [(1,), (3,), (8,), (2, 5, 0, 3)])
@pytest.mark.parametrize("stitch", [None, *STITCHES])
def test_no_row_of_the_course_is_skipped_or_played_twice(stitch, delays):
    _, out = played(Inpainted(), Jittery(*delays), Overlap(stitch), ticks=60)
    assert np.diff([action[0] for kind, action in out if kind != "held"]) == pytest.approx(1.0)


def test_the_answer_is_asked_for_as_early_as_answers_have_lately_taken():
    _loop, out = played(Course(n_action_steps=6), FixedDelay(3, BUDGET), Overlap("replace"), ticks=30)
    chunk = [action[1] for _, action in out]
    changes = np.flatnonzero(np.diff(chunk)) + 1
    assert np.diff(changes).tolist()[1:] == [6] * (len(changes) - 2), "each is played for Ta rows"


def test_while_overdue_the_rest_is_played_or_the_last_action_is_held():
    late = FixedDelay(2, BUDGET)
    assert courses(played(Course(2), late, Overlap(None, "play"))[1])[2:8] == ["0", "1", "r2", "r3", "4", "5"]
    held = courses(played(Course(2), late, Overlap(None, "hold"))[1])
    assert held[2:8] == ["0", "1", "h1", "h1", "2", "3"], "held ticks consume no row: the answer begins at its row 0"


def test_an_answer_that_comes_too_late_is_dropped_but_never_twice_in_a_row():
    loop, out = played(Course(2), FixedDelay(2, BUDGET), Overlap(None, "drop"), ticks=50)
    assert loop.counts(0)["dropped"] >= 3
    assert set(np.diff([action[1] for _, action in out if action[1]])) <= {0, 2}, "every second one is played"


def test_of_a_queue_no_block_is_dropped():
    loop, out = played(Queue(2), FixedDelay(5, BUDGET), Overlap("replace", "drop"), ticks=60)
    assert loop.counts(0)["dropped"] == 0 and loop.counts(0)["starved"] > 5
    assert np.diff([action[0] for kind, action in out if kind != "held"]) == pytest.approx(1.0)


class Follower(Course):
    """Notes how many rows of its last answer lie behind, played or dropped."""

    continues, usual_calls = False, 1

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.behind = []

    def follow(self, lanes, rows):
        self.behind += rows

    def calls_of(self, lane):
        return 1


def test_rows_behind_are_counted_from_the_answer_that_was_given_last_though_it_was_dropped():
    policy = Follower(4, 30)
    loop, _ = played(policy, FixedDelay(2, BUDGET), Overlap(None, "drop"), ticks=40)
    assert loop.counts(0)["dropped"] >= 2
    assert policy.behind[:5] == [0, 4, 2, 4, 2], "after 4 rows; after 2 of the rest, and dropped; after rows 2, 3"


def test_a_blend_mixes_rows_at_a_seam_where_a_limit_is_given_or_not():
    for v_max in (None, np.array([1e3, 1e3])):
        _, out = played(Course(6), FixedDelay(2, BUDGET), Overlap("blend"), ticks=30, v_max=v_max)
        numbers = np.array([action[1] for kind, action in out if kind == "answer"])
        mixed = numbers[(numbers % 1) > 1e-3]
        assert len(mixed) > 4, "between one answer's number and the next one's"


def test_the_policy_is_told_what_is_left_and_what_will_have_been_played():
    policy = Inpainted(4, 8)
    played(policy, FixedDelay(2, BUDGET), Overlap("inpaint"), ticks=8)
    assert policy.told[0] == ([0], [[]], [0])
    _lanes, [rows], fixed = policy.told[1]
    assert fixed == [2] and rows == [2, 3, 4, 5, 6, 7]


def test_inpainting_needs_a_policy_that_can():
    with pytest.raises(InputError, match="use blend or replace"):
        ControlLoop(Course(), 1, lambda last: last, BUDGET, overlap=Overlap("inpaint"))


@pytest.mark.parametrize("delay", [0, 1, 4, 5, 7])
def test_blocks_of_a_queue_follow_each_other_without_a_gap(delay):
    loop, out = played(Queue(4), FixedDelay(delay, BUDGET), Overlap("blend"), ticks=50)
    rows = [action[0] for kind, action in out if kind != "held"]
    assert np.diff(rows) == pytest.approx(1.0)
    starved = loop.counts(0)["starved"]
    assert starved == delay if delay <= 4 else starved > delay, "a block of 4 hides a delay of 4"


@pytest.mark.parametrize("stitch", STITCHES)
@pytest.mark.parametrize("delay", [0, 1, 3, 5, 9])
def test_at_no_seam_does_the_command_jump_more_than_v_max_dt(stitch, delay):
    v_max = np.array([30.0, np.inf])  # units a second: 1.5 a tick, and the course itself takes 1
    policy = Inpainted(jump=5.0)
    loop, out = played(policy, FixedDelay(delay, BUDGET), Overlap(stitch), ticks=80, v_max=v_max)
    first = next(i for i, (kind, _) in enumerate(out) if kind == "answer")
    moved = np.abs(np.diff([action[0] for _, action in out[first:]]))
    assert moved.max() <= v_max[0] * BUDGET.period_s + 1e-4
    assert 0 < loop.seam_jump_max(0) <= v_max[0] * BUDGET.period_s + 1e-4


def test_one_after_another_jumps_are_told_and_not_limited():
    loop, _ = played(Course(jump=5.0), None, Overlap(), v_max=np.array([30.0, np.inf]))
    assert loop.seam_jump_max(0) == pytest.approx(6.0)


def test_charged_overlap_repeats_bit_for_bit():
    charge = Charge(np.linspace(0.0, 0.4, 41))
    runs = [played(Inpainted(jump=0.3), charge, Overlap("blend"), 200)[1] for _ in range(2)]
    assert [a.tolist() for _, a in runs[0]] == [a.tolist() for _, a in runs[1]]


def test_a_blend_goes_from_old_to_new_and_leaves_switches_alone():
    old, new = np.zeros((3, 2)), np.ones((5, 2))
    mixed = blended(old, new, np.array([False, True]))
    assert mixed[:, 0].tolist() == [0.25, 0.5, 0.75, 1, 1] and (mixed[:, 1] == 1).all() and (new == 1).all()


def test_a_limited_command_lies_within_reach_of_the_last_and_on_the_way():
    reached = limited(np.array([5.0, -5.0, 0.1]), np.zeros(3), np.array([1.0, np.inf, 1.0]))
    assert reached.tolist() == [1.0, -5.0, 0.1]
    last, row = np.float32([-0.9, 0.3]), np.float32([0.1, 0.7])
    assert np.array_equal(limited(row, last, np.array([1.5, np.inf])), row), "within reach it is the row, bit for bit"


@pytest.mark.parametrize(("stitch", "late"), [("glue", "play"), (None, "wait")])
def test_unknown_rules_are_refused(stitch, late):
    with pytest.raises(InputError, match="wanted one of"):
        Overlap(stitch, late)


def test_a_negative_delay_is_refused():
    with pytest.raises(InputError, match="wanted 0 or more"):
        FixedDelay(-1, BUDGET)
