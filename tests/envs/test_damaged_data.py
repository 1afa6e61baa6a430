"""Files that are damaged, or of others who write other things: one clear InputError, never a traceback."""

import contextlib
import json
import shutil

import h5py
import numpy as np
import pytest
import zarr

from ontick.envs.dataset import read_demonstrations, write_demonstrations
from ontick.envs.dataset_report import report
from ontick.envs.demonstrations import Demonstrations
from ontick.envs.robomimic_hdf5 import read_robomimic
from ontick.errors import InputError

COLUMNS = {"object": 10, "robot0_eef_pos": 3}


@pytest.fixture
def theirs(tmp_path):
    """A robomimic file of others: three episodes of 3 steps."""
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "theirs.hdf5", "w", libver="latest") as file:  # which allows long attributes
        for i in range(3):
            for key, width in COLUMNS.items():
                file[f"data/demo_{i}/obs/{key}"] = rng.normal(size=(3, width))
            file[f"data/demo_{i}/actions"] = rng.uniform(-1, 1, (3, 7))
            file[f"data/demo_{i}/states"] = rng.normal(size=(3, 32))
            file[f"data/demo_{i}"].attrs["model_file"] = "<mujoco/>"
        file["mask/train"] = np.array(["demo_0", "demo_2"], "S")
    return tmp_path / "theirs.hdf5"


def short(value):
    return str(value)[:30]


def put(file, name, value):
    """Replace what stands there; nothing takes its place where `value` is None."""
    if name in file:
        del file[name]
    if value is not None:
        file[name] = value


def refused(path, complaint, columns=None, mask=None):
    with pytest.raises(InputError, match=complaint) as caught:
        read_demonstrations(path, columns, mask)
    told = str(caught.value)
    assert "\n" not in told and str(path) in told and "delete it and collect" not in told


WIDE, TEXT = np.zeros((3, 9)), np.array([[b"left"], [b"right"], [b"left"]])


@pytest.mark.parametrize(
    "name, value, complaint",
    [
        ("data", np.zeros(3), "without data/demo_0"),
        ("data/demo_1", np.zeros(3), r"demo_1 is float64 \[3\], wanted a group"),
        ("data/demo_1", h5py.SoftLink("/gone"), "demo_1 is no array, wanted a group"),
        ("data/first", np.zeros(3), "episode 'first', wanted demo_0"),
        ("data/demo_1/obs", np.zeros(3), "without obs/object in demo_1.*obs holds nothing"),
        ("data/demo_0/obs", np.zeros(3), "whose obs holds nothing"),
        ("data/demo_1/actions", WIDE, r"actions of demo_1 has the shape \[3, 9\], wanted \[3, 7\]"),
        ("data/demo_1/actions", np.float64(3), r"actions of demo_1 is float64 \[\], wanted numbers"),
        ("data/demo_1/actions", np.zeros(3), r"actions of demo_1 is float64 \[3\], wanted numbers"),
        ("data/demo_1/actions", TEXT, r"actions of demo_1 is \|S5 \[3, 1\], wanted numbers"),
        ("data/demo_1/actions", h5py.Empty("f4"), "actions of demo_1 is no array"),
        ("data/demo_1/actions", np.dtype("f4"), "actions of demo_1 is no array"),
        ("data/demo_1/actions", np.zeros(3, [("x", "f4")]), "actions of demo_1 is .*, wanted numbers"),
        ("data/demo_1/actions", None, "without actions in demo_1.*mask"),
        ("data/demo_1/obs/object", WIDE, r"obs/object of demo_1 has the shape \[3, 9\], wanted \[3, 10\]"),
        ("data/demo_1/obs/object", np.zeros((4, 10)), r"object of demo_1 has the shape \[4, 10\], wanted \[3, 10\]"),
        ("data/demo_1/obs/object", np.zeros(()), r"obs/object of demo_1 is float64 \[\], wanted numbers"),
        ("data/demo_1/obs/object", TEXT, r"obs/object of demo_1 is \|S5 \[3, 1\], wanted numbers"),
    ],
)
def test_a_part_of_an_episode_that_is_not_as_it_should_be_is_named(name, value, complaint, theirs):
    with h5py.File(theirs, "a") as file:
        put(file, name, value)
    refused(theirs, complaint)


