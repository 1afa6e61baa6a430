"""Avoid by pixels: the picture shows what the state leaves out, and the expert alone is told it.

Legend: S side of the picture.
"""

import numpy as np
import pytest

from ontick.envs import demonstration_seeds, find_task
from ontick.envs.avoid import COLOURS, GOAL_Y_M, OBSTACLE_JITTER_M, ROW_OF_OBSTACLE, SPACING_M, nominal_obstacles
from ontick.envs.avoid_pixels import CAMERA, OBSERVATION_DIM, ROW_SHIFT_M, SIZE, STATE_DIM
from ontick.envs.collection import Recipe, expert_of, record_episode
from ontick.envs.rendering import render_available

TASK, STATE_TASK = find_task("ontick/AvoidPixels-v0"), find_task("ontick/Avoid-v0")
RECIPE = Recipe(TASK.id, episodes=1, styled=True)

pytestmark = pytest.mark.skipif(not render_available()[0], reason="no OpenGL here")


@pytest.fixture(scope="module")
def env():
    env = TASK.make(stop_on_success=False)
    yield env
    env.close()


@pytest.fixture(scope="module")
def episode(env):
    """One styled demonstration."""
    seed = demonstration_seeds(0, 1)[0]
    return record_episode(env, expert_of(RECIPE, seed), TASK, RECIPE, seed)


def picture(observation):
    """[S, S, 3], from 0 to 1."""
    return observation[STATE_DIM:].reshape(3, SIZE, SIZE).transpose(1, 2, 0)


def shown_at(env, point_m):
    """The pixel (row, column) in which the camera sees a point (x, y, z) of the scene."""
    inner = env.unwrapped
    from_camera = np.asarray(point_m) - inner._data.camera(CAMERA).xpos
    pixels_per_m = SIZE / 2 / (-from_camera[2] * np.tan(np.deg2rad(inner._model.camera(CAMERA).fovy[0]) / 2))
    return int(SIZE / 2 - from_camera[1] * pixels_per_m), int(SIZE / 2 + from_camera[0] * pixels_per_m)


def test_it_fits_its_task(env):
    observation, info = env.reset(seed=0)
    assert observation.shape == (OBSERVATION_DIM,) == (TASK.observation_dim,) and observation.dtype == np.float32
    assert env.observation_space.contains(observation)
    assert observation[STATE_DIM:].min() >= 0 and observation[STATE_DIM:].max() <= 1
    assert info["expert_observation"].shape == (STATE_TASK.observation_dim,)


def test_the_pixels_are_the_camera_s_picture_from_the_top_left():
    env = TASK.make(render=True, camera=CAMERA, width=SIZE, height=SIZE)
    env.reset(seed=3)
    observation = env.step(np.array([0.5, 1.0]))[0]
    np.testing.assert_array_equal(picture(observation), env.render() / np.float32(255))
    env.close()


def test_the_picture_shows_the_tool_and_every_obstacle_where_they_are(env):
    rows = [np.array(colour.split(), float) for colour in COLOURS]
    tool, table = np.array([0.15, 0.16, 0.2]), np.array([0.88, 0.87, 0.84])
    for seed in range(8):
        observation = env.reset(seed=seed)[0]
        for _ in range(seed):
            observation = env.step(np.array([0.3, 0.2]))[0]
        things = [((*env.unwrapped.tool_m, 0.09), 3)]
        things += [((x, y, 0.06), row) for (x, y), row in zip(env.unwrapped._obstacles_m, ROW_OF_OBSTACLE, strict=True)]
        in_view = [(shown_at(env, point_m), wanted) for point_m, wanted in things]
        in_view = [(place, wanted) for place, wanted in in_view if min(place) >= 0 and max(place) < SIZE]
        assert len(in_view) >= 2  # the tool, and the obstacle that it faces
        for place, wanted in in_view:
            colour = picture(observation)[place]
            apart = [np.abs(colour - known).sum() for known in (*rows, tool, table)]
            assert int(np.argmin(apart)) == wanted, (seed, place, colour)


def test_the_facing_obstacle_is_in_the_picture_at_every_step(env):
    for seed in demonstration_seeds(2, 4):
        expert, (_, info) = expert_of(RECIPE, seed), env.reset(seed=seed)
        for _ in range(TASK.max_steps):
            inner = env.unwrapped
            if inner.tool_m[1] > GOAL_Y_M - 0.14:  # past the last row
                break
            assert all(0 <= place < SIZE for place in shown_at(env, (*inner._obstacles_m[inner._facing], 0.06)))
            info = env.step(expert(info["expert_observation"]))[4]


