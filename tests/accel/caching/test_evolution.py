import dataclasses

import numpy as np
import pytest

from ontick import accel
from ontick.accel.caching.costs import CostModel
from ontick.accel.caching.evaluator import ActionError
from ontick.accel.caching.evolution import evolve
from ontick.diffusion import load_plan
from ontick.errors import InputError

KINDS = ("self_attention", "cross_attention", "feed_forward") * 2
STEPS = 10
COST = CostModel(
    tick_ms=0.06, active_ms=0.02, run_ms=0.004, block_ms=dict(zip(KINDS[:3], (0.09, 0.01, 0.12), strict=True))
)


@pytest.fixture(scope="module")
def error(randomised_network, observation):
    plan = dataclasses.replace(load_plan(f"ddpm-{STEPS}"), accelerators={"exact": {}})
    return ActionError(accel.build(randomised_network(), plan, (2,), 8), observation(3), np.arange(3), rows=slice(1, 5))


def ticks(*steps):
    refresh = np.zeros((len(KINDS), STEPS), dtype=bool)
    refresh[:, list(steps)] = True
    return refresh


SEEDS = [ticks(0), ticks(0, 9), ticks(0, 5, 9), ticks(0, 3, 6, 9)]


def evolved(error, seed=0, generations=6):
    return evolve(error, COST, KINDS, SEEDS, generations, 12, seed)


@pytest.fixture(scope="module")
def front(error):
    return evolved(error)


def test_nothing_on_the_front_beats_another(front):
    assert len(front.ms) == len(front.error) == len(front.refresh) > 2
    assert (np.diff(front.ms) > 0).all() and (np.diff(front.error) < 0).all()


def test_the_front_holds_what_was_measured(front, error):
    np.testing.assert_allclose(front.ms, COST(front.refresh, KINDS))
    np.testing.assert_allclose(front.error, error(front.refresh), atol=1e-6)


def test_it_is_never_worse_than_a_seed_at_the_seed_s_cost(front, error):
    for seed in SEEDS:
        best = front.within(COST(seed, KINDS) + 1e-9)
        there, here = error(np.stack([seed, best]))
        assert here <= there + 1e-6


def test_it_finds_better_ones_than_it_was_given(error):
    given, found = evolved(error, generations=0), evolved(error, generations=12)
    budget_ms = COST(SEEDS[-1], KINDS)
    before, after = error(np.stack([given.within(budget_ms), found.within(budget_ms)]))
    assert after < before


def test_step_0_is_always_computed(front):
    assert front.refresh[:, :, 0].all()


def test_equal_seeds_give_equal_fronts_and_others_do_not(front, error):
    again, other = evolved(error), evolved(error, seed=1)
    np.testing.assert_array_equal(again.refresh, front.refresh)
    np.testing.assert_array_equal(again.error, front.error)
    assert other.refresh.shape != front.refresh.shape or (other.refresh != front.refresh).any()


def test_what_cannot_be_evolved_is_refused(front, error):
    with pytest.raises(InputError, match="at least 4"):
        evolve(error, COST, KINDS, SEEDS, 1, 2, 0)
    with pytest.raises(InputError, match="step 0 all true"):
        evolve(error, COST, KINDS, [~ticks(0)], 1, 8, 0)
    with pytest.raises(InputError, match="cheapest"):
        front.within(0.1)
