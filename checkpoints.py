"""What all families' checkpoint folders have in common, config.json and its format; and how files of others are told
of, whose values may be of any type, size and depth."""

import json
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

FORMAT = "ontick-checkpoint-1"
CONVERT = "; of another library? `ontick convert` it first"
LONGEST = 120  # letters of one value in a message
MOST_NAMES = 8
LONGEST_MESSAGE = (500, 200)  # letters that are kept of its beginning and its end
STRANGE = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, OverflowError)


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a checkpoint folder, checked for its format. Raises InputError."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        hint = CONVERT if Path(folder).exists() else ""
        raise InputError(f"{folder} is not a checkpoint: it has no config.json{hint}")
    config = parsed_json(_text(path), str(path))
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        got = config.get("format") if isinstance(config, dict) else type(config).__name__
        hint = CONVERT if isinstance(config, dict) and "format" not in config else ""
        raise InputError(f"{path}: format is {shown(got)}, wanted {FORMAT!r}{hint}")
    return config


def check_replaceable(folder: Path) -> None:
    """Raises InputError where the folder holds anything but an older checkpoint."""
    if folder.exists() and not (folder / "config.json").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a checkpoint; give another place or remove it")


# -- JSON ------------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping, or InputError."""
    found = parsed_json(_text(path), str(path))
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}, wanted a mapping")
    return found


def parsed_json(text: str, what: str) -> Any:
    """The value, or InputError for what is not JSON or is nested deeper than Python reads."""
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{what} is not JSON that can be read: its lists or mappings are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {_reason(error)}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read, or is not JSON: {_reason(error)}") from None


# -- values of others in messages ------------------------------------------------------------------------------------


class _Short(reprlib.Repr):
    """Of a value that may be of any size, and share its parts."""

    repr_OrderedDict = reprlib.Repr.repr_dict

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, LONGEST, LONGEST


def shown(value: Any) -> str:
    """repr(value), shortened."""
    try:
        text = _Short().repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def listed(names: Iterable[Any]) -> str:
    """Names side by side, the first few."""
    names = list(names)
    told = [shown(name)[1:-1] if isinstance(name, str) else shown(name) for name in names[:MOST_NAMES]]
    return ", ".join(told) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


@contextmanager
def strange_told(what: str) -> Iterator[None]:
    """A configuration whose values are of unforeseen types is refused too, and no refusal is long."""
    first, last = LONGEST_MESSAGE
    try:
        yield
    except InputError as error:
        text = str(error)
        if len(text) <= first + last:
            raise
        raise InputError(f"{text[:first]} ... {text[-last:]}") from None
    except STRANGE as error:
        told = f"{type(error).__name__}: {_reason(error)}"
        raise InputError(f"{what}: its configuration cannot be understood ({told})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error)[:1000].split())[:LONGEST]
