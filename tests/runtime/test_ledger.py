import json

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import LatencyHistogram, Ledger, VirtualClock, load_budget, measure_latency


def filled(seed: int, n: int = 200) -> Ledger:
    ledger, rng = Ledger(), np.random.default_rng(seed)
    for seconds in rng.gamma(2.0, 0.004, n):
        ledger.record("chunk", float(seconds))
        ledger.record("inference", float(seconds) * 0.9)
    ledger.count("rest", 3)
    ledger.miss("inference")
    with ledger.phase("warm-up"):
        ledger.record("chunk", 2.0)
        ledger.count("rest")
    return ledger


def test_percentiles_are_those_of_the_samples_to_three_digits_and_the_maximum_is_exact():
    samples = np.random.default_rng(1).gamma(2.0, 0.01, 1000)
    histogram = LatencyHistogram()
    for sample in samples:
        histogram.record(float(sample))
    ordered = np.sort(samples)
    for percentile, rank in ((50, 500), (99, 990), (99.9, 999)):
        assert histogram.percentile_s(percentile) == pytest.approx(ordered[rank - 1], rel=2e-3, abs=1e-6)
    assert histogram.max_s == samples.max() and histogram.n == 1000


def test_a_tail_percentile_is_never_rounded_to_a_lower_rank():
    histogram = LatencyHistogram()
    for _ in range(158):
        histogram.record(0.001)
    histogram.record(0.002)
    histogram.record(0.003)
    assert histogram.percentile_s(99) == pytest.approx(0.002, rel=2e-3)  # rank 159 of 160


def test_a_warm_up_never_enters_the_run():
    ledger = filled(0)
    assert ledger.stage("chunk").max_s < 1.0
    assert ledger.stage("chunk", "warm-up").max_s == 2.0
    assert ledger.counter("rest") == 3 and ledger.counter("rest", "warm-up") == 1
    assert ledger.summary()["phases"]["warm-up"]["stages_ms"]["chunk"]["n"] == 1


def test_merging_is_the_same_as_entering_everything_in_one_ledger():
    merged, one = Ledger(), Ledger()
    for seed in (0, 1):
        merged.merge(filled(seed))
        for seconds in np.random.default_rng(seed).gamma(2.0, 0.004, 200):
            one.record("chunk", float(seconds))
    assert merged.stage("chunk").summary_ms() == one.stage("chunk").summary_ms()
    assert merged.counter("rest") == 6 and merged.counter("misses") == 2
    assert merged.summary()["miss_causes"] == {"inference": 2}


def test_a_ledger_survives_json():
    ledger = filled(0)
    again = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert again.summary() == ledger.summary()
    assert set(again.summary()["stages_ms"]["chunk"]) == {"n", "p50", "p99", "p99.9", "max"}


@pytest.mark.parametrize("damage", [{}, {"format": "other"}, [], {"format": "ontick-ledger-1", "phases": {"run": {}}}])
def test_what_is_not_a_ledger_is_refused(damage):
    with pytest.raises(InputError, match="wanted"):
        Ledger.from_dict(damage)


def test_a_damaged_histogram_is_refused():
    data = filled(0).to_dict()
    data["phases"]["run"]["stages"]["chunk"]["hdr"] = "nonsense"
    with pytest.raises(InputError, match="histogram"):
        Ledger.from_dict(data)


def test_unknown_stages_and_impossible_durations_are_refused():
    for stage, seconds in (("thinking", 0.1), ("chunk", -0.1), ("chunk", float("nan"))):
        with pytest.raises(ValueError, match="got"):
            Ledger().record(stage, seconds)


def test_measuring_times_each_answer_and_keeps_the_warm_up_apart():
    clock, ledger = VirtualClock(), Ledger()
    costs_s = iter([1.0, 1.0, 0.010, 0.050, 0.020])

    def answer():
        cost_s = next(costs_s)
        clock.advance(cost_s)
        return {"encode": 0.2 * cost_s, "inference": 0.8 * cost_s}

    latencies_s = measure_latency(answer, 3, 2, clock, ledger, load_budget("cpu-20hz"))
    np.testing.assert_allclose(latencies_s, [0.010, 0.050, 0.020])
    assert ledger.stage("chunk").n == 3 and ledger.stage("chunk", "warm-up").n == 2
    assert ledger.summary()["miss_causes"] == {"inference": 1}
    assert ledger.stage("lateness").max_s == pytest.approx(0.010)
