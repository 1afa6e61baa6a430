"""A pickle read as data: values come back, and whatever else it says, nothing happens but a refusal by name."""

import contextlib
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.policy.foreign import numpy_values
from ontick.policy.foreign.unpickling import Inert, unpickle

VALUES = {
    "numbers": [0, -1, 255, 65536, 2**40, 2**70, -(2**31), 1.5, float("inf"), True, False, None, 2 + 1j],
    "text": ["", "a\nb", "ünïcödé 😀", "x" * 300],
    "bytes": [b"", b"\x00\xff", b"y" * 300, bytearray(b"ab")],
    "nested": ({"a": [1, (2, 3, 4, 5), {"b": ()}]}, OrderedDict([("k", 1), ("l", {2: 3})])),
    "sets": [{1, 2}, frozenset("ab"), set()],
}
shared = [1]
VALUES["shared"] = [shared, shared]


@pytest.mark.parametrize("protocol", range(6))
def test_values_come_back_in_every_protocol(protocol):
    assert unpickle(pickle.dumps(VALUES, protocol), "it") == VALUES
    both = unpickle(pickle.dumps(VALUES["shared"], protocol), "it")
    assert both[0] is both[1]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_numpys_numbers_and_arrays_come_back(protocol):
    arrays = [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.ones((0, 2), np.float32)]
    arrays += [np.arange(3, dtype=">i4"), np.array([True, False])]
    numbers = [np.float32(1.5), np.int64(-7), np.bool_(True)]
    found = unpickle(
        pickle.dumps((arrays, numbers), protocol), "it", rebuild=numpy_values.REBUILD, build=numpy_values.BUILD,
        types=numpy_values.TYPES,
    )  # fmt: skip
    for ours, theirs in zip(found[0], arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype.newbyteorder("=")
    assert found[1] == [1.5, -7, True]


def test_numpys_objects_are_refused():
    for value in (np.array([{}], dtype=object), np.array(["text"])):
        with pytest.raises(InputError, match="not numeric"):
            unpickle(
                pickle.dumps(value, 2), "it", rebuild=numpy_values.REBUILD, build=numpy_values.BUILD,
                types=numpy_values.TYPES,
            )  # fmt: skip


class Touch:
    """Would write a file, whoever unpickles it."""

    def __init__(self, function, *arguments):
        self.told = function, arguments

    def __reduce__(self):
        return self.told


def bombs(witness: Path) -> dict[str, bytes]:
    """Pickles that do something when Python reads them, by the name that is to be refused."""
    import os
    import subprocess

    code = f"open({str(witness)!r}, 'w').close()"
    return {
        "system": pickle.dumps(Touch(os.system, f"touch {witness}")),
        "builtins.eval": pickle.dumps(Touch(eval, code), 2),
        "builtins.exec": pickle.dumps({"deep": [1, (Touch(exec, code),)]}, 4),
        "subprocess": pickle.dumps(Touch(subprocess.call, ["touch", str(witness)])),
        "pathlib": pickle.dumps(Touch(Path.touch, witness), 4),
    }


LIVE = ("system", "builtins.eval", "builtins.exec", "subprocess", "pathlib")


@pytest.mark.parametrize("name", LIVE)
def test_the_bombs_are_live(name, tmp_path):
    pickle.loads(bombs(tmp_path / "witness")[name])
    assert (tmp_path / "witness").exists()


@pytest.mark.parametrize("name", LIVE)
def test_a_bomb_is_refused_by_name_and_does_nothing(name, tmp_path):
    with pytest.raises(InputError, match=name):
        unpickle(bombs(tmp_path / "witness")[name], "it")
    assert not (tmp_path / "witness").exists()


# Written by hand: c names a global, ( and t make a tuple, R calls, b builds, \x81 makes an object, } is a mapping.
TYPE = b"cdill._dill\n_load_type\n(Vdict\ntR"
BY_HAND = {
    "a helper of dill's that makes code": (b"cdill._dill\n_create_function\n(tR.", "_create_function"),
    "a helper of dill's that imports": (b"cdill._dill\n_import_module\n(Vos\ntR.", "_import_module"),
    "what an inert name returned is called": (TYPE + b"(Vos.system\ntR.", "_load_type"),
    "what an inert name returned is made": (TYPE + b")\x81.", "_load_type"),
    "a way in through getattr": (
        b"cbuiltins\ngetattr\n(cdill._dill\n_load_type\nV__globals__\ntR.",
        "builtins.getattr",
    ),
    "a value is called": (b"Vos.system\n(Vls\ntR.", "calls a str"),
    "a type is called": (b"cbuiltins\nint\n(tR.", "builtins.int"),
    "an object of a type is made": (b"cbuiltins\nobject\n)\x81.", "builtins.object"),
    "a name is changed": (b"comegaconf\nDictConfig\n}b.", "DictConfig"),
    "a function of ours is changed": (b"ccollections\nOrderedDict\n}b.", "OrderedDict"),
    "a list is changed": (b"]}b.", "list"),
    "a module like an inert one": (b"comegaconfig\nDictConfig\n.", "omegaconfig.DictConfig"),
    "a module alone": (b"cdill\n\n.", "dill"),
    "a dotted way out": (b"\x80\x04\x8c\x05torch\x8c\x0aos.systems\x93.", "torch.os.systems"),
    "the old way to make": (b"(Vls\nios\nsystem\n.", "INST"),
    "another old way": (b"(cos\nsystem\no.", "os.system"),
    "an extension code": (b"\x82\x01.", "EXT1"),
    "a text id": (b"Pos.system\n.", "PERSID"),
    "a buffer": (b"\x97.", "NEXT_BUFFER"),
    "copyreg": (b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR.", "copyreg._reconstructor"),
    "torch's own loader": (b"ctorch\nload\n(Vx\ntR.", "torch.load"),
}


@pytest.mark.parametrize("what", BY_HAND)
def test_what_only_a_hand_would_write_is_refused_by_name(what):
    pickled, name = BY_HAND[what]
    with pytest.raises(InputError, match=name):
        unpickle(pickled, "it")


def test_an_inert_object_remembers_what_it_was_told():
    pickled = b"comegaconf.dictconfig\nDictConfig\n)\x81}V_content\n}Va\nI1\nssb."
    found = unpickle(pickled, "it")
    assert isinstance(found, Inert) and found.name == "omegaconf.dictconfig.DictConfig"
    assert found.state == {"_content": {"a": 1}}
    items = unpickle(b"ccollections\ndefaultdict\n(cbuiltins\ndict\ntR(Va\nI1\nu.", "it")
    assert items.items == [("a", 1)]


@pytest.mark.parametrize(
    "pickled",
    [b"", b".", b"N", b"NN.", b"(N.", b"0.", b"(t(tR.", b"h\x05.", b"NVa\ns.", b"(N]u.", b"}(Nu.", b"}]Ns.", b"]]R.",
     b"\x80\x09N.", b"\x80\x04\x95\xff.", b"c\xff\xfe.", b"}((((ttttNs.", b"ccollections\nOrderedDict\n(I1\ntR.",
     b"Q.", b"NQ.", b"I" + b"9" * 5000 + b"\n.", b"\x8b\xff\xff\xff\x7f."],
)  # fmt: skip
def test_a_damaged_pickle_is_told(pickled):
    with pytest.raises(InputError, match="it"):
        unpickle(pickled, "it")


def test_a_deep_pickle_is_no_danger():
    """Python's own hash of a tuple in a tuple in a tuple ... ends the process."""
    deep = b"N" + b"\x85" * 200_000
    with pytest.raises(InputError, match="neither text nor a number"):
        unpickle(b"}" + deep + b"Ns.", "it")
    assert unpickle(deep + b"0N.", "it") is None


@pytest.mark.parametrize("seed", range(200))
def test_any_change_of_a_byte_gives_values_or_a_refusal(seed):
    rng = np.random.default_rng(seed)
    pickled = bytearray(pickle.dumps(VALUES, 2))
    for place in rng.integers(len(pickled), size=3):
        pickled[place] = rng.integers(256)
    with contextlib.suppress(InputError):
        unpickle(bytes(pickled), "it")
