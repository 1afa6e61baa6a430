from itertools import combinations

import numpy as np
import pytest

from ontick.accel.caching.features import Maps, adjacent
from ontick.accel.caching.schedulers import (
    UNCALIBRATED,
    acs,
    adjacent_dp,
    bac,
    bubbling_union,
    power,
    reuse_scores,
    segment_dp,
    top_n,
    unified_acs,
    uniform,
    uniform_last,
    with_tail,
)
from ontick.diffusion import names
from ontick.errors import InputError

KINDS = ("self_attention", "cross_attention", "feed_forward")
BUDGETS = [(K, M) for K in (1, 2, 3, 6, 9) for M in range(1, K + 1)]


def network(layers):
    """kinds, layers of the blocks."""
    return KINDS * layers, tuple(np.repeat(range(layers), 3).tolist())


def similarity(rng, *shape):
    """Symmetric, with a unit diagonal."""
    S = rng.uniform(-1, 1, (*shape, shape[-1]))
    S = (S + S.swapaxes(-1, -2)) / 2
    S[..., range(shape[-1]), range(shape[-1])] = 1
    return S


def pairwise_score(S, starts):
    """Every step's score with the start of its segment."""
    return sum(S[max(a for a in starts if a <= t), t] for t in range(len(S)))


def adjacent_score(s, starts):
    """Every step's similarity to the one before, but of the steps that start a segment."""
    return sum(s[k] for k in range(1, len(s)) if k not in starts)


def segmentations(K, M):
    return [(0, *rest) for rest in combinations(range(1, K), M - 1)]


def steps(refresh):
    """[K] bool -> the refreshed steps."""
    return np.flatnonzero(refresh).tolist()


# -- looking at nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 7, 10, 100])
def test_uniform_refreshes_m_times_as_evenly_as_can_be(K):
    for M in range(1, K + 1):
        refresh = uniform(3, K, M)
        assert refresh.shape == (3, K) and refresh.dtype == bool
        assert (refresh.sum(1) == M).all() and refresh[:, 0].all() and (refresh == refresh[0]).all()
        gaps = np.diff([*steps(refresh[0]), K])
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("K", [1, 7, 10, 100])
def test_uniform_from_the_end_refreshes_the_last_step_too(K):
    for M in range(1, K + 1):
        refresh = uniform_last(3, K, M)
        assert (refresh.sum(1) == min(M + 1, K)).all() and (refresh == refresh[0]).all()
        assert refresh[:, 0].all() and refresh[:, -1].all()
        gaps = np.diff([-1, *steps(refresh[0])[M < K :]])
        assert gaps.max() - gaps.min() <= 1


def test_foras_steps_are_every_tenth_counted_from_the_end():
    assert steps(uniform_last(1, 100, 10)[0]) == [0, *range(9, 100, 10)]


def test_the_tail_adds_the_last_step_alone(rng):
    refresh = rng.random((4, 9)) < 0.3
    before = refresh.copy()
    tailed = with_tail(refresh)
    assert tailed[:, -1].all() and np.array_equal(tailed[:, :-1], before[:, :-1])
    assert np.array_equal(refresh, before)
    assert np.array_equal(with_tail(tailed), tailed)


# -- adaptive caching scheduler ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("K", "M"), BUDGETS)
def test_the_pairwise_program_is_as_good_as_trying_everything(rng, K, M):
    for S in (similarity(rng, K), rng.normal(size=(K, K))):
        for maximise, best in ((True, max), (False, min)):
            starts = segment_dp(S, M, maximise)
            assert len(starts) == M and starts[0] == 0 and starts == sorted(set(starts))
            want = best(pairwise_score(S, each) for each in segmentations(K, M))
            assert pairwise_score(S, starts) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(("K", "M"), BUDGETS)
