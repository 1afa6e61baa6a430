"""The zarr replay buffer of Diffusion Policy: `data/obs`, `data/action`, `meta/episode_ends`, in zarr format 2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import whole
from .columns import key_of, side_by_side
from .demonstrations import Demonstrations

CHUNK_BYTES = 2 * 2**20


def write_replay_buffer(path: str | Path, demonstrations: Demonstrations) -> None:
    """Write the folder `path`, under a temporary name first. The attribute `complete` comes last.

    A simulator's states and scenes are kept in HDF5 alone.
    """
    import zarr

    with whole(Path(path)) as temporary:
        root = zarr.open_group(str(temporary), mode="w", zarr_format=2)
        _put(root, "data/obs", demonstrations.observations.astype(np.float32))
        _put(root, "data/action", demonstrations.actions.astype(np.float32))
        _put(root, "meta/episode_ends", demonstrations.episode_ends.astype(np.int64))
        root.attrs.update({**demonstrations.attributes, "complete": True})


def read_replay_buffer(path: str | Path, columns: Sequence[str] = ("obs",)) -> Demonstrations:
    """Read and check a replay buffer. Buffers of Diffusion Policy itself, without our attributes, are read too.

    columns: what the observation is made of, arrays under `data/`, such as ("keypoint", "state[:2]").
    Raises InputError for what is missing, half written or inconsistent.
    """
    import zarr

    path = Path(path)
    if not path.is_dir():
        raise InputError(f"got no folder {path}, wanted a zarr replay buffer: make one with `ontick demos`")
    try:
        root = zarr.open_group(str(path), mode="r")
    except Exception as error:  # zarr has many, by version and by what is wrong
        raise InputError(f"got {path}, which zarr cannot open ({error}), wanted a replay buffer") from error
    attributes = dict(root.attrs)
    if "task" in attributes and attributes.get("complete") is not True:
        raise InputError(f"got {path}, which was not written to its end: delete it and run `ontick demos` again")
    ours = "task" in attributes  # others leave out chunks of zeros, and zarr reads what is missing as zeros
    seen = [_get(root, path, f"data/{key_of(column)}", ours) for column in columns]
    actions, ends = _get(root, path, "data/action", ours), _get(root, path, "meta/episode_ends", ours)
    if list(columns) != ["obs"]:
        attributes["columns"] = list(columns)
    observations = seen[0].astype(np.float32) if list(columns) == ["obs"] else side_by_side(columns, seen, path)
    return Demonstrations(observations, actions.astype(np.float32), ends.astype(np.int64), attributes)


def _put(root: Any, name: str, rows: np.ndarray) -> None:
    import numcodecs

    steps = max(1, min(len(rows), CHUNK_BYTES // (rows.itemsize * int(np.prod(rows.shape[1:])))))
    codec = numcodecs.Blosc("lz4", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE)
    kept = {"write_empty_chunks": True}  # so that a chunk that is not there is one that was lost
    root.create_array(name, data=rows, chunks=(steps, *rows.shape[1:]), compressors=codec, config=kept)


def _get(root: Any, path: Path, name: str, every_chunk: bool) -> np.ndarray:
    if name not in root:
        held = ", ".join(sorted(root["data"])) if "data" in root else "nothing"
        raise InputError(
            f"got {path} without {name}, wanted data/obs, data/action and meta/episode_ends; data holds {held}: name "
            "what is observed with --obs-keys"
        )
    array = root[name]
    if every_chunk and array.nchunks_initialized < array.nchunks:
        raise InputError(f"got {path}, whose {name} lacks parts: it is half written or damaged; collect it again")
    try:
        return np.asarray(array[:])
    except Exception as error:  # each codec has its own
        reason = " ".join(str(error).split())
        raise InputError(f"got {path}, whose {name} cannot be read ({reason}): collect it again") from error
