"""Files of `torch.save`, read without torch's loader: a zip of one pickle and a record for each storage.

    with open_torch_file("latest.ckpt") as contents:
        weights = tensors(contents["state_dicts"]["ema_model"], "ema_model")

The pickle is read as data (`unpickling`). A tensor in it is a `Stored`: where its numbers lie, checked against the size
of its record; they are read when they are asked for, so that an optimiser's state costs nothing.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints import shown
from ...errors import InputError
from . import numpy_values
from .rebuilt import Damaged
from .unpickling import Name, unpickle

DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
PROTO = b"\x80"  # what a pickle begins with
MOST_DIMENSIONS = 16
MOST_SHARED = 3  # times the file that its tensors may be together; few share their numbers


@dataclass(frozen=True, eq=False, repr=False)
class Stored:
    """A tensor that still lies in its file: `shape` and `stride` in numbers, from `offset` in the record `name`."""

    archive: "_Archive"
    name: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """The numbers, in memory of their own."""
        return self.of(bytearray(self.archive.record(self.name)) if self.bytes else bytearray())

    def of(self, record: bytearray) -> Tensor:
        """The same out of its record, which is read already."""
        try:
            if not self.bytes:
                return torch.empty(self.shape, dtype=self.dtype)
            flat = torch.frombuffer(record, dtype=self.dtype)
            return flat.as_strided(self.shape, self.stride, self.offset).clone()
        except RuntimeError:
            raise InputError(f"{self.archive.path}: no tensor has the shape {shown(self.shape)}") from None


@dataclass(frozen=True, eq=False)
class _Storage:
    name: str
    dtype: torch.dtype
    numbers: int


class _Archive:
    """The zip's records by name; none is compressed, none is there twice, and each lies within the file."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self.file = path, file
        self.sizes: dict[str, int] = {}
        self.size = path.stat().st_size
        for record in file.infolist():
            whole = record.compress_type == zipfile.ZIP_STORED and record.file_size == record.compress_size
            if not whole or record.filename in self.sizes or record.file_size > self.size:
                raise InputError(
                    f"{path}: record {shown(record.filename)} is compressed, doubled or cut off; save it again"
                )
            self.sizes[record.filename] = record.file_size
        if sum(self.sizes.values()) > self.size:
            raise InputError(f"{path}: its records lie over each other; save it again")
        pickles = [name for name in self.sizes if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"{path} is a zip without one data.pkl; wanted a file of torch.save")
        self.root = pickles[0].removesuffix("data.pkl")
        if f"{self.root}byteorder" in self.sizes and self.record(f"{self.root}byteorder") != b"little":
            raise InputError(f"{path} was written on a big-endian machine; save it again on another")

    def record(self, name: str) -> bytes:
        try:
            return self.file.read(name)
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise InputError(
                f"{self.path}: record {shown(name)} cannot be read ({error}); copy the file again"
            ) from None

    # -- what the pickle asks for ---------------------------------------------------------------------------------

    def storage(self, told: Any) -> _Storage:
        """of a persistent id: ("storage", its class, the record's key, device, how many numbers)"""
        if type(told) is not tuple or len(told) != 5 or told[0] != "storage" or not isinstance(told[1], Name):
            raise Damaged("a value that is stored elsewhere is no storage")
        _, kind, key, _, numbers = told
        if kind.text not in DTYPES or type(key) is not str or type(numbers) is not int:
            raise Damaged(f"a storage of {kind.text}")
        name, dtype = f"{self.root}data/{key}", DTYPES[kind.text]
        if self.sizes.get(name) != numbers * dtype.itemsize:
            got = self.sizes.get(name)
            raise Damaged(f"storage {key!r} is told to have {numbers} numbers of {dtype}, its record has {got} bytes")
        return _Storage(name, dtype, numbers)

    def tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Stored:
        """Refuses a view that reaches out of its storage, or that is larger than it (a stride of 0)."""
        if not isinstance(storage, _Storage):
            raise Damaged("a tensor without a storage")
        for numbers in (shape, stride, (offset,)):
            if type(numbers) is not tuple or not all(type(n) is int and n >= 0 for n in numbers):
                raise Damaged("a tensor's shape, strides or offset are no whole numbers from 0")
        if max(len(shape), len(stride)) > MOST_DIMENSIONS:
            raise Damaged(f"a tensor has {len(shape)} dimensions")
        if len(shape) != len(stride):
            raise Damaged("a tensor's shape and strides differ in length")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if math.prod(shape) and (last >= storage.numbers or math.prod(shape) > storage.numbers):
            raise Damaged(f"a tensor of shape {shape} reaches out of its storage of {storage.numbers} numbers")
        return Stored(self, storage.name, storage.dtype, offset, shape, stride)


def _no_zip(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(1) != PROTO:
            return f"{path} is no zip, wanted a checkpoint as torch.save writes it"
    return (
        f"{path} is no zip: torch before 1.6 wrote such pickles, which are not read; load it with that torch and "
        "torch.save it again with a newer one, if you trust it"
    )


@contextmanager
def open_torch_file(path: str | Path) -> Iterator[Any]:
    """What `torch.save` was given: containers, numbers, text, `Stored` tensors and `Inert` objects. Tensors can be read
    while the block lasts. Raises InputError for another file, a damaged one, and one that names what is not data."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"got no file {path}, wanted a checkpoint")
    if not zipfile.is_zipfile(path):
        raise InputError(_no_zip(path))
    with _opened(path) as file:
        archive = _Archive(path, file)
        yield unpickle(
            archive.record(f"{archive.root}data.pkl"),
            str(path),
            rebuild={
                "torch._utils._rebuild_tensor": archive.tensor,
                "torch._utils._rebuild_tensor_v2": archive.tensor,
                "torch._utils._rebuild_parameter": _parameter,
                **numpy_values.REBUILD,
            },
            build=numpy_values.BUILD,
            types=(*DTYPES, *numpy_values.TYPES),
            persistent=archive.storage,
        )


def tensors(found: Any, what: str) -> dict[str, Tensor]:
    """A state_dict, read: {name: Tensor}. Raises InputError where it holds anything else."""
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InputError(f"{what} is no state_dict: wanted tensors by name")
    strange = [name for name, value in found.items() if not isinstance(value, Stored)]
    if strange:
        raise InputError(f"{what} holds {shown(strange[0])}, which is no tensor")
    return _read(found, what)


def _read(found: Mapping[str, Stored], what: str) -> dict[str, Tensor]:
    """Each record once, whatever lies in it. Raises InputError for far more numbers than the file holds."""
    wanted = sum(value.bytes for value in found.values())
    size = max((value.archive.size for value in found.values()), default=0)
    if wanted > MOST_SHARED * size:
        raise InputError(
            f"{what} has {wanted} bytes of numbers in a file of {size}: its tensors share them, which is not served; "
            "save a clone of each"
        )
    records: dict[tuple[_Archive, str], list[str]] = {}
    for name, value in found.items():
        records.setdefault((value.archive, value.name), []).append(name)
    read = {}
    for (archive, record), names in records.items():
        held = bytearray(archive.record(record))
        read.update((name, found[name].of(held)) for name in names)
    return {name: read[name] for name in found}


def _parameter(data: Any, *_: Any) -> Stored:
    if not isinstance(data, Stored):
        raise Damaged("a parameter without a tensor")
    return data


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{path} is no whole zip ({error}); copy the file again") from None
    with file:
        yield file