def test_the_adjacent_program_is_as_good_as_trying_everything(rng, K, M):
    s = rng.uniform(-1, 1, K)
    starts = adjacent_dp(s, M)
    assert len(starts) == M and starts[0] == 0 and starts == sorted(set(starts))
    want = max(adjacent_score(s, each) for each in segmentations(K, M))
    assert adjacent_score(s, starts) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(("K", "M"), [*BUDGETS, (60, 7), (60, 33)])
def test_the_adjacent_form_picks_the_steps_least_like_the_one_before_and_nothing_else(rng, K, M):
    s = rng.uniform(-1, 1, K)
    assert adjacent_dp(s, M) == sorted([0, *(1 + np.argsort(s[1:]))[: M - 1].tolist()])
    s[0] = np.pi  # nothing is before step 0
    assert adjacent_dp(s, M)[0] == 0


def test_the_adjacent_form_lets_a_long_segment_drift_and_the_pairwise_form_splits_it():
    """A feature that turns slowly for 18 steps and jumps a little between the last two: the jump is the least adjacent
    similarity, and the drift, a quarter of a circle in all, the larger error."""
    angle = np.append(np.linspace(0, np.pi / 2, 19), np.pi / 2 + 0.2)
    S = np.cos(angle[:, None] - angle)
    drifting, split = adjacent_dp(adjacent(S), 2), segment_dp(S, 2)
    assert drifting == [0, 19] and S[drifting[0], drifting[1] - 1] < 1e-12
    assert S[0, split[1] - 1] > 0.6 and S[split[1], -1] > 0.6
    assert pairwise_score(S, split) > pairwise_score(S, drifting) + 3


def test_a_feature_that_jumps_between_plateaus_is_refreshed_at_the_jumps(rng):
    plateau = np.repeat([0, 1, 2], [4, 7, 3])
    S = (plateau[:, None] == plateau).astype(float)
    assert segment_dp(S, 3) == adjacent_dp(adjacent(S), 3) == [0, 4, 11]
    assert segment_dp(1 - S, 3, maximise=False) == [0, 4, 11]


def test_ties_are_broken_by_starting_late_segments_early():
    assert segment_dp(np.ones((6, 6)), 3) == [0, 1, 2]
    assert adjacent_dp(np.ones(6), 3) == [0, 1, 2]


def test_with_every_step_refreshed_both_forms_agree(rng):
    S = similarity(rng, 8)
    assert segment_dp(S, 8) == adjacent_dp(adjacent(S), 8) == list(range(8))


def test_its_own_similarity_does_not_change_a_choice(rng):
    S = similarity(rng, 9)
    assert segment_dp(S, 4) == segment_dp(S + 5 * np.eye(9), 4)


@pytest.mark.parametrize("form", ["pairwise", "adjacent"])
def test_blocks_are_scheduled_one_by_one_or_all_as_the_first(rng, form):
    S = similarity(rng, 6, 12)
    refresh = acs(S, 4, form)
    assert refresh.shape == (6, 12) and refresh.dtype == bool and (refresh.sum(1) == 4).all() and refresh[:, 0].all()
    assert len({tuple(row) for row in refresh}) > 1, "blocks must differ for this to show anything"
    for row, each in zip(refresh, S, strict=True):
        want = segment_dp(each, 4) if form == "pairwise" else adjacent_dp(adjacent(each), 4)
        assert steps(row) == want
    assert np.array_equal(unified_acs(S, 4, form), np.repeat(refresh[:1], 6, 0))


# -- bubbling union ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bubbling(rng):
    """refresh, kinds, layers, l1 of four layers and twenty steps."""
    refresh = rng.random((12, 20)) < 0.15
    refresh[:, 0] = True
    return refresh, *network(4), rng.random((12, 20, 20))


def scores_of(blocks, chosen, K=20):
    """l1 [b, K, K] by which exactly the chosen blocks come first."""
    return np.ones((blocks, K, K)) * np.isin(np.arange(blocks), chosen)[:, None, None]


