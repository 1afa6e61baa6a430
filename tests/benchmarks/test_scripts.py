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
from ontick.benchmarks.exact_switches import ladder, left_out
from ontick.diffusion import load_plan
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
    assert "passed" in (tmp_path / "policy-cpu-tests.txt").read_text()
