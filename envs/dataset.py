"""Demonstrations on disk, by the ending of their name."""

from pathlib import Path

from ..errors import InputError
from .demonstrations import Demonstrations

FORMATS = ("zarr", "hdf5")


def read_demonstrations(path: str | Path) -> Demonstrations:
    """Read a `.zarr` replay buffer or a `.hdf5` robomimic file. Raises InputError for what cannot be used."""
    path = Path(path)
    _check_ending(path)
    if not path.exists():
        raise InputError(f"got no demonstrations at {path}: make them with `ontick demos --out {path}`")
    if path.suffix == ".zarr":
        from .replay_buffer import read_replay_buffer

        return read_replay_buffer(path)
    from .robomimic_hdf5 import read_robomimic

    return read_robomimic(path)


def write_demonstrations(path: str | Path, demonstrations: Demonstrations) -> None:
    """Write them whole, or not at all."""
    path = Path(path)
    _check_ending(path)
    if path.suffix == ".zarr":
        from .replay_buffer import write_replay_buffer

        write_replay_buffer(path, demonstrations)
    else:
        from .robomimic_hdf5 import write_robomimic

        write_robomimic(path, demonstrations)


def _check_ending(path: Path) -> None:
    if path.suffix.removeprefix(".") not in FORMATS:
        raise InputError(f"got {path}, wanted a name that ends in .zarr or .hdf5")
