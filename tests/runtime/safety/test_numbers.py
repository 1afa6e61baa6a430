"""Numbers from whoever brings them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as npst

from ontick.runtime.safety.numbers import finite_numbers


class Hostile:
    def __array__(self, *given, **more):
        raise SystemError


@pytest.mark.parametrize("good", [[1, 2], (1.0, 2.0), np.array([1, 2], np.uint8), np.array([1, 2], ">f4")])
def test_finite_numbers_of_the_right_count_become_float64(good):
    numbers = finite_numbers(good, 2)
    assert numbers is not None and numbers.dtype == np.float64 and numbers.tolist() == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        None, 1.0, [1.0], [[1.0, 2.0]], ["1", "2"], [1, None], [True, False], [1j, 2], [1, [2, 3]], [10**400, 1],
        [np.nan, 1], [1, -np.inf], {1: 2, 3: 4}, {1, 2}, Hostile(), np.zeros(2, object), np.zeros(2, "M8[s]"),
        np.ma.masked_invalid([np.nan, 1.0]), np.array([1e4000, 1], np.longdouble),
    ],
)  # fmt: skip
def test_anything_else_is_none(wrong):
    assert finite_numbers(wrong, 2) is None


@settings(deadline=None)
@given(npst.arrays(npst.scalar_dtypes(), npst.array_shapes(max_dims=3, max_side=3)))
def test_what_comes_through_is_always_finite(array):
    numbers = finite_numbers(array, 2)
    assert numbers is None or (numbers.shape == (2,) and np.isfinite(numbers).all())
