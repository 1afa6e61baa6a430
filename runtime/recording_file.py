"""The file of a recording: MCAP, JSON messages, and an end that fits onto a full disk."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .clock import WallClock

FORMAT = "ontick-recording-1"
CHUNK_BYTES = 64 * 1024  # what is lost at most when the computer loses power, and room for an end on a full disk
ABOUT, END = "about", "end"
_KINDS = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "S": "string", "U": "string"}


def part_of(path: Path) -> Path:
    """What a recording is called until it is whole: drive.mcap -> drive.part.mcap."""
    return path.with_suffix(".part.mcap")


def check_dtype(topic: str, dtype: np.dtype) -> None:
    """Raises InputError unless records have a number "time_s" and fields of numbers, truth values or text."""
    if dtype.names is None or "time_s" not in dtype.names or dtype["time_s"].kind != "f":
        raise InputError(f"topic {topic}: got records of {dtype}, wanted a field time_s of seconds")
    for name in dtype.names:
        if dtype[name].base.kind not in _KINDS:
            raise InputError(f"topic {topic}: field {name} is {dtype[name]}, wanted numbers, truth values or text")


def schema_of(dtype: np.dtype) -> dict[str, Any]:
    """The JSON schema of a record. Fields of more dimensions are arrays of arrays; numbers that are not finite are
    null, which JSON has no other word for."""
    assert dtype.names is not None
    properties = {name: _property(dtype[name]) for name in dtype.names}
    return {"type": "object", "properties": properties, "required": list(dtype.names)}


def _property(field: np.dtype) -> dict[str, Any]:
    kind = _KINDS[field.base.kind]
    told: dict[str, Any] = {"type": [kind, "null"] if kind == "number" else kind}
    for n in reversed(field.shape):
        told = {"type": "array", "items": told, "minItems": n, "maxItems": n}
    return told


def to_json(record: np.void) -> bytes:
    """A record as JSON."""
    assert record.dtype.names is not None
    fields = ((name, record[name]) for name in record.dtype.names)
    plain = {name: _plain(value.tolist(), value.dtype.itemsize < 8) for name, value in fields}
    return json.dumps(plain, allow_nan=False).encode()


def _plain(value: Any, is_short: bool) -> Any:
    if isinstance(value, list):
        return [_plain(item, is_short) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return float(f"{value:.9g}") if is_short else value  # as many digits as tell float32 numbers apart
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class RecordingFile:
    """A file that is written to its end, or rescued. Methods raise OSError where the disk does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: _Stream | None = None
        self._writer: Any = None
        self._channels: dict[str, int] = {}

    def open(self, dtypes: Mapping[str, np.dtype], about: Mapping[str, Any]) -> None:
        """Make the file; `about` goes into its metadata with the monotonic clock's distance from UTC."""
        from mcap.writer import CompressionType, Writer

        self._stream = _Stream(self.path)
        stream: Any = self._stream  # all that the writer asks of it: write, tell, flush
        self._writer = Writer(stream, chunk_size=CHUNK_BYTES, compression=CompressionType.NONE)
        self._writer.start(profile="", library="ontick")
        facts = {"format": FORMAT, "utc_offset_s": _utc_offset_s(self._stream.number), **about}
        self._writer.add_metadata(ABOUT, {name: json.dumps(value) for name, value in facts.items()})
        for topic, dtype in dtypes.items():
            schema = self._writer.register_schema(topic, "jsonschema", json.dumps(schema_of(dtype)).encode())
            told = {"dtype": json.dumps(dtype.descr)}
            self._channels[topic] = self._writer.register_channel(topic, "json", schema, told)
        self._stream.mark()

    def write(self, topic: str, record: np.void) -> None:
        """Add a record; it is on the disk when a chunk is full."""
        assert self._stream is not None
        before = self._stream.tell()
        time_ns = _nanoseconds(float(record["time_s"]))
        self._writer.add_message(self._channels[topic], time_ns, to_json(record), time_ns)
        if self._stream.tell() != before:
            self._stream.mark()

    def finish(self, lost: Mapping[str, int]) -> None:
        """Write the last chunk, what was lost, and the index."""
        assert self._stream is not None
        self._writer.add_metadata(END, _end(lost, None))
        self._writer.finish()
        self._stream.close()

    def rescue(self, lost: Mapping[str, int], reason: str) -> int:
        """End the file after its last whole chunk, without an index; where that finds no room, a chunk earlier. Returns
        the bytes that are kept, 0 where the file is no recording."""
        if self._stream is None:
            return 0
        from mcap.data_stream import RecordBuilder
        from mcap.records import DataEnd, Footer, Metadata
        from mcap.writer import MCAP0_MAGIC

        end = RecordBuilder()
        for record in (Metadata(name=END, metadata=_end(lost, reason)), DataEnd(0), Footer(0, 0, 0)):
            record.write(end)
        kept = self._stream.end_with(end.end() + MCAP0_MAGIC)
        self._stream.close()
        if not kept:
            self.path.unlink(missing_ok=True)
        return kept


def _end(lost: Mapping[str, int], reason: str | None) -> dict[str, str]:
    facts = {"dropped": sum(lost.values()), "dropped_by_topic": dict(lost), "failed": reason}
    return {name: json.dumps(value) for name, value in facts.items()}


def _nanoseconds(time_s: float) -> int:
    """For a log time, which is never negative; a record without a time stands at the start."""
    return max(0, round(time_s * 1e9)) if math.isfinite(time_s) else 0


def _utc_offset_s(number: int) -> float:
    """UTC minus the monotonic clock, to some milliseconds, by the stamp that the system gives a file. 0: unknown."""
    try:
        os.utime(number)
        return os.fstat(number).st_mtime - WallClock().now()
    except (OSError, TypeError):
        return 0.0


class _Stream:
    """A file that writes all or raises: a full disk takes a part without an error. Marks are where it may be cut."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        self._at = 0
        self._marks: list[int] = []

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            n = os.write(self.number, left)
            left, self._at = left[n:], self._at + n
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        pass

    def mark(self) -> None:
        self._marks = [*self._marks[-2:], self._at]

    def end_with(self, data: bytes) -> int:
        """Cut at the last mark after which `data` finds room. Returns the size, 0 where there is none."""
        for mark in reversed(self._marks):
            try:
                os.ftruncate(self.number, mark)
                os.lseek(self.number, mark, os.SEEK_SET)
                self._at = mark
                self.write(data)
                return self._at
            except OSError:
                continue
        return 0

    def close(self) -> None:
        os.close(self.number)