def test_the_camera_goes_with_the_tool(env):
    env.reset(seed=0)
    at = shown_at(env, (*env.unwrapped.tool_m, 0.06))
    for _ in range(5):
        env.step(np.array([1.0, 1.0]))
        assert np.abs(np.subtract(shown_at(env, (*env.unwrapped.tool_m, 0.06)), at)).max() <= 1


def test_the_state_does_not_tell_where_obstacles_are_and_the_picture_does(env):
    observation, info = env.reset(seed=5)
    inner = env.unwrapped
    np.testing.assert_array_equal(observation[:STATE_DIM], info["expert_observation"][:STATE_DIM].astype(np.float32))
    inner._obstacles_m[0] += [0.03, 0.0]
    inner._model.body_pos[inner._obstacle_bodies, :2] = inner._obstacles_m
    moved = env.step(np.zeros(2))[0]
    np.testing.assert_array_equal(moved[:STATE_DIM], observation[:STATE_DIM])
    assert (picture(moved) != picture(observation)).any()


def test_rows_are_shifted_sideways_as_one_and_never_further_than_is_said(env):
    shifts = []
    for seed in range(60):
        env.reset(seed=seed)
        off_m = env.unwrapped._obstacles_m - nominal_obstacles()
        assert (np.abs(off_m[:, 1]) <= OBSTACLE_JITTER_M).all()
        rows = [off_m[np.equal(ROW_OF_OBSTACLE, row), 0] for row in range(3)]
        assert all(np.ptp(row) <= 2 * OBSTACLE_JITTER_M for row in rows)
        shifts.append([row.mean() for row in rows])
    most = np.abs(shifts).max(0)
    assert (most <= np.array(ROW_SHIFT_M) + OBSTACLE_JITTER_M).all() and (most > 0.7 * np.array(ROW_SHIFT_M)).all()
    assert np.abs(np.corrcoef(np.array(shifts).T) - np.eye(3)).max() < 0.5  # one row tells nothing of another


def test_shifts_reach_further_than_the_gap_that_the_expert_leaves_and_leave_room_between_obstacles():
    from ontick.envs.avoid_expert import AvoidStyle

    margins_m = np.array([AvoidStyle.draw(np.random.default_rng(seed)).margins_m for seed in range(200)])
    assert (np.array(ROW_SHIFT_M) > margins_m.mean(0)).all()
    assert max(ROW_SHIFT_M) < SPACING_M / 2


def test_an_episode_is_decided_by_its_seed_in_a_fresh_environment_as_in_a_used_one(env, episode):
    fresh = TASK.make(stop_on_success=False)
    again = record_episode(fresh, expert_of(RECIPE, episode.seed), TASK, RECIPE, episode.seed)
    fresh.close()
    np.testing.assert_array_equal(again.observations, episode.observations)
    np.testing.assert_array_equal(again.actions, episode.actions)


def test_start_and_motion_are_those_of_avoid(env):
    state_env = STATE_TASK.make()
    for seed in (1, 2):
        seen, known = env.reset(seed=seed)[0], state_env.reset(seed=seed)[0]
        for _ in range(4):
            np.testing.assert_array_equal(seen[:STATE_DIM], known[:STATE_DIM].astype(np.float32))
            seen, known = (each.step(np.array([-1.0, 0.2]))[0] for each in (env, state_env))
    state_env.close()


def test_the_expert_is_shown_the_state_and_the_demonstration_keeps_the_pixels(env, episode):
    assert episode.success_step > 0 and episode.observations.shape[1] == OBSERVATION_DIM
    expert = expert_of(RECIPE, episode.seed)
    _, info = env.reset(seed=episode.seed)
    np.testing.assert_array_equal(episode.actions[0], expert(info["expert_observation"]))


def test_the_expert_succeeds_although_rows_are_shifted(env):
    episodes = [record_episode(env, expert_of(RECIPE, s), TASK, RECIPE, s) for s in demonstration_seeds(1, 6)]
    assert sum(each.success_step >= 0 for each in episodes) >= 5
    assert len({each.mode for each in episodes if each.success_step >= 0}) >= 3


def test_clearance_counts_the_shifted_obstacles(env):
    for seed in range(5):
        _, info = env.reset(seed=seed)
        apart_m = np.hypot(*(env.unwrapped._obstacles_m - env.unwrapped.tool_m).T).min()
        assert info["clearance_m"] == pytest.approx(apart_m - 0.028)


def test_closing_frees_the_renderers_and_a_later_reset_opens_them_again():
    env = TASK.make()
    first = env.reset(seed=1)[0]
    env.close()
    assert env.unwrapped._eye._renderer is None
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    env.close()
