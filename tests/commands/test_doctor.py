"""`ontick doctor` prints a line for everything, a fix for what is not good, and a verdict."""

import argparse
import json

import numpy as np
import pytest

from ontick.commands import doctor
from ontick.errors import InputError
from ontick.runtime.doctor import Examination, Finding
from ontick.runtime.wakeups import Wakeups

FINDINGS = [
    Finding("kernel", "good", "6.18, PREEMPT_RT"),
    Finding("scheduler", "poor", "refused", "SCHED_FIFO", "add a line"),
    Finding("mcap", "absent", "not installed", "", 'pip install "ontick[drive]"'),
]


def examined(late_ms):
    return Examination(FINDINGS, None if late_ms is None else Wakeups(np.full(2000, late_ms * 1e-3), "fifo"))


def ran(tmp_path, *arguments):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args(["--folder", str(tmp_path / "no" / "folder"), *arguments]))


def test_it_prints_a_line_each_then_a_verdict_and_writes_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda folder: examined(0.4))
    monkeypatch.setattr(doctor, "rendering", lambda: Finding("GL", "good", "egl"))
    assert ran(tmp_path, "--json", str(tmp_path / "d.json")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["kernel", "good", "6.18,", "PREEMPT_RT"]
    assert lines[2].strip() == "wanted SCHED_FIFO: add a line"
    assert lines[4].strip() == 'pip install "ontick[drive]"' and lines[5].startswith("GL")
    assert lines[7].startswith("50 Hz: yes, p99.9 lateness 0.40 ms under SCHED_FIFO")
    document = json.loads((tmp_path / "d.json").read_text())
    assert document["format"] == "ontick-doctor-1" and document["machine"]["cores"] >= 1
    assert [f["name"] for f in document["findings"]] == ["kernel", "scheduler", "mcap", "GL"]
    assert document["rates_hz"]["50"] and not document["rates_hz"]["1000"]
    assert document["verdict"] == lines[7] and document["wakeups_us"]["p99.9"] == pytest.approx(400)


@pytest.mark.parametrize(
    ("late_ms", "said"),
    [
        (0.4, "50 Hz: yes, p99.9 lateness 0.40 ms under SCHED_FIFO, wanted below 1 ms; at most 100 Hz"),
        (0.04, "the robot's own loop"),
        (2.0, "50 Hz: no"),
        (30.0, "no other rate either"),
        (None, "no verdict"),
    ],
)
def test_the_verdict_is_what_was_measured_and_no_more_than_is_honest(late_ms, said):
    assert said in doctor.verdict(examined(late_ms))


def test_exit_code_0_even_where_nothing_could_be_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda folder: examined(None))
    assert ran(tmp_path) == 0
    assert not (tmp_path / "no").exists() and "no verdict" in capsys.readouterr().out


def test_a_folder_in_the_place_of_the_file_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda folder: pytest.fail("looked first"))
    with pytest.raises(InputError, match="folder"):
        ran(tmp_path, "--json", str(tmp_path))


def test_rendering_is_looked_at(monkeypatch):
    assert doctor.rendering().state in ("good", "poor", "absent")
    monkeypatch.setattr("ontick.envs.rendering.render_available", lambda: (False, "got no OpenGL"))
    finding = doctor.rendering()
    assert finding.state == "poor" and "libegl1" in finding.fix


def test_rendering_without_the_simulator_is_absent(monkeypatch):
    def missing():
        raise InputError('got no package mujoco, wanted the simulator: pip install "ontick[sim]"')

    monkeypatch.setattr("ontick.envs.rendering.import_mujoco", missing)
    assert doctor.rendering().state == "absent" and "ontick[sim]" in doctor.rendering().fix
