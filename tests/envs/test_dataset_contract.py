"""One contract, whatever the file: windows, statistics, a report, and checks when it is opened."""

import dataclasses

import numpy as np
import pytest
import zarr

from ontick.envs import collection, find_task
from ontick.envs.collection import Recipe, record_episode
from ontick.envs.dataset import read_demonstrations, write_demonstrations
from ontick.envs.dataset_report import report
from ontick.envs.demonstrations import Demonstrations
from ontick.errors import InputError
from ontick.policy import TransformerConfig
from ontick.policy.training import window_frames


def random_demonstrations(lengths=(7, 1, 4), seed=0, **attributes):
    rng, steps = np.random.default_rng(seed), sum(lengths)
    seen, acted = rng.standard_normal((steps, 3)), rng.uniform(-1, 1, (steps, 2))
    ends = np.cumsum(lengths)
    return Demonstrations(seen.astype(np.float32), acted.astype(np.float32), ends, attributes)


@pytest.fixture(params=["zarr", "hdf5"])
def opened(request, tmp_path):
    """(as they were in memory, as they are read from a file)"""
    demonstrations = random_demonstrations(task="metaworld/reach-v3", seeds=[1, 3, 5], success_steps=[3, 0, 2])
    path = tmp_path / f"some.{request.param}"
    write_demonstrations(path, demonstrations)
    return demonstrations, read_demonstrations(path)


def test_every_format_gives_the_same_windows_statistics_and_report(opened):
    made, read = opened
    for index in range(3):
        for start in range(-3, 8):
            for a, b in zip(made.window(index, start, 5), read.window(index, start, 5), strict=True):
                np.testing.assert_array_equal(a, b)
    for name, of in made.statistics.items():
        for part in ("low", "high", "mean", "std"):
            np.testing.assert_array_equal(getattr(of, part), getattr(read.statistics[name], part))
    assert report(made) == report(read)


def test_a_window_beyond_an_episode_repeats_its_edges_and_sees_no_other_episode():
    demonstrations = random_demonstrations()
    seen, acted = demonstrations.window(2, -2, 9)
    picks = [8, 8, 8, 9, 10, 11, 11, 11, 11]
    np.testing.assert_array_equal(seen, demonstrations.observations[picks])
    np.testing.assert_array_equal(acted, demonstrations.actions[picks])


@pytest.mark.parametrize("from_newest, lookback, span, past", [(False, 0, 8, 3), (True, 0, 9, 7), (True, 2, 11, 7)])
def test_windows_are_those_that_training_sees(opened, from_newest, lookback, span, past):
    """Short episodes too: of 7, 1 and 4 steps."""
    config = TransformerConfig(action_dim=2, observation_dim=3, horizon=8, n_obs_steps=2, n_action_steps=4)
    for demonstrations in (opened[1], random_demonstrations(lengths=(30, 12))):
        frames = iter(window_frames(demonstrations.episode_ends, config, from_newest, lookback))
        for index, length in enumerate(demonstrations.lengths):
            before = config.n_obs_steps - 1 + lookback
            for start in range(-before, max(length - span + past + 1, 1 - before)):
                seen, acted = demonstrations.window(index, start, span)
                picks = next(frames)
                np.testing.assert_array_equal(seen, demonstrations.observations[picks])
                np.testing.assert_array_equal(acted, demonstrations.actions[picks])
        assert next(frames, None) is None


def test_the_example_of_a_window_is_what_a_network_is_shown(opened):
    read = opened[1]
    seen, acted = read.window(0, -1, 16)
    np.testing.assert_array_equal(seen[:2], read.observations[[0, 0]])
    np.testing.assert_array_equal(acted[:9], read.actions[[0, 0, 1, 2, 3, 4, 5, 6, 6]])


@pytest.mark.parametrize("index, steps", [(3, 4), (-1, 4), (0, 0)])
def test_windows_of_what_is_not_there_are_refused(index, steps):
    with pytest.raises(InputError, match="episode 0 to 2"):
        random_demonstrations().window(index, 0, steps)


