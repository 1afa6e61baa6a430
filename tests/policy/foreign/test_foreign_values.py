"""What foreign files hold may be of any type, size and depth: it is told of in one short line, or refused in one."""

import json
from collections import OrderedDict

import pytest

from ontick.checkpoints import LONGEST, listed, parsed_json, read_config, read_json, shown, strange_told
from ontick.errors import InputError


def shared(levels, kind=list):
    """10 ** levels values in as many mappings or lists."""
    found = 1
    for _ in range(levels):
        found = [found] * 10 if kind is list else kind((str(i), found) for i in range(10))
    return found


LARGE = {
    "text": "x" * 10**6,
    "list": ["x" * 10**6] * 10**5,
    "lists": shared(30),
    "mappings": shared(30, dict),
    "ordered": shared(30, OrderedDict),
    "number": 10**10_000,
    "set": {10**10_000},
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
def test_a_value_is_shown_shortened(value):
    assert 0 < len(shown(value)) <= LONGEST
    assert "\n" not in shown(value)


def test_a_short_value_is_shown_whole():
    for value in (None, True, 3, -1.5, "a'b", [1, "b"], {"a": 1}, (2,), "module.of.a.Class" * 5):
        assert shown(value) == repr(value)


def test_names_are_listed_up_to_a_few():
    assert listed(["a", "b\n"]) == "a, b\\n"
    assert listed(map(str, range(1000))) == "0, 1, 2, 3, 4, 5, 6, 7 and 992 more"


UNFORESEEN = [IndexError, RuntimeError, RecursionError, KeyError, AssertionError, TypeError, OverflowError]


@pytest.mark.parametrize("error", UNFORESEEN)
def test_errors_that_nobody_foresaw_are_told(error):
    with pytest.raises(InputError, match=error.__name__) as caught, strange_told("it.ckpt"):
        raise error("x" * 9999)
    assert str(caught.value).startswith("it.ckpt: its configuration cannot be understood")
    assert len(str(caught.value)) < 300


def test_a_refusal_keeps_its_beginning_and_its_end():
    with pytest.raises(InputError) as caught, strange_told("it"):
        raise InputError("first" + "x" * 10**6 + "last")
    told = str(caught.value)
    assert told.startswith("first") and told.endswith("last") and len(told) < 800


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "{", "1" * 5000, "\ud800["])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(InputError, match="it is not JSON"):
        parsed_json(text, "it")


def test_files_that_are_not_json_are_refused(tmp_path):
    path = tmp_path / "config.json"
    for text in (b"[" * 200_000, b"\xff\xfe", b"{"):
        path.write_bytes(text)
        for read in (read_json, lambda path: read_config(path.parent)):
            with pytest.raises(InputError, match="is not JSON"):
                read(path)
    path.write_text("5")
    with pytest.raises(InputError, match="wanted a mapping"):
        read_json(path)


def test_a_checkpoint_of_another_library_is_hinted_at(tmp_path):
    (tmp_path / "it.ckpt").touch()
    for place in (tmp_path / "it.ckpt", tmp_path):
        with pytest.raises(InputError, match=r"no config\.json; of another library\? `ontick convert` it first"):
            read_config(place)
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "nowhere")
    assert "convert" not in str(caught.value)
    for config, hinted in (({"type": "diffusion"}, True), ({"format": ["x" * 100] * 1000}, False)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match="format is") as caught:
            read_config(tmp_path)
        assert ("convert" in str(caught.value)) == hinted and len(str(caught.value)) < 500
