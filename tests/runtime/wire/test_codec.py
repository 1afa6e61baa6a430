"""openpi's bytes: written as its packer writes them, read whatever a stranger sends."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ontick.runtime.wire import codec
from ontick.runtime.wire.codec import WireError, pack, unpack

msgpack = pytest.importorskip("msgpack", reason="the wire needs the package msgpack")

NUMBERS = arrays.integer_dtypes() | arrays.unsigned_integer_dtypes() | arrays.floating_dtypes(sizes=(16, 32, 64))
ARRAYS = arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
MESSAGES = st.recursive(
    PLAIN | ARRAYS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=9), inside, max_size=3),
    max_leaves=6,
)


def fixarray(n):
    return bytes([0x90 | n])


def text(value):
    return bytes([0xA0 | len(value)]) + value.encode()


def binary(value):
    return b"\xc4" + bytes([len(value)]) + value


# Made from the description of the protocol, by hand: maps of bytes keys, in this order.
ARRAY = (
    b"\x84"
    + (binary(b"__ndarray__") + b"\xc3")
    + (binary(b"data") + binary(struct.pack("<4f", 1.0, -2.0, 0.5, 0.0)))
    + (binary(b"dtype") + text("<f4"))
    + (binary(b"shape") + fixarray(2) + b"\x02\x02")
)
SCALAR = b"\x83" + (binary(b"__npgeneric__") + b"\xc3") + (binary(b"data") + b"\x07") + (binary(b"dtype") + text("<i4"))


def test_an_observation_is_written_in_openpis_bytes():
    message = {"observation/state": np.float32([[1.0, -2.0], [0.5, 0.0]]), "step": np.int32(7), "prompt": "pick"}
    told = text("observation/state") + ARRAY + text("step") + SCALAR + text("prompt") + text("pick")
    assert pack(message) == b"\x83" + told


def test_openpis_bytes_are_read():
    read = unpack(b"\x82" + text("actions") + ARRAY + text("step") + SCALAR)
    assert read["actions"].dtype == np.float32 and read["actions"].tolist() == [[1.0, -2.0], [0.5, 0.0]]
    assert isinstance(read["step"], np.int32) and read["step"] == 7


@settings(max_examples=60, deadline=None)
@given(MESSAGES)
def test_what_is_packed_comes_back(message):
    same(unpack(pack(message)), message)


def same(got, wanted):
    if isinstance(wanted, np.ndarray):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        assert got.tobytes() == wanted.tobytes()
        assert not got.flags.writeable
    elif isinstance(wanted, list):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, dict):
        assert list(got) == list(wanted)
        for key in wanted:
            same(got[key], wanted[key])
    else:
        assert got == wanted or (got != got and wanted != wanted)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<i8", "|b1", "|u1", "<U3", "|S3"])
def test_scalars_and_texts_keep_their_dtype(dtype):
    value = np.zeros(2, dtype)
    assert unpack(pack(value)).dtype == np.dtype(dtype)
    if not isinstance(value[0], bytes | str):
        assert unpack(pack({"x": value[0]}))["x"].dtype == np.dtype(dtype).newbyteorder("=")


def test_arrays_with_gaps_are_packed_in_order():
    grid = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(unpack(pack(grid.T[::2])), grid.T[::2])


@pytest.mark.parametrize("value", [np.zeros(2, complex), np.array([object()]), np.zeros(2, "V4"), object(), {1, 2}])
def test_records_objects_and_complex_numbers_are_not_packed(value):
    with pytest.raises(WireError):
        pack({"x": value})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data):
    read_or_refused(data)


@settings(max_examples=150, deadline=None)
@given(MESSAGES, st.data())
def test_mutated_messages_are_read_or_refused(message, draw):
    data = bytearray(pack({"x": message, "y": np.arange(3.0)}))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    read_or_refused(bytes(data[: draw.draw(st.integers(0, len(data)))]))


def read_or_refused(data):
    try:
        unpack(data)
    except WireError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {b"shape": [3]},
        {b"shape": [2**40]},
        {b"shape": [2**31, 2**31, 2**31]},
        {b"shape": [-2]},
        {b"shape": [True, 2]},
        {b"shape": 2},
        {b"shape": [2.0]},
        {b"shape": [1] * 33},
        {b"data": "text"},
        {b"data": None},
        {b"dtype": "|O"},
        {b"dtype": "<c8"},
        {b"dtype": "|V4"},
        {b"dtype": "f4,f4"},
        {b"dtype": "<f3"},
        {b"dtype": "<U0", b"data": b"", b"shape": [2**30]},
        {b"dtype": 4},
        {b"__ndarray__": 1},
        {b"more": 1},
    ],
)
def test_no_array_is_made_of_what_the_frame_does_not_hold(changes):
    entry = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    told = {key: value for key, value in {**entry, **changes}.items() if value is not None}
    with pytest.raises(WireError):
        unpack(msgpack.packb(told))


@pytest.mark.parametrize("data, dtype", [("1.5", "<f4"), (300, "|i1"), (True, "<i4"), (1.5, "<i4"), (0, "<M8[ns]")])
def test_no_scalar_is_made_of_another_kind_of_value(data, dtype):
    with pytest.raises(WireError):
        unpack(msgpack.packb({b"__npgeneric__": True, b"data": data, b"dtype": dtype}))


@pytest.mark.parametrize(
    "data",
    [
        "a text frame",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x91" * 40 + b"\x01",
        (b"\xdc\x0f\xff" + b"\x80" * 4095) * 40,
        b"\x98" + (b"\xdc\x0f\xff" + b"\x93\x00\x00\x00" * 4095) * 8,
        msgpack.packb(msgpack.ExtType(5, b"x")),
        msgpack.packb(msgpack.Timestamp(1)),
        b"\x01\x02",
        msgpack.packb({1: 2}),
    ],
    ids=range(12),
)
def test_what_would_grow_or_nest_without_end_is_refused(data):
    with pytest.raises(WireError):
        unpack(data)


def test_a_large_picture_is_read_without_a_copy_of_its_parts():
    picture = np.zeros((480, 640, 3), np.uint8)
    assert unpack(pack({"image": picture}))["image"].shape == picture.shape
    assert picture.nbytes < codec.LARGEST_MESSAGE
