"""The expert of Push-T: its ways keep clear of the T, it knows what will happen, and it brings the T to its goal."""

from itertools import pairwise

import numpy as np
import pytest

from ontick.envs import find_task
from ontick.envs.push_t import action_of, gap_m
from ontick.envs.push_t_expert import PushTStyle, _Simulator, push_t_expert
from ontick.envs.push_t_paths import Track
from ontick.envs.push_t_shape import GOAL, KEYPOINTS_M, TOOL_RADIUS_M, placed

TASK = find_task("ontick/PushT-v0")
NEAR = {"pose": GOAL + np.array([0.004, -0.006, 0.04]), "tool_m": np.array([0.15, 0.35])}
AT_ORIGIN = np.zeros(3)


@pytest.fixture(scope="module")
def env():
    env = TASK.make()
    yield env
    env.close()


def play(env, expert, steps, seed=0, options=None, noise=0.0):
    """Actions [t, 2] of an episode of at most so many steps, and its last info."""
    rng, actions = np.random.default_rng(seed), []
    observation, info = env.reset(seed=seed, options=options)
    for _ in range(steps):
        actions.append(expert(observation))
        disturbed = np.clip(actions[-1] + noise * rng.standard_normal(2), -1, 1)
        observation, _, terminated, _, info = env.step(disturbed)
        if terminated:
            break
    return np.stack(actions), info


def gaps_m(way_m):
    """Along a way in the T's frame, every 2 mm."""
    for start, end in pairwise(way_m):
        for share in np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / 0.002)):
            yield gap_m(start + share * (end - start), AT_ORIGIN)


@pytest.mark.parametrize("clearance_m", [0.01, 0.02])
def test_a_push_starts_at_the_clearance_from_the_t_and_points_at_it(clearance_m):
    track = Track(clearance_m)
    for along_m in np.linspace(0, 2 * track.length_m, 100):
        place_m, inward = track.place(along_m)
        assert gap_m(place_m, AT_ORIGIN) == pytest.approx(clearance_m)
        assert gap_m(place_m + clearance_m * inward, AT_ORIGIN) == pytest.approx(0, abs=1e-9)


def test_the_whole_length_of_the_track_is_one_round():
    track = Track(0.015)
    places_m = np.stack([track.place(along_m)[0] for along_m in np.linspace(0, track.length_m, 500, endpoint=False)])
    np.testing.assert_allclose(track.place(track.length_m + 0.01)[0], track.place(0.01)[0])
    assert len(np.unique(places_m.round(6), axis=0)) == 500
    inwards = {tuple(track.place(along_m)[1].round(6)) for along_m in np.linspace(0, track.length_m, 100)}
    assert inwards == {(1, 0), (-1, 0), (0, 1), (0, -1)}


def test_ways_round_the_t_keep_clear_of_it_and_are_not_longer_than_half_a_round():
    track, rng = Track(0.015), np.random.default_rng(0)
    for _ in range(60):
        start_m, end_m = rng.uniform(-0.25, 0.25, 2), track.place(rng.uniform(0, 1))[0]
        if gap_m(start_m, AT_ORIGIN) < 0.016:
            continue
        way_m = track.way(start_m, end_m)
        np.testing.assert_array_equal([way_m[0], way_m[-1]], [start_m, end_m])
        assert min(gaps_m(way_m)) > 0.007
        length_m = np.hypot(*np.diff(way_m, axis=0).T).sum()
        assert np.hypot(*(end_m - start_m)) <= length_m < np.hypot(*(end_m - start_m)) + 0.4


def test_a_tool_at_the_t_first_moves_off_it():
    track = Track(0.015)
    touching_m = np.array([0.02, -TOOL_RADIUS_M])
    way_m = track.way(touching_m, track.place(0.2)[0])
    np.testing.assert_allclose(way_m[1] - touching_m, [0, -0.015], atol=1e-9)
    assert min(gaps_m(way_m[1:])) > 0.007


def test_it_tells_the_tools_velocity_from_its_places(env):
    simulator, rng, velocity = _Simulator(1), np.random.default_rng(0), np.zeros(2)
    before, _ = env.reset(seed=0, options={"tool_m": np.array([0.1, 0.1]), "pose": np.array([0.35, 0.35, 0.0])})
    for _ in range(15):
        observation, *_ = env.step(action_of(rng.uniform(0.05, 0.2, 2)))
        velocity = simulator.velocity_after(observation[18:] - before[18:], velocity)
        before = observation
        np.testing.assert_allclose(velocity, env.unwrapped._data.qvel[:2], atol=1e-6)


def test_what_it_simulates_is_what_happens(env):
    rng, tool_m, pose = np.random.default_rng(1), np.array([0.2, 0.15]), np.array([0.25, 0.2, 0.3])
    targets_m = np.clip(np.cumsum(rng.uniform(-0.01, 0.03, (3, 10, 2)), axis=1) + tool_m, 0, 0.5)
    foreseen_m = _Simulator(1).distances(targets_m, tool_m, np.zeros(2), pose)
    goal_m = placed(KEYPOINTS_M, GOAL)
    for targets, foreseen in zip(targets_m, foreseen_m, strict=True):
        env.reset(seed=0, options={"tool_m": tool_m, "pose": pose})
        for target, distance in zip(targets, foreseen, strict=True):
            keypoints_m = env.step(action_of(target))[0][:18].reshape(9, 2)
            assert np.hypot(*(keypoints_m - goal_m).T).mean() == pytest.approx(distance, abs=1e-6)


def test_from_near_the_goal_it_soon_succeeds_with_a_style_as_without_and_with_noise(env):
    for rng in (None, np.random.default_rng(1)):
        actions, info = play(env, TASK.expert(rng), steps=150, options=NEAR, noise=TASK.noise)
        assert info["success"]
        assert actions.dtype == np.float32 and np.abs(actions).max() <= 1


def test_at_the_goal_it_moves_off_the_t_and_rests():
    env = TASK.make(stop_on_success=False)
    touching_m = placed(np.array([[0.0, -TOOL_RADIUS_M]]), GOAL)[0]
    actions, info = play(env, TASK.expert(), steps=15, options={"pose": GOAL, "tool_m": touching_m})
    assert info["coverage"] > 0.96 and gap_m(env.unwrapped.tool_m, env.unwrapped.pose) > 0.005
    np.testing.assert_allclose(actions[-1], actions[-2], atol=0.01)
    env.close()


def test_a_seed_decides_the_demonstration_whatever_the_number_of_threads(env):
    one, three = (play(env, push_t_expert(np.random.default_rng(7), n), steps=3, seed=3)[0] for n in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_styles_differ_and_the_plain_expert_does_not(env):
    assert len({PushTStyle.draw(np.random.default_rng(seed)) for seed in range(20)}) == 20
    styled = [play(env, TASK.expert(np.random.default_rng(seed)), steps=2, seed=3)[0] for seed in (1, 2)]
    plain = [play(env, TASK.expert(), steps=2, seed=3)[0] for _ in range(2)]
    assert np.abs(styled[0] - styled[1]).max() > 0
    np.testing.assert_array_equal(*plain)


@pytest.mark.slow
def test_it_brings_the_t_to_its_goal_from_anywhere(env):
    most = [play(env, TASK.expert(np.random.default_rng(i)), 300, seed=i, noise=TASK.noise)[1] for i in range(5)]
    assert np.mean([info["max_coverage"] for info in most]) > 0.9
