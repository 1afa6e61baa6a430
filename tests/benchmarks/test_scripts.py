"""The scripts that are run by hand: what they time can be built, and the one for GPUs runs from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ontick
from ontick import accel
from ontick.accel.exact import SWITCHES
from ontick.benchmarks import few_calls
from ontick.benchmarks.exact_switches import ladder, left_out
from ontick.benchmarks.fair_fight import best, draw, kind_of, table
from ontick.diffusion import load_plan
from ontick.errors import InputError
from ontick.policy import TransformerConfig, TransformerForDiffusion

ROOT = Path(ontick.__file__).parent


def test_every_rung_of_the_ladder_is_a_plan_that_builds():
    network = TransformerForDiffusion(
        TransformerConfig(action_dim=2, observation_dim=3, width=16, layers=1, heads=2)
    ).eval()
    rungs = {**ladder(), **left_out()}
    for name, plan in rungs.items():
        assert accel.build(network, plan, (2,), 16).calls == 100, name
    told = " ".join(rungs)
    assert all(switch in told for switch in SWITCHES)
    assert load_plan("exact").accelerators == {"exact": {}}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_gpu_script_runs_from_end_to_end_on_a_cpu(tmp_path):
    trial = {"SUITE": "policy-cpu", "DEVICE": "cpu", "EXTRA": "--quick --n 1", "TESTS": "test_a_graph"}
    trial["PICARD"] = "--windows 8 --n 1 --chunks 1"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "benchmarks" / "gpu.sh", tmp_path],
        env={**os.environ, **trial, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "policy-cpu.json").read_text())["rows"]
    told = json.loads((tmp_path / "policy-cpu-profile.json").read_text())
    assert told["kernels"] > 0 and told["wall_ms"]["n"] == 20
    assert (tmp_path / "policy-cpu.published.trace.json").is_file()
    assert json.loads((tmp_path / "policy-cpu-picard.json").read_text())["rows"]
    assert "passed" in (tmp_path / "policy-cpu-tests.txt").read_text()


# -- the fair fight ----------------------------------------------------------------------------------------------------


def fought(plan: str, p50: float, wins: int, entropy: float | None = None) -> dict:
    chunk_ms = {"p50": p50, "p99": 2 * p50}
    outcomes = [i < wins for i in range(20)]
    interval = {"success_low": wins / 20 - 0.1, "success_high": min(1.0, wins / 20 + 0.1)}
    modes = {"mode_entropy": entropy, "mode_entropy_interval": entropy and [entropy - 0.1, entropy + 0.1]}
    row = {"task": "t", "plan": plan, "chunk_ms": chunk_ms, "successes": wins, "episodes": 20, "outcomes": outcomes}
    return {**row, **interval, **modes}


FOUGHT = [
    fought("exact", 100.0, 19, 2.0),
    fought("global-10", 30.0, 19, 1.9),
    fought("bac-10", 45.0, 18, 2.0),
    fought("exact-ddim-20", 20.0, 18, 2.0),
    fought("exact-ddim-2", 5.0, 10, 1.2),
    fought("global-5-ddim-20", 9.0, 19, 1.8),
    fought("robomimic-bc", 0.1, 20),
]


def test_plans_are_told_apart_by_kind():
    kinds = [kind_of(row["plan"]) for row in FOUGHT]
    fewer = "fewer steps"
    assert kinds == ["dense", "caching", "caching", fewer, fewer, "caching on fewer steps", None]


def test_the_best_of_a_kind_fits_its_budget_and_succeeds_most():
    assert best(FOUGHT, "caching", 50.0)["plan"] == "global-10"
    assert best(FOUGHT, "fewer steps", 50.0)["plan"] == "exact-ddim-20"
    assert best(FOUGHT, "fewer steps", 10.0)["plan"] == "exact-ddim-2"
    assert best(FOUGHT, "caching", 20.0) is None


def test_the_fight_is_told_for_each_budget_and_kind_and_drawn(tmp_path):
    lines = table(FOUGHT)
    assert len(lines) == 2 + 4 * 3
    assert lines[2].startswith("| 1/2: 50.0 | caching | global-10 | 30.0 | 19/20 | +0.0")
    assert "nothing fits" in lines[-3]
    draw({"t": FOUGHT, "without modes": [{**row, "mode_entropy": None} for row in FOUGHT]}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


# -- controllers of few calls ------------------------------------------------------------------------------------------


def few(plan: str, wins: int, disturb: str | None = None) -> dict:
    costs = {"calls_per_action": 2.0, "answers_per_action": 0.5, "jerk": 0.1, "disturb": disturb}
    return fought(plan, 10.0, wins) | costs


def test_disturbed_rows_stand_in_a_table_of_their_own_and_times_only_where_they_were_taken():
    timed = {"rows": [few("ddpm-100", 19), few("rti-3", 18)], "retimed": {"peer-ddpm-100": {"p50": 100.0}}}
    pushed = {"rows": [few("ddim-10", 10, "push"), few("rti-3", 14, "push")]}
    groups = few_calls.grouped([timed, pushed])
    assert list(groups) == ["t", "t, push"]
    peers = few_calls.peers_of([timed, pushed])
    assert peers == {"t": 50.0}
    head, _, *lines = few_calls.table(groups["t"], peers["t"])
    assert "ms/action" in head and "against ddpm-100" in head and "modes" not in head
    assert any("| 5.00 | 0.1000 |" in line for line in lines), "10 ms an answer, 0.5 answers an action, of 50 ms"
    head, _, *lines = few_calls.table(groups["t, push"], None)
    assert "ms" not in head and "against ddim-10" in head and "+20.0" in lines[1]


def test_a_table_without_a_row_to_compare_with_is_refused():
    with pytest.raises(InputError, match="ddpm-100 or ddim-10"):
        few_calls.table(few_calls.grouped([{"rows": [few("rti-3", 3)]}])["t"], None)


def test_few_calls_are_drawn(tmp_path):
    few_calls.draw(few_calls.grouped([{"rows": [few("ddpm-100", 19), few("rti-3", 18)]}]), tmp_path / "few.png")
    assert (tmp_path / "few.png").stat().st_size > 5000