def test_what_is_wrong_with_an_episode_does_not_matter_where_a_mask_leaves_it_out(theirs):
    with h5py.File(theirs, "a") as file:
        put(file, "data/demo_1/actions", WIDE)
    assert len(read_demonstrations(theirs, mask="train")) == 2


def test_episodes_without_steps_are_refused(theirs):
    with h5py.File(theirs, "a") as file:
        for name, width in (("actions", 7), *((f"obs/{key}", width) for key, width in COLUMNS.items())):
            put(file, f"data/demo_1/{name}", np.zeros((0, width)))
    refused(theirs, "demo_1 has no steps")


@pytest.mark.parametrize("mask", [np.array(b"demo_0"), np.arange(3), np.array([[b"demo_0"]]), h5py.Empty("S5")])
def test_a_mask_that_is_no_list_of_names_is_refused(mask, theirs):
    with h5py.File(theirs, "a") as file:
        put(file, "mask/train", mask)
    refused(theirs, "whose mask 'train' is .*, wanted names of episodes", mask="train")


def test_masks_that_are_no_group_are_none(theirs):
    with h5py.File(theirs, "a") as file:
        put(file, "mask", np.zeros(3))
    refused(theirs, "wanted one of none there", mask="train")


@pytest.mark.parametrize(
    "env_args, complaint",
    [
        ("[" * 200_000, "whose env_args are no JSON"),
        ('{"a": ' * 200_000, "whose env_args are no JSON"),
        ("{", "whose env_args are no JSON"),
        (3, "whose env_args are no JSON"),
        ("[1, 2]", "whose env_args are a list, wanted an object"),
        ("null", "whose env_args are a NoneType, wanted an object"),
        ('{"ontick": [1]}', "ontick is no object"),
        ('{"ontick": {"task": 3}}', "env_args task is 3, wanted text"),
        ('{"ontick": {"task": "a", "seeds": 3}}', "env_args seeds is 3, wanted a list"),
    ],
    ids=short,
)
def test_env_args_that_are_none_are_refused(env_args, complaint, theirs):
    with h5py.File(theirs, "a", libver="latest") as file:
        file["data"].attrs["env_args"] = env_args
    refused(theirs, complaint)


@pytest.mark.parametrize(
    "kwargs",
    [
        None,
        3,
        [],
        {"controller_configs": 3},
        {"controller_configs": [None, 3]},
        {"controller_configs": {"body_parts": [3], "control_delta": None}},
        {"controller_configs": {"body_parts": {"right": None}}},
    ],
    ids=short,
)
def test_env_kwargs_of_another_form_are_kept_as_they_are(kwargs, theirs):
    env_args = {"env_name": ["Lift"], "type": 1, "env_version": "1.4.1", "env_kwargs": kwargs}
    with h5py.File(theirs, "a") as file:
        file["data"].attrs["env_args"] = json.dumps(env_args)
    attributes = read_demonstrations(theirs).attributes
    assert attributes["env_args"] == env_args and "task" not in attributes


def test_states_of_another_width_are_refused_where_they_are_read(theirs):
    with h5py.File(theirs, "a") as file:
        put(file, "data/demo_1/states", WIDE)
    assert len(read_demonstrations(theirs)) == 3
    with pytest.raises(InputError, match=r"states of demo_1 has the shape \[3, 9\], wanted \[3, 32\]"):
        read_robomimic(theirs, simulated=True)


