"""Whether an observation may be acted on."""

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime.robots import Limits, Observed, RobotDescription
from ontick.runtime.safety.freshness import Freshness

AGE_S, PERIOD_S = 0.1, 0.02
ROBOT = RobotDescription(
    name="two",
    observation_dim=5,
    limits=Limits(low=[-1, -1], high=[1, 1], speed=[1, 1], acceleration=[4, 4], jerk=[40, 40]),
    period_s=PERIOD_S,
    streams=(("joints", 0, 2), ("camera", 2, 5)),
)


def seen(values=(0, 0, 0, 0, 0), now_s=0.0, ages_s=(0.0, 0.0), episode=0):
    return Observed(np.array(values, np.float32), now_s - np.array(ages_s), np.zeros(2), episode)


def fresh():
    made = Freshness(ROBOT, AGE_S)
    made.begin(np.zeros(2))
    return made


def test_a_whole_and_new_observation_passes():
    assert fresh().refuses(seen(now_s=5.0, ages_s=(0.1, -0.004)), 5.0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        (np.zeros(5, np.float32), np.zeros(2), np.zeros(2), 0),
        seen()._replace(values=np.zeros(4, np.float32)),
        seen()._replace(values=np.zeros((1, 5), np.float32)),
        seen()._replace(values=np.zeros(5, int)),
        seen()._replace(values=[0.0] * 5),
        seen()._replace(position=np.array([0.0, np.nan])),
        seen()._replace(position=np.zeros(3)),
        seen()._replace(stamps_s=np.zeros(3)),
        seen()._replace(stamps_s=np.array([0.0, np.nan])),
        seen()._replace(stamps_s=None),
        seen()._replace(episode=0.5),
        seen()._replace(episode=None),
    ],
)
def test_what_is_no_whole_observation_is_refused(wrong):
    assert fresh().refuses(wrong, 0.0)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", range(5))
def test_one_number_that_is_not_finite_is_enough(number, index):
    values = np.zeros(5)
    values[index] = number
    assert "not finite" in (fresh().refuses(seen(values), 0.0) or "")


def test_each_stream_has_its_age():
    assert "camera is 150.0 ms old" in (fresh().refuses(seen(now_s=1.0, ages_s=(0.0, 0.15)), 1.0) or "")
    assert "joints is 101.0 ms old" in (fresh().refuses(seen(now_s=1.0, ages_s=(0.101, 0.0)), 1.0) or "")
    assert "future" in (fresh().refuses(seen(now_s=1.0, ages_s=(0.0, -0.006)), 1.0) or "")
    assert fresh().refuses(seen(), np.nan)


def test_episodes_do_not_run_backwards():
    judge = fresh()
    assert judge.refuses(seen(episode=3), 0.0) is None
    assert "episode 2" in (judge.refuses(seen(episode=2), 0.0) or "")
    judge.begin(np.zeros(2))
    assert judge.refuses(seen(episode=2), 0.0)
    assert judge.refuses(seen(episode=4), 0.0) is None


def play(judge, periods, move, camera=None, start=0.0):
    """Reasons of so many periods in which joint 0 is commanded on by `move` each, and the camera shows `camera`."""
    reasons = []
    for period in range(periods):
        now_s, at = period * PERIOD_S, start + move * period
        shows = at if camera is None else camera
        reasons.append(judge.refuses(seen((at, 0, 0, 0, shows), now_s), now_s))
        judge.commanded(np.array([at, 0.0]))
    return reasons


def test_a_stream_that_shows_nothing_of_a_motion_is_frozen_after_the_age_and_a_period():
    reasons = play(fresh(), 12, move=0.01, camera=7.0)
    first = next(period for period, reason in enumerate(reasons) if reason)
    assert "camera is frozen" in reasons[first]
    assert first * PERIOD_S <= AGE_S + 2 * PERIOD_S  # it is moved from the second period on
    assert all(reasons[first:])


def test_a_stream_that_changes_is_not_frozen():
    assert not any(play(fresh(), 100, move=0.01))


def test_a_stream_that_is_still_while_the_robot_is_still_is_not_frozen():
    judge = fresh()
    assert not any(play(judge, 100, move=0.0, camera=7.0))
    # Nor at once when it is moved, before it could have seen that.
    assert not any(play(judge, 3, move=0.01, camera=7.0))


def test_a_frozen_stream_stays_so_at_rest_and_over_a_beginning_until_it_changes():
    judge = fresh()
    play(judge, 20, move=0.01, camera=7.0)
    assert all(play(judge, 100, move=0.0, camera=7.0, start=0.19))
    judge.begin(np.zeros(2))
    assert "camera is frozen" in (judge.refuses(seen((0, 0, 0, 0, 7.0)), 0.0) or "")
    assert judge.refuses(seen((0, 0, 0, 0, 7.5)), 0.0) is None


@pytest.mark.parametrize("age_s", [0.0, -1.0, np.nan, np.inf])
def test_an_age_is_above_0(age_s):
    with pytest.raises(InputError, match="age"):
        Freshness(ROBOT, age_s)
