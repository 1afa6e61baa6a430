"""What a host tells is judged; what it does not tell is absent, never a traceback."""

import sys

import numpy as np
import pytest

from ontick.runtime import doctor, probes
from ontick.runtime.clock import VirtualClock, WallClock
from ontick.runtime.doctor import Examination, Finding, examine, wakeup_finding
from ontick.runtime.wakeups import Wakeups, measure_wakeups

STATES = {"good", "poor", "bad", "absent"}


def sys_folder(tmp_path, **files):
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def late(p999_ms, n=2000):
    return Wakeups(np.full(n, p999_ms * 1e-3), "fifo")


def test_a_whole_examination_says_something_of_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "WAKEUP_S", 0.2)
    examined = examine(tmp_path)
    names = [finding.name for finding in examined.findings]
    assert len(set(names)) == len(names)
    wanted = {"scheduler", "locked memory", "cores awake", "kernel", "governor", "cores", "stolen time"}
    wanted |= {"wake-ups", "disk", "GPU"}
    assert wanted <= set(names)
    for finding in examined.findings:
        assert finding.state in STATES and finding.got and "\n" not in finding.got
        assert finding.state not in ("poor", "bad") or (finding.fix and finding.wanted)
    assert not list(tmp_path.iterdir())
    assert examined.wakeups is not None and set(examined.rates()) == set(doctor.RATES_HZ)


def test_what_cannot_be_looked_at_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "PROC", tmp_path / "none")
    monkeypatch.setattr(doctor, "SYS", tmp_path / "none")

    def refuse(*_):
        raise OSError("nothing here\nat all")

    for name in ("measure_wakeups", "fifo_permitted", "memory_lock_limit_bytes"):
        monkeypatch.setattr(doctor, name, refuse)
    for name in ("free_bytes", "round_trips_s", "gpu_facts", "clock_step_s"):
        monkeypatch.setattr(probes, name, refuse)
    examined = examine(tmp_path)
    found = {finding.name: finding for finding in examined.findings}
    for name in ("scheduler", "locked memory", "memory", "disk", "loopback", "GPU", "wake-ups", "stolen time"):
        assert found[name].state == "absent", name
    assert "nothing here at all" in found["disk"].got
    assert examined.wakeups is None and examined.rates() == {}


def test_a_rate_is_kept_where_few_wake_ups_are_late_by_a_twentieth_of_its_period():
    assert [rate for rate, kept in Examination([], late(0.9)).rates().items() if kept] == [20, 50]
    assert [rate for rate, kept in Examination([], late(0.09)).rates().items() if kept] == [20, 50, 100, 250, 500]
    assert not any(Examination([], late(30)).rates().values())


def test_one_late_wake_up_in_a_thousand_counts():
    late_s = np.zeros(1000)
    late_s[:2] = 0.5
    assert wakeup_finding(Wakeups(late_s, "other")).state == "poor"
    late_s[1] = 0.0
    assert wakeup_finding(Wakeups(late_s, "other")).state == "good"
    assert wakeup_finding(late(20)).state == "bad"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files of Linux")
def test_kernels_are_judged_by_how_they_interrupt_themselves(tmp_path):
    assert doctor.kernel(tmp_path, "#1 SMP PREEMPT_RT x").state == "good"
    assert doctor.kernel(sys_folder(tmp_path, kernel__realtime="1\n"), "#1 SMP").state == "good"
    assert doctor.kernel(tmp_path / "none", "#1 SMP PREEMPT_DYNAMIC").got.endswith("PREEMPT_DYNAMIC")
    assert doctor.kernel(tmp_path / "none", "#1 SMP").state == "poor"


def test_governors_are_judged_over_all_cores(tmp_path):
    def at(number):
        return f"devices__system__cpu__cpu{number}__cpufreq__scaling_governor"

    assert doctor.governor(tmp_path).state == "absent"
    assert doctor.governor(sys_folder(tmp_path, **{at(0): "performance\n"})).state == "good"
    poor = doctor.governor(sys_folder(tmp_path, **{at(1): "powersave\n"}))
    assert poor.state == "poor" and "powersave" in poor.got and "cpupower" in poor.fix


