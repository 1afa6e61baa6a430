import numpy as np
import pytest

from ontick.runtime import jerk, paired_difference, wilson_interval
from ontick.runtime.statistics import mode_entropy, mode_entropy_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_the_published_ones(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_a_wilson_interval_is_symmetric_under_calling_success_failure():
    for n in (1, 7, 200):
        for successes in range(n + 1):
            low, high = wilson_interval(successes, n)
            assert 0 <= low <= successes / n <= high <= 1
            assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(0, 0) == (0.0, 1.0)


def pairs(both, only_second, only_first, neither):
    first = [1] * both + [0] * only_second + [1] * only_first + [0] * neither
    second = [1] * both + [1] * only_second + [0] * only_first + [0] * neither
    return first, second


@pytest.mark.parametrize(
    ("table", "phi_numerator"),
    # Excess both * neither - discordant product: far above n/2, a little above 0, below 0.
    [((14, 5, 0, 22), 14 * 22 - 41 / 2), ((1, 1, 7, 12), 1 * 12 - 1 * 7 - 21 / 2), ((2, 9, 8, 3), 2 * 3 - 9 * 8)],
)
def test_the_paired_interval_is_newcombes_formula_written_out(table, phi_numerator):
    both, only_second, only_first, neither = table
    n, hits_1, hits_2 = sum(table), both + only_first, both + only_second
    (low_1, high_1), (low_2, high_2) = wilson_interval(hits_1, n), wilson_interval(hits_2, n)
    rate_1, rate_2 = hits_1 / n, hits_2 / n
    if both * neither > only_second * only_first:
        phi_numerator = max(phi_numerator, 0)
    phi = phi_numerator / np.sqrt(hits_1 * (n - hits_1) * hits_2 * (n - hits_2))
    below = (rate_2 - low_2) ** 2 + (high_1 - rate_1) ** 2 - 2 * phi * (rate_2 - low_2) * (high_1 - rate_1)
    above = (high_2 - rate_2) ** 2 + (rate_1 - low_1) ** 2 - 2 * phi * (high_2 - rate_2) * (rate_1 - low_1)
    difference = rate_2 - rate_1
    wanted = (difference, difference - np.sqrt(below), difference + np.sqrt(above))
    assert paired_difference(*pairs(*table)) == pytest.approx(wanted)


def test_pairing_narrows_the_interval_when_the_plans_agree_on_most_seeds():
    # The same two rates, 60 % and 70 %, with few or many seeds on which the plans differ.
    _, low, high = paired_difference(*pairs(58, 12, 2, 28))
    _, wide_low, wide_high = paired_difference(*pairs(42, 28, 18, 12))
    assert high - low < 0.75 * (wide_high - wide_low)


def test_a_paired_difference_changes_sign_when_the_plans_change_places():
    first, second = (np.random.default_rng(0).random((2, 150)) < [[0.6], [0.7]]).astype(int).tolist()
    difference, low, high = paired_difference(first, second)
    assert low < difference < high and difference == pytest.approx(np.mean(second) - np.mean(first))
    assert paired_difference(second, first) == pytest.approx((-difference, -high, -low))


def test_equal_outcomes_still_leave_doubt():
    difference, low, high = paired_difference([1] * 20, [1] * 20)
    assert difference == 0.0 and low < -0.1 and high > 0.1
    with pytest.raises(ValueError, match="outcomes"):
        paired_difference([1], [1, 0])


def test_jerk_is_the_third_difference_of_the_position_in_both_kinds():
    positions = np.arange(10.0)[:, None] ** 3 * [[1.0, 0.0]]
    assert jerk(positions, "absolute") == pytest.approx(6.0)
    assert jerk(np.diff(positions, axis=0), "delta") == pytest.approx(6.0)
    assert jerk(np.arange(10.0)[:, None] ** 2, "absolute") == pytest.approx(0.0, abs=1e-9)


def test_an_episode_too_short_for_jerk_has_none():
    assert jerk(np.ones((3, 2)), "absolute") == jerk(np.ones((2, 2))) == jerk(np.zeros((0, 2))) == 0.0
    with pytest.raises(ValueError, match="kind"):
        jerk(np.ones((5, 2)), "relative")


def test_mode_entropy_is_that_of_the_shares_whatever_the_names_and_the_order():
    assert mode_entropy(["LRL"] * 7) == 0.0
    assert mode_entropy([*"abcdefgh"] * 5) == pytest.approx(np.log(8))
    assert mode_entropy("aaab") == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    assert mode_entropy("aaab") == mode_entropy("yxyy")
    assert mode_entropy_interval("aaab" * 9) == mode_entropy_interval("yxyy" * 9)
    with pytest.raises(ValueError, match="no modes"):
        mode_entropy([])


def test_the_plug_in_entropy_is_too_low_by_about_millers_term():
    rng, n, modes = np.random.default_rng(0), 100, 8
    estimates = [mode_entropy(rng.integers(modes, size=n).tolist()) for _ in range(2000)]
    assert np.log(modes) - np.mean(estimates) == pytest.approx((modes - 1) / (2 * n), rel=0.1)


def test_an_entropys_interval_holds_it_and_narrows_with_the_episodes():
    rng = np.random.default_rng(1)
    widths = []
    for n in (20, 80, 320):
        taken = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1]).tolist()
        low, high = mode_entropy_interval(taken)
        assert 0 <= low <= mode_entropy(taken) <= high <= np.log(4) and low < high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    assert mode_entropy_interval(["a"] * 9) == (0.0, 0.0)
    assert mode_entropy_interval([*"abcd"] * 9)[1] == pytest.approx(np.log(4)), "stretched to hold the estimate"
