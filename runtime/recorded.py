"""Recordings read back: topics as arrays, and a drive's latencies as a trace for `ontick evaluate --charge`."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from .recording_file import ABOUT, END, FORMAT
from .trace import LatencyTrace

HEAD = struct.Struct("<BQ")
MAGIC = b"\x89MCAP0\r\n"


def read_recording(path: Path | str) -> dict[str, np.ndarray]:
    """Topics to records [n] of the dtype they were written with, in order. A recording that was cut off is read as far
    as it goes. Numbers that were not finite are NaN. Raises InputError for a file that is none."""
    return _read(path)[0]


def read_about(path: Path | str) -> dict[str, Any]:
    """What a recording says of itself: `about` as it was given, utc_offset_s (add it to a time_s for UTC) and, once it
    has ended, dropped, dropped_by_topic and failed. Raises InputError for a file that is none."""
    return _read(path)[1]


def latency_trace(path: Path | str) -> LatencyTrace:
    """The latencies of a drive's answers: topic "answers" with `rung`, which of the metadata's "plans" gave it, and
    `latency_s`. Where records have them, `state` must be 0, an answer that was used or could have been, and `share` is
    what it cost of a usual answer, which is what a trace holds. Raises InputError where there are none."""
    topics, about = _read(path)
    answers, plans = topics.get("answers"), about.get("plans")
    fields = () if answers is None else answers.dtype.names or ()
    if answers is None or not {"rung", "latency_s"} <= set(fields) or not isinstance(plans, list):
        raise InputError(f'{path}: wanted a topic "answers" with rung and latency_s, and the names of "plans"')
    share = answers["share"] if "share" in fields else np.ones(len(answers))
    fine = answers["state"] == 0 if "state" in fields else np.ones(len(answers), bool)
    fine &= np.isfinite(answers["latency_s"]) & (answers["latency_s"] >= 0) & (share > 0)
    latency_ms, rungs = answers["latency_s"][fine] / share[fine] * 1e3, answers["rung"][fine]
    samples = {str(name): latency_ms[rungs == rung] for rung, name in enumerate(plans)}
    told = {name: [float(ms) for ms in of_plan] for name, of_plan in samples.items() if len(of_plan)}
    if not told:
        raise InputError(f"{path}: no answer in it has a latency: record a longer drive")
    return LatencyTrace(about.get("machine") or {}, told)


def _read(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        from mcap.exceptions import McapError
    except ModuleNotFoundError:
        raise InputError('recordings need the package mcap: pip install "ontick[drive]"') from None
    dtypes: dict[int, tuple[str, np.dtype]] = {}
    rows: dict[int, list[tuple[Any, ...]]] = {}
    about: dict[str, Any] = {}
    try:
        for record in _records(Path(path)):
            _enter(record, dtypes, rows, about)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), wanted a recording") from None
    except (McapError, ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: got no recording or a damaged one ({error!r}): record again") from None
    if about.pop("format", None) != FORMAT:
        raise InputError(f"{path}: wanted a recording of `ontick drive` ({FORMAT})")
    return {topic: np.array(rows[number], dtype) for number, (topic, dtype) in dtypes.items()}, about


def _records(path: Path) -> Iterator[Any]:
    """All records of a file in order; where it was cut off, those that are whole."""
    from mcap.exceptions import EndOfFile
    from mcap.stream_reader import StreamReader

    with path.open("rb") as file:
        end = _end_of_whole_records(file)
        file.seek(0)
        reader = StreamReader(io.BytesIO(file.read(end)))
        try:
            yield from reader.records
        except (EndOfFile, struct.error):  # no footer
            return


def _end_of_whole_records(file: BinaryIO) -> int:
    """The reader takes a part of a record for a whole one, so the file is cut before it. A record: 1 byte that says of
    which kind, 8 of length, so many more."""
    size, end = os.fstat(file.fileno()).st_size, len(MAGIC)
    while end + HEAD.size <= size:
        file.seek(end)
        _, length = HEAD.unpack(file.read(HEAD.size))
        if end + HEAD.size + length > size:
            break
        end += HEAD.size + length
    return end


def _enter(record: Any, dtypes: dict[int, tuple[str, np.dtype]], rows: dict[int, list], about: dict[str, Any]) -> None:
    from mcap.records import Channel, Message, Metadata

    if isinstance(record, Metadata) and record.name in (ABOUT, END):
        about.update({name: json.loads(value) for name, value in record.metadata.items()})
    elif isinstance(record, Channel) and record.id not in dtypes:
        dtypes[record.id] = record.topic, _dtype(json.loads(record.metadata["dtype"]))
        rows[record.id] = []
    elif isinstance(record, Message):
        _, dtype = dtypes[record.channel_id]
        values = json.loads(record.data)
        assert dtype.names is not None
        rows[record.channel_id].append(tuple(_restored(values[name], dtype[name]) for name in dtype.names))


def _dtype(descr: list[list[Any]]) -> np.dtype:
    fields = [(name, kind, *(tuple(shape) for shape in rest)) for name, kind, *rest in descr if name]
    dtype = np.dtype(fields)
    if dtype.hasobject:
        raise ValueError("records of Python objects")
    return dtype


def _restored(value: Any, field: np.dtype) -> Any:
    if field.base.kind == "f":
        return np.array(value, np.float64)  # null becomes NaN
    if field.base.kind == "S":
        return np.char.encode(np.array(value, str), "utf-8") if field.shape else value.encode()
    return value
