"""Push-T: actions are places, the T moves when it is pushed and only then, and coverage decides."""

import numpy as np
import pytest

from ontick.envs import find_task
from ontick.envs.push_t import COVERED, T_FROM_M, TOOL_FROM_M, WALLS_M, action_of, gap_m, target_of
from ontick.envs.push_t_shape import (
    CENTRE_M,
    GOAL,
    KEYPOINTS_M,
    OUTLINE_M,
    SIDE_M,
    TOOL_RADIUS_M,
    coverage,
    placed,
    pose_of,
)
from ontick.envs.rendering import render_available
from ontick.errors import InputError

TASK = find_task("ontick/PushT-v0")
MIDDLE = np.array([SIDE_M / 2, SIDE_M / 2, 0.0])  # an upright T, its bar's outer edge in the middle


@pytest.fixture(scope="module")
def env():
    env = TASK.make()
    yield env
    env.close()


def moved(pose, *by):
    """A pose, moved by (x [m], y [m], yaw [rad])."""
    return pose + np.array(by)


def begin(env, tool_m, pose=MIDDLE):
    env.reset(seed=0, options={"tool_m": np.asarray(tool_m, float), "pose": np.asarray(pose, float)})
    return env.unwrapped


def go(env, place_m, steps=12):
    """Towards a place for some steps; what the last one returned."""
    for _ in range(steps):
        told = env.step(action_of(np.asarray(place_m, float)))
    return told


def test_an_episode_is_decided_by_its_seed_in_a_fresh_environment_as_in_a_used_one(env):
    fresh, traces = TASK.make(), []
    go(begin(env, (0.1, 0.1)), (0.4, 0.4))
    for each in (fresh, env):
        rng = np.random.default_rng(3)
        trace = [each.reset(seed=9)[0]] + [each.step(rng.uniform(-1, 1, 2))[0] for _ in range(20)]
        traces.append(np.stack(trace))
    np.testing.assert_array_equal(*traces)
    fresh.close()


def test_starts_lie_within_the_drawn_ranges_and_touch_nothing(env):
    poses, tools_m = [], []
    for seed in range(100):
        _, info = env.reset(seed=seed)
        pose, tool_m = env.unwrapped.pose, env.unwrapped.tool_m
        assert env.unwrapped._data.ncon == 0 and gap_m(tool_m, pose) > 0
        assert not info["success"] and info["coverage"] == coverage(pose)
        corners_m = placed(OUTLINE_M, pose)
        assert corners_m.min() > WALLS_M[0] and corners_m.max() < WALLS_M[1]
        poses.append(pose)
        tools_m.append(tool_m)
    for drawn, (low, high) in ((np.stack(tools_m), TOOL_FROM_M), (np.stack(poses)[:, :2], T_FROM_M)):
        assert drawn.min() >= low and drawn.max() <= high and (drawn.std(0) > 0.2 * (high - low)).all()
    assert np.abs(np.exp(1j * np.stack(poses)[:, 2]).mean()) < 0.3  # all directions


def test_a_policy_sees_keypoints_then_the_tool(env):
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation[18:], env.unwrapped.tool_m)
        np.testing.assert_allclose(observation[:18].reshape(9, 2), placed(KEYPOINTS_M, env.unwrapped.pose))
        np.testing.assert_allclose(pose_of(observation[:18].reshape(9, 2)), env.unwrapped.pose, atol=1e-12)


def test_actions_are_places_from_corner_to_corner():
    np.testing.assert_allclose(target_of(np.array([[-1, 1], [0, 0]])), [[0, SIDE_M], [SIDE_M / 2, SIDE_M / 2]])
    places_m = np.random.default_rng(0).uniform(0, SIDE_M, (20, 2))
    np.testing.assert_allclose(target_of(action_of(places_m)), places_m, atol=1e-7)


def test_the_tool_follows_its_target_as_a_critically_damped_spring(env):
    start_m, target_m = np.array([0.05, 0.45]), np.array([0.15, 0.40])
    begin(env, start_m)
    for step in range(1, 8):
        observation, *_ = go(env, target_m, steps=1)
        swing = 10 * 0.1 * step  # 10/s is the root of the stiffness
        np.testing.assert_allclose(
            observation[18:], target_m + (start_m - target_m) * (1 + swing) * np.exp(-swing), atol=0.003
        )
    np.testing.assert_allclose(go(env, target_m)[0][18:], target_m, atol=1e-4)


def test_the_t_stays_until_it_is_touched_and_stops_when_the_tool_does(env):
    world = begin(env, (0.1, 0.2))
    go(env, (0.1, 0.4))
    np.testing.assert_allclose(world.pose, MIDDLE, atol=1e-12)
    begin(env, (0.15, 0.271))
    go(env, (0.30, 0.271), steps=4)  # into the bar's end, and on
    assert world.pose[0] > MIDDLE[0] + 0.005
    tool_m, before = world.tool_m, world.pose
    go(env, tool_m - [0.1, 0.0], steps=1)  # it runs on for a moment before it turns
    coasted, turned = world.pose, world.tool_m
    assert coasted[0] > before[0] and gap_m(turned, coasted) > 0
    go(env, tool_m - [0.1, 0.0], steps=5)
    np.testing.assert_allclose(world.pose, coasted, atol=5e-4)


