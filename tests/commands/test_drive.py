"""`ontick drive sim` and `ontick bundle`, as a user calls them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ontick.commands import main
from ontick.commands.bundle import open_bundle
from ontick.errors import InputError

pytest.importorskip("ruckig")


def drive(tmp_path, *arguments, expect=0):
    place = tmp_path / "drive.json"
    command = [sys.executable, "-m", "ontick", "drive", "sim", *arguments, "--json", str(place)]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        if "watchdog" not in done.stderr:  # the machine was too busy for any controller
            break
    assert done.returncode == expect, done.stderr
    return json.loads(place.read_text()), done


@pytest.fixture(scope="module")
def anchored():
    from ontick.commands.families import ASSETS

    return ASSETS / "anchored-decoder" / "ontick-Avoid-v0"


@pytest.fixture(scope="module")
def bundle(anchored, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "avoid"
    assert main(["bundle", str(anchored), "--plan", "anchored-2+anchored-1", "--out", str(out)]) == 0
    return out


def test_the_simulated_robot_is_driven_in_real_time_from_a_bundle(tmp_path, bundle):
    told, done = drive(tmp_path, "--policy", str(bundle), "--seconds", "6", "--record", str(tmp_path / "recorded"))
    assert 300 <= told["commands"] <= 320 and told["watchdog_stops"] == 0 and told["end_state"] == "stopped"
    assert set(told["lateness_us"]) == {"p50", "p99", "p999", "max"}
    assert told["plans"] == ["anchored-2", "anchored-1"] and told["answers"] > 5 and told["gate"].get("gate", 0) == 0
    assert told["recording"]["dropped"] == 0 and told["recording"]["failed"] is None
    assert "commands" in done.stdout
    from ontick.runtime.recording import read_recording

    ticks = read_recording(told["recording"]["file"])["ticks"]
    assert len(ticks) == told["commands"]


def test_a_driver_that_raises_ends_with_exit_1_and_the_reason(tmp_path, bundle):
    told, done = drive(tmp_path, "--policy", str(bundle), "--fault", "driver-raises", "--seconds", "4", expect=1)
    assert "told to fail" in done.stderr and told["end_state"] == "stopped" and told["end_state_ms"] < 500
    assert told["faults"]["kept"]


def test_ctrl_c_brings_the_robot_to_rest_and_leaves_whole_files(tmp_path, bundle):
    place = tmp_path / "drive.json"
    command = [sys.executable, "-m", "ontick", "drive", "sim", "--policy", str(bundle), "--json", str(place)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while "commands a second" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(2.0)
    os.kill(process.pid, signal.SIGINT)
    code, told = process.wait(60), json.loads(place.read_text())
    assert told["commands"] > 10 and code == (0 if told["fault"] is None else 1)
    assert told["fault"] is None or "watchdog" in told["fault"]


def test_a_bundle_says_what_is_in_it_and_refuses_what_was_changed(bundle, tmp_path):
    opened = open_bundle(bundle)
    assert [plan.name for plan in opened.plans] == ["anchored-2", "anchored-1"]
    assert opened.costs_s[0] >= opened.costs_s[1] > 0 and opened.terms.name == "sim"
    (bundle / "checkpoint" / "extra").write_text("?")
    try:
        with pytest.raises(InputError, match="pack it again"):
            open_bundle(bundle)
    finally:
        (bundle / "checkpoint" / "extra").unlink()


@pytest.mark.parametrize(
    "arguments",
    [
        ("drive", "nowhere.yaml"),
        ("drive", "sim", "--policy", "nowhere"),
        ("drive", "sim", "--seconds", "-1"),
        ("drive", "sim", "--rate-hz", "100000"),
        ("drive", "sim", "--seed", "-1"),
        ("drive", "sim", "--token-env", "TOKEN"),
        ("drive", "sim", "--policy", "ws://127.0.0.1:9", "--plan", "ddim-2"),
        ("drive", "sim", "--policy", "ws://127.0.0.1:9", "--token-env", "NO_SUCH_TOKEN"),
        ("drive", "sim", "--view", "x.rrd"),
        ("drive", "sim", "--fault", "no-such"),
        ("bundle", "nowhere", "--plan", "anchored-2", "--out", "x"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