def test_a_chunk_that_cannot_be_read_is_named(theirs):
    with h5py.File(theirs, "a") as file:
        del file["data/demo_1/actions"]
        rows = file.create_dataset("data/demo_1/actions", (3, 7), "f8", chunks=(3, 7), compression="gzip")
        rows.id.write_direct_chunk((0, 0), b"no gzip")
    refused(theirs, "actions of demo_1 cannot be read .*: download it or collect it again")


def test_no_hdf5_file_at_all_is_not_told_to_be_deleted(tmp_path):
    (tmp_path / "page.hdf5").write_text("<html>404</html>")
    refused(tmp_path / "page.hdf5", "no whole HDF5 file .*: download it or collect it again")


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_changed_end_in_numbers_or_in_an_input_error(seed, theirs):
    rng, whole = np.random.default_rng(seed), np.frombuffer(theirs.read_bytes(), np.uint8)
    for _ in range(10):
        changed = whole.copy()
        changed[rng.integers(len(whole), size=20)] = rng.integers(256, size=20)
        theirs.write_bytes(changed.tobytes())
        with contextlib.suppress(InputError):
            read_demonstrations(theirs)


# -- zarr -------------------------------------------------------------------------------------------------------------


def buffer(path, attributes=None, **changed):
    """A replay buffer of others, two episodes of 3 steps, in which some arrays are others."""
    arrays = {"data/obs": np.ones((6, 4)), "data/action": np.ones((6, 2)), "meta/episode_ends": np.array([3, 6])}
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    for name, rows in (arrays | {key.replace("_of_", "/"): rows for key, rows in changed.items()}).items():
        root.create_array(name, data=rows)
    root.attrs.update(attributes or {})
    return path


@pytest.mark.parametrize(
    "array, edit, complaint",
    [
        ("data/action", "{", "data/action cannot be opened .*JSON"),
        ("data/obs", "[" * 200_000, "data/obs cannot be opened .*Recursion"),
        ("data/action", {"dtype": "<q9"}, "data/action cannot be opened"),
        ("data/action", {"dtype": "|O", "filters": [{"id": "none-such"}]}, "data/action cannot be opened"),
        ("data/action", {"compressor": {"id": "none-such"}}, "data/action cannot be"),
        ("meta/episode_ends", {"shape": "long"}, "meta/episode_ends cannot be opened"),
        ("data/obs", {"shape": [6, 4, 4, 4]}, "data/obs cannot be opened"),
        ("data/obs", {"shape": [10**15, 4], "chunks": [10**15, 4]}, "data/obs cannot be read"),
    ],
    ids=short,
)
def test_an_array_of_damaged_metadata_is_named(array, edit, complaint, tmp_path):
    path = buffer(tmp_path / "theirs.zarr")
    note = path / array / ".zarray"
    note.write_text(edit if isinstance(edit, str) else json.dumps(json.loads(note.read_text()) | edit))
    refused(path, complaint)


WORDS = np.array([["left", "up"]] * 6)


@pytest.mark.parametrize(
    "name, rows, complaint",
    [
        ("data_of_action", WORDS, r"data/action is <U4 \[6, 2\], wanted numbers"),
        ("data_of_action", np.ones(6), r"data/action is float64 \[6\], wanted numbers"),
        ("data_of_action", np.ones((6, 2), "c8"), r"data/action is complex64 \[6, 2\], wanted numbers"),
        ("data_of_obs", WORDS, r"data/obs is <U4 \[6, 2\], wanted numbers .*--obs-keys"),
        ("data_of_obs", np.ones((6, 2, 2)), r"data/obs is float64 \[6, 2, 2\], wanted numbers"),
        ("data_of_obs", np.ones((5, 2)), "got 5 observations, 6 actions"),
        ("meta_of_episode_ends", np.array(["3", "6"]), r"episode_ends is <U1 \[2\], wanted numbers"),
        ("meta_of_episode_ends", np.array([3, 6.5]), "episode_ends are no whole numbers"),
        ("meta_of_episode_ends", np.array([3, np.nan]), "episode_ends are no whole numbers"),
    ],
)
def test_an_array_of_another_kind_or_shape_is_named(name, rows, complaint, tmp_path):
    path = buffer(tmp_path / "theirs.zarr", **{name: rows})
    with pytest.raises(InputError, match=complaint):
        read_demonstrations(path)


