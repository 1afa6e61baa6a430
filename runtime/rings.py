"""Rings: the newest records of one process, in memory that it shares with others.

    ring = Ring.create(np.dtype([("time_s", "f8"), ("values", "f4", 6)]), 64)
    ring.put((now_s, values))           # the one writer; never waits
    ring.newest(), ring.take()          # any reader, in any process that was given the ring; never waits

    [ written | slot 0 | slot 1 | ... ]         a slot: sequence number, checksum, record

There is no lock that a killed process could leave shut. A record that is being overwritten while it is read, or that
another CPU sees half written, has a sequence number or a checksum that does not fit, and is read again or left out.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from ..errors import InputError

HEADER_BYTES = 64  # a cache line of its own for what every reader looks at
PREFIX = struct.Struct("=QII")  # sequence number (record n has n + 1; 0: never written), checksum, nothing
TRIES = 20  # how often a record is read again before it is taken for unreadable


class Ring:
    """`capacity` records of `dtype`; the oldest is overwritten. One writer, any number of readers.

    It can be given to a spawned process, which shares the memory. Everybody closes theirs; who created it unlinks it.
    lost: how many records were overwritten before this reader took them.
    """

    def __init__(self, dtype: np.dtype, capacity: int, name: str | None = None) -> None:
        if capacity < 2 or dtype.hasobject:
            raise InputError(f"a ring wants 2 records or more, of plain numbers; got {capacity} of {dtype}")
        self.dtype, self.capacity, self.lost = dtype, capacity, 0
        self._stride = (PREFIX.size + dtype.itemsize + 7) // 8 * 8
        bytes_ = HEADER_BYTES + self._stride * capacity
        self._view: memoryview
        if name is None:
            self._owned = SharedMemory(create=True, size=bytes_)
            self.name, self._view, self._release = self._owned.name, _whole(self._owned), self._owned.close
        else:
            self._owned, self.name = None, name
            self._view, self._release = _attached(name)
        self._count = self._view[:8].cast("Q")  # written and read whole: one aligned word
        self._next = 0  # the record that `take` gives next
        self._closed = False

    @classmethod
    def create(cls, dtype: np.dtype | Any, capacity: int) -> Ring:
        """An empty ring in new shared memory. Raises InputError for a capacity below 2 or Python objects."""
        return cls(np.dtype(dtype), capacity)

    def __reduce__(self) -> tuple[type[Ring], tuple[np.dtype, int, str]]:
        return Ring, (self.dtype, self.capacity, self.name)

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        is_mine = self._owned is not None
        self.close()
        if is_mine:
            self.unlink()

    @property
    def written(self) -> int:
        """How many records were ever put."""
        return int(self._count[0])

    def put(self, record: np.void | tuple[Any, ...]) -> None:
        """Add a record, over the oldest where the ring is full."""
        n = self.written
        payload = np.array(record, self.dtype).tobytes()
        start = self._start(n)
        self._view[start : start + PREFIX.size + len(payload)] = PREFIX.pack(n + 1, _check(n, payload), 0) + payload
        self._count[0] = n + 1

    def newest(self) -> np.void | None:
        """A copy of the last record; None before the first. Should it be overwritten faster than it can be read, or be
        torn by a writer that died, an older one."""
        for attempt in range(TRIES):
            if not (written := self.written):
                return None
            n = written - 1 - attempt // 4 % min(written, self.capacity)
            if (record := self._read(n)) is not None:
                return record
        return None

    def take(self) -> list[np.void]:
        """Copies of all records since this reader's last take, oldest first; those overwritten meanwhile are added to
        `lost`. A first take begins with the ring's first record."""
        taken: list[np.void] = []
        tries = TRIES
        while self._next < (written := self.written):
            if self._next < written - self.capacity:
                self.lost += written - self.capacity - self._next
                self._next = written - self.capacity
            if (record := self._read(self._next)) is not None:
                taken.append(record)
            elif self._next <= self.written - self.capacity:
                self.lost += 1  # it was being overwritten
            elif (tries := tries - 1) > 0:
                continue
            else:
                break  # not yet to be seen from here: it comes with the next take
            self._next += 1
        return taken

    def close(self) -> None:
        """Let go of the memory; again is no error."""
        if not self._closed:
            self._closed = True
            self._count.release()
            self._release()

    def unlink(self) -> None:
        """Free the memory once nobody has it open: nobody can be given the ring any more. The creator's to do, or for
        whoever outlives it; again is no error."""
        owned, self._owned = self._owned, None
        with contextlib.suppress(FileNotFoundError):  # somebody has
            if owned is None:
                owned = SharedMemory(self.name)
                owned.close()
            owned.unlink()

    def _start(self, n: int) -> int:
        return HEADER_BYTES + self._stride * (n % self.capacity)

    def _read(self, n: int) -> np.void | None:
        """Record n, if it is there whole."""
        start = self._start(n)
        raw = bytes(self._view[start : start + PREFIX.size + self.dtype.itemsize])
        sequence, checksum, _ = PREFIX.unpack_from(raw)
        payload = raw[PREFIX.size :]
        if sequence != n + 1 or checksum != _check(n, payload):
            return None
        return np.frombuffer(payload, self.dtype)[0]


def _check(n: int, payload: bytes) -> int:
    return zlib.crc32(payload, n & 0xFFFFFFFF)


def _whole(shared: SharedMemory) -> memoryview:
    assert shared.buf is not None, "open"
    return shared.buf


def _attached(name: str) -> tuple[memoryview, Callable[[], None]]:
    """Memory that another process created, and how to let go of it. It is the creator's to free, so this process's
    resource tracker, which would free it or complain, must not hear of it."""
    if sys.platform == "win32" or sys.version_info >= (3, 13):
        shared = SharedMemory(name, **({} if sys.version_info < (3, 13) else {"track": False}))
        return _whole(shared), shared.close
    posix = importlib.import_module("_posixshmem")  # what SharedMemory itself opens it with
    handle = posix.shm_open(f"/{name.lstrip('/')}", os.O_RDWR, mode=0o600)
    try:
        mapped = mmap.mmap(handle, 0)
    finally:
        os.close(handle)
    view = memoryview(mapped)

    def release() -> None:
        view.release()
        mapped.close()

    return view, release
