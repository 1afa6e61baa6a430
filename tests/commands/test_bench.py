"""`ontick bench`: what it refuses, what it prints, what it writes."""

import json

import pytest
import torch

from ontick.benchmarks import policy as suite
from ontick.commands import main


@pytest.fixture
def small(monkeypatch):
    """Two rows that cost nothing."""

    def run_case(case, names, budget, device, n, tick, chunks):
        for _ in range(n + 1):
            tick()
        row = {
            "case": case,
            "backend": "eager",
            "precision": "fp32",
            "action_error": 1e-7,
            "action_rms": 1e-8,
            "calls": 100,
            "refreshes": 100,
            "flops": 10**10,
            "bytes_read": 10**9,
            "bytes_floor_ms": 20.0,
            "peak_bytes": None,
            "budget": {"name": budget.name, "met": False},
            "samples_ms": [100.0] * n,
        }
        ms = {"p50": 100.0, "p99": None, "n": n}
        peer = {**row, "plan": "peer-ddpm-100", "ms": ms, "ratio_to_peer": 1.0}
        ours = {**row, "plan": "exact", "ms": {**ms, "p50": 20.0}, "ratio_to_peer": 0.2}
        return {"rows": [peer, ours], "left_out": {"int8": "no such kernel"}, "fp32_flops_per_s": 1e11}

    monkeypatch.setattr(suite, "run_case", run_case)


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_prints_a_table_and_writes_json_and_picture(small, tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main(["bench", "policy-cpu", "--quick", "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert document["suite"] == "policy-cpu" and [row["plan"] for row in document["rows"]] == ["peer-ddpm-100", "exact"]
    assert document["machine"]["threads"] == 1 and document["machine"]["packages"]["torch"]
    assert all(row["ms"]["n"] == 10 and row["case"] == "published" for row in document["rows"])
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "peer-ddpm-100" in out and "0.200" in out and "missed" in out
    assert "published int8 is left out: no such kernel" in out


def test_without_quick_both_shapes_are_timed(small, tmp_path):
    path = tmp_path / "bench.json"
    assert main(["bench", "policy-cpu", "--n", "2", "--threads", "2", "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert {row["case"] for row in document["rows"]} == {"published", "large"} == set(document["floors"])
    assert document["machine"]["threads"] == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["policy-tpu"], "invalid choice"),
        (["policy-cpu", "--device", "cuda"], "suite policy-cpu is for cpu"),
        (["policy-cpu", "--threads", "0"], "whole numbers from 1"),
        (["policy-cpu", "--n", "0"], "whole numbers from 1"),
        (["policy-cpu", "--cases", "huge"], "wanted published, large"),
        (["policy-cpu", "--quick", "--cases", "large"], "--quick has no other"),
        (["policy-cpu", "--budget", "soon"], "soon"),
    ],
)
def test_bad_usage_is_told_in_one_line(arguments, complaint, tmp_path, capsys):
    assert main(["bench", *arguments, "--json", str(tmp_path / "b.json")]) == 2
    told = capsys.readouterr().err
    assert complaint in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_the_gpu_suite_says_that_there_is_no_gpu(tmp_path, capsys):
    assert main(["bench", "policy-gpu", "--json", str(tmp_path / "b.json")]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_rows_can_be_chosen_and_stand_beside_the_peers(monkeypatch, small, tmp_path):
    names, run_case = [], suite.run_case
    monkeypatch.setattr(
        suite, "run_case", lambda case, chosen, *more: (names.append(chosen), run_case(case, chosen, *more))[1]
    )
    path = str(tmp_path / "b.json")
    assert main(["bench", "policy-cpu", "--quick", "--plans", "exact,power-10,exact-ddim-5", "--json", path]) == 0
    assert names == [(*suite.PEERS, "exact", "power-10", "exact-ddim-5")]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--plans", "exact,exact"], "names something twice"),
        (["--plans", ","], "--plans is empty"),
        (["--plans", "exakt"], "unknown plan 'exakt'"),
        (["--plans", "bac-77"], "no cache schedule"),
        (["--plans", "bac-10", "--cases", "large"], "nothing is calibrated for the random weights"),
    ],
)
def test_rows_that_cannot_be_had_are_refused(given, complaint, tmp_path, capsys):
    assert main(["bench", "policy-cpu", *given, "--json", str(tmp_path / "b.json")]) == 2
    assert complaint in capsys.readouterr().err
