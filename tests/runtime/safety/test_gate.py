"""The safety gate: what passes, what is clamped, what is refused, and that all of it is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ontick.errors import InputError
from ontick.runtime.robots import ActionMap, Limits, Observed, RobotDescription
from ontick.runtime.safety import BEYOND, SafetyGate

PERIOD_S = 0.02
LIMITS = Limits(
    low=[-1, -1, 0], high=[1, 1, 1], speed=[2, 2, np.inf], acceleration=[8, 8, np.inf], jerk=[80, 80, np.inf]
)
ROBOT = RobotDescription(
    name="gripping", observation_dim=3, limits=LIMITS, period_s=PERIOD_S, streams=(("joints", 0, 3),)
)
ABSOLUTE = ActionMap(kind="absolute", scale=(1, 1, 1), low=(-1.5, -1.5, 0), high=(1.5, 1.5, 1))
DELTA = ActionMap(kind="delta", scale=(0.1, 0.1, 1), low=(-1, -1, 0), high=(1, 1, 1), absolute_dims=(2,))


def gate(actions=ABSOLUTE, **more):
    made = SafetyGate(ROBOT, actions, (4, 3), observation_age_s=0.1, chunk_age_s=0.5, **more)
    made.begin([0, 0, 0])
    return made


def rows(value=0.0, shape=(8, 3), dtype=np.float32):
    return np.full(shape, value, dtype)


def test_a_whole_and_new_chunk_passes():
    judge = gate()
    assert judge.refuses_chunk(rows(), 1.0, 1.4) is None
    assert judge.refuses_chunk(rows(shape=(4, 3), dtype=np.float64), 1.0, 1.0) is None
    assert not judge.counts


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "NoneType"),
        ([[0.0] * 3] * 8, "list"),
        (rows(dtype=np.int64), "int64"),
        (rows(dtype=np.float16), "float16"),
        (rows(dtype=">f4"), ">f4"),
        (rows(dtype=object), "object"),
        (rows(shape=(3, 3)), "(3, 3)"),
        (rows(shape=(8, 4)), "(8, 4)"),
        (rows(shape=(1, 8, 3)), "(1, 8, 3)"),
        (rows(shape=()), "()"),
        (rows(np.nan), "24 of 24"),
        (rows(np.inf), "24 of 24"),
        (np.ma.masked_invalid(rows(np.nan)), "24 of 24"),
    ],
)
def test_what_is_no_chunk_is_refused_counted_and_explained(wrong, said):
    judge = gate()
    reason = judge.refuses_chunk(wrong, 0.0, 0.0)
    assert reason is not None and said in reason
    assert judge.counts == {"refused_chunks": 1}
    assert judge.explained == [reason]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 7), st.integers(0, 2), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_number_that_is_not_finite_is_enough(row, dim, number):
    chunk = rows()
    chunk[row, dim] = number
    reason = gate().refuses_chunk(chunk, 0.0, 0.0)
    assert reason is not None and f"row {row}, dimension {dim}" in reason


@pytest.mark.parametrize("asked_s", [0.49, 1.006, np.nan, np.inf, -np.inf])
def test_an_old_chunk_is_refused_and_so_is_one_of_the_future(asked_s):
    assert gate().refuses_chunk(rows(), asked_s, 1.0)


def test_observations_are_judged_and_counted():
    judge = gate()
    good = Observed(np.zeros(3, np.float32), np.zeros(1), np.zeros(3))
    assert judge.refuses_observation(good, 0.05) is None
    assert judge.refuses_observation(good, 0.15)
    assert judge.counts == {"refused_observations": 1}


def test_the_motion_that_its_steps_command_is_what_streams_are_held_against():
    judge = gate()
    reasons = []
    for period in range(40):
        now_s = period * PERIOD_S
        seen = Observed(np.ones(3, np.float32), np.array([now_s]), np.zeros(3))
        reasons.append(judge.refuses_observation(seen, now_s))
        judge.step([1.0, 0.0, 0.0])
    assert reasons[0] is None and "frozen" in (reasons[-1] or "")


@settings(max_examples=100, deadline=None)
@given(npst.arrays(st.sampled_from([np.float32, np.float64]), 3), st.sampled_from([ABSOLUTE, DELTA]))
def test_a_target_is_finite_and_within_the_limits_whatever_the_action(action, actions):
    judge = gate(actions)
    target = judge.target(action)
    assert np.isfinite(target).all()
    assert (LIMITS.low <= target).all() and (target <= LIMITS.high).all()
    if not np.isfinite(action).all():
        assert (target == 0).all() and judge.counts["refused_actions"] == 1


@pytest.mark.parametrize("wrong", [None, [0, 0], [[0, 0, 0]], ["a", "b", "c"], np.zeros(3, object), [1j, 0, 0], np.nan])
def test_what_is_no_action_leaves_the_target_where_it_is(wrong):
    judge = gate()
    before = judge.target([0.1, 0.2, 0.3])
    assert (judge.target(wrong) == before).all()
    assert judge.counts["refused_actions"] == 1


def test_a_clamp_is_counted_with_its_dimension_and_amount():
    judge = gate()
    target = judge.target([0.0, 2.0, 0.5])
    assert target.tolist() == [0.0, 1.0, 0.5]
    assert judge.counts["clamped"] == judge.counts["clamped_dim_1"] == 1
    assert judge.counts["clamped_position"] == judge.counts["clamped_position_dim_1"] == 1
    assert judge.most_beyond.tolist() == [0.0, 0.5, 0.0]
    assert judge.explained == ["action: dimension 1 beyond by +0.5", "position: dimension 1 beyond by +0.5"]


def test_the_rounding_of_float32_is_clamped_and_not_counted():
    actions = ActionMap(kind="absolute", scale=(1, 1, 1), low=(-0.1, -0.1, 0), high=(0.1, 0.1, 1))
    judge = gate(actions, action_period_s=1.0)
    assert np.float64(np.float32(0.1)) > 0.1
    assert judge.target(np.array([0.1, 0, 0], np.float32))[0] == 0.1
    assert not judge.counts


def test_deltas_add_up_from_the_last_target_and_stay_within_the_limits():
    judge = gate(DELTA)
    targets = [judge.target([1, -1, 0.5]) for _ in range(15)]
    assert targets[1] == pytest.approx([0.2, -0.2, 0.5])
    assert targets[-1].tolist() == [1, -1, 0.5]
    assert judge.target([-1, 1, 0]) == pytest.approx([0.9, -0.9, 0])  # at once: nothing was wound up
    assert judge.counts["clamped_position"] == 5


def test_after_a_hold_deltas_go_on_from_where_the_motion_rests():
    judge = gate(DELTA)
    for _ in range(5):
        target = judge.target([1, 1, 0])
    for _ in range(5):
        judge.step(target)
    for _ in range(50):
        judge.step(None)
    rests = judge.motion.position
    assert judge.motion.at_rest and rests[0] < target[0] - 0.01
    judge.hold_target()
    assert judge.target([0, 0, 0]) == pytest.approx([*rests[:2], 0])


def test_ten_actions_in_a_row_beyond_their_limits_are_a_reason_to_hold_until_it_resumes():
    judge = gate()
    for count in range(BEYOND - 1):
        judge.target([1.6, 0, 0])
        assert judge.beyond == count + 1 and not judge.must_hold
    judge.target([0, 0, 0])
    assert judge.beyond == 0
    for _ in range(BEYOND):
        judge.target([0, 0, 2.0])
    assert judge.beyond == BEYOND and judge.must_hold
    judge.target([0, 0, 0])
    assert judge.must_hold
    judge.resume()
    assert not judge.must_hold and judge.beyond == 0


def test_a_little_beyond_is_clamped_and_counted_and_no_reason_to_hold():
    judge = gate()
    for _ in range(3 * BEYOND):
        judge.target([1.52, 0, 0])
    assert judge.counts["clamped"] == 3 * BEYOND and not judge.must_hold


def test_a_position_further_than_the_robot_can_go_in_an_action_is_counted_and_moved_to_within_limits():
    judge = gate(action_period_s=0.1)
    judge.target([0.19, 0, 1])
    assert "seam" not in judge.counts
    judge.target([0.5, 0, 0])
    assert judge.counts["seam"] == 1


def test_only_the_first_are_explained_and_all_are_counted():
    judge = gate()
    for _ in range(100):
        judge.refuses_chunk(None, 0.0, 0.0)
    assert len(judge.explained) == 20 and judge.counts["refused_chunks"] == 100


def test_counters_outlive_an_episode_and_a_reason_to_hold_does_not():
    judge = gate()
    for _ in range(BEYOND):
        judge.target([2, 2, 2])
    counts = dict(judge.counts)
    judge.begin([0.5, 0, 0])
    assert judge.counts == counts and not judge.must_hold
    assert judge.motion.position.tolist() == [0.5, 0, 0]


@pytest.mark.parametrize(
    "lie", [[np.nan, 0, 0], [np.inf, 0, 0], [5.0, 0, 0], [0.5, 0, 0], [0, 0], None, "far"], ids=str
)
def test_a_motion_that_lies_is_found_out_and_the_last_command_held(lie, monkeypatch):
    judge = gate()
    good, _ = judge.step([1.0, 0, 0])
    honest = judge.motion.step
    monkeypatch.setattr(judge.motion, "step", lambda *asked: (np.array(lie), np.zeros(3)))
    position, velocity = judge.step([1.0, 0, 0])
    assert (position == good).all() and (velocity == 0).all()
    assert judge.counts["gate"] == 1 and "gate:" in judge.explained[0]
    monkeypatch.setattr(judge.motion, "step", honest)
    after, _ = judge.step([1.0, 0, 0])
    assert judge.counts["gate"] == 1 and 0 < after[0] - good[0] < 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([ABSOLUTE, DELTA]))
def test_fuzzed_actions_end_in_commands_within_every_limit(seed, actions):
    rng = np.random.default_rng(seed)
    judge, path = gate(actions), [np.zeros(3)] * 3
    while len(path) < 120:
        action = rng.normal(0, 10.0 ** rng.integers(-3, 4), 3)
        if rng.random() < 0.2:
            action[rng.integers(3)] = rng.choice([np.nan, np.inf, -np.inf, 1e308, 5e-324])
        velocity = rng.normal(0, 3, 3) if rng.random() < 0.5 else None
        target = action if rng.random() < 0.1 else judge.target(action)
        path += [judge.step(target, velocity)[0] for _ in range(rng.integers(1, 6))]
    positions = np.array(path)
    assert np.isfinite(positions).all()
    assert (positions >= LIMITS.low).all() and (positions <= LIMITS.high).all()
    for order, most in enumerate((LIMITS.speed, LIMITS.acceleration, LIMITS.jerk), start=1):
        assert (np.abs(np.diff(positions, order, axis=0)) / PERIOD_S**order <= most * (1 + 1e-9)).all()
    assert judge.counts["gate"] == 0


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="one width"):
        SafetyGate(ROBOT, ABSOLUTE, (4, 2), 0.1, 0.5)
    with pytest.raises(InputError, match="rows"):
        SafetyGate(ROBOT, ABSOLUTE, (0, 3), 0.1, 0.5)
    with pytest.raises(InputError, match="old"):
        SafetyGate(ROBOT, ABSOLUTE, (4, 3), 0.1, np.nan)
    with pytest.raises(InputError, match="age"):
        SafetyGate(ROBOT, ABSOLUTE, (4, 3), np.nan, 0.5)
    with pytest.raises(InputError, match="finite"):
        gate().begin([0, np.nan, 0])