def test_statistics_are_those_of_all_steps():
    demonstrations = random_demonstrations()
    of = demonstrations.statistics["actions"]
    np.testing.assert_allclose(of.mean, demonstrations.actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(of.std, demonstrations.actions.std(0), rtol=1e-5)
    np.testing.assert_array_equal([of.low, of.high], [demonstrations.actions.min(0), demonstrations.actions.max(0)])


def test_the_report_tells_what_looks_odd():
    demonstrations = random_demonstrations(task="some/task")
    demonstrations.observations[:, 1:] = 0.5
    demonstrations.actions[3, 0] = 1.5
    episodes, observations, actions = report(demonstrations)
    assert episodes == "3 episodes of some/task, 12 steps (1 to 7 in one)"
    assert observations.startswith("observations: 3 numbers, from") and observations.endswith("never change: 1-2")
    assert actions.endswith("beyond [-1, 1]: 0") and "to 1.5" in actions


def test_long_lists_in_the_report_are_cut_short():
    rng, ends = np.random.default_rng(0), np.array([20])
    seen = np.where(np.arange(12292) % 2, rng.normal(size=(20, 12292)), 0.12345)
    acted = np.where(np.arange(600) % 3, -12345.6, rng.uniform(-9, 9, (20, 600)))
    lines = report(Demonstrations(seen.astype(np.float32), acted.astype(np.float32), ends, {"task": "long " * 99}))
    assert max(map(len, lines)) <= 200
    assert lines[1].endswith("never change: 0, 2, 4, 6, 8, 10, 12, 14, 16 and 6,137 more")
    assert lines[2].endswith("beyond [-1, 1]: 0-599") and "never change: 1-2, 4-5," in lines[2]


def test_a_list_that_fits_is_told_whole():
    demonstrations = random_demonstrations(task=None)
    demonstrations.observations[:] = 1.0
    episodes, observations, _ = report(demonstrations)
    assert episodes.startswith("3 episodes of an unnamed task") and observations.endswith("never change: 0-2")


def test_a_nan_is_told_with_its_episode_and_step():
    demonstrations = random_demonstrations()
    broken = demonstrations.actions.copy()
    broken[9, 1] = np.nan
    with pytest.raises(InputError, match=r"actions with a NaN .* \(episode 2, step 1, number 1\)"):
        dataclasses.replace(demonstrations, actions=broken)


def test_states_and_scenes_must_be_as_many_as_steps_and_episodes():
    demonstrations = random_demonstrations()
    with pytest.raises(InputError, match="11 states for 12 steps"):
        dataclasses.replace(demonstrations, states=np.zeros((11, 4)))
    with pytest.raises(InputError, match="2 scenes for 3 episodes"):
        dataclasses.replace(demonstrations, scenes=("a", "b"))


def push_t_buffer(path):
    """A replay buffer as Diffusion Policy publishes Push-T: pictures, states and keypoints, without our attributes."""
    root, rng = zarr.open_group(str(path), mode="w", zarr_format=2), np.random.default_rng(0)
    arrays = {"img": rng.integers(0, 255, (10, 8, 8, 3)).astype(np.float32), "state": rng.normal(size=(10, 5))}
    arrays |= {"keypoint": rng.normal(size=(10, 9, 2)), "action": rng.normal(size=(10, 2))}
    for key, rows in arrays.items():
        root.create_array(f"data/{key}", data=rows)
    root.create_array("meta/episode_ends", data=np.array([4, 10]))
    return arrays


def test_a_published_push_t_buffer_is_read_by_naming_what_is_observed(tmp_path):
    arrays = push_t_buffer(tmp_path / "pusht.zarr")
    found = read_demonstrations(tmp_path / "pusht.zarr", ("keypoint", "state[:2]"))
    wanted = np.concatenate([arrays["keypoint"].reshape(10, 18), arrays["state"][:, :2]], axis=1)
    np.testing.assert_array_equal(found.observations, wanted.astype(np.float32))
    assert found.lengths.tolist() == [4, 6] and found.attributes["columns"] == ["keypoint", "state[:2]"]


def test_a_buffer_whose_observation_is_not_named_is_refused_with_what_it_holds(tmp_path):
    push_t_buffer(tmp_path / "pusht.zarr")
    with pytest.raises(InputError, match=r"action, img, keypoint, state.*--obs-keys"):
        read_demonstrations(tmp_path / "pusht.zarr")
    with pytest.raises(InputError, match="img is"):
        read_demonstrations(tmp_path / "pusht.zarr", ("img",))


def test_masks_are_for_hdf5_alone(tmp_path):
    push_t_buffer(tmp_path / "pusht.zarr")
    with pytest.raises(InputError, match="has masks, leave it out"):
        read_demonstrations(tmp_path / "pusht.zarr", ("keypoint",), "train")


class Telling:
    """An environment that tells its state and its scene; each step counts one up, the third succeeds."""

    def reset(self, seed):
        self.steps = 0
        return np.zeros(6), {"success": False}

    def step(self, action):
        self.steps += 1
        return np.full(6, self.steps), 0.0, False, False, {"success": self.steps >= 3}

    def simulator_state(self):
        return np.array([self.steps, -self.steps], np.float64)

    def scene_xml(self):
        return "<mujoco model='round ♥'/>"


def test_a_simulators_state_is_recorded_before_each_step_and_kept_with_the_attempt(tmp_path):
    task, recipe = find_task("ontick/Avoid-v0"), Recipe("ontick/Avoid-v0", episodes=1, settle_steps=1)
    episode = record_episode(Telling(), lambda observation: np.zeros(2, np.float32), task, recipe, seed=1)
    np.testing.assert_array_equal(episode.states, [[0, 0], [1, -1], [2, -2], [3, -3]])
    np.testing.assert_array_equal(episode.states[:, 0], episode.observations[:, 0])
    collection._save(tmp_path, episode)
    again = collection._load(tmp_path, 1)
    np.testing.assert_array_equal(again.states, episode.states)
    assert again.scene == episode.scene == Telling().scene_xml()
