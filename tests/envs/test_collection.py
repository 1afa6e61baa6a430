"""Collecting demonstrations: the same ones for any number of workers, and after any interruption."""

import dataclasses

import numpy as np
import pytest

from ontick.envs import collection, demonstration_seeds, find_task
from ontick.envs.collection import Recipe, attributes_of, collect, difference, discard, expert_of, record_episode
from ontick.errors import InputError

RECIPE = Recipe("metaworld/reach-v3", episodes=4, seed=3, noise=0.1)


def assert_equal(a, b):
    np.testing.assert_array_equal(a.observations, b.observations)
    np.testing.assert_array_equal(a.actions, b.actions)
    np.testing.assert_array_equal(a.episode_ends, b.episode_ends)
    assert a.attributes == b.attributes


def test_any_number_of_workers_gives_the_same_demonstrations(demonstrations, tmp_path):
    assert_equal(collect(RECIPE, tmp_path / "p", workers=2), demonstrations)


def test_an_interrupted_collection_goes_on_where_it_stopped(demonstrations, tmp_path, monkeypatch):
    recorded = []

    def record_and_count(env, expert, task, recipe, seed):
        recorded.append(seed)
        if len(recorded) == 3:
            raise KeyboardInterrupt
        return record_episode(env, expert, task, recipe, seed)

    monkeypatch.setattr(collection, "record_episode", record_and_count)
    with pytest.raises(KeyboardInterrupt):
        collect(RECIPE, tmp_path / "p")
    resumed = collect(RECIPE, tmp_path / "p")
    assert recorded == [*recorded[:3], *recorded[2:3], recorded[4]]  # the first two are not made again
    assert_equal(resumed, demonstrations)


def test_an_attempt_cut_off_while_it_was_written_is_made_again(demonstrations, tmp_path):
    partial = tmp_path / "p"
    collect(RECIPE, partial)
    victim = sorted(partial.glob("seed-*.npz"))[1]
    (partial / f".{victim.name}.1.tmp").write_bytes(victim.read_bytes()[:100])
    victim.unlink()
    assert_equal(collect(RECIPE, partial), demonstrations)


def test_unfinished_work_of_other_settings_is_not_mixed_in(tmp_path):
    one = dataclasses.replace(RECIPE, episodes=1)
    collect(one, tmp_path / "p")
    with pytest.raises(InputError, match="other settings"):
        collect(dataclasses.replace(one, noise=0.2), tmp_path / "p")
    discard(tmp_path / "p")
    collect(dataclasses.replace(one, noise=0.2), tmp_path / "p")


