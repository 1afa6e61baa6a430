import dataclasses

import numpy as np
import pytest

from ontick import accel
from ontick.accel.caching.costs import CostModel
from ontick.accel.caching.evaluator import ActionError
from ontick.accel.caching.global_budget import budget_of, global_schedule, sensitivity
from ontick.diffusion import load_plan
from ontick.errors import InputError

KINDS = ("self_attention", "cross_attention", "feed_forward") * 2
STEPS = 20
COST = CostModel(
    tick_ms=0.06, active_ms=0.02, run_ms=0.004, block_ms=dict(zip(KINDS[:3], (0.09, 0.01, 0.12), strict=True))
)


@pytest.fixture
def error(randomised_network, observation):
    network = randomised_network()
    plan = dataclasses.replace(load_plan(f"ddpm-{STEPS}"), accelerators={"exact": {}})
    return ActionError(accel.build(network, plan, (2,), 8), observation(4), np.arange(4), rows=slice(1, 5))


def ticks(*steps):
    refresh = np.zeros((len(KINDS), STEPS), dtype=bool)
    refresh[:, list(steps)] = True
    return refresh


def test_it_beats_uniform_caching_with_the_last_step_at_the_same_cost(error):
    budget_ms = budget_of(COST, 5, len(KINDS), STEPS, KINDS)
    found = global_schedule(error, COST, KINDS, STEPS, budget_ms, evaluations=600)
    uniform = ticks(0, 7, 11, 15, 19)
    assert COST(found, KINDS) <= budget_ms == COST(uniform, KINDS)
    assert found[:, 0].all()
    here, there = error.per_sample(np.stack([found, uniform])).mean(1)
    assert here < there


def test_more_budget_is_never_worse_than_the_same_evaluations_allow(error):
    found = [
        global_schedule(error, COST, KINDS, STEPS, budget_of(COST, M, len(KINDS), STEPS, KINDS), evaluations=200)
        for M in (3, 8)
    ]
    few, many = error.per_sample(np.stack(found)).mean(1)
    assert many < few


def test_a_budget_for_everything_computes_everything(error):
    budget_ms = budget_of(COST, STEPS, len(KINDS), STEPS, KINDS)
    assert error(global_schedule(error, COST, KINDS, STEPS, budget_ms, evaluations=100)[None])[0] < 1e-5


def test_equal_arguments_give_an_equal_schedule_and_progress_is_told(error):
    budget_ms = budget_of(COST, 4, len(KINDS), STEPS, KINDS)
    told = []
    found = [
        global_schedule(error, COST, KINDS, STEPS, budget_ms, lambda *now: told.append(now), evaluations=200)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*found)
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    errors = [value for _, value in told[: len(told) // 2]]
    assert errors == sorted(errors, reverse=True)


def test_sensitivity_is_what_leaving_one_refresh_out_costs(error):
    refresh = ticks(0, 6, 13, 19)
    refresh[2, 13] = False
    harm = sensitivity(error, refresh)
    assert harm.shape == refresh.shape
    assert not harm[:, 0].any() and not harm[~refresh].any() and harm[:, 1:].any()
    less = refresh.copy()
    less[5, 19] = False
    with_it, without = error.per_sample(np.stack([refresh, less])).mean(1)
    assert harm[5, 19] == pytest.approx(without - with_it, abs=1e-6)


def test_budgets_are_counted_in_full_refreshes():
    assert budget_of(COST, 3, len(KINDS), STEPS, KINDS) == pytest.approx(COST(ticks(0, 5, 9), KINDS))
    with pytest.raises(InputError, match="wanted 1 to"):
        budget_of(COST, 0, len(KINDS), STEPS, KINDS)


def test_a_budget_that_pays_for_nothing_is_refused(error):
    with pytest.raises(InputError, match="two full refreshes"):
        global_schedule(error, COST, KINDS, STEPS, budget_of(COST, 1, len(KINDS), STEPS, KINDS))
    with pytest.raises(InputError, match="6 blocks and 20 steps"):
        global_schedule(error, COST, KINDS, STEPS + 1, 10.0)
