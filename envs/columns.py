"""Observations that a file keeps under several keys, put side by side in one row.

A key may pick some of its numbers: `state[:2]` are the first two of `state`.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError

OTHER_KEYS = "name other keys with --obs-keys"
NUMBERS = "fiub"  # numpy's kinds: floats, integers, truth values
_PICKED = re.compile(r"(?P<key>[^\[\]]+)(\[(?P<first>\d*):(?P<end>\d*)\])?")


def key_of(column: str) -> str:
    """The key that a column is taken from. Raises InputError for what is no column."""
    return _parsed(column)["key"]


def parse_columns(text: str) -> tuple[str, ...]:
    """From text such as `object,robot0_eef_pos` or `keypoint,state[:2]`. Raises InputError."""
    columns = tuple(part.strip() for part in text.split(","))
    for column in columns:
        _parsed(column)
    return columns


def form_of(found: Any) -> str:
    """What stands in a file, to be told: an array's kind and shape, or that it is none."""
    shape = getattr(found, "shape", None)
    return "no array" if shape is None else f"{found.dtype} {list(shape)}"


def check_numbers(found: Any, what: str, axes: Sequence[int], fix: str) -> None:
    """Raises InputError unless `found`, an array in memory or in a file, holds numbers of that many axes."""
    shape = getattr(found, "shape", None)
    if shape is None or len(shape) not in axes or found.dtype.kind not in NUMBERS:
        raise InputError(f"got {what} is {form_of(found)}, wanted numbers [t, n]: {fix}")


def side_by_side(columns: Sequence[str], arrays: Sequence[np.ndarray], path: object) -> np.ndarray:
    """Arrays [t, ...], one of each column's key -> float32 [t, Do]: each flattened to a row, picked from, joined.

    Raises InputError for pictures, unequal lengths and what is not there to be picked.
    """
    for column, array in zip(columns, arrays, strict=True):
        check_numbers(array, f"{path}, whose {column}", (1, 2, 3), OTHER_KEYS)
    if len({len(array) for array in arrays}) > 1:
        lengths = ", ".join(f"{column}: {len(array)}" for column, array in zip(columns, arrays, strict=True))
        raise InputError(
            f"got {path} with observations of unequal lengths ({lengths}), wanted one of each at each step"
        )
    return np.concatenate([_rows(c, array, path) for c, array in zip(columns, arrays, strict=True)], axis=1)


def _rows(column: str, array: np.ndarray, path: object) -> np.ndarray:
    picked = _parsed(column)
    rows = array.reshape(len(array), math.prod(array.shape[1:])).astype(np.float32)
    taken = slice(int(picked["first"] or 0), int(picked["end"]) if picked["end"] else None)
    if rows[:, taken].shape[1] == 0 or (taken.stop or 0) > rows.shape[1]:
        raise InputError(f"got {column}, of {path}, where {picked['key']} has {rows.shape[1]} numbers")
    return rows[:, taken]


def _parsed(column: str) -> dict[str, str]:
    found = _PICKED.fullmatch(column)
    if found is None:
        raise InputError(f"got {column!r}, wanted a key of the file, such as object or state[:2]")
    return found.groupdict()