def test_failed_attempts_are_counted_and_further_seeds_take_their_place(tmp_path, monkeypatch):
    def fail_on_every_third(env, expert, task, recipe, seed):
        episode = record_episode(env, expert, task, recipe, seed)
        return dataclasses.replace(episode, success_step=-1) if (seed // 2) % 3 == 0 else episode

    monkeypatch.setattr(collection, "record_episode", fail_on_every_third)
    found = collect(RECIPE, tmp_path / "p")
    tried = demonstration_seeds(RECIPE.seed, len(found) + len(found.attributes["failed_seeds"]))
    assert len(found) == RECIPE.episodes
    assert sorted(found.attributes["seeds"] + found.attributes["failed_seeds"]) == tried
    assert all((seed // 2) % 3 == 0 for seed in found.attributes["failed_seeds"])


def test_an_expert_that_always_fails_is_refused(tmp_path, monkeypatch):
    def fail(env, expert, task, recipe, seed):
        return collection.Episode(seed, np.zeros((1, 39), np.float32), np.zeros((1, 4), np.float32), -1)

    monkeypatch.setattr(collection, "record_episode", fail)
    with pytest.raises(InputError, match="lower --noise"):
        collect(RECIPE, tmp_path / "p")


def test_recorded_actions_are_what_the_expert_wanted_not_what_was_executed(demonstrations):
    expert = find_task(RECIPE.task).expert()
    env = find_task(RECIPE.task).make()
    first = demonstrations.episode(0)
    start, _ = env.reset(seed=demonstrations.attributes["seeds"][0])
    env.close()
    np.testing.assert_array_equal(demonstrations.observations[first][0], start.astype(np.float32))
    np.testing.assert_array_equal(demonstrations.actions[first][0], expert(start))
    assert np.abs(demonstrations.actions).max() <= 1.0


def test_each_episode_goes_on_for_the_settling_steps_after_its_success(demonstrations):
    after = demonstrations.lengths - 1 - np.array(demonstrations.attributes["success_steps"])
    np.testing.assert_array_equal(after, RECIPE.settle_steps)


AVOID = Recipe("ontick/Avoid-v0", episodes=4, seed=3, styled=True)


def test_styled_episodes_are_the_same_in_one_set_as_in_a_larger_one(tmp_path):
    larger, smaller = (collect(dataclasses.replace(AVOID, episodes=n), tmp_path / f"{n}") for n in (4, 2))
    rows = int(smaller.episode_ends[-1])
    np.testing.assert_array_equal(larger.actions[:rows], smaller.actions)
    assert larger.attributes["expert"] == "scripted, styled" and larger.attributes["styled"]


def test_styled_and_plain_experts_differ_in_the_style_alone(tmp_path):
    styled, plain = (collect(r, tmp_path / f"{r.styled}") for r in (AVOID, dataclasses.replace(AVOID, styled=False)))
    assert plain.attributes["expert"] == "scripted"
    np.testing.assert_array_equal(styled.observations[0], plain.observations[0])  # the same initial state
    assert styled.actions.shape != plain.actions.shape or (styled.actions != plain.actions).any()


def test_each_kept_episode_tells_its_mode_also_after_an_interruption(tmp_path):
    found = collect(AVOID, tmp_path / "p")
    assert len(found.attributes["modes"]) == len(found)
    assert all(len(mode) == 3 and set(mode) <= set("LR") for mode in found.attributes["modes"])
    assert collect(AVOID, tmp_path / "p").attributes == found.attributes  # read back from the attempts


def test_tasks_without_modes_have_none(demonstrations):
    assert "modes" not in demonstrations.attributes


class Touchy:
    """An environment that reaches its goal at the third step and is hit at the fifth."""

    def reset(self, seed):
        self.steps = 0
        return np.zeros(16), {"success": False}

    def step(self, action):
        self.steps += 1
        hit = self.steps >= 5
        return np.zeros(16), 0.0, hit, False, {"success": 3 <= self.steps < 5, "mode": "LRL"}


def test_an_expert_is_shown_what_the_environment_has_for_it():
    class Telling(Touchy):
        def reset(self, seed):
            observation, info = super().reset(seed)
            return observation, {**info, "expert_observation": np.array([7.0])}

        def step(self, action):
            *told, info = super().step(action)
            return *told, {**info, "expert_observation": np.array([7.0 + self.steps])}

    seen = []

    def expert(observation):
        seen.append(observation.item())
        return np.zeros(2, np.float32)

    episode = record_episode(Telling(), expert, find_task(AVOID.task), dataclasses.replace(AVOID, settle_steps=1), 1)
    assert seen == [7.0, 8.0, 9.0, 10.0]
    assert episode.observations.shape == (4, 16)


@pytest.mark.parametrize("settle_steps, success_step, steps", [(1, 2, 4), (10, -1, 5)])
def test_an_episode_that_the_environment_ends_without_success_has_failed(settle_steps, success_step, steps):
    recipe = dataclasses.replace(AVOID, settle_steps=settle_steps)
    expert = lambda observation: np.zeros(2, np.float32)  # noqa: E731
    episode = record_episode(Touchy(), expert, find_task(AVOID.task), recipe, 1)
    assert (episode.success_step, len(episode.actions), episode.mode) == (success_step, steps, "LRL")


def test_what_is_recorded_is_what_the_environment_showed_even_where_the_script_writes_into_it():
    recipe = Recipe("metaworld/door-open-v3", episodes=1, settle_steps=0)
    task = find_task(recipe.task)
    env = task.make(stop_on_success=False)
    start, _ = env.reset(seed=1)
    start = start.astype(np.float32)
    episode = record_episode(env, expert_of(recipe, 1), task, recipe, 1)
    env.close()
    np.testing.assert_array_equal(episode.observations[0], start)


def test_files_from_before_there_were_styles_count_as_plain():
    old = attributes_of(RECIPE)
    del old["styled"]
    assert difference(old, RECIPE) is None
    assert difference(old, dataclasses.replace(RECIPE, styled=True)) == "styled False, not True"


@pytest.mark.parametrize(
    "change",
    [{"task": "metaworld/rech-v3"}, {"episodes": 0}, {"noise": -0.1}, {"noise": float("nan")}, {"seed": -1}],
)
def test_impossible_recipes_are_refused(change):
    with pytest.raises(InputError):
        dataclasses.replace(RECIPE, **change)


def test_no_workers_at_all_are_refused(tmp_path):
    with pytest.raises(InputError, match="0 workers"):
        collect(RECIPE, tmp_path / "p", workers=0)
