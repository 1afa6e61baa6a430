import dataclasses

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import LatencyBudget, LatencyHistogram, budget_names, load_budget


def test_the_presets_are_named_by_their_files_and_have_the_documented_times():
    times = {
        "gpu-50hz": (20, 15),
        "gpu-20hz": (50, 40),
        "cpu-20hz": (50, 40),
        "video-30fps": (33.3, 33.3),
        "video-10fps-cpu": (100, 100),
    }
    assert set(times) <= set(budget_names())
    for name, (period_ms, deadline_ms) in times.items():
        budget = load_budget(name)
        assert budget.name == name and budget.percentile == 99
        assert budget.period_s == pytest.approx(period_ms / 1e3)
        assert budget.deadline_s == pytest.approx(deadline_ms / 1e3)


def test_an_unknown_budget_is_refused_with_the_known_names():
    with pytest.raises(InputError, match="cpu-20hz, gpu-20hz, gpu-50hz"):
        load_budget("gpu-60hz")


def test_times_replace_those_of_a_preset_and_the_name_says_so():
    budget = load_budget("gpu-50hz", deadline_ms=10)
    assert (budget.period_s, budget.deadline_s) == pytest.approx((0.02, 0.01))
    assert budget.name == "gpu-50hz, deadline 10 ms"


def test_without_a_name_a_period_is_needed_and_is_the_deadline_too():
    assert load_budget(period_ms=30).deadline_s == pytest.approx(0.03)
    with pytest.raises(InputError, match="period"):
        load_budget()


@pytest.mark.parametrize("change", [{"period_s": 0}, {"deadline_s": -1}, {"percentile": 100}, {"period_s": np.nan}])
def test_impossible_budgets_are_refused(change):
    good = {"name": "x", "period_s": 0.02, "deadline_s": 0.02, "percentile": 99}
    with pytest.raises(InputError, match=next(iter(change))):
        LatencyBudget(**(good | change))


def test_a_deadline_may_be_longer_than_the_period_and_a_budget_is_frozen():
    budget = load_budget(period_ms=10, deadline_ms=30)
    with pytest.raises(dataclasses.FrozenInstanceError):
        budget.period_s = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_budget_is_met_when_its_share_of_the_answers_is_in_time():
    budget = load_budget("gpu-50hz")
    assert budget.met([0.010] * 99 + [0.500])
    assert not budget.met([0.010] * 98 + [0.500] * 2)
    assert budget.met([0.015]) and not budget.met([0.0150001])
    assert not budget.met([]), "no measurement meets no budget"


def test_a_histogram_is_judged_like_its_samples():
    budget, rng = load_budget("gpu-50hz"), np.random.default_rng(0)
    for scale in (0.003, 0.004, 0.0062, 0.0065, 0.008):
        samples = rng.gamma(4.0, scale / 4, 160) + 0.005
        histogram = LatencyHistogram()
        for sample in samples:
            histogram.record(sample)
        if abs(np.sort(samples)[158] - budget.deadline_s) > 1e-4:
            assert budget.met(histogram) == budget.met(samples)
    assert not budget.met(LatencyHistogram())
