import numpy as np
import pytest

from ontick.envs import evaluation_seeds
from ontick.envs.avoid import GOAL_Y_M, AvoidEnv
from ontick.envs.avoid_expert import avoid_expert
from ontick.envs.simulated_world import (
    EPISODE_S,
    LIMITS,
    PAUSE_S,
    SERVO_RAD_S,
    STEP_S,
    AvoidWorld,
    Follower,
    Life,
    Sensors,
    Watchdog,
)
from ontick.runtime.robots import Waypoint


@pytest.fixture(scope="module")
def world():
    return AvoidWorld()


def at(time_s: float, x_m: float, y_m: float, episode: int = 0) -> Waypoint:
    return Waypoint(time_s, np.array([x_m, y_m]), np.zeros(2), episode)


def test_ten_small_steps_are_a_step_of_the_environment_bit_for_bit_but_for_the_servo(world):
    env = AvoidEnv()
    for part in ("actuator_gainprm", "actuator_biasprm"):
        getattr(env._model, part)[:] = getattr(world._model, part)
    [*_, seed] = evaluation_seeds(0, 4)
    env.reset(seed=seed)
    world.start(3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        seen, _, terminated, _, info = env.step(action)
        for _ in range(10):
            world.advance(env._data.ctrl.copy())
        assert np.array_equal(world.observation, seen) and world.is_over == terminated
        assert world._info() == info


def test_the_servo_is_critically_damped_and_as_far_behind_a_line_as_it_says(world):
    world.start(0)
    start, speed = world.tool_m, 0.1
    for step in range(1, 61):
        target = start + np.array([0.0, speed * STEP_S * step])
        world.advance(target)
    lag_s = (target[1] - world.tool_m[1]) / speed
    assert abs(lag_s - 2 / SERVO_RAD_S) < 1.1 * STEP_S  # the physics counts in steps


def test_a_target_moves_in_a_line_and_arrives_in_time():
    follower = Follower()
    follower.hear([at(0.1, 0.02, 0.0), at(0.2, 0.02, 0.04)])
    xs = [follower.move(k * 0.01, (k + 1) * 0.01).copy() for k in range(30)]
    assert np.allclose(xs[4], [0.01, 0]) and np.allclose(xs[9], [0.02, 0])
    assert np.allclose(xs[14], [0.02, 0.02]) and np.allclose(xs[19], [0.02, 0.04])
    assert np.allclose(xs[29], xs[19]) and follower.is_still and follower.too_fast == 0


def test_a_target_does_not_depend_on_how_finely_time_is_cut():
    fine, coarse = Follower(), Follower()
    for follower in (fine, coarse):
        follower.hear([at(0.013, 0.004, 0.001), at(0.031, -0.001, 0.002), at(0.05, 0.0, 0.01)])
    for k in range(12):
        coarse.move(k * 0.005, (k + 1) * 0.005)
        for j in range(5):
            fine.move(k * 0.005 + j * 0.001, k * 0.005 + (j + 1) * 0.001)
        assert np.allclose(fine.target, coarse.target, atol=1e-12)


def test_a_command_replaces_the_waypoints_that_lie_later():
    follower = Follower()
    follower.hear([at(0.1, 0.01, 0.0), at(0.2, 0.02, 0.0), at(0.3, 0.03, 0.0)])
    follower.hear([at(0.15, 0.0, 0.01)])
    follower.move(0.0, 0.1)
    assert np.allclose(follower.target, [0.01, 0.0])
    follower.move(0.1, 0.4)
    assert np.allclose(follower.target, [0.0, 0.01])


def test_waypoints_of_another_episode_are_ignored_and_counted():
    follower = Follower()
    follower.rest(np.zeros(2), 2)
    assert not follower.hear([at(0.1, 0.02, 0.0, episode=1)]) and follower.hear([at(0.1, 0.01, 0.0, episode=2)])
    follower.move(0.0, 0.1)
    assert follower.ignored == 1 and np.allclose(follower.target, [0.01, 0.0])


def test_a_target_never_outruns_the_limits():
    follower = Follower()
    follower.hear([at(0.01, 0.2, 0.0)])
    follower.move(0.0, 0.02)
    assert np.allclose(follower.target, [LIMITS.speed[0] * 0.02, 0.0]) and follower.too_fast == 1


def test_braking_comes_to_rest_within_the_acceleration_limit():
    follower = Follower()
    follower.hear([at(1.0, 0.2, 0.2)])
    follower.move(0.0, 0.005)
    before = follower.velocity.copy()
    assert not follower.is_still
    for _ in range(20):
        follower.brake(0.005)
        assert (np.abs(follower.velocity - before) <= LIMITS.acceleration * 0.005 + 1e-12).all()
        before = follower.velocity.copy()
    assert follower.is_still


def test_a_watchdog_fires_after_two_missed_periods_and_not_before():
    watchdog = Watchdog(0.02, 2)
    assert not watchdog.look(100.0)  # before the first command nothing is missed
    watchdog.heard(100.0)
    assert not watchdog.look(100.049)
    watchdog.heard(100.0495)
    assert not watchdog.look(100.099)
    assert watchdog.look(100.1) and watchdog.fired_after_s == pytest.approx(0.0505)
    watchdog.heard(100.101)
    assert watchdog.fired_after_s == pytest.approx(0.0505) and watchdog.longest_s == pytest.approx(0.0515)


def test_a_watchdog_judges_when_commands_were_sent_not_when_they_were_read():
    late_reader = Watchdog(0.02, 2)
    for k in range(10):  # read all at once after 200 ms
        late_reader.heard(k * 0.02)
    assert not late_reader.look(0.2)


def test_a_gap_between_two_commands_fires_as_well():
    watchdog = Watchdog(0.02, 2)
    watchdog.heard(1.0)
    watchdog.heard(1.06)
    assert watchdog.has_fired


def follow(life: Life, path, seconds: float, from_s: float = 0.0) -> float:
    """Command path(time) each 20 ms and step; returns when the episode ended or the time was over."""
    steps, episode = round(seconds / STEP_S), life.episode
    for k in range(1, steps + 1):
        time_s = from_s + k * STEP_S
        if k % 4 == 1:
            x_m, y_m = path(time_s + 0.015)
            life.hear([at(time_s + 0.015, x_m, y_m, episode)], time_s)
        life.step(time_s, False)
        if life.episodes or life.episode != episode:
            return time_s
    return from_s + seconds


def test_an_expert_on_waypoints_solves_an_episode_and_the_next_begins_after_a_pause(world):
    life = Life(world)
    life.begin(0)
    expert, target, time_s = avoid_expert(None), world.tool_m, 0.0
    while not life.episodes and time_s < EPISODE_S:
        target = target + 0.01 * np.clip(expert(world.observation), -1, 1)
        time_s += 0.05
        life.hear([at(time_s, *target, episode=life.episode)], time_s - 0.05)
        for k in range(10):
            life.step(time_s - 0.05 + (k + 1) * STEP_S, False)
    assert life.successes == life.episodes == 1 and world.tool_m[1] >= GOAL_Y_M
    before = life.episode
    while life.episode == before:
        time_s += STEP_S
        life.step(time_s, False)
    assert world.tool_m[1] < 0 and life.successes == 1
    world.start(1)
    next_start = world.tool_m
    assert np.allclose(life.follower.target, next_start)


def test_a_contact_ends_an_episode_without_success(world):
    life = Life(world)
    life.begin(0)
    start = world.tool_m
    follow(life, lambda time_s: (start[0], min(start[1] + 0.2 * time_s, 0.12)), 2.0)
    assert life.episodes == 1 and life.successes == 0


def test_an_episode_ends_after_ten_seconds_of_it_and_waiting_before_it_costs_nothing(world):
    life = Life(world)
    life.begin(0)
    for k in range(400):
        life.step(k * STEP_S, False)
    start = world.tool_m
    ended_s = follow(life, lambda _: start, 12.0, from_s=2.0)
    assert ended_s - 2.0 == pytest.approx(EPISODE_S, abs=2 * STEP_S) and life.successes == 0


def test_what_is_commanded_in_a_pause_moves_nothing(world):
    life = Life(world)
    life.begin(0)
    start = world.tool_m
    ended_s = follow(life, lambda time_s: (start[0], min(start[1] + 0.2 * time_s, 0.12)), 2.0)
    episode, target = life.episode, None
    for k in range(1, round((PAUSE_S - 0.01) / STEP_S)):
        life.hear([at(ended_s + 0.2, 0.0, 0.3, episode)], ended_s)
        life.step(ended_s + k * STEP_S, False)
        target = life.follower.target.copy()
    assert life.episode == episode and target is not None and target[1] < 0.13


def test_the_last_digits_of_a_living_sensor_move_and_those_of_a_frozen_camera_do_not(world):
    world.start(0)
    sensors = Sensors()
    first, second = sensors.read(world), sensors.read(world)
    assert (first != second).any() and np.allclose(first, second, atol=1e-5)
    sensors.freeze_camera(True)
    third, fourth = sensors.read(world), sensors.read(world)
    assert np.array_equal(third[4:], second[4:]) and np.array_equal(fourth[4:], second[4:])
    assert (third[:4] != fourth[:4]).any()
    sensors.freeze_camera(False)
    assert (sensors.read(world)[4:] != second[4:]).any()
