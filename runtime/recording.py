"""Recordings of a drive: an MCAP file a run, written by a process of its own that reads the drive's rings.

    recorder = Recorder.start({"commands": ring, "answers": other}, Path("runs/drive.mcap"), {"plans": ["ddim-10"]})
    ...                          # whoever writes the rings never waits and never notices a full disk
    path = recorder.stop()       # None where it failed: recorder.failed says why

Topics are the rings' names; a message is a record as JSON, its log time the record's "time_s" on the host's monotonic
clock. While it is written the file is called NAME.part.mcap; a whole one takes its name.
"""

from __future__ import annotations

import ctypes
import errno
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, RunFailed
from ..files import check_place
from .child import Child, Parent
from .recorded import latency_trace, read_about, read_recording
from .recording_file import RecordingFile, check_dtype, part_of
from .rings import Ring

__all__ = ["Recorder", "latency_trace", "read_about", "read_recording"]

POLL_S = 0.02  # a ring must hold what is put into it meanwhile, and while the disk is slow
STARTED_WITHIN_S, STOPPED_WITHIN_S = 30.0, 5.0
_WORDS = 400  # bytes for why it failed
_RUNNING, _WHOLE, _PART = 1, 2, 3


class Recorder:
    """A recording on its way. The process ignores interrupts: whoever started it decides. It finishes the file when it
    is told to stop, is terminated, its parent dies, or nobody holds the recorder any more."""

    def __init__(self, child: Child, told: _Told, path: Path) -> None:
        self._child, self._told, self.path = child, told, path

    @classmethod
    def start(
        cls, rings: Mapping[str, Ring], path: Path | str, about: Mapping[str, Any], limit_bytes: int | None = None
    ) -> Recorder:
        """Begin to record; returns when the file is there.

        rings: records with a field "time_s" [s]; path: ends in .mcap; about: JSON data that goes into the file, as
        machine, plan, policy and "plans", the names that a field `rung` counts. limit_bytes: the file may not grow
        beyond it, as if the disk were full.

        Raises InputError for another kind of path or record, or without the package mcap; RunFailed where it does not
        start.
        """
        path = _checked(rings, path, about)
        told = _Told()
        child = Child("ontick-recorder", _record, dict(rings), path, dict(about), limit_bytes, told)
        child.wait_until_ready(STARTED_WITHIN_S)
        if not told.state.value:
            child.process.kill()
            raise RunFailed(f"{path}: the process that records did not start")
        return cls(child, told, path)

    @property
    def dropped(self) -> int:
        """Records that the rings lost before they were written."""
        return int(self._told.dropped.value)

    @property
    def failed(self) -> str | None:
        """Why it stopped writing; None while it writes and when it ended well."""
        if not self._child.is_alive and self._told.state.value == _RUNNING:  # in this order: it says so, then ends
            return f"its process died; {part_of(self.path)} holds what was written"
        return self._told.why.value.decode("utf-8", "ignore") or None

    def stop(self) -> Path | None:
        """Write what is left in the rings and end. Returns the whole file, None where it is not whole (see `failed`).
        Again it returns the same."""
        self._child.stop(STOPPED_WITHIN_S)
        return self.path if self._told.state.value == _WHOLE else None


class _Told:
    """What the process says of itself, in memory that can be read without waiting for it."""

    def __init__(self) -> None:
        context: Any = multiprocessing.get_context("spawn")
        self.state = context.RawValue(ctypes.c_int, 0)
        self.dropped = context.RawValue(ctypes.c_longlong, 0)
        self.why = context.RawArray(ctypes.c_char, _WORDS)

    def fail(self, why: str) -> None:
        self.why.value = why.encode()[: _WORDS - 1]
        self.state.value = _PART


def _checked(rings: Mapping[str, Ring], path: Path | str, about: Mapping[str, Any]) -> Path:
    if Path(path).suffix != ".mcap":
        raise InputError(f"got {path} for a recording, wanted a name that ends in .mcap")
    for topic, ring in rings.items():
        check_dtype(topic, ring.dtype)
    try:
        json.dumps(dict(about))
    except (TypeError, ValueError) as error:
        raise InputError(f"about: wanted JSON data ({error})") from None
    try:
        import mcap.writer  # noqa: F401
    except ModuleNotFoundError:
        raise InputError('recordings need the package mcap: pip install "ontick[drive]"') from None
    path = check_place(Path(path).absolute())
    if path.is_dir():
        raise InputError(f"{path} is a folder, wanted a file to write")
    return path


# -- in the process ----------------------------------------------------------------------------------------------------


def _record(
    rings: dict[str, Ring], path: Path, about: dict[str, Any], limit_bytes: int | None, told: _Told, parent: Parent
) -> None:
    if limit_bytes is not None:
        _limit(limit_bytes)
    file = RecordingFile(part_of(path))
    try:
        file.open({topic: ring.dtype for topic, ring in rings.items()}, about)
        told.state.value = _RUNNING
        parent.say_ready()
        ended = False
        while not ended:
            ended = parent.wants_end(POLL_S)  # before the rings are read: what was put before the end is written
            _drain(rings, file, told)
        file.finish(_lost(rings))
        os.replace(file.path, path)
        told.state.value = _WHOLE
    except OSError as error:
        kept = file.rescue(_lost(rings), str(error.strerror))
        told.fail(_why(error, file.path, kept))


def _limit(limit_bytes: int) -> None:
    if sys.platform == "win32":
        raise InputError("limit_bytes: not on Windows")
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then it is an error, as of a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _drain(rings: dict[str, Ring], file: RecordingFile, told: _Told) -> None:
    for topic, ring in rings.items():
        for record in ring.take():
            file.write(topic, record)
    told.dropped.value = sum(_lost(rings).values())


def _lost(rings: dict[str, Ring]) -> dict[str, int]:
    return {topic: ring.lost for topic, ring in rings.items()}


def _why(error: OSError, path: Path, kept: int) -> str:
    full = {
        errno.ENOSPC: "disk full",
        errno.EDQUOT: "disk quota reached",
        errno.EFBIG: "file may not grow, as on a full disk",
    }
    reason = full.get(error.errno or 0, "cannot be written")
    held = f"{path} holds {kept} bytes" if kept else "nothing is kept"
    return f"{reason} ({error.strerror}), {held}; free space and start again"
