"""Levels of a training window: each kind keeps its law, and mixtures keep their shares.

Legend: B windows, N frames, T levels.
"""

import itertools
from collections import Counter

import pytest
import torch

from ontick.errors import InputError
from ontick.video import levels
from ontick.video.levels import DRAWS, check_mixture, mixed


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(("N", "T"), [(1, 5), (6, 1000), (16, 100), (3, 2)])
def test_every_kind_gives_levels_of_the_schedule(kind, N, T, generator):
    drawn = DRAWS[kind](generator, 200, N, T)
    assert drawn.shape == (200, N) and drawn.dtype == torch.int64 and drawn.min() >= 0 and drawn.max() < T


def test_a_kind_draws_the_same_again_from_the_same_seed():
    for draw in DRAWS.values():
        one, other = (draw(torch.Generator().manual_seed(4), 8, 6, 100) for _ in range(2))
        assert torch.equal(one, other)


# -- fopp -------------------------------------------------------------------------------------------------------------


def stated(N, T):
    """{row: probability}, by enumeration: a frame and its level uniformly, the rest uniformly among the non-decreasing
    rows through it."""
    rows = [row for row in itertools.product(range(T), repeat=N) if list(row) == sorted(row)]
    through = Counter((f, row[f]) for row in rows for f in range(N))
    return {row: sum(1 / through[f, row[f]] for f in range(N)) / (N * T) for row in rows}


@pytest.mark.parametrize(("N", "T"), [(1, 4), (2, 3), (3, 4), (4, 3)])
def test_fopp_rows_have_the_stated_distribution(N, T, generator):
    wanted, count = stated(N, T), 12_000
    assert sum(wanted.values()) == pytest.approx(1)
    drawn = Counter(map(tuple, levels.fopp(generator, count, N, T).tolist()))
    assert set(drawn) <= set(wanted)
    chi2 = sum((drawn[row] - count * p) ** 2 / (count * p) for row, p in wanted.items())
    freedom = len(wanted) - 1
    assert chi2 < freedom + 5 * (2 * freedom) ** 0.5


def test_fopp_rows_never_fall_in_a_long_window_of_many_levels(generator):
    drawn = levels.fopp(generator, 400, 16, 1000)
    assert (drawn.diff(dim=1) >= 0).all()
    assert drawn.min() < 20 and drawn.max() > 980


def test_the_chosen_frames_level_is_uniform(generator, monkeypatch):
    # The chosen pair is what every row was built around: it is drawn first.
    N, T, count = 5, 8, 12_000
    drawn = levels.fopp(torch.Generator().manual_seed(1), count, N, T)
    again = torch.Generator().manual_seed(1)
    frame, level = torch.randint(N, (count,), generator=again), torch.randint(T, (count,), generator=again)
    assert torch.equal(drawn[torch.arange(count), frame], level)
    pairs = Counter(zip(frame.tolist(), level.tolist(), strict=True))
    chi2 = sum((pairs[f, t] - count / (N * T)) ** 2 / (count / (N * T)) for f in range(N) for t in range(T))
    assert chi2 < (N * T - 1) + 5 * (2 * (N * T - 1)) ** 0.5


# -- rolling ----------------------------------------------------------------------------------------------------------


def rolling_at(monkeypatch, t, begins, known=0, N=8, T=1001):
    """The rolling levels of one window at global time t, as shares of the noise."""
    monkeypatch.setattr(torch, "randint", lambda high, size, generator: torch.full(size, known))
    answers = iter((t, 0.0 if begins else 1.0))
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.full(size, next(answers), dtype=torch.float64))
    with monkeypatch.context():
        drawn = levels.rolling(torch.Generator(), 1, N, T)[0]
    monkeypatch.undo()
    return [level / (T - 1) for level in drawn.tolist()]


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_a_rolling_window_has_local_times_that_rise_by_one_frame_in_n(t, monkeypatch):
    assert rolling_at(monkeypatch, t, begins=False) == pytest.approx([(w + t) / 8 for w in range(8)], abs=6e-4)


