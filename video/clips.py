"""Training videos on disk: `data/frames`, `data/actions`, `meta/ends` in zarr format 2, read whole or refused.

Legend: F frames in all episodes together, E episodes, H x W pixels, C channels, Da action numbers (may be 0).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import whole

CHUNK_BYTES = 2 * 2**20
KINDS = {"rgb": np.uint8, "field": np.float32}
MAKE = "make it again with `ontick clips`"


@dataclass(frozen=True)
class Clips:
    """Episodes laid end to end; episode i is frames `ends[i-1]` to `ends[i]`. Checked when made: InputError.

    `actions[i]` is what led from frame i-1 to frame i. Attributes: `kind` ("rgb": uint8 frames, or "field": float32),
    `scene`, `fps` [frames a second], `seed`; and for fields `scale`, the standard deviation of the values.
    """

    frames: np.ndarray  # uint8 or float32 [F, H, W, C]
    actions: np.ndarray  # float32 [F, Da]
    ends: np.ndarray  # int64 [E], exclusive and rising
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_attributes(self.attributes)
        frames, actions, ends = self.frames, self.actions, self.ends
        if frames.ndim != 4 or actions.ndim != 2 or ends.ndim != 1 or 0 in frames.shape:
            shapes = f"{frames.shape}, {actions.shape}, {ends.shape}"
            raise InputError(f"got clips of shapes {shapes}, wanted [F, H, W, C], [F, Da], [E]: {MAKE}")
        wanted = np.dtype(KINDS[self.kind])
        if frames.dtype != wanted or actions.dtype != np.float32 or ends.dtype != np.int64:
            types = f"{frames.dtype} frames, {actions.dtype} actions, {ends.dtype} ends"
            raise InputError(f"got {types}, wanted {wanted}, float32 and int64 for kind {self.kind!r}: {MAKE}")
        if len(ends) == 0 or ends[0] <= 0 or (np.diff(ends) <= 0).any():
            raise InputError(f"got ends of episodes that do not rise, wanted each to be after the one before: {MAKE}")
        if not len(frames) == len(actions) == ends[-1]:
            lengths = f"{len(frames)} frames, {len(actions)} actions and a last end of {ends[-1]}"
            raise InputError(f"got {lengths}, wanted three equal numbers: {MAKE}")
        for name, rows in (("frames", frames), ("actions", actions)):
            _check_finite(name, rows)

    def __len__(self) -> int:
        return len(self.ends)

    def episode(self, index: int) -> slice:
        """The frames of episode `index`, 0 to E-1."""
        return slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))

    @property
    def kind(self) -> str:
        """ "rgb" or "field"."""
        return self.attributes["kind"]

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each episode, int64 [E]."""
        return np.diff(self.ends, prepend=0)


def write_clips(path: str | Path, clips: Clips) -> None:
    """Write the folder `path`, under a temporary name first. The attribute `complete` comes last."""
    import zarr

    with whole(Path(path)) as temporary:
        root = zarr.open_group(str(temporary), mode="w", zarr_format=2)
        _put(root, "data/frames", clips.frames)
        _put(root, "data/actions", clips.actions)
        _put(root, "meta/ends", clips.ends)
        root.attrs.update({**clips.attributes, "complete": True})


def read_clips(path: str | Path) -> Clips:
    """Read and check clips. Raises InputError for what is missing, half written, inconsistent or not finite."""
    root, attributes = _open(Path(path))
    frames, actions, ends = (_get(root, Path(path), name) for name in ("data/frames", "data/actions", "meta/ends"))
    try:
        return Clips(frames, actions, ends, attributes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_attributes(path: str | Path) -> dict[str, Any]:
    """The attributes alone, without reading a frame. Raises InputError as `read_clips` does."""
    return _open(Path(path))[1]


def _open(path: Path) -> tuple[Any, dict[str, Any]]:
    import zarr

    if not path.is_dir():
        raise InputError(f"got no folder {path}, wanted clips in zarr: make them with `ontick clips`")
    try:
        root = zarr.open_group(str(path), mode="r")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"got {path}, which zarr cannot open ({reason}), wanted clips: {MAKE}") from error
    attributes = dict(root.attrs)
    if attributes.pop("complete", None) is not True:
        raise InputError(f"got {path}, which was not written to its end or holds no clips: {MAKE}")
    return root, attributes


def _check_attributes(attributes: dict[str, Any]) -> None:
    lacking = [name for name in ("kind", "scene", "fps", "seed") if name not in attributes]
    if lacking:
        raise InputError(f"got clips without the attributes {', '.join(lacking)}: {MAKE}")
    if attributes["kind"] not in KINDS:
        raise InputError(f"got clips of kind {attributes['kind']!r}, wanted {' or '.join(KINDS)}: {MAKE}")
    scale = attributes.get("scale")
    if attributes["kind"] == "field" and not (isinstance(scale, int | float) and 0 < scale < np.inf):
        raise InputError(f"got a field with scale {scale!r}, wanted the standard deviation of its values: {MAKE}")


def _check_finite(name: str, rows: np.ndarray) -> None:
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(axis=1))[0])
        raise InputError(f"got {name} with a NaN or infinity in frame {row}, wanted finite numbers: {MAKE}")


def _put(root: Any, name: str, rows: np.ndarray) -> None:
    import numcodecs

    row_bytes = max(1, rows.itemsize * int(np.prod(rows.shape[1:])))
    steps = max(1, min(len(rows), CHUNK_BYTES // row_bytes))
    # Shuffled bytes help floats; pixels compress better as they lie.
    shuffle = numcodecs.Blosc.SHUFFLE if rows.dtype.kind == "f" else numcodecs.Blosc.NOSHUFFLE
    codec = numcodecs.Blosc("zstd", clevel=3, shuffle=shuffle)
    kept = {"write_empty_chunks": True}  # so that a chunk that is not there is one that was lost
    chunks = (steps, *(max(1, width) for width in rows.shape[1:]))
    summed = [numcodecs.CRC32()]  # blosc reads a chunk that was cut without a complaint
    root.create_array(name, data=rows, chunks=chunks, filters=summed, compressors=codec, config=kept)


def _get(root: Any, path: Path, name: str) -> np.ndarray:
    if name not in root:
        raise InputError(f"got {path} without {name}, wanted data/frames, data/actions and meta/ends: {MAKE}")
    array = root[name]
    if array.size and array.nchunks_initialized < array.nchunks:
        raise InputError(f"got {path}, whose {name} lacks parts: it is half written or damaged; {MAKE}")
    try:
        return np.asarray(array[:])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"got {path}, whose {name} cannot be read ({reason}): {MAKE}") from error
