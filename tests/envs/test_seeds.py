"""Seeds of demonstrations and of evaluation never meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ontick.envs import demonstration_seeds, evaluation_seeds
from ontick.errors import InputError

BASES = st.integers(0, 10**9)
COUNTS = st.integers(0, 50)


@given(BASES, COUNTS, BASES, COUNTS)
def test_no_evaluation_seed_is_a_demonstration_seed(base, n, other, m):
    assert not set(evaluation_seeds(base, n)) & set(demonstration_seeds(other, m))


@given(BASES, BASES, st.sampled_from([evaluation_seeds, demonstration_seeds]))
def test_bases_have_seeds_of_their_own(base, other, seeds):
    assert len(set(seeds(base, 50))) == 50
    assert base == other or not set(seeds(base, 50)) & set(seeds(other, 50))


def test_the_last_seed_of_a_base_is_below_the_first_of_the_next():
    assert evaluation_seeds(0, 10**6)[-1] < evaluation_seeds(1, 1)[0]


@given(BASES, COUNTS)
def test_more_seeds_begin_with_the_same_ones(base, n):
    assert demonstration_seeds(base, n + 7)[:n] == demonstration_seeds(base, n)


@pytest.mark.parametrize("base, n", [(-1, 5), (0, -1), (0, 10**6 + 1), (10**9 + 1, 1)])
def test_impossible_counts_and_bases_are_refused(base, n):
    for seeds in (evaluation_seeds, demonstration_seeds):
        with pytest.raises(InputError, match="wanted 0 to"):
            seeds(base, n)
