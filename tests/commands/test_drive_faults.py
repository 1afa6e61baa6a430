"""Every fault of `ontick drive sim --fault`, and an interrupt at every moment of a drive."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ontick.commands import main
from ontick.commands.fault_making import FaultMaker, usual_seconds
from ontick.commands.fault_server import Server
from ontick.commands.hogs import start_hogs, stop_hogs
from ontick.errors import RunFailed
from ontick.runtime.faults import FAULTS

pytest.importorskip("ruckig")

# What the drive itself says of a fault: why it held, and a word of what it explains or has counted.
CAUSES = {
    "server-killed": ("no rows left", "lost"),
    "server-hung": ("no rows left", "late"),
    "nan-action": ("no rows left", "not finite"),
    "inf-action": ("no rows left", "not finite"),
    "wrong-shape": ("no rows left", "shape"),
    "beyond-limits": ("actions beyond limits", "beyond"),
    "stale-observation": ("observation", "old"),
    "frozen-camera": ("observation", "frozen"),
    "driver-raises": (None, "told to fail"),
}
# When to interrupt: how many processes a drive has begun (inference, controller, robot, recorder), what it has printed,
# seconds after that, and how often.
MOMENTS = {
    "at once": (0, "", 0.0, 1),
    "while it imports": (0, "", 0.4, 1),
    "while it warms up": (1, "warming up", 0.0, 1),
    "while the policy is made": (1, "warming up", 2.0, 2),
    "while the controller begins": (2, "warming up", 0.0, 1),
    "while the robot connects": (3, "warming up", 0.0, 1),
    "while the recorder begins": (4, "commands a second", 0.0, 1),
    "while it runs": (4, "commands a second", 2.0, 1),
    "twice while it runs": (4, "commands a second", 2.0, 2),
}
TWICE_S, ENDS_S, LINGER_S = 0.05, 20.0, 5.0
SHARED = Path("/dev/shm")


def drive(tmp_path, *arguments):
    place = tmp_path / "drive.json"
    command = [sys.executable, "-m", "ontick", "drive", "sim", *arguments, "--json", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert place.is_file(), done.stderr
    return json.loads(place.read_text()), done


def check(told, name):
    """The fault was made, it had the consequence that it was to have, and the state and the bound are as declared."""
    fault, promise = FAULTS[name], told["faults"]
    assert promise["verdict"] == "as declared" and promise["kept"], (promise, told["holds"])
    assert told["end_state"] == promise["declared"] == fault.end and promise["made"]
    if fault.end == "moving":
        assert promise["held_ms"] < 50
    else:
        assert told["end_state_ms"] <= promise["bound_ms"]
    if name in CAUSES:
        why, word = CAUSES[name]
        said = json.dumps([told["explained"], told["unanswered"], told["fault"]])
        assert (why is None or why in told["holds"]) and word in said
    if fault.end == "holding" and name != "beyond-limits":
        assert promise["resumed_ms"] is not None
    assert told["watchdog_stops"] == 0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from ontick.commands.families import ASSETS

    out = tmp_path_factory.mktemp("bundle") / "avoid"
    anchored = ASSETS / "anchored-decoder" / "ontick-Avoid-v0"
    assert main(["bundle", str(anchored), "--plan", "anchored-2", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_a_driver_that_raises_stops_the_robot_in_time_and_says_why(tmp_path, bundle):
    told, done = drive(tmp_path, "--policy", str(bundle), "--fault", "driver-raises", "--seconds", "4")
    check(told, "driver-raises")
    assert done.returncode == 1 and "told to fail" in done.stderr


@pytest.mark.slow
def test_answers_of_a_server_with_another_shape_are_refused_and_the_robot_holds_in_time(tmp_path, bundle):
    told, done = drive(tmp_path, "--policy", str(bundle), "--fault", "wrong-shape", "--seconds", "6")
    check(told, "wrong-shape")
    assert done.returncode == 0 and told["faults"]["made"]["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_ends_as_declared(tmp_path, name):
    told, done = drive(tmp_path, "--fault", name, "--seconds", f"{usual_seconds(name):g}")
    check(told, name)
    assert done.returncode == (1 if name == "driver-raises" else 0), done.stderr


class Drive:
    """A drive that sees nothing; both `driving` and `inference`."""

    fault = SimpleNamespace(value=0)
    card = SimpleNamespace(rows=16, plans=("only",))
    description = SimpleNamespace(streams=(("camera", 4, 6),))
    ticks = answers = SimpleNamespace(
        take=list, dtype=np.dtype([("time_s", "f8"), ("state", "u1"), ("why", "u1"), ("kind", "u1")])
    )


@pytest.mark.parametrize("name", ["disk-full", "interrupt", "driver-raises", "clock-step"])
def test_a_run_that_ends_before_its_fault_has_kept_nothing(name):
    maker = FaultMaker(name)
    maker.begin(Drive, Drive, 1e6)
    maker.look(0.0)
    maker.end_state({"stopped_s": 1.0, "fault": "something else"}, 0.02)
    told = maker.told()
    assert not told["kept"] and told["verdict"] == "NOT MADE" and told["bound_ms"] > 0


def test_a_robot_that_was_stopped_in_a_fault_that_motion_was_to_outlive_has_not_gone_on(monkeypatch):
    maker = FaultMaker("clock-step")
    maker.begin(Drive, Drive, 1e-6)
    moving = np.array([(0.0, 0, 0, 0)], Drive.ticks.dtype)
    monkeypatch.setattr(Drive, "ticks", SimpleNamespace(take=lambda: list(moving), dtype=moving.dtype))
    maker.look(0.0)
    state, _ = maker.end_state({"stopped_s": 1e9, "fault": "watchdog: no command for 51 ms"}, 0.02)
    assert state == "stopped" and not maker.told({"time_of_day_stepped_s": 3600.0})["kept"]


def test_without_a_fault_nothing_is_promised():
    maker = FaultMaker(None)
    maker.begin(Drive, Drive, None)
    maker.look(0.0)
    assert maker.end_state({"stopped_s": 1.0}, 0.02) == ("stopped", 0.0) and maker.told() == {"name": None}


# -- nothing is left behind -------------------------------------------------------------------------------------------


def session_of(number):
    """Processes of a session: {pid: command line}."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == number and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def begun(number):
    return sum("spawn_main" in command for command in session_of(number).values())