def one_by_one(refresh, kinds, layers, order):
    """The algorithm with what is already united used on the way."""
    result = [set(steps(row)) for row in refresh]
    for u in order:
        for v, kind in enumerate(kinds):
            if kind == "feed_forward" and layers[v] >= layers[u]:
                result[u] |= result[v]
    return result


def test_a_reuse_score_is_the_mean_over_pairs_of_steps(rng):
    l1 = rng.random((2, 5, 5))
    want = [np.mean([l1[b, i, j] for i, j in combinations(range(5), 2)]) for b in range(2)]
    np.testing.assert_allclose(reuse_scores(l1), want)
    assert reuse_scores(np.zeros((3, 1, 1))).tolist() == [0, 0, 0]


def test_the_top_blocks_come_in_order_and_the_first_of_equals_is_taken():
    scores = [3.0, 1.0, 5.0, 3.0, 0.0]
    assert [top_n(scores, n) for n in range(6)] == [(), (2,), (0, 2), (0, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3, 4)]


@pytest.mark.parametrize("u", range(12))
def test_a_block_joins_the_feed_forwards_of_its_layer_and_deeper_and_no_others(bubbling, u):
    refresh, kinds, layers, _ = bubbling
    got = bubbling_union(refresh, kinds, layers, scores_of(12, [u]), 1)
    deeper = [v for v in range(12) if kinds[v] == "feed_forward" and layers[v] >= layers[u]]
    assert deeper[0] == 3 * layers[u] + 2, "that of its own layer is among them"
    assert np.array_equal(got[u], np.logical_or.reduce([refresh[v] for v in (u, *deeper)]))
    others = np.arange(12) != u
    assert np.array_equal(got[others], refresh[others])


def test_a_feed_forward_listens_to_deeper_ones_alone(bubbling, rng):
    refresh, kinds, layers, _ = bubbling
    u = 5  # the feed-forward of layer 1
    changed = refresh.copy()
    changed[[0, 1, 2, 3, 4, 6, 7, 9, 10]] = rng.random((9, 20)) < 0.5
    results = [bubbling_union(each, kinds, layers, scores_of(12, [u]), 1)[u] for each in (refresh, changed)]
    assert np.array_equal(*results)
    assert np.array_equal(bubbling_union(refresh, kinds, layers, scores_of(12, [11]), 1), refresh), "none is deeper"


@pytest.mark.parametrize("n", [0, 1, 5, 12])
def test_the_order_in_which_blocks_are_united_does_not_matter(bubbling, rng, n):
    refresh, kinds, layers, l1 = bubbling
    got = [set(steps(row)) for row in bubbling_union(refresh, kinds, layers, l1, n)]
    chosen = list(top_n(reuse_scores(l1), n))
    for order in (chosen, chosen[::-1], rng.permutation(chosen).tolist()):
        assert one_by_one(refresh, kinds, layers, [int(u) for u in order]) == got


@pytest.mark.parametrize("n", [0, 1, 5, 12])
def test_uniting_again_changes_nothing(bubbling, n):
    refresh, kinds, layers, l1 = bubbling
    before = refresh.copy()
    once = bubbling_union(refresh, kinds, layers, l1, n)
    assert np.array_equal(bubbling_union(once, kinds, layers, l1, n), once)
    assert np.array_equal(refresh, before)
    assert (once >= refresh).all()
    outside = [b for b in range(12) if b not in top_n(reuse_scores(l1), n)]
    assert np.array_equal(once[outside], refresh[outside])


def test_uniting_none_is_no_change(bubbling):
    refresh, kinds, layers, l1 = bubbling
    assert np.array_equal(bubbling_union(refresh, kinds, layers, l1, 0), refresh)


# -- all of it ---------------------------------------------------------------------------------------------------------


def mapped(rng, layers, K=30):
    kinds, depth = network(layers)
    names = tuple(f"{layer}.{kind}" for layer, kind in zip(depth, kinds, strict=True))
    cosine = similarity(rng, 3 * layers, K).astype(np.float32)
    l1 = rng.random((3 * layers, K, K)).astype(np.float32)
    return Maps(names=names, kinds=kinds, layers=depth, cosine=cosine, l1=l1)


