"""Demonstrations on disk, by the ending of their name."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .demonstrations import Demonstrations

FORMATS = ("zarr", "hdf5")


def read_demonstrations(
    path: str | Path, columns: Sequence[str] | None = None, mask: str | None = None
) -> Demonstrations:
    """Read a `.zarr` replay buffer or a `.hdf5` robomimic file. Raises InputError for what cannot be used.

    columns: what the observation is made of, where the file keeps it under several keys; None: the usual ones.
    mask: of HDF5 alone, the demonstrations to read, such as "train"; None: all.
    """
    path = Path(path)
    _check_ending(path)
    if not path.exists():
        raise InputError(f"got no demonstrations at {path}: make them with `ontick demos --out {path}`")
    if path.suffix == ".zarr":
        from .replay_buffer import read_replay_buffer

        if mask is not None:
            raise InputError(f"got mask {mask!r} for {path}: only .hdf5 has masks, leave it out")
        return read_replay_buffer(path, columns or ("obs",))
    from .robomimic_hdf5 import read_robomimic

    return read_robomimic(path, columns, mask)


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