def test_a_rolling_window_at_its_end_shifted_by_a_frame_is_one_at_its_start(monkeypatch):
    end, start = rolling_at(monkeypatch, 0.0, begins=False), rolling_at(monkeypatch, 1.0, begins=False)
    assert [*end[1:], 1.0] == pytest.approx(start) and end[0] == 0


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_a_beginning_window_goes_from_noise_to_the_rolling_one(t, monkeypatch):
    got = rolling_at(monkeypatch, t, begins=True)
    assert got == pytest.approx([min(1.0, w / 8 + t) for w in range(8)], abs=6e-4)
    if t == 0:
        assert got == pytest.approx(rolling_at(monkeypatch, 0.0, begins=False))
    if t == 1:
        assert got == [1.0] * 8


@pytest.mark.parametrize("begins", [True, False])
def test_clean_frames_before_a_rolling_window_stay_clean(begins, monkeypatch):
    got = rolling_at(monkeypatch, 0.5, begins, known=3)
    rest = [min(1.0, w / 5 + 0.5) if begins else (w + 0.5) / 5 for w in range(5)]
    assert got == pytest.approx([0.0] * 3 + rest, abs=6e-4)


def test_a_tenth_of_the_rolling_windows_are_beginning(generator):
    # Without clean frames a rolling window's first level is at most 1 / N; a beginning one's is t, uniform.
    drawn = levels.rolling(generator, 12_000, 2, 1001)  # two frames: no clean one
    share = (drawn[:, 0] > 500).double().mean()  # half of the beginning ones
    assert float(share) == pytest.approx(0.05, abs=0.005)


# -- the others -------------------------------------------------------------------------------------------------------


def test_independent_levels_are_uniform_and_independent(generator):
    drawn = levels.independent(generator, 20_000, 2, 10).double()
    assert drawn.mean(0).tolist() == pytest.approx([4.5, 4.5], abs=0.1)
    assert abs(torch.corrcoef(drawn.T)[0, 1]) < 0.03


def test_shared_levels_are_one_a_window(generator):
    drawn = levels.shared(generator, 500, 6, 1000)
    assert (drawn == drawn[:, :1]).all() and len(set(drawn[:, 0].tolist())) > 100


def test_a_context_is_a_beginning_of_any_length_with_little_noise_and_the_rest_shares_a_level(generator):
    N, T = 6, 1000
    drawn = levels.context(generator, 4000, N, T)
    rest = drawn[:, -1:]
    assert rest.min() >= 1
    lengths = set()
    noised = 0
    for row in drawn.tolist():
        changes = [i for i in range(1, N) if row[i] != row[i - 1]]
        assert len(changes) <= 1
        if changes:
            lengths.add(changes[0])
            noised += row[0] > 0
            assert row[0] < 100  # at most a tenth of the levels
    assert lengths == set(range(1, N)) and 0.4 < noised / 3333 < 0.6


def test_a_mixture_keeps_its_shares(generator):
    drawn = mixed({"shared": 3, "independent": 1.0, "rolling": 0}, generator, 8000, 6, 1000)
    share = (drawn == drawn[:, :1]).all(1).double().mean()
    assert float(share) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        ({"pyramid": 1.0}, "unknown levels pyramid; known: independent"),
        ({}, "one above 0"),
        ({"shared": 0}, "one above 0"),
        ({"shared": -1, "fopp": 2}, "0 or more"),
        ({"shared": float("nan")}, "0 or more"),
        ({"shared": float("inf")}, "0 or more"),
        ({"shared": "half"}, "0 or more"),
    ],
)
def test_what_is_no_mixture_is_refused_in_one_line(mixture, said):
    with pytest.raises(InputError, match=said) as caught:
        check_mixture(mixture)
    assert "\n" not in str(caught.value)
