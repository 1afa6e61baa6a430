import json

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import Charge, LatencyTrace, delay_ticks, load_budget

TRACE = LatencyTrace({"cpu": "some"}, {"ddim-10": [4.0, 5.5, 6.25, 80.0], "ddpm-100": [60.0]})


def test_a_trace_survives_its_file(tmp_path):
    path = TRACE.save(tmp_path / "new" / "trace.json")
    again = LatencyTrace.load(path)
    assert again == TRACE
    assert [entry.name for entry in path.parent.iterdir()] == ["trace.json"]
    plan = json.loads(path.read_text())["plans"]["ddim-10"]
    assert plan["n"] == 4 and plan["p50_ms"] == 5.5 and plan["p99_ms"] == plan["max_ms"] == 80.0


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"format": "other"}',
        '{"format": "ontick-latency-trace-1", "machine": {}}',
        '{"format": "ontick-latency-trace-1", "machine": {}, "plans": {"a": {}}}',
        '{"format": "ontick-latency-trace-1", "machine": {}, "plans": {"a": {"latency_ms": []}}}',
        '{"format": "ontick-latency-trace-1", "machine": {}, "plans": {"a": {"latency_ms": [-1]}}}',
        '{"format": "ontick-latency-trace-1", "machine": {}, "plans": {"a": {"latency_ms": [NaN]}}}',
        '{"format": "ontick-latency-trace-1", "machine": {}, "plans": {"a": {"latency_ms": ["1"]}}}',
    ],
)
def test_what_is_not_a_trace_is_refused(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match="wanted"):
        LatencyTrace.load(tmp_path / "bad.json")


def test_a_missing_trace_and_a_missing_plan_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        LatencyTrace.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="ddim-10, ddpm-100"):
        TRACE.latencies_s("ddim-5")


def test_a_charge_depends_on_seed_and_chunk_alone():
    charge, again = Charge(TRACE.latencies_s("ddim-10")), Charge(TRACE.latencies_s("ddim-10"))
    keys = [(seed, chunk) for seed in range(20) for chunk in range(20)]
    forwards = {key: charge.latency_s(*key) for key in keys}
    backwards = {key: again.latency_s(*key) for key in reversed(keys)}
    assert forwards == backwards
    np.testing.assert_allclose(sorted(set(forwards.values())), [0.004, 0.0055, 0.00625, 0.080])


def test_a_charge_is_the_same_in_every_process():
    # Python's own hash differs from process to process; these were drawn in another one.
    charge = Charge(np.arange(1000.0))
    assert [charge.latency_s(0, 0), charge.latency_s(0, 1), charge.latency_s(1, 0)] == [837.0, 34.0, 306.0]


def test_nothing_is_charged_without_latencies():
    assert Charge.none().is_free and Charge.none().latency_s(3, 4) == 0.0
    with pytest.raises(InputError, match="not finite"):
        Charge([0.1, float("inf")])


@pytest.mark.parametrize(
    ("latency_ms", "ticks"), [(0, 0), (15, 0), (15.1, 1), (20, 1), (20.1, 2), (40, 2), (60, 3), (61, 4)]
)
def test_an_answer_within_the_deadline_waits_for_nothing_and_a_later_one_for_whole_periods(latency_ms, ticks):
    assert delay_ticks(latency_ms * 1e-3, load_budget("gpu-50hz")) == ticks
