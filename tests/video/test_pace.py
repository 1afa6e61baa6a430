"""The pace: the dearest effort whose usual cost fits the time left."""

import pytest

from ontick.video.pace import MARGIN, REMEMBERED, Pace
from ontick.video.stream import Effort

CALLS = {Effort.FULL: 4, Effort.EARLY: 3, Effort.SKIP: 2}


@pytest.fixture
def pace():
    return Pace(CALLS)


def test_before_anything_was_timed_every_effort_is_free(pace):
    assert pace.cost_s(Effort.FULL) == 0 and pace.choose(0.0) is Effort.FULL
    assert pace.choose(-1.0) is Effort.SKIP, "it is late already"


def test_what_was_not_timed_costs_by_its_calls(pace):
    pace.learn(Effort.FULL, 0.4)
    assert [pace.cost_s(effort) for effort in CALLS] == pytest.approx([0.4, 0.3, 0.2])
    pace.learn(Effort.SKIP, 0.3)
    assert pace.cost_s(Effort.SKIP) == 0.3 and pace.cost_s(Effort.EARLY) == pytest.approx(0.45), "by the dearest a call"


@pytest.mark.parametrize(
    ("left_s", "wanted"), [(1.0, Effort.FULL), (0.4, Effort.EARLY), (0.25, Effort.SKIP), (0.01, Effort.SKIP)]
)
def test_the_dearest_that_fits_with_a_margin_is_taken_and_else_the_cheapest(left_s, wanted, pace):
    pace.learn(Effort.FULL, 0.4)
    assert pace.choose(left_s) is wanted
    assert pace.choose(0.4 * MARGIN + 1e-9) is Effort.FULL


def test_costs_are_those_of_late_and_one_slow_block_changes_nothing(pace):
    for _ in range(REMEMBERED):
        pace.learn(Effort.FULL, 5.0)
    for _ in range(REMEMBERED):
        pace.learn(Effort.FULL, 0.1)
    pace.learn(Effort.FULL, 9.0)
    assert pace.cost_s(Effort.FULL) == 0.1