def orphaned_memory(before):
    """Shared memory that is new and that nobody who lives has open: others may test beside us."""
    new = {path.name for path in SHARED.iterdir()} - before
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:
            continue
        new = {name for name in new if f"/dev/shm/{name}" not in text}
    return new


def wait_until(is_so, seconds):
    until_s = time.monotonic() + seconds
    while not (so := is_so()) and time.monotonic() < until_s:
        time.sleep(0.02)
    return so


def interrupted(tmp_path, bundle, moment):
    """Ctrl-C, as a terminal sends it to all processes, and what must then hold."""
    processes, printed, after_s, times = MOMENTS[moment]
    before = {path.name for path in SHARED.iterdir()}
    place, recorded, said = tmp_path / "drive.json", tmp_path / "recorded", tmp_path / "said.txt"
    arguments = ["--policy", str(bundle), "--record", str(recorded), "--json", str(place)]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # tests in a shell's background: it would be handed down
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "ontick", "drive", "sim", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        ready = wait_until(lambda: begun(process.pid) >= processes and printed in said.read_text(), 120.0)
        assert ready and process.poll() is None, said.read_text()
        time.sleep(after_s)
        for n in range(times):
            time.sleep(TWICE_S * n)
            os.killpg(process.pid, signal.SIGINT)
        code = process.wait(ENDS_S)
        assert wait_until(lambda: not session_of(process.pid), LINGER_S), session_of(process.pid)
    finally:
        for pid in session_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert wait_until(lambda: not orphaned_memory(before), LINGER_S), orphaned_memory(before)
    told = json.loads(place.read_text()) if place.is_file() else None
    from ontick.runtime.recording import read_about

    for file in recorded.glob("*.mcap") if recorded.is_dir() else []:
        if not file.name.endswith(".part.mcap"):
            assert "failed" in read_about(file), file  # it has an end
    assert not [path.name for path in tmp_path.iterdir() if path.name not in ("drive.json", "recorded", "said.txt")]
    return code, told, said.read_text()


@pytest.mark.skipif(not SHARED.is_dir(), reason="where shared memory lies is known of Linux alone")
@pytest.mark.slow
def test_an_interrupt_while_the_robot_connects_leaves_nothing_behind(tmp_path, bundle):
    _, told, said = interrupted(tmp_path, bundle, "while the robot connects")
    assert told is None and "Traceback" not in said, said


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="where shared memory lies is known of Linux alone")
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_at_any_moment_leaves_nothing_behind(tmp_path, bundle, moment):
    code, told, said = interrupted(tmp_path, bundle, moment)
    if moment == "while it runs":  # a second Ctrl-C is an end without a report
        assert code == 0 and told is not None and told["commands"] > 50, said


def test_a_server_that_does_not_get_ready_and_one_that_is_waited_for_in_vain_are_ended(monkeypatch):
    with pytest.raises(RunFailed, match="did not start"):
        Server(["no-such-checkpoint"])
    started = []
    popen = subprocess.Popen

    def noted(*arguments, **options):
        started.append(popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True))
        return started[-1]

    def interrupt(port):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", noted)
    monkeypatch.setattr("ontick.commands.fault_server._is_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Server(["x"])
    monkeypatch.setattr("ontick.commands.fault_server._is_ready", lambda port: True)
    monkeypatch.setattr("ontick.runtime.wire.proxy.FaultyProxy.start", lambda proxy: interrupt(0))
    with pytest.raises(KeyboardInterrupt):
        Server(["x"])
    assert len(started) == 2 and all(process.poll() is not None for process in started)


def test_hogs_tell_what_they_took_and_are_gone():
    hogs = start_hogs()
    time.sleep(2.0)
    assert all(hog.is_alive() for hog in hogs)
    assert stop_hogs(hogs) > 0.2 and not any(hog.is_alive() for hog in hogs)


def test_a_fault_that_takes_a_server_away_takes_longer():
    assert usual_seconds("server-killed") > usual_seconds("server-hung") == usual_seconds(None)
