"""Settings read from files, checked against the frozen dataclass they are for."""

import contextlib
import dataclasses
from collections.abc import Collection
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from .errors import InputError


def checked(kind: type, data: Any, origin: str, without: Collection[str] = ()) -> dict[str, Any]:
    """`data` as keyword arguments of the dataclass `kind`: a mapping with known names, each of the type it wants.

    Lists become tuples and whole numbers floats where that is wanted; a nested dataclass is given as its own
    mapping and left to its own check. Names in `without` are not the file's to set. Raises InputError that starts
    with `origin`.
    """
    if not isinstance(data, dict):
        raise InputError(f"{origin}: wanted a mapping, got {type(data).__name__}")
    wanted = {name: hint for name, hint in get_type_hints(kind).items() if name not in without}
    unknown = [str(key) for key in data if key not in wanted]
    if unknown:
        raise InputError(f"{origin}: unknown {', '.join(unknown)}; known: {', '.join(sorted(wanted))}")
    return {key: _fitting(value, wanted[key], f"{origin}: {key}") for key, value in data.items()}


def _fitting(value: Any, wanted: Any, what: str) -> Any:
    """`value` as the wanted type, or InputError."""
    if isinstance(wanted, UnionType):
        return None if value is None else _fitting(value, get_args(wanted)[0], what)
    if get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_fitting(item, get_args(wanted)[0], what) for item in value)
    if (dataclasses.is_dataclass(wanted) or get_origin(wanted) is dict) and isinstance(value, dict):
        return value
    if wanted is float and type(value) in (int, str):  # YAML reads 5e-4, without a point, as text
        with contextlib.suppress(ValueError):
            return float(value)
    if type(value) is not wanted:
        raise InputError(f"{what} is {value!r}, wanted {getattr(wanted, '__name__', wanted)}")
    return value