def test_text_is_refused_under_other_keys_too(tmp_path):
    refused(buffer(tmp_path / "theirs.zarr", data_of_say=WORDS), "data/say is <U4", columns=("obs", "say"))


def test_ends_may_be_floats_that_are_whole(tmp_path):
    assert read_demonstrations(buffer(tmp_path / "t.zarr", meta_of_episode_ends=np.array([3.0, 6.0]))).lengths[1] == 3


@pytest.mark.parametrize("name", ["data", "meta"])
def test_an_array_in_the_place_of_a_group_is_told(name, tmp_path):
    path = buffer(tmp_path / "theirs.zarr")
    shutil.rmtree(path / name)
    zarr.open_group(str(path), mode="a").create_array(name, data=np.ones(3))
    refused(path, rf"whose {name} is an array, float64 \[3\], wanted a group")


def test_a_group_in_the_place_of_an_array_is_told(tmp_path):
    path = buffer(tmp_path / "theirs.zarr")
    shutil.rmtree(path / "data" / "action")
    zarr.open_group(str(path), mode="a").create_group("data/action")
    refused(path, "data/action is no array")


@pytest.mark.parametrize("text", ["{", "[1]", "3", '{"a": ' * 200_000], ids=["cut", "list", "number", "deep"])
def test_attributes_that_are_none_are_told(text, tmp_path):
    path = buffer(tmp_path / "theirs.zarr")
    (path / ".zattrs").write_text(text)
    refused(path, "zarr cannot open")


ODD = {"task": 3, "versions": "1.4", "env_args": '{"type": 1}', "seeds": 3, "success_steps": "all", "modes": 1}


@pytest.mark.parametrize("name", ODD)
def test_attributes_of_others_that_are_not_as_ours_are_left_out_and_told(name, tmp_path):
    path = buffer(tmp_path / "theirs.zarr", {name: ODD[name], "author": "they", "licence": None})
    found = read_demonstrations(path)
    assert name not in found.attributes and found.attributes["author"] == "they"
    assert any(line.startswith(f"left out: the attribute {name} is {ODD[name]!r}, wanted ") for line in report(found))
    write_demonstrations(tmp_path / "again.hdf5", found)
    assert report(read_demonstrations(tmp_path / "again.hdf5")) == report(found)


def test_all_of_them_at_once_are_left_out_in_short_lines(tmp_path):
    path = buffer(tmp_path / "theirs.zarr", {name: [value] * 999 for name, value in ODD.items() if value != 3})
    lines = report(read_demonstrations(path))
    assert max(map(len, lines)) <= 200


def test_a_task_that_is_none_of_ours_is_left_as_it_is(tmp_path):
    path = buffer(tmp_path / "theirs.zarr", {"task": "stack the cups"})
    assert read_demonstrations(path).attributes == {"task": "stack the cups"}


def test_a_file_of_ours_whose_attributes_are_damaged_is_refused(tmp_path):
    rows, ends = np.ones((6, 2), np.float32), np.array([3, 6])
    for ending in ("zarr", "hdf5"):
        path = tmp_path / f"ours.{ending}"
        write_demonstrations(path, Demonstrations(rows, rows, ends, {"task": 3, "versions": {}}))
        refused(path, "task is 3, wanted text: mend it")


def test_success_steps_of_another_number_do_not_hinder_writing(tmp_path):
    found = read_demonstrations(buffer(tmp_path / "theirs.zarr", {"success_steps": [1], "seeds": [1]}))
    write_demonstrations(tmp_path / "again.hdf5", found)
    np.testing.assert_array_equal(read_demonstrations(tmp_path / "again.hdf5").actions, found.actions)
