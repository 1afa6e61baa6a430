"""What a ring holds is shown at its time; tried with the few functions of Rerun that are used."""

import sys
from types import ModuleType

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import live_view
from ontick.runtime.live_view import LiveView, log_record, numbers, open_view
from ontick.runtime.rings import Ring

COMMANDS = np.dtype([("time_s", "f8"), ("position", "f4", (2,)), ("held", "?"), ("why", "S4")])


class Rerun:
    """Notes what it is asked."""

    def __init__(self):
        self.asked = []

    def Scalars(self, values):
        return list(values)

    def __getattr__(self, name):
        return lambda *values, **named: self.asked.append((name, *values, *named.values()))


def test_a_record_is_shown_as_its_numbers_at_its_time():
    rerun = Rerun()
    log_record(rerun, "commands", np.array([(2.5, (1, -2), True, b"no")], COMMANDS)[0])
    assert rerun.asked == [
        ("set_time", "time", 2.5),
        ("log", "commands/position", [1.0, -2.0]),
        ("log", "commands/held", [1.0]),
    ]


def test_text_and_the_time_are_no_numbers():
    assert [name for name, _ in numbers(np.zeros(1, COMMANDS)[0])] == ["position", "held"]


@pytest.mark.parametrize(
    ("to", "asked"),
    [
        ("viewer", ("spawn",)),
        ("a.rrd", ("save", "a.rrd")),
        ("rerun+http://pc:9876/proxy", ("connect_grpc", "rerun+http://pc:9876/proxy")),
    ],
)
def test_it_is_shown_in_a_viewer_or_a_file(to, asked):
    rerun = Rerun()
    open_view(rerun, to)
    assert rerun.asked == [("init", "ontick drive"), asked]


def test_without_rerun_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with Ring.create(COMMANDS, 4) as ring, pytest.raises(InputError, match=r"ontick\[view\]"):
        LiveView.start({"commands": ring}, "a.rrd")


def test_another_place_to_show_to_is_refused(monkeypatch):
    monkeypatch.setattr(live_view, "import_rerun", lambda: ModuleType("rerun"))
    with Ring.create(COMMANDS, 4) as ring, pytest.raises(InputError, match="wanted viewer"):
        LiveView.start({"commands": ring}, "a.mp4")


def test_everything_that_is_in_the_ring_is_shown_before_it_ends(monkeypatch):
    rerun = Rerun()
    monkeypatch.setattr(live_view, "import_rerun", lambda: rerun)

    class Parent:
        def wants_end(self, _):
            ring.put((3.0, (0, 0), False, b""))
            return True

    with Ring.create(COMMANDS, 4) as ring:
        ring.put((2.0, (0, 0), False, b""))
        live_view._show({"commands": ring}, "a.rrd", Parent())
    assert [entry[2] for entry in rerun.asked if entry[0] == "set_time"] == [2.0, 3.0]


def test_a_view_ends_when_it_is_told_to(monkeypatch, tmp_path):
    """In its own process, with a package of that name that writes what it is asked."""
    (tmp_path / "rerun.py").write_text(
        "def init(name): pass\n"
        "def save(path):\n    global file\n    file = open(path, 'w')\n"
        "def set_time(timeline, duration): file.write(f'{timeline} {duration}\\n')\n"
        "def log(name, what): file.write(f'{name} {[float(x) for x in what]}\\n'); file.flush()\n"
        "Scalars = list\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with Ring.create(COMMANDS, 4) as ring:
        view = LiveView.start({"commands": ring}, tmp_path / "a.rrd")
        ring.put((2.0, (1, 2), False, b""))
        view.stop()
        view.stop()
    assert not view.is_alive
    assert (tmp_path / "a.rrd").read_text().splitlines()[:2] == ["time 2.0", "commands/position [1.0, 2.0]"]