@pytest.mark.parametrize(("share", "state"), [(0.0, "good"), (0.02, "poor"), (0.3, "bad"), (None, "absent")])
def test_stolen_time_is_judged_by_its_share(share, state):
    assert doctor.steal(None if share is None else {"steal": share}).state == state


def test_processor_times_are_read_and_subtracted(tmp_path):
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 8 0 0\n")
    before = probes.processor_times(tmp_path)
    (tmp_path / "stat").write_text("cpu  1 2 3 10 5 6 7 10 0 0\n")
    shares = probes.shares(before, probes.processor_times(tmp_path))
    assert shares is not None and shares["steal"] == 0.25 and shares["idle"] == 0.75
    assert probes.processor_times(tmp_path / "none") is None
    (tmp_path / "stat").write_text("cpu 1 2\n")
    assert probes.processor_times(tmp_path) is None and probes.shares(None, before) is None


def test_memory_that_was_swapped_is_told(tmp_path):
    text = "MemTotal: 8388608 kB\nMemAvailable: {} kB\nSwapTotal: 2097152 kB\nSwapFree: {} kB\n"
    (tmp_path / "meminfo").write_text(text.format(4194304, 2097152))
    assert doctor.memory(tmp_path).state == "good"
    (tmp_path / "meminfo").write_text(text.format(4194304, 1048576))
    assert doctor.memory(tmp_path).state == "poor"
    (tmp_path / "meminfo").write_text(text.format(1048576, 2097152))
    assert doctor.memory(tmp_path).state == "bad"


def test_a_slow_clock_source_is_told(tmp_path):
    place = "devices__system__clocksource__clocksource0__current_clocksource"
    assert doctor.clock_source(sys_folder(tmp_path, **{place: "hpet\n"}), VirtualClock()).state == "poor"
    assert doctor.clock_source(sys_folder(tmp_path, **{place: "tsc\n"}), VirtualClock()).state == "good"


def test_a_disk_is_written_to_and_left_as_it_was(tmp_path):
    assert doctor.disk(tmp_path, WallClock()).state in STATES
    assert not list(tmp_path.iterdir())


def test_round_trips_come_back():
    times_s = probes.round_trips_s(WallClock())
    assert len(times_s) == probes.ROUND_TRIPS and (times_s > 0).all()


@pytest.mark.parametrize(
    ("smi", "p99_us", "state"),
    [({"persistence": "Enabled"}, 40.0, "good"), ({"persistence": "Disabled"}, 40.0, "poor"), ({}, 4000.0, "poor")],
)
def test_a_gpu_is_judged_by_persistence_and_launches(monkeypatch, smi, p99_us, state):
    facts = {"name": "G", "free_gib": 70.0, "total_gib": 80.0, "p50_us": 10.0, "p99_us": p99_us, "smi": smi}
    monkeypatch.setattr(probes, "gpu_facts", lambda clock: facts)
    finding = doctor.gpu(WallClock())
    assert finding.state == state and "G, 70 of 80 GiB free" in finding.got


def test_a_driver_that_torch_cannot_use_is_bad(monkeypatch):
    monkeypatch.setattr(probes, "gpu_facts", lambda clock: None)
    monkeypatch.setattr(probes, "has_nvidia", lambda: True)
    assert doctor.gpu(WallClock()).state == "bad"
    monkeypatch.setattr(probes, "has_nvidia", lambda: False)
    assert doctor.gpu(WallClock()).state == "absent"


def test_packages_are_told_with_what_installs_them():
    assert doctor.package("numpy", "ontick").got == np.__version__
    missing = doctor.package("no-such-package", "ontick[view]")
    assert missing.state == "absent" and missing.fix == 'pip install "ontick[view]"'


def test_a_finding_is_plain_data():
    assert Finding("a", "good", "b").to_dict() == {"name": "a", "state": "good", "got": "b", "wanted": "", "fix": ""}


def test_wake_ups_are_measured_in_a_process_of_their_own():
    measured = measure_wakeups(500.0, 0.2, real_time_wanted=False)
    assert measured.scheduler == "other" and measured.late_s.shape == (100,) and (measured.late_s >= 0).all()
    us = measured.summary_us()
    assert us["n"] == 100 and us["p50"] <= us["p99"] <= us["p99.9"] <= us["max"]
