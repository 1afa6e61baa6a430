"""Clips on disk: what is written is read back, and what is half there or inconsistent is refused in one line."""

import json
import shutil

import numpy as np
import pytest
import zarr

from ontick.errors import InputError
from ontick.video.clips import Clips, read_attributes, read_clips, write_clips

RGB = {"kind": "rgb", "scene": "test", "fps": 10, "seed": 3}
FIELD = {**RGB, "kind": "field", "scale": 2.5}


def clips(kind="rgb", actions=2, frames=12):
    rng = np.random.default_rng(0)
    if kind == "rgb":
        pixels = rng.integers(0, 256, (frames, 6, 5, 3)).astype(np.uint8)
    else:
        pixels = rng.standard_normal((frames, 6, 5, 1)).astype(np.float32)
    steering = rng.uniform(-1, 1, (frames, actions)).astype(np.float32)
    return Clips(pixels, steering, np.array([5, frames]), RGB if kind == "rgb" else FIELD)


@pytest.fixture
def saved(tmp_path):
    write_clips(tmp_path / "clips.zarr", clips())
    return tmp_path / "clips.zarr"


@pytest.mark.parametrize(("kind", "actions"), [("rgb", 2), ("rgb", 0), ("field", 0), ("field", 3)])
def test_what_is_written_is_read_back(tmp_path, kind, actions):
    wrote = clips(kind, actions)
    write_clips(tmp_path / "a.zarr", wrote)
    found = read_clips(tmp_path / "a.zarr")
    for name in ("frames", "actions", "ends"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wrote, name))
        assert getattr(found, name).dtype == getattr(wrote, name).dtype
    assert found.attributes == wrote.attributes == read_attributes(tmp_path / "a.zarr")


def test_episodes_lie_end_to_end():
    found = clips()
    assert len(found) == 2 and found.lengths.tolist() == [5, 7]
    assert found.episode(0) == slice(0, 5) and found.episode(1) == slice(5, 12)


def test_the_folder_is_an_ordinary_zarr_of_format_2(saved):
    root = zarr.open_group(str(saved), mode="r")
    assert root.metadata.zarr_format == 2 and root.attrs["complete"] is True
    assert root["data/frames"].shape == (12, 6, 5, 3) and root["data/frames"].dtype == np.uint8


def test_writing_that_fails_leaves_nothing_and_what_was_there_before(tmp_path, saved, monkeypatch):
    monkeypatch.setattr(zarr.Group, "attrs", property(lambda self: 1 / 0))
    for path in (tmp_path / "new.zarr", saved):
        with pytest.raises(ZeroDivisionError):
            write_clips(path, clips())
    assert [path.name for path in tmp_path.iterdir()] == ["clips.zarr"]
    monkeypatch.undo()
    assert len(read_clips(saved)) == 2


def test_a_folder_that_is_missing_or_no_zarr_is_refused(tmp_path):
    with pytest.raises(InputError, match="ontick clips"):
        read_clips(tmp_path / "nothing.zarr")
    with pytest.raises(InputError, match="zarr cannot open"):
        read_clips(tmp_path)


def test_clips_that_were_not_written_to_their_end_are_refused(saved):
    (saved / ".zattrs").write_text(json.dumps(RGB))
    with pytest.raises(InputError, match="not written to its end"):
        read_clips(saved)


def test_a_lost_array_chunk_or_byte_is_refused(saved):
    chunk = saved / "data" / "frames" / "0.0.0.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read_clips(saved)
    chunk.unlink()
    with pytest.raises(InputError, match="lacks parts"):
        read_clips(saved)
    shutil.rmtree(saved / "data" / "frames")
    with pytest.raises(InputError, match="without data/frames"):
        read_clips(saved)


def test_inconsistent_clips_are_refused_with_their_path(saved):
    root = zarr.open_group(str(saved), mode="a")
    root["meta/ends"][:] = np.array([5, 11])
    with pytest.raises(InputError, match=r"clips\.zarr: got 12 frames, 12 actions and a last end of 11"):
        read_clips(saved)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": np.zeros((12, 6, 5), np.uint8)}, "of shapes"),
        ({"frames": np.zeros((12, 6, 0, 3), np.uint8)}, "of shapes"),
        ({"frames": np.zeros((12, 6, 5, 3), np.float32)}, "wanted uint8"),
        ({"actions": np.zeros((12, 2))}, "float64 actions"),
        ({"actions": np.zeros((11, 2), np.float32)}, "11 actions"),
        ({"actions": np.full((12, 2), np.nan, np.float32)}, "actions with a NaN or infinity in frame 0"),
        ({"ends": np.array([5, 5, 12])}, "do not rise"),
        ({"ends": np.array([], np.int64)}, "do not rise"),
        ({"attributes": {"kind": "rgb"}}, "without the attributes scene, fps, seed"),
        ({"attributes": {**RGB, "kind": "sound"}}, "kind 'sound'"),
        ({"attributes": {**RGB, "kind": "field"}}, "scale None"),
    ],
)
def test_clips_that_contradict_themselves_are_refused_when_made(change, said):
    good = clips()
    parts = {name: getattr(good, name) for name in ("frames", "actions", "ends", "attributes")}
    with pytest.raises(InputError, match=said):
        Clips(**{**parts, **change})


def test_a_field_with_a_nan_names_its_frame():
    good = clips("field")
    good.frames[7, 2, 2] = np.inf
    with pytest.raises(InputError, match="frame 7"):
        Clips(good.frames, good.actions, good.ends, good.attributes)
