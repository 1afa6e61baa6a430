import numpy as np
import pytest

from ontick.diffusion import schedule
from ontick.diffusion.grids import SPACINGS, at_indices, flow, spaced
from ontick.errors import InputError

COSINE = schedule("squaredcos_cap_v2", 100)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 33, 50, 98])
def test_every_spacing_gives_that_many_distinct_levels_from_clean_upwards(spacing, steps):
    grid = spaced(COSINE, steps, spacing)
    assert grid.steps == steps and len(grid.label) == steps + 1
    assert grid.alpha[0] == 1 and grid.sigma[0] == 0
    assert (np.diff(grid.label[1:]) > 0).all() and (np.diff(grid.sigma) > 0).all()
    np.testing.assert_allclose(grid.alpha**2 + grid.sigma**2, 1)


def test_leading_ends_next_to_clean_and_trailing_starts_at_the_top():
    assert spaced(COSINE, 10, "leading").label[1:].tolist() == list(range(0, 100, 10))
    assert spaced(COSINE, 10, "trailing").label[1:].tolist() == list(range(9, 100, 10))


def test_log_snr_levels_start_below_the_singular_top_and_end_at_index_0():
    label = spaced(COSINE, 10, "logsnr").label
    assert label[1] == 0 and label[-1] == 98


def test_a_truncated_grid_stays_at_or_below_its_entry():
    assert spaced(COSINE, 3, "linspace", entry=20).label[1:].tolist() == [0, 10, 20]


def test_flow_levels_mix_linearly_and_shift_towards_noise():
    plain, shifted = flow(4), flow(4, shift=3.0)
    np.testing.assert_allclose(plain.alpha + plain.sigma, 1)
    assert plain.label.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (shifted.sigma[1:-1] > plain.sigma[1:-1]).all() and shifted.sigma[-1] == 1


@pytest.mark.parametrize("indices", [[], [3, 2], [2, 2], [-1, 3], [5, 100]])
def test_custom_grids_must_ascend_within_the_table(indices):
    with pytest.raises(InputError, match="ascending"):
        at_indices(COSINE, np.array(indices, dtype=int))


@pytest.mark.parametrize("steps", [0, 101])
def test_more_steps_than_levels_are_refused(steps):
    with pytest.raises(InputError):
        spaced(COSINE, steps)


# -- what is told, and where a grid ends ------------------------------------------------------------------------------


def test_a_level_may_be_told_as_another_and_stays_where_it_is():
    plain, told = at_indices(COSINE, np.array([2, 8])), at_indices(COSINE, np.array([2, 8]), np.array([0, 10]))
    assert told.label.tolist() == [0, 0, 10]
    assert np.array_equal(told.alpha, plain.alpha) and np.array_equal(told.sigma, plain.sigma)


@pytest.mark.parametrize("told", [[1], [1, 2, 3]])
def test_every_level_is_told_as_one(told):
    with pytest.raises(InputError, match="as many labels"):
        at_indices(COSINE, np.array([2, 8]), np.array(told))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_a_grid_that_ends_early_lies_between_its_end_and_its_entry(spacing, steps):
    label = spaced(COSINE, steps, spacing, entry=60, end=20).label
    assert label[0] == 0 and len(label) == steps + 1
    assert label[1] >= 20 and label[-1] <= 60 and (np.diff(label[1:]) > 0).all()


def test_an_early_end_is_the_last_level_before_clean():
    assert spaced(COSINE, 3, "linspace", entry=40, end=20).label.tolist() == [0, 20, 30, 40]
    assert spaced(COSINE, 4, "leading", end=20).label.tolist() == [0, 20, 40, 60, 80]
    assert spaced(COSINE, 5, "logsnr", end=20).label[[1, -1]].tolist() == [20, 98]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_an_end_at_0_changes_nothing(spacing):
    assert np.array_equal(spaced(COSINE, 6, spacing, 50, 0).label, spaced(COSINE, 6, spacing, 50).label)


@pytest.mark.parametrize(("entry", "end"), [(10, 11), (None, 100), (50, -1)])
def test_an_end_above_the_entry_is_refused(entry, end):
    with pytest.raises(InputError, match="end level"):
        spaced(COSINE, 1, "linspace", entry, end)


def test_more_steps_than_lie_between_end_and_entry_are_refused():
    with pytest.raises(InputError, match="12 steps asked of 11"):
        spaced(COSINE, 12, "linspace", 30, 20)


@pytest.mark.parametrize("spacing", ["linspace", "logsnr", "trailing"])
def test_one_step_starts_at_the_entry(spacing):
    assert spaced(COSINE, 1, spacing, entry=30).label.tolist() == [0, 30]


@pytest.mark.parametrize("told", [[-5, 10], [0, 100]])
def test_a_network_is_told_trained_indices_alone(told):
    with pytest.raises(InputError, match=r"is told training indices in 0\.\.99"):
        at_indices(schedule("squaredcos_cap_v2", 100), np.array([0, 5]), np.array(told))
