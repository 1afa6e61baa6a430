"""Demonstrations: both files give back what was written, and half a file is never read."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
import zarr

from ontick.envs.dataset import read_demonstrations, write_demonstrations
from ontick.envs.demonstrations import Demonstrations, Statistics
from ontick.envs.replay_buffer import read_replay_buffer
from ontick.errors import InputError


@pytest.fixture(params=["zarr", "hdf5"])
def ending(request):
    return request.param


def test_what_is_written_is_read_back(ending, saved, demonstrations):
    found = read_demonstrations(saved[ending])
    np.testing.assert_array_equal(found.observations, demonstrations.observations)
    np.testing.assert_array_equal(found.actions, demonstrations.actions)
    np.testing.assert_array_equal(found.episode_ends, demonstrations.episode_ends)
    assert {**found.attributes, "complete": True} == {**demonstrations.attributes, "complete": True}


def test_statistics_are_of_each_number_of_rows_however_wide():
    rows = np.random.default_rng(0).normal(size=(30, 200)).astype(np.float32)
    found, wide = Statistics.of(rows), rows.astype(np.float64)
    np.testing.assert_array_equal(found.low, wide.min(0))
    np.testing.assert_array_equal(found.high, wide.max(0))
    np.testing.assert_allclose(found.mean, wide.mean(0))
    np.testing.assert_allclose(found.std, wide.std(0))


def test_the_replay_buffer_has_the_layout_of_diffusion_policy(saved):
    root = zarr.open_group(str(saved["zarr"]), mode="r")
    assert root.metadata.zarr_format == 2
    steps = root["meta/episode_ends"][-1]
    assert root["data/obs"].shape == (steps, 39) and root["data/obs"].dtype == np.float32
    assert root["data/action"].shape == (steps, 4) and root["data/action"].dtype == np.float32
    assert root["meta/episode_ends"].dtype == np.int64
    assert root.attrs["complete"] is True
    assert len(root.attrs["seeds"]) == 4 and set(root.attrs["versions"]) == {"metaworld", "mujoco"}


def test_the_hdf5_has_the_layout_of_robomimic(saved, demonstrations):
    with h5py.File(saved["hdf5"], "r") as file:
        assert sorted(file["data"]) == ["demo_0", "demo_1", "demo_2", "demo_3"]
        assert file["data"].attrs["total"] == demonstrations.episode_ends[-1]
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "metaworld/reach-v3"
        demo = file["data/demo_1"]
        steps = demo.attrs["num_samples"]
        assert demo["obs/flat"].shape == (steps, 39) and demo["actions"].shape == (steps, 4)
        assert demo["dones"][:].sum() == demo["dones"][-1] == 1
        assert demo["rewards"][:].sum() == 11  # the step of success, and ten to settle
        names = {name.decode() for mask in ("train", "valid") for name in file[f"mask/{mask}"]}
        assert names == set(file["data"])


def test_robomimics_own_dataset_reads_the_hdf5(saved, demonstrations):
    from ontick._torchvision import ensure_torchvision

    ensure_torchvision()
    import robomimic.algo  # noqa: F401  registers the encoders that its configs name
    from robomimic.config import config_factory
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    config = config_factory("bc")
    with config.values_unlocked():
        config.observation.modalities.obs.low_dim = ["flat"]
    obs_utils.initialize_obs_utils_with_config(config)
    options = {"obs_keys": ["flat"], "dataset_keys": ["actions", "rewards", "dones"], "hdf5_cache_mode": "all"}
    dataset = SequenceDataset(str(saved["hdf5"]), **options, load_next_obs=False)
    assert len(dataset) == demonstrations.episode_ends[-1]
    np.testing.assert_array_equal(dataset[0]["obs"]["flat"][0], demonstrations.observations[0])
    np.testing.assert_array_equal(dataset[0]["actions"][0], demonstrations.actions[0])
    halves = [
        SequenceDataset(str(saved["hdf5"]), **options, load_next_obs=False, filter_by_attribute=mask)
        for mask in ("train", "valid")
    ]
    assert sum(map(len, halves)) == len(dataset)


def test_a_dataset_that_was_not_written_to_its_end_is_refused(ending, saved, tmp_path):
    path = tmp_path / f"half.{ending}"
    if ending == "zarr":
        shutil.copytree(saved["zarr"], path)
        del zarr.open_group(str(path), mode="a").attrs["complete"]
    else:
        shutil.copy(saved["hdf5"], path)
        with h5py.File(path, "a") as file:
            del file["data"].attrs["complete"]
    with pytest.raises(InputError, match="not written to its end"):
        read_demonstrations(path)


def test_a_failed_write_leaves_nothing_behind(ending, demonstrations, tmp_path):
    broken = dataclasses.replace(demonstrations, attributes={**demonstrations.attributes, "seeds": [object()]})
    with pytest.raises(TypeError):
        write_demonstrations(tmp_path / f"broken.{ending}", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_hdf5_is_refused(saved, tmp_path):
    path = tmp_path / "cut.hdf5"
    path.write_bytes(saved["hdf5"].read_bytes()[:5000])
    with pytest.raises(InputError, match="no whole HDF5"):
        read_demonstrations(path)


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_replay_buffer_with_a_damaged_chunk_is_refused(damage, saved, tmp_path):
    """zarr itself reads a lost chunk as zeros."""
    path = shutil.copytree(saved["zarr"], tmp_path / "damaged.zarr")
    chunk = path / "data" / "action" / "0.0"
    if damage == "lost":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(InputError, match="data/action"):
        read_demonstrations(path)


def test_actions_that_are_all_zero_are_not_taken_for_lost_ones(demonstrations, tmp_path):
    still = dataclasses.replace(demonstrations, actions=np.zeros_like(demonstrations.actions))
    write_demonstrations(tmp_path / "still.zarr", still)
    assert not read_demonstrations(tmp_path / "still.zarr").actions.any()


def test_a_foreign_replay_buffer_may_leave_out_chunks_of_zeros(saved, tmp_path, demonstrations):
    path = shutil.copytree(saved["zarr"], tmp_path / "theirs.zarr")
    zarr.open_group(str(path), mode="a").attrs.put({})
    (path / "data" / "action" / "0.0").unlink()
    assert not read_demonstrations(path).actions.any()


@pytest.mark.parametrize("key", ["data/obs", "data/action", "meta/episode_ends"])
def test_a_replay_buffer_with_a_missing_array_is_refused(key, saved, tmp_path):
    shutil.copytree(saved["zarr"], tmp_path / "m.zarr")
    shutil.rmtree(tmp_path / "m.zarr" / key)
    with pytest.raises(InputError, match=key):
        read_demonstrations(tmp_path / "m.zarr")


def test_a_replay_buffer_of_diffusion_policy_without_our_attributes_is_read(saved, tmp_path, demonstrations):
    shutil.copytree(saved["zarr"], tmp_path / "theirs.zarr")
    root = zarr.open_group(str(tmp_path / "theirs.zarr"), mode="a")
    root.attrs.put({})
    np.testing.assert_array_equal(
        read_replay_buffer(tmp_path / "theirs.zarr").observations, demonstrations.observations
    )


@pytest.mark.parametrize("name", ["none.zarr", "none.hdf5", "demos.csv"])
def test_what_is_not_there_or_not_known_is_refused(name, tmp_path):
    with pytest.raises(InputError):
        read_demonstrations(tmp_path / name)


ROWS, ACTIONS = np.zeros((6, 3), np.float32), np.zeros((6, 2), np.float32)


@pytest.mark.parametrize(
    "observations, actions, ends, complaint",
    [
        (ROWS, ACTIONS, [4, 3, 6], "do not rise"),
        (ROWS, ACTIONS, [0, 6], "do not rise"),
        (ROWS, ACTIONS, [], "do not rise"),
        (ROWS, ACTIONS, [2, 5], "three equal numbers"),
        (ROWS, ACTIONS[:5], [2, 6], "three equal numbers"),
        (ROWS[0], ACTIONS, [6], "shapes"),
        (np.full((6, 3), np.nan, np.float32), ACTIONS, [6], "NaN"),
        (ROWS, np.full((6, 2), np.inf, np.float32), [6], "actions with a NaN or infinity in row 0"),
    ],
)
def test_inconsistent_demonstrations_are_refused(observations, actions, ends, complaint):
    with pytest.raises(InputError, match=complaint):
        Demonstrations(observations, actions, np.array(ends, np.int64))


def test_episodes_are_the_rows_between_two_ends():
    demonstrations = Demonstrations(ROWS, ACTIONS, np.array([2, 6]))
    assert [demonstrations.episode(i) for i in range(2)] == [slice(0, 2), slice(2, 6)]
    assert demonstrations.lengths.tolist() == [2, 4] and len(demonstrations) == 2
