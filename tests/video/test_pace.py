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


def test_an_effort_costs_its_calls_whatever_was_timed(pace):
    pace.learn(Effort.FULL, 0.4)
    assert [pace.cost_s(effort) for effort in CALLS] == pytest.approx([0.4, 0.3, 0.2])


def test_a_dearer_effort_is_taken_again_when_the_machine_is_free_again(pace):
    for _ in range(REMEMBERED):
        pace.learn(Effort.FULL, 4.0)
    assert pace.choose(0.5) is Effort.SKIP
    for _ in range(REMEMBERED):
        pace.learn(Effort.SKIP, 0.2)
    assert pace.choose(0.5) is Effort.FULL


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
