"""The zarr replay buffer of Diffusion Policy: `data/obs`, `data/action`, `meta/episode_ends`, in zarr format 2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import whole
from .columns import OTHER_KEYS, check_numbers, form_of, key_of, side_by_side
from .demonstrations import Demonstrations, misfits

CHUNK_BYTES = 2 * 2**20
ACTIONS, ENDS = "data/action", "meta/episode_ends"
LONGEST = 200  # characters of an error of zarr's
UNOPENED = (
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)  # of damaged metadata, by version
AGAIN = "download it or collect it again"


def write_replay_buffer(path: str | Path, demonstrations: Demonstrations) -> None:
    """Write the folder `path`, under a temporary name first. The attribute `complete` comes last.

    A simulator's states and scenes are kept in HDF5 alone.
    """
    import zarr

    with whole(Path(path)) as temporary:
        root = zarr.open_group(str(temporary), mode="w", zarr_format=2)
        _put(root, "data/obs", demonstrations.observations.astype(np.float32))
        _put(root, ACTIONS, demonstrations.actions.astype(np.float32))
        _put(root, ENDS, demonstrations.episode_ends.astype(np.int64))
        root.attrs.update({**demonstrations.attributes, "complete": True})


def read_replay_buffer(path: str | Path, columns: Sequence[str] = ("obs",)) -> Demonstrations:
    """Read and check a replay buffer. Buffers of Diffusion Policy itself, without our attributes, are read too.

    columns: what the observation is made of, arrays under `data/`, such as ("keypoint", "state[:2]").
    Attributes of others that are not what ours of that name are go to the list `left_out`.
    Raises InputError for what is missing, half written or inconsistent.
    """
    import zarr

    path = Path(path)
    if not path.is_dir():
        raise InputError(f"got no folder {path}, wanted a zarr replay buffer: make one with `ontick demos`")
    try:
        root = zarr.open_group(str(path), mode="r")
        attributes = dict(root.attrs)
    except Exception as error:  # zarr has many, by version and by what is wrong
        raise InputError(f"got {path}, which zarr cannot open ({_short(error)}), wanted a replay buffer") from error
    # Others leave out chunks of zeros, and zarr reads what is missing as zeros.
    ours = "task" in attributes and ("complete" in attributes or "versions" in attributes)
    attributes = _checked(attributes, path, ours)
    plain = list(columns) == ["obs"]
    seen = [_get(root, path, f"data/{key_of(column)}", (2,) if plain else (1, 2, 3), ours) for column in columns]
    actions, ends = _get(root, path, ACTIONS, (2,), ours), _get(root, path, ENDS, (1,), ours)
    if not np.array_equal(ends, np.rint(ends)):
        raise InputError(f"got {path}, whose {ENDS} are no whole numbers, wanted the end of each episode")
    if not plain:
        attributes["columns"] = list(columns)
    observations = seen[0].astype(np.float32, copy=False) if plain else side_by_side(columns, seen, path)
    return Demonstrations(observations, actions.astype(np.float32, copy=False), ends.astype(np.int64), attributes)


def _checked(attributes: dict[str, Any], path: Path, ours: bool) -> dict[str, Any]:
    """Attributes that are what their names say. Those of ours must be, and whole; those of others are left out."""
    if ours and attributes.get("complete") is not True:
        raise InputError(f"got {path}, which was not written to its end: delete it and run `ontick demos` again")
    left_out = misfits(attributes)
    if ours and left_out:
        raise InputError(f"got {path}, whose attribute {next(iter(left_out.values()))}: mend it, or {AGAIN}")
    kept = {name: value for name, value in attributes.items() if name not in left_out}
    return {**kept, "left_out": list(left_out.values())} if left_out else kept


def _put(root: Any, name: str, rows: np.ndarray) -> None:
    import numcodecs

    steps = max(1, min(len(rows), CHUNK_BYTES // (rows.itemsize * int(np.prod(rows.shape[1:])))))
    codec = numcodecs.Blosc("lz4", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE)
    kept = {"write_empty_chunks": True}  # so that a chunk that is not there is one that was lost
    root.create_array(name, data=rows, chunks=(steps, *rows.shape[1:]), compressors=codec, config=kept)


def _get(root: Any, path: Path, name: str, axes: Sequence[int], every_chunk: bool) -> np.ndarray:
    """Read an array of numbers of that many axes."""
    array = _found(root, path, name)
    check_numbers(array, f"{path}, whose {name}", axes, AGAIN if name in (ACTIONS, ENDS) else OTHER_KEYS)
    try:
        lost = every_chunk and array.nchunks_initialized < array.nchunks
        rows = None if lost else np.asarray(array[:])
    except Exception as error:  # each codec has its own
        raise InputError(f"got {path}, whose {name} cannot be read ({_short(error)}): {AGAIN}") from error
    if rows is None:
        raise InputError(f"got {path}, whose {name} lacks parts: it is half written or damaged; {AGAIN}")
    return rows


def _found(root: Any, path: Path, name: str) -> Any:
    """What stands under that name, most often an array."""
    import zarr

    group = name.partition("/")[0]
    try:
        folder = root.get(group)
        if not isinstance(folder, zarr.Array) and name in root:
            return root[name]
        held = ", ".join(sorted(folder)) if isinstance(folder, zarr.Group) else ""
    except UNOPENED as error:
        raise InputError(f"got {path}, whose {name} cannot be opened ({_short(error)}): {AGAIN}") from error
    if isinstance(folder, zarr.Array):
        raise InputError(
            f"got {path}, whose {group} is an array, {form_of(folder)}, wanted a group with {name}: {AGAIN}"
        )
    fix = AGAIN if name in (ACTIONS, ENDS) else "name what is observed with --obs-keys"
    raise InputError(
        f"got {path} without {name}, wanted data/obs, {ACTIONS} and {ENDS}; {group} holds {held or 'nothing'}: {fix}"
    )


def _short(error: Exception) -> str:
    """An error's text in one line, not a page."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
