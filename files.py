"""Files and folders that are whole or absent: written under another name beside their place, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

LONGEST_NAME = 220  # bytes; what is added to a name while it is written must fit into 255


def check_place(path: str | Path, make: bool = True) -> Path:
    """Make the folders above `path`, so that it can be written when the work is done; without `make`, only see that
    they can be. Raises InputError."""
    path = Path(path)
    if path.name in ("", ".."):
        raise InputError(f"got {str(path)!r} as a place to write, wanted the name of a file or folder")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise InputError(f"the name {path.name[:40]}... is too long; wanted at most {LONGEST_NAME} bytes")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is no ordinary file; choose another place")
    try:
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
        above = next(folder for folder in path.parents if folder.exists())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {path.parent} is no folder ({error.strerror})") from None
    if not above.is_dir():
        raise InputError(f"{path} cannot be written: {above} is no folder")
    if not os.access(above, os.W_OK):
        raise InputError(f"{path} cannot be written: no right to write in {above}")
    return path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path to write a file or a folder to; it takes the name `path` when the block ends without an error.

    What was there before is replaced. A folder cannot be replaced in one move, so the old one is moved aside first,
    put back if the new one cannot take its place, and deleted last.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is only atomic within one file system.
    temporary, aside = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        yield temporary
        _readable(temporary)
        try:
            if path.is_dir():
                os.replace(path, aside)
            os.replace(temporary, path)
        except BaseException:
            if aside.exists() and not path.exists():
                os.replace(aside, path)
            raise
    finally:
        for left in (temporary, aside) if path.exists() else (temporary,):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _readable(path: Path) -> None:
    """Give files the usual rights: some writers make theirs for the owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        file.chmod((0o777 if file.is_dir() else 0o666) & ~umask)


def write_whole(path: str | Path, text: str) -> Path:
    """Write `text` (UTF-8) so that a reader sees the old file or the new one, never a part."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)