def test_a_push_through_the_centre_moves_the_t_and_one_beside_it_turns_it(env):
    world = begin(env, (SIDE_M / 2, 0.2))
    go(env, (SIDE_M / 2, 0.3))  # on the bar's outer edge, towards the foot
    assert abs(world.pose[2]) < 1e-6 and world.pose[1] == pytest.approx(0.3 + TOOL_RADIUS_M, abs=0.002)
    for side, sign in ((-0.04, -1), (0.04, 1)):  # to the right of the centre it turns clockwise, which is positive
        begin(env, (SIDE_M / 2 + side, 0.2))
        go(env, (SIDE_M / 2 + side, 0.3))
        assert sign * world.pose[2] > 0.2


def test_the_t_follows_the_tool_and_does_not_move_it(env):
    world = begin(env, (SIDE_M / 2, 0.2))
    free_m = []
    for start in (MIDDLE, moved(MIDDLE, 0.15, 0.1, 0.0)):  # pushed, and far away
        begin(env, (SIDE_M / 2, 0.2), start)
        free_m.append(np.stack([go(env, (SIDE_M / 2, 0.3), steps=1)[0][18:] for _ in range(8)]))
    np.testing.assert_allclose(*free_m, atol=0.001)
    assert gap_m(world.tool_m, world.pose) > -0.001


def test_the_walls_keep_the_t_in(env):
    world = begin(env, (SIDE_M / 2, 0.05), [SIDE_M / 2, 0.1, 0.0])
    go(env, (SIDE_M / 2, 0.4), steps=20)
    foot_m = placed(OUTLINE_M, world.pose).max()
    assert WALLS_M[1] - 0.003 < foot_m < WALLS_M[1] + 0.006
    assert np.isfinite(world.pose).all()


def test_reward_and_success_follow_coverage(env):
    begin(env, (0.05, 0.05), moved(GOAL, 0.01, 0.0, 0.0))
    _, reward, terminated, truncated, info = env.step(action_of(np.array([0.05, 0.05])))
    assert info["coverage"] == pytest.approx(coverage(moved(GOAL, 0.01, 0.0, 0.0))) and info["coverage"] < COVERED
    assert reward == pytest.approx(info["coverage"] / 0.95) and not terminated and not truncated
    assert not info["success"] and not info["is_success"] and info["max_coverage"] == info["coverage"]
    begin(env, (0.05, 0.05), moved(GOAL, 0.001, 0.0, 0.0))
    _, reward, terminated, _, info = env.step(action_of(np.array([0.05, 0.05])))
    assert info["coverage"] > COVERED and reward == 1 and terminated and info["success"] and info["is_success"]


def test_success_and_the_most_that_was_covered_are_kept_when_the_t_leaves_its_goal():
    env = TASK.make(stop_on_success=False)
    begin(env, (0.40, 0.2563), GOAL)
    _, _, terminated, _, info = go(env, (0.2, 0.2563))
    assert info["coverage"] < 0.8 and info["success"] and not terminated
    assert info["max_coverage"] == pytest.approx(1.0, abs=0.01)
    env.close()


def test_an_episode_is_cut_off_after_its_steps():
    env = TASK.make(max_steps=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]
    env.close()
    assert TASK.max_steps == 300
    with pytest.raises(InputError, match="max_steps=0"):
        TASK.make(max_steps=0)


def test_a_push_displaces_the_t_and_no_further_than_the_walls(env):
    world = begin(env, (0.05, 0.05))
    world.push(np.array([0.03, -0.01]))
    np.testing.assert_allclose(world.pose, moved(MIDDLE, 0.03, -0.01, 0.0))
    world.push(np.array([1.0, 0.0]))
    assert placed(OUTLINE_M, world.pose)[:, 0].max() == pytest.approx(WALLS_M[1])


def test_to_hold_is_to_stay_at_the_last_place_and_before_any_where_the_tool_is(env):
    last = np.array([[0.3, -0.2], [1.0, 0.1]], np.float32)
    held = TASK.hold(last)
    np.testing.assert_array_equal(held, last)
    assert held is not last and held.dtype == np.float32
    observation, _ = env.reset(seed=5)
    after, *_ = env.step(TASK.neutral(observation))
    np.testing.assert_allclose(after, observation, atol=1e-6)
    assert TASK.neutral(observation).dtype == np.float32


@pytest.mark.parametrize("action", [np.zeros(3), np.array([0.0, np.nan])])
def test_a_bad_action_is_told(env, action):
    env.reset(seed=0)
    with pytest.raises(InputError, match="2 finite numbers"):
        env.step(action)


def test_the_t_has_its_mass_where_it_is_said_to_turn():
    model = TASK.make().unwrapped._model
    body = model.body("t")
    np.testing.assert_array_equal(body.ipos, 0)
    bar = model.geom_pos[[i for i in range(model.ngeom) if model.geom_bodyid[i] == body.id]][0]
    np.testing.assert_allclose(bar[:2], np.array([0.0, 0.015]) - CENTRE_M, atol=1e-12)


@pytest.mark.skipif(not render_available()[0], reason="no OpenGL here")
def test_it_is_drawn_with_x_to_the_right_and_y_down():
    env = TASK.make(render=True, width=96, height=96)
    begin(env, (0.45, 0.05), [0.1, 0.3, 0.0])
    frame = env.render().astype(int)
    assert frame.shape == (96, 96, 3)
    blue = np.argwhere(frame[..., 2] - frame[..., 0] > 60)  # the tool: to the right, above
    assert len(blue) > 4 and blue[:, 0].mean() < 30 and blue[:, 1].mean() > 66
    env.close()
