"""`ontick evaluate` with answers that take time: fixed delays, inference beside execution, ladders."""

import json

import pytest

from ontick.commands import main
from ontick.commands.request import shipped_traces
from ontick.runtime import LatencyTrace

TASK = "metaworld/pick-place-v3"
PLAYED = ("outcomes", "steps", "jerk", "starved", "rest", "dropped", "rungs", "seam_jump_max", "misses")


@pytest.fixture
def evaluate(tiny_checkpoint, tmp_path, monkeypatch):
    """evaluate(plans, *options) -> (exit code, the only row or None)."""
    monkeypatch.setattr("ontick.commands.evaluate.TIMING_SECONDS", 0.01)

    def run(plans, *options, name="out.json"):
        path = tmp_path / name
        wanted = ["--tasks", TASK, "--checkpoint", str(tiny_checkpoint), "--episodes", "3", "--json", str(path)]
        code = main(["evaluate", *wanted, "--plans", plans, *options])
        return code, json.loads(path.read_text())["rows"][0] if path.exists() else None

    return run


@pytest.fixture
def trace(tmp_path):
    """trace(plan=[ms], ...) -> the place of a latency trace."""

    def write(**latency_ms):
        named = {plan.replace("_", "-"): samples for plan, samples in latency_ms.items()}
        return str(LatencyTrace({}, named).save(tmp_path / "t.json"))

    return write


@pytest.mark.slow
def test_a_delayed_and_stitched_run_repeats_bit_for_bit_whatever_the_workers(evaluate):
    options = ("--delay-ticks", "3", "--stitch", "inpaint", "--late", "drop")
    (_, one), (_, two) = (evaluate("ddim-2", *options, "--workers", w, name=f"{w}.json") for w in "12")
    assert {key: one[key] for key in PLAYED} == {key: two[key] for key in PLAYED}
    assert one["starved"] == 3 * 3, "held until the first answer of each of three episodes, and never again"
    assert one["judged_by"] == "a delay of 3 ticks"


@pytest.mark.parametrize("stitch", ["replace", "blend", "inpaint"])
def test_at_a_seam_the_command_moves_by_at_most_what_the_task_allows(evaluate, stitch):
    _, row = evaluate("ddim-2", "--delay-ticks", "2", "--stitch", stitch)
    assert 0 < row["seam_jump_max"] <= 1.0 + 1e-6, "20 units a second, 50 ms a tick"
    assert row["rungs"] == {"ddim-2": sum(row["steps"]) - row["starved"], "rest": row["starved"]}


def test_a_ladder_takes_the_dearest_rung_that_fits_and_counts_ticks_by_rung(evaluate, trace, capsys):
    _, row = evaluate("ddim-4+ddim-2", "--charge", trace(ddim_4=[100.0], ddim_2=[10.0]))
    assert row["plan"] == "ddim-4+ddim-2" and row["misses"] == 0
    assert row["rungs"] == {"ddim-4": 0, "ddim-2": sum(row["steps"]), "rest": 0}
    assert "ticks by the rung" in capsys.readouterr().out
    _, row = evaluate("ddim-4+ddim-2", "--charge", trace(ddim_4=[25.0], ddim_2=[10.0]), name="b.json")
    assert row["rungs"]["ddim-4"] == sum(row["steps"])


@pytest.mark.slow
def test_a_shipped_trace_is_charged_by_its_name(tmp_path):
    assert "amd-epyc-1-thread" in shipped_traces()
    asked = ["--tasks", "ontick/Avoid-v0", "--episodes", "2", "--json", str(tmp_path / "out.json")]
    code = main(["evaluate", *asked, "--plans", "exact-ddim-20+exact-ddim-4", "--charge", "amd-epyc-1-thread"])
    row = json.loads((tmp_path / "out.json").read_text())["rows"][0]
    assert code == 0 and row["judged_by"] == "charged latencies" and row["rungs"]["exact-ddim-20"] > 0


@pytest.mark.parametrize("name", shipped_traces())
def test_a_shipped_trace_says_machine_n_and_percentiles(name):
    written = json.loads(shipped_traces()[name].read_text())
    assert written["machine"]["cpu"] and written == LatencyTrace.load(shipped_traces()[name]).to_dict()
    for plan in written["plans"].values():
        assert plan["n"] >= 30 and plan["p50_ms"] <= plan["p99_ms"] <= plan["max_ms"]


@pytest.mark.parametrize(
    ("plans", "options", "told"),
    [
        ("ddim-4+ddim-2", ["--delay-ticks", "2"], "--charge"),
        ("ddim-4", ["--delay-ticks", "2", "--charge", "measured"], "one of them"),
        ("ddim-4", ["--delay-ticks", "-1"], "0 or more"),
        ("ddim-4", ["--charge", "h1000"], "no such file"),
        ("ddim-4+ddim-4", [], "two plans with one name"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(evaluate, capsys, plans, options, told):
    code, row = evaluate(plans, *options)
    error = capsys.readouterr().err
    assert code == 2 and row is None and told in error and error.count("\n") == 1


def test_inpainting_is_refused_for_who_cannot_before_anything_is_played(tmp_path, capsys):
    asked = ["--tasks", "ontick/Avoid-v0", "--plans", "ddim-2,robomimic-bc", "--json", str(tmp_path / "out.json")]
    assert main(["evaluate", *asked, "--delay-ticks", "2", "--stitch", "inpaint"]) == 2
    assert "robomimic-bc cannot be told" in capsys.readouterr().err and not (tmp_path / "out.json").exists()


def test_guided_answers_are_timed_and_traced_as_such(evaluate, tmp_path):
    _, row = evaluate("ddim-2", "--charge", "measured", "--stitch", "inpaint")
    assert list(LatencyTrace.load(tmp_path / "out.trace.json").latency_ms) == ["ddim-2 inpaint"]
    assert row["latency_ms_by_rung"].keys() == {"ddim-2"}


def test_a_plan_that_runs_in_parallel_in_time_is_a_row_like_others(evaluate):
    code, row = evaluate("picard-4-ddim-8", "--charge", "measured")
    assert code == 0 and row["calls_per_action"] > 0 and row["action_error"] < 0.2


def test_a_ladder_whose_costs_rise_is_refused(evaluate, trace, capsys):
    code, _ = evaluate("ddim-4+ddim-2", "--charge", trace(ddim_4=[10.0], ddim_2=[30.0]))
    assert code == 2 and "dearest first" in capsys.readouterr().err
