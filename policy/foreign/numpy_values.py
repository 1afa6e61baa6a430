"""numpy's numbers and arrays out of a pickle: plain numeric types only, sizes checked by numpy itself."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rebuilt import Build, Damaged, Rebuild
from .unpickling import Name

NUMERIC = re.compile(r"[biufc]\d{1,2}")
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
TYPES = ("numpy.ndarray",)


@dataclass
class _Type:
    """A dtype as the file tells it: its kind and size, then, by its state, its byte order."""

    text: str
    order: str = "="

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.text)


def _type(text: Any, *_: Any) -> _Type:
    if type(text) is not str or not NUMERIC.fullmatch(text):
        raise Damaged(f"numpy type {text!r} is not numeric")
    return _Type(text)


def _set_type(target: _Type, state: Any) -> None:
    order = state[1]
    target.order = {"<": "<", ">": ">", "|": "|"}.get(order, "=") if isinstance(order, str) else "="


def _scalar(kind: Any, data: Any) -> int | float | complex | bool:
    if not isinstance(kind, _Type) or type(data) is not bytes:
        raise Damaged("a numpy number without its type or bytes")
    values = np.frombuffer(data, kind.numpy())
    if len(values) != 1:
        raise Damaged("a numpy number of another size than its type")
    return values[0].item()


def _array(kind: Any, *_: Any) -> np.ndarray:
    """Empty; its state follows."""
    if kind != Name("numpy.ndarray"):
        raise Damaged("an array of no numpy class")
    return np.empty(0)


def _set_array(target: np.ndarray, state: Any) -> None:
    _, shape, kind, fortran, data = state
    if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
        raise Damaged("an array without a shape")
    if not isinstance(kind, _Type) or type(data) is not bytes:
        raise Damaged("an array without its type or bytes")
    told: Any = (1, shape, kind.numpy(), bool(fortran), data)
    target.__setstate__(told)


REBUILD: dict[str, Rebuild] = {
    "numpy.dtype": _type,
    **{f"{module}.scalar": _scalar for module in MODULES},
    **{f"{module}._reconstruct": _array for module in MODULES},
}
BUILD: dict[type, Build] = {_Type: _set_type, np.ndarray: _set_array}