@pytest.mark.parametrize("form", ["pairwise", "adjacent"])
@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 8])
def test_bac_is_its_parts(rng, layers, tail, form):
    maps = mapped(rng, layers)
    refresh = bac(maps, 6, tail=tail, form=form)
    parts = acs(maps.cosine, 6, form)
    united = bubbling_union(parts, maps.kinds, maps.layers, maps.l1, min(5, 3 * layers))
    assert np.array_equal(refresh, with_tail(united) if tail else united)
    assert refresh[:, 0].all() and (refresh >= parts).all()
    outside = [b for b in range(3 * layers) if b not in top_n(reuse_scores(maps.l1), min(5, 3 * layers))]
    assert set(refresh[outside].sum(1)) <= ({6, 7} if tail else {6})


def test_bac_of_no_union_and_no_tail_is_acs(rng):
    maps = mapped(rng, 2)
    assert np.array_equal(bac(maps, 6, n=0, tail=False), acs(maps.cosine, 6))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("M", [-1, 0, 10])
def test_budgets_outside_the_steps_are_refused(rng, M):
    S, maps = similarity(rng, 3, 9), mapped(rng, 1, 9)
    attempts = [
        lambda: uniform(3, 9, M),
        lambda: uniform_last(3, 9, M),
        lambda: segment_dp(S[0], M),
        lambda: adjacent_dp(S[0, 0], M),
        lambda: acs(S, M),
        lambda: acs(S, M, "adjacent"),
        lambda: unified_acs(S, M),
        lambda: bac(maps, M),
    ]
    for attempt in attempts:
        with pytest.raises(InputError, match=f"M is {M}, and there are 9 steps; give 1 to 9"):
            attempt()


def test_what_cannot_be_scheduled_is_refused(rng, bubbling):
    refresh, kinds, layers, l1 = bubbling
    S = similarity(rng, 3, 9)
    for n in (-1, 13):
        with pytest.raises(InputError, match=f"n is {n}, and there are 12 blocks; give 0 to 12"):
            bubbling_union(refresh, kinds, layers, l1, n)
    with pytest.raises(InputError, match="got refresh 12, kinds 12, layers 11, l1 12"):
        bubbling_union(refresh, kinds, layers[1:], l1, 2)
    with pytest.raises(InputError, match="no block is of kind 'feed_forward'"):
        bubbling_union(refresh, ("self_attention",) * 12, layers, l1, 2)
    with pytest.raises(InputError, match="form is 'printed', wanted one of pairwise, adjacent"):
        acs(S, 3, "printed")
    with pytest.raises(InputError, match=r"shape \[9, 8\], wanted \[K, K\]"):
        segment_dp(S[0, :, 1:], 3)
    with pytest.raises(InputError, match=r"shape \[9, 9\], wanted \[blocks, K, K\]"):
        acs(S[0], 3)
    with pytest.raises(InputError, match="not all finite"):
        segment_dp(np.where(S[0] < 0, np.nan, S[0]), 3)


@pytest.mark.parametrize("steps", [2, 7, 20, 100])
def test_power_has_its_count_of_steps_the_first_and_the_last_and_gaps_that_shrink(steps):
    for M in range(1, steps + 1):
        refresh = power(3, steps, M)
        taken = np.flatnonzero(refresh[0])
        assert (refresh == refresh[0]).all()
        assert len(taken) == M
        assert taken[0] == 0
        if M > 1:
            assert taken[-1] == steps - 1
        gaps = np.diff(taken)
        assert (gaps[1:] <= gaps[:-1] + 1).all()  # steps are whole


def test_plans_know_the_names_of_the_schedulers_that_look_at_nothing():
    assert tuple(UNCALIBRATED) == names.UNCALIBRATED
