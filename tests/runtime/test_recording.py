"""What was put into a ring stands in the file, whatever happens on the way; and nobody waits for it."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontick.errors import InputError
from ontick.runtime import recording
from ontick.runtime.clock import WallClock
from ontick.runtime.recorded import latency_trace, read_about, read_recording
from ontick.runtime.recording import Recorder
from ontick.runtime.recording_file import CHUNK_BYTES, RecordingFile, part_of, schema_of, to_json
from ontick.runtime.rings import Ring
from ontick.runtime.trace import LatencyTrace

mcap_reader = pytest.importorskip("mcap.reader", reason="recordings need the package mcap")

COMMANDS = np.dtype([("time_s", "f8"), ("position", "f8", (2,)), ("held", "?"), ("why", "S12")])
ANSWERS = np.dtype([("time_s", "f8"), ("rung", "i4"), ("latency_s", "f8")])


def command(i):
    return (10 + 0.02 * i, (0.1 * i, -i), i % 2 == 0, f"row {i}".encode())


def written(path, records, dtype=COMMANDS, about=None, topic="commands"):
    """A whole file of these records."""
    file = RecordingFile(path)
    file.open({topic: dtype}, about or {})
    for record in np.array(records, dtype):
        file.write(topic, record)
    file.finish({topic: 0})
    return path


def until(holds, seconds=20.0):
    clock = WallClock()
    end_s = clock.now() + seconds
    while not holds():
        assert clock.now() < end_s, "took too long"
        clock.sleep_until(clock.now() + 0.01)


@pytest.fixture
def ring():
    with Ring.create(COMMANDS, 256) as ring:
        yield ring


# -- the recorder ------------------------------------------------------------------------------------------------------


def test_a_recording_holds_every_record_of_every_ring_in_order(tmp_path, ring):
    with Ring.create(ANSWERS, 64) as answers:
        recorder = Recorder.start(
            {"commands": ring, "answers": answers}, tmp_path / "a.mcap", {"plans": ["x"], "machine": {"cpu": "c"}}
        )
        assert part_of(recorder.path).exists() and not recorder.path.exists()
        for i in range(100):
            ring.put(command(i))
        answers.put((10.5, 0, 0.031))
        assert recorder.stop() == tmp_path / "a.mcap" == recorder.stop()
    assert recorder.failed is None and recorder.dropped == 0 and os.listdir(tmp_path) == ["a.mcap"]
    topics, about = read_recording(recorder.path), read_about(recorder.path)
    assert topics["commands"].dtype == COMMANDS
    assert (topics["commands"] == np.array([command(i) for i in range(100)], COMMANDS)).all()
    assert topics["answers"].tolist() == [(10.5, 0, 0.031)]
    assert about["plans"] == ["x"] and about["machine"] == {"cpu": "c"} and about["dropped"] == 0
    with recorder.path.open("rb") as file:  # as foreign readers see it
        read = [(c.topic, m.log_time, json.loads(m.data)) for _, c, m in mcap_reader.make_reader(file).iter_messages()]
    assert [r[2]["why"] for r in read if r[0] == "commands"] == [f"row {i}" for i in range(100)]
    assert read[0][1] == 10_000_000_000 and len(read) == 101


def test_records_that_the_ring_lost_are_counted_in_the_file_and_to_the_caller(tmp_path, ring):
    for i in range(300):
        ring.put(command(i))
    recorder = Recorder.start({"commands": ring}, tmp_path / "a.mcap", {})
    path = recorder.stop()
    assert recorder.dropped == 300 - 256
    assert read_about(path)["dropped"] == 44 and read_about(path)["dropped_by_topic"] == {"commands": 44}
    assert len(read_recording(path)["commands"]) == 256


@pytest.mark.skipif(sys.platform == "win32", reason="no file limits")
def test_on_a_full_disk_recording_stops_with_a_reason_and_keeps_what_was_written(tmp_path, ring):
    limit = 3 * CHUNK_BYTES
    recorder = Recorder.start({"commands": ring}, tmp_path / "a.mcap", {}, limit_bytes=limit)
    clock, slowest_s, i = WallClock(), 0.0, 0
    while recorder.failed is None:
        start_s = clock.now()
        ring.put(command(i))
        slowest_s, i = max(slowest_s, clock.now() - start_s), i + 1
        if i % 100 == 0:
            clock.sleep_until(clock.now() + 0.03)
        assert i < 100_000
    assert "disk" in recorder.failed and "a.part.mcap" in recorder.failed
    assert recorder.stop() is None and os.listdir(tmp_path) == ["a.part.mcap"]
    part = tmp_path / "a.part.mcap"
    kept = read_recording(part)["commands"]
    assert 300 < len(kept) < i and (kept["time_s"] == [command(n)[0] for n in range(len(kept))]).all()
    assert read_about(part)["failed"] and part.stat().st_size <= limit
    assert slowest_s < 0.5


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_an_interrupt_of_the_whole_group_leaves_the_file_whole(tmp_path, ring):
    recorder = Recorder.start({"commands": ring}, tmp_path / "a.mcap", {})
    ring.put(command(0))
    os.kill(recorder._child.process.pid, signal.SIGINT)
    ring.put(command(1))
    assert recorder.stop() is not None
    assert len(read_recording(recorder.path)["commands"]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_recorder_that_is_terminated_finishes_its_file_and_one_that_is_killed_is_told(tmp_path, ring):
    first = Recorder.start({"commands": ring}, tmp_path / "a.mcap", {})
    second = Recorder.start({"commands": ring}, tmp_path / "b.mcap", {})
    ring.put(command(0))
    first._child.process.terminate()
    second._child.process.kill()
    until(lambda: not first._child.is_alive and not second._child.is_alive)
    assert first.stop() and len(read_recording(first.path)["commands"]) == 1
    assert "died" in second.failed and second.stop() is None
    assert not (tmp_path / "b.mcap").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_the_file_is_finished_when_the_parent_is_killed(tmp_path):
    program = f"""
        import os, sys
        import numpy as np
        from pathlib import Path
        from ontick.runtime.recording import Recorder
        from ontick.runtime.rings import Ring

        if __name__ == "__main__":
            ring = Ring.create(np.dtype([("time_s", "f8")]), 8)
            recorder = Recorder.start({{"a": ring}}, Path({str(tmp_path)!r}) / "a.mcap", {{}})
            ring.put((1.0,))
            os.kill(os.getpid(), 9)
    """
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.returncode == -9
    until((tmp_path / "a.mcap").exists)
    assert read_recording(tmp_path / "a.mcap")["a"].tolist() == [(1.0,)]


@pytest.mark.parametrize(
    ("dtype", "name", "wanted"),
    [
        (np.dtype([("t", "f8")]), "a.mcap", "time_s"),
        (np.dtype([("time_s", "f8"), ("z", "c16")]), "a.mcap", "field z"),
        (COMMANDS, "a.bag", ".mcap"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_starts(tmp_path, dtype, name, wanted):
    with Ring.create(dtype, 4) as ring, pytest.raises(InputError, match=wanted):
        Recorder.start({"a": ring}, tmp_path / name, {})
    assert not os.listdir(tmp_path)


def test_about_must_be_json(tmp_path, ring):
    with pytest.raises(InputError, match="about"):
        Recorder.start({"a": ring}, tmp_path / "a.mcap", {"plan": object()})


# -- the file ----------------------------------------------------------------------------------------------------------


def test_numbers_that_are_not_finite_are_null_in_json_and_nan_when_read(tmp_path):
    path = written(tmp_path / "a.mcap", [(1.0, (np.nan, np.inf), False, b"")])
    assert np.isnan(read_recording(path)["commands"]["position"]).all()
    record = np.array([(1.0, (np.nan, 2.0), False, b"\xff")], COMMANDS)[0]
    assert json.loads(to_json(record))["position"] == [None, 2.0]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e9),
            st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e300, 1e300)),
            st.booleans(),
            st.text("abc ä", max_size=5).map(str.encode),
        ),
        max_size=20,
    )
)
def test_what_is_written_is_read_back_bit_for_bit(tmp_path_factory, records):
    path = written(tmp_path_factory.mktemp("r") / "a.mcap", records)
    assert (read_recording(path)["commands"] == np.array(records, COMMANDS)).all()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_short_numbers_are_told_apart_by_few_digits(values):
    dtype = np.dtype([("time_s", "f8"), ("q", "f4", (3,))])
    record = np.array([(0.0, values)], dtype)[0]
    back = json.loads(to_json(record))["q"]
    assert (np.array(back, np.float32) == record["q"]).all()


def test_the_schema_tells_shapes_and_kinds():
    schema = schema_of(COMMANDS)
    assert schema["properties"]["position"]["maxItems"] == 2
    assert schema["properties"]["held"] == {"type": "boolean"}
    assert set(schema["required"]) == set(COMMANDS.names)


@pytest.mark.parametrize("cut", [1, 9, 60, 400, 5000, 70_000])
def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path, cut):
    path = written(tmp_path / "a.mcap", [command(i) for i in range(3000)])
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    kept = read_recording(path)["commands"]
    assert (kept == np.array([command(i) for i in range(len(kept))], COMMANDS)).all()
    assert len(kept) >= 3000 - 2 * CHUNK_BYTES / 60


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n" + bytes(100)])
def test_what_is_no_recording_is_refused(tmp_path, data):
    (tmp_path / "a.mcap").write_bytes(data)
    with pytest.raises(InputError, match="recording"):
        read_recording(tmp_path / "a.mcap")
    with pytest.raises(InputError, match="cannot be read"):
        read_recording(tmp_path / "none.mcap")


@pytest.mark.parametrize("room", range(0, 140_000, 7919))
def test_whatever_room_a_disk_has_the_rescued_file_is_whole_up_to_its_last_chunk(tmp_path, monkeypatch, room):
    """Every write beyond `room` bytes of the file fails, after a part of it was taken."""
    import ontick.runtime.recording_file as module

    real = os.write

    def short(number, data):
        at = os.lseek(number, 0, os.SEEK_CUR)
        if at >= room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(number, bytes(data[: room - at]))

    monkeypatch.setattr(module.os, "write", short)
    file, n = RecordingFile(tmp_path / "a.mcap"), 0
    try:
        file.open({"commands": COMMANDS}, {})
        for record in np.array([command(i) for i in range(3000)], COMMANDS):
            file.write("commands", record)
            n += 1
        raise AssertionError("the disk was meant to be full")
    except OSError as error:
        kept = file.rescue({"commands": 0}, str(error))
    monkeypatch.undo()
    assert (tmp_path / "a.mcap").exists() == bool(kept)
    if kept:
        assert kept == (tmp_path / "a.mcap").stat().st_size <= room
        topics = read_recording(tmp_path / "a.mcap")
        assert "No space" in read_about(tmp_path / "a.mcap")["failed"]
        assert n - len(topics.get("commands", ())) < 2 * CHUNK_BYTES / 60


# -- latencies ---------------------------------------------------------------------------------------------------------


def test_a_drives_latencies_are_a_trace_by_plan(tmp_path):
    answers = [(1.0, 0, 0.030), (1.1, 1, 0.010), (1.2, 0, 0.040), (1.3, 0, np.nan), (1.4, 0, -1.0)]
    about = {"plans": ["ddim-10", "ddim-2", "unused"], "machine": {"cpu": "c"}}
    path = written(tmp_path / "a.mcap", answers, ANSWERS, about, "answers")
    trace = latency_trace(path)
    assert trace.latency_ms == {"ddim-10": [30.0, 40.0], "ddim-2": [10.0]} and trace.machine == {"cpu": "c"}
    again = LatencyTrace.load(trace.save(tmp_path / "a.trace.json"))
    assert again.latencies_s("ddim-10") == pytest.approx([0.03, 0.04])


def test_only_fine_answers_are_in_the_trace_and_each_counts_as_a_whole_one(tmp_path):
    dtype = np.dtype([*ANSWERS.descr, ("state", "u1"), ("share", "f8")])
    answers = [(1.0, 0, 0.03, 0, 1.0), (1.1, 0, 0.01, 0, 0.5), (1.2, 0, 0.4, 2, 1.0), (1.3, 0, 0.0, 1, 0.0)]
    path = written(tmp_path / "a.mcap", answers, dtype, {"plans": ["x"]}, "answers")
    assert latency_trace(path).latency_ms["x"] == pytest.approx([30.0, 20.0])


def test_a_recording_without_answers_has_no_trace(tmp_path):
    with pytest.raises(InputError, match="answers"):
        latency_trace(written(tmp_path / "a.mcap", [command(0)]))
    empty = written(tmp_path / "b.mcap", [(1.0, 0, np.nan)], ANSWERS, {"plans": ["x"]}, "answers")
    with pytest.raises(InputError, match="longer drive"):
        latency_trace(empty)


def test_recording_gives_what_reads_it():
    assert recording.read_recording is read_recording and recording.latency_trace is latency_trace
