"""Avoid: contacts, routes and clearance are what they are said to be, and a seed decides an episode."""

from collections import Counter

import numpy as np
import pytest

from ontick.envs import find_task
from ontick.envs.avoid import ACTION_M, GOAL_Y_M, OBSTACLE_JITTER_M, nominal_obstacles
from ontick.envs.avoid_expert import AvoidStyle, avoid_expert
from ontick.envs.rendering import render_available
from ontick.errors import InputError

TASK = find_task("ontick/Avoid-v0")
ROUTES = [a + b + c for a in "LR" for b in "LR" for c in "LR"]


@pytest.fixture(scope="module")
def env():
    env = TASK.make()
    yield env
    env.close()


def play(env, expert, seed, noise=0.0):
    """The expert's episode: observations [t, 6] and the last info."""
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    trace, done = [observation], False
    while not done:
        action = expert(observation)
        assert action.dtype == np.float32 and (np.abs(action) <= 1).all()
        observation, _, terminated, truncated, info = env.step(action + noise * rng.standard_normal(2))
        trace.append(observation)
        done = terminated or truncated
    return np.stack(trace), info


def expert_of_route(route):
    """The drawn expert that takes this route."""
    for seed in range(1000):
        if AvoidStyle.draw(np.random.default_rng(seed)).route == route:
            return avoid_expert(np.random.default_rng(seed))
    raise AssertionError(route)


def test_an_episode_is_decided_by_its_seed_in_a_fresh_environment_as_in_a_used_one(env):
    fresh = TASK.make()
    play(env, TASK.expert(), seed=4)
    first, second = (play(e, TASK.expert(np.random.default_rng(5)), seed=9, noise=0.3)[0] for e in (fresh, env))
    np.testing.assert_array_equal(first, second)
    fresh.close()


def test_seeds_differ_in_the_start_and_in_every_obstacle(env):
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(50)])
    assert (starts[:, :2].std(0) > 0.003).all() and (starts[:, 2:4] == 0).all()
    faced_m = []
    for route in ROUTES:
        for seed in range(4):
            trace, _ = play(env, expert_of_route(route), seed)
            faced_m.append(trace[:, :2] + trace[:, 4:6])
    faced_m = np.unique(np.concatenate(faced_m).round(9), axis=0)
    off_m = np.abs(faced_m[:, None] - nominal_obstacles())
    assert (off_m.max(-1).min(-1) <= OBSTACLE_JITTER_M + 1e-6).all()
    assert {int(i) for i in off_m.max(-1).argmin(-1)} == set(range(6))


def test_the_facing_obstacle_lies_behind_the_gap_that_was_taken(env):
    trace, info = play(env, expert_of_route("RLL"), seed=3)
    faced_m = trace[:, :2] + trace[:, 4:6]
    nominal = nominal_obstacles()[[0, 2, 4]]  # its row's right one after R, then the middle one after L
    order = faced_m[np.sort(np.unique(faced_m[:, 1].round(6), return_index=True)[1])]
    assert info["mode"] == "RLL"
    np.testing.assert_allclose(order, nominal, atol=OBSTACLE_JITTER_M + 1e-6)


@pytest.mark.parametrize("route", ROUTES)
def test_the_expert_passes_on_every_route_and_the_environment_names_it(env, route):
    for seed in (1, 3):
        _, info = play(env, expert_of_route(route), seed, noise=0.2)
        assert info["success"] and info["is_success"]
        assert info["mode"] == route
        assert info["clearance_m"] > 0


def test_drawn_routes_are_equally_likely():
    drawn = Counter(AvoidStyle.draw(np.random.default_rng(seed)).route for seed in range(1600))
    assert sorted(drawn) == ROUTES
    assert max(abs(count - 200) for count in drawn.values()) < 5 * np.sqrt(200)


def test_without_a_style_the_expert_does_every_episode_the_same_way(env):
    assert {play(env, TASK.expert(), seed)[1]["mode"] for seed in range(5)} == {"LRL"}


def test_straight_ahead_touches_the_first_obstacle_and_ends_the_episode_as_a_failure(env):
    env.reset(seed=0)
    for _ in range(40):
        _, reward, terminated, _, info = env.step(np.array([0.0, 1.0]))
        if terminated:
            break
    assert terminated and not info["success"] and reward == 0
    assert info["mode"] == "" and info["clearance_m"] <= 0


def test_the_walls_end_the_episode_too(env):
    env.reset(seed=0)
    steps = next(n for n in range(60) if env.step(np.array([-1.0, -0.2]))[2])
    assert 20 < steps < 40


def test_an_episode_ends_by_contact_exactly_when_the_gap_closes(env):
    rng, ends = np.random.default_rng(0), Counter()
    for seed in range(40):
        env.reset(seed=seed)
        heading, terminated = np.array([rng.uniform(-0.7, 0.7), 1.0]), False
        while not terminated:
            observation, _, terminated, truncated, info = env.step(heading)
            at_wall = abs(observation[0]) > 0.25
            if not at_wall:
                assert (info["clearance_m"] <= 0) == (terminated and not info["success"])
            if truncated:
                break
        ends[info["success"], at_wall] += 1
    assert len(ends) >= 2


def test_after_success_a_collected_episode_goes_on_to_rest():
    env = TASK.make(stop_on_success=False)
    expert, observation = TASK.expert(), env.reset(seed=2)[0]
    for _ in range(150):
        observation, _, terminated, _, info = env.step(expert(observation))
        assert not terminated
    assert info["success"] and observation[1] > GOAL_Y_M
    np.testing.assert_allclose(observation[2:4], 0.0, atol=1e-4)
    env.close()


def test_an_action_of_one_moves_the_tool_by_a_centimetre(env):
    start = env.reset(seed=0)[0]
    for _ in range(10):
        observation, *_ = env.step(np.array([-1.0, 0.0]))
    moved = observation[:2] + observation[2:4] - start[:2]
    np.testing.assert_allclose(moved, [-10 * ACTION_M, 0.0], atol=1e-12)


def test_a_push_moves_the_tool_and_its_target_and_may_touch(env):
    before = env.reset(seed=0)[0]
    env.unwrapped.push(np.array([0.03, -0.01]))
    after, *_, info = env.step(np.zeros(2))
    np.testing.assert_allclose(after[:2] - before[:2], [0.03, -0.01], atol=1e-6)
    assert not info["success"] and info["clearance_m"] > 0
    env.reset(seed=0)
    env.unwrapped.push(np.array([0.0, 0.4]))  # through the first obstacle
    assert env.step(np.zeros(2))[2]


@pytest.mark.parametrize("action", [np.zeros(3), np.array([0.0, np.nan])])
def test_a_bad_action_is_told(env, action):
    env.reset(seed=0)
    with pytest.raises(InputError, match="2 finite numbers"):
        env.step(action)


@pytest.mark.skipif(not render_available()[0], reason="no OpenGL here")
@pytest.mark.parametrize("camera", ["behind", "top", "carried"])
def test_it_can_be_drawn(camera):
    env = TASK.make(render=True, width=64, height=48, camera=camera)
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (48, 64, 3) and frame.std() > 10
    env.close()
