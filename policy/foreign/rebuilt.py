"""Plain values that a pickle makes by a call: the functions that stand in the place of the names it gives."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

Rebuild = Callable[..., Any]
Build = Callable[[Any, Any], None]
KEYS = (str, int, float, bool, bytes, type(None))


class Damaged(Exception):
    """The pickle breaks its own rules; `unpickle` says so with an InputError."""


def checked_keys(keys: list[Any]) -> list[Any]:
    """The same, of types whose hash is cheap: hashing a deep tuple can end the process."""
    if not all(isinstance(key, KEYS) for key in keys):
        raise Damaged("a key is neither text nor a number")
    return keys


def _ordered(pairs: Any = ()) -> OrderedDict:
    pairs = [(key, value) for key, value in pairs]
    checked_keys([key for key, _ in pairs])
    return OrderedDict(pairs)


def _set_of(items: Any = ()) -> set:
    if type(items) not in (list, tuple):
        raise Damaged("a set of no list")
    return set(checked_keys(list(items)))


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Damaged("bytes of no Latin text")
    return text.encode("latin1")


def _complex(real: Any, imaginary: Any) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise Damaged("a complex number of no numbers")
    return complex(real, imaginary)


def _bytes(value: Any = b"", encoding: Any = "latin1") -> bytes:
    return value if type(value) is bytes else _encoded(value, encoding)


REBUILD: dict[str, Rebuild] = {
    "collections.OrderedDict": _ordered,
    "builtins.set": _set_of,
    "builtins.frozenset": lambda items=(): frozenset(_set_of(items)),
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "_codecs.encode": _encoded,
}
