"""What goes over the wire: msgpack with numpy arrays, byte for byte as openpi's clients and servers write it.

    array   {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [m, n]}
    scalar  {b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f4"}

Keys are bytes. Records, objects and complex numbers have no place in it. What comes in is foreign: nothing is made of
it whose size the frame itself does not hold.
"""

from __future__ import annotations

import importlib
import math
import re
from typing import Any

import numpy as np

from ...errors import InputError, RunFailed

LARGEST_MESSAGE = 8 << 20  # bytes
ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
ARRAY_KEYS = {ARRAY, b"data", b"dtype", b"shape"}
SCALAR_KEYS = {SCALAR, b"data", b"dtype"}
REFUSED_KINDS = "VOc"
DTYPE = re.compile(r"[<>|=](?:[biufSU]\d{1,6}|[mM]8(?:\[\d{0,6}[a-zA-Z]{1,2}\])?)")
PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (float, int),
    "S": (bytes,),
    "U": (str,),
}
MOST_DIMS, LARGEST_DIM = 32, 2**31
DEEPEST = 32  # containers in containers
# A frame of a few megabytes can hold millions of empty containers, each of which takes 64 bytes and more here.
MOST_PARTS = 1 << 16  # entries of all lists and dictionaries together
LONGEST_LIST = LONGEST_MAP = 4096


class WireError(RunFailed):
    """What came over the wire cannot be used, or nothing came; why, in one line."""


def package(name: str) -> Any:
    """A module of the packages that the wire needs. Raises InputError where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f'the wire needs websockets and msgpack ({error}): pip install "ontick[drive]"') from error


def pack(obj: Any) -> bytes:
    """A message of dictionaries, lists, numbers, texts, bytes, None, numpy arrays and scalars. Raises WireError for
    anything else."""
    msgpack = package("msgpack")
    try:
        return msgpack.packb(obj, default=_packed)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"a message cannot be packed: {_line(error)}") from None


def unpack(data: bytes) -> Any:
    """Undo `pack`. Arrays are read-only and lie in the message. Raises WireError for whatever else `data` is, and
    nothing but that."""
    msgpack = package("msgpack")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise WireError(f"got a message of type {type(data).__name__}, wanted bytes")
    reader = _Reader()
    try:
        message = msgpack.unpackb(
            data,
            object_hook=reader.mapping,
            list_hook=reader.list,
            max_array_len=LONGEST_LIST,
            max_map_len=LONGEST_MAP,
            max_ext_len=0,
        )
        _check(message, DEEPEST)
    except WireError:
        raise
    except Exception as error:  # msgpack, numpy and Python each have their own for what is no message
        raise WireError(f"a message is no msgpack: {_line(error)}") from None
    return message


def _packed(obj: Any) -> Any:
    if not isinstance(obj, np.ndarray | np.generic):
        raise TypeError(f"{type(obj).__name__} has no place in it")
    if obj.dtype.kind in REFUSED_KINDS:
        raise ValueError(f"arrays of dtype {obj.dtype} have no place in it")
    if isinstance(obj, np.ndarray):
        return {ARRAY: True, b"data": obj.tobytes(), b"dtype": obj.dtype.str, b"shape": obj.shape}
    return {SCALAR: True, b"data": obj.item(), b"dtype": obj.dtype.str}


class _Reader:
    """Turns what msgpack read into arrays, and counts."""

    def __init__(self) -> None:
        self.parts = 0

    def list(self, values: list) -> list:
        self._count(len(values))
        return values

    def mapping(self, values: dict) -> Any:
        self._count(len(values))
        if ARRAY in values:
            return _array(values)
        if SCALAR in values:
            return _scalar(values)
        return values

    def _count(self, n: int) -> None:
        self.parts += n + 1
        if self.parts > MOST_PARTS:
            raise WireError(f"a message has more than {MOST_PARTS} parts; send numbers as arrays")


def _array(entry: dict) -> np.ndarray:
    if entry.keys() != ARRAY_KEYS or entry[ARRAY] is not True:
        raise WireError("an array wants __ndarray__ = true, data, dtype and shape, and nothing else")
    data, shape, dtype = entry[b"data"], entry[b"shape"], _dtype(entry[b"dtype"])
    if not isinstance(data, bytes):
        raise WireError(f"an array's data is {type(data).__name__}, wanted bytes")
    if not isinstance(shape, list) or len(shape) > MOST_DIMS:
        raise WireError(f"an array's shape is no list of at most {MOST_DIMS} numbers")
    if not all(type(n) is int and 0 <= n <= LARGEST_DIM for n in shape):
        raise WireError("an array's shape holds what is no whole number from 0 on")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"an array of shape {shape} and dtype {dtype.str} does not have {len(data)} bytes")
    return np.ndarray(tuple(shape), dtype, data)


def _scalar(entry: dict) -> np.generic:
    if entry.keys() != SCALAR_KEYS or entry[SCALAR] is not True:
        raise WireError("a scalar wants __npgeneric__ = true, data and dtype, and nothing else")
    data, dtype = entry[b"data"], _dtype(entry[b"dtype"])
    # A bool is an int to isinstance, and numpy would read a number out of a text.
    if type(data) not in PYTHON_TYPES.get(dtype.kind, ()):
        raise WireError(f"a scalar of dtype {dtype.str} is given as {type(data).__name__}")
    with np.errstate(all="ignore"):
        return dtype.type(data)


def _dtype(told: Any) -> np.dtype:
    if not isinstance(told, str) or not DTYPE.fullmatch(told):
        raise WireError(f"got {str(told)[:20]!r} for a dtype, wanted one such as '<f4'")
    dtype = np.dtype(told)
    if dtype.itemsize == 0:
        raise WireError(f"dtype {told} has no size")
    return dtype


def _check(value: Any, left: int) -> None:
    """Refuses what is deeper than `left` and what msgpack knows beside us, such as its times."""
    if isinstance(value, list | dict):
        if left == 0:
            raise WireError(f"a message is deeper than {DEEPEST}")
        for inside in value.values() if isinstance(value, dict) else value:
            _check(inside, left - 1)
    elif not (value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray | np.generic)):
        raise WireError(f"a message holds {type(value).__name__}, which has no place in it")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
