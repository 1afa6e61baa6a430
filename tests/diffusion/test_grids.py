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
