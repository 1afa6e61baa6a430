"""Arm and ball: a function of the seed and the actions, driven at the speed that it says, and seen clearly."""

import numpy as np
import pytest

from ontick.envs import rendering
from ontick.envs.arm_and_ball import BALL_RADIUS, FPS, FULL_SPEED, HOLD_FRAMES, ArmAndBall, random_actions
from ontick.errors import InputError

AVAILABLE, REASON = rendering.render_available()
needs_renderer = pytest.mark.skipif(not AVAILABLE, reason=REASON)


@pytest.fixture
def scene():
    scene = ArmAndBall()
    yield scene
    scene.close()


@pytest.fixture
def blind(monkeypatch):
    """The same scene without pictures: physics alone, where there is no OpenGL."""
    monkeypatch.setattr(ArmAndBall, "_frame", lambda self: np.zeros((self.size, self.size, 3), np.uint8))
    return ArmAndBall()


@needs_renderer
def test_a_frame_shows_table_arm_and_ball_in_their_colours(scene):
    frame = scene.reset(0).astype(int)
    assert frame.shape == (64, 64, 3) and scene.step(np.zeros(2)).dtype == np.uint8
    red, green, blue = np.moveaxis(frame, -1, 0)
    ball = (red > 180) & (green < 120) & (blue < 120)
    yellow, cyan = (red > 150) & (green > 120) & (blue < 100), (blue > 150) & (green > 120) & (red < 120)
    assert ball.sum() > 40 and yellow.sum() > 20 and cyan.sum() > 40


@needs_renderer
def test_the_ball_is_drawn_where_it_is_with_y_up(scene):
    for seed in range(4):
        red, green, blue = np.moveaxis(scene.reset(seed).astype(int), -1, 0)
        rows, columns = np.nonzero((red > 180) & (green < 120) & (blue < 120))
        seen = np.array([columns.mean() - 31.5, 31.5 - rows.mean()]) * 2 * 1.12 / 64
        np.testing.assert_allclose(seen, scene.ball, atol=0.08)


@needs_renderer
def test_an_episode_is_a_function_of_its_seed_in_a_fresh_scene_as_in_a_used_one(scene):
    actions = random_actions(3, 20)
    scene.reset(9)
    for action in actions:
        scene.step(-action)
    used = [scene.reset(3), *(scene.step(action) for action in actions)]
    fresh = ArmAndBall()
    again = [fresh.reset(3), *(fresh.step(action) for action in actions)]
    fresh.close()
    np.testing.assert_array_equal(used, again)
    assert (used[0] != scene.reset(4)).any()


@needs_renderer
def test_the_frame_of_a_step_is_the_one_after_its_action(scene):
    still = scene.reset(1)
    assert (scene.step(np.array([1.0, 0.0])) != still).any(axis=-1).sum() > 20


def test_full_speed_moves_each_joint_as_fast_as_it_says(blind):
    for joint in range(2):
        blind.reset(1)
        blind._data.qpos[:], blind._data.qvel[:] = (-0.3, -0.5, 0.8, 0.8), 0.0  # the ball is out of the way
        blind.step(np.eye(2)[joint])
        before = blind.joints
        for _ in range(3):
            blind.step(np.eye(2)[joint])
        moved = blind.joints - before
        assert moved[joint] == pytest.approx(3 * FULL_SPEED / FPS, rel=0.15)
        assert abs(moved[1 - joint]) < 0.05 * moved[joint]


def test_the_ball_stays_on_the_table_and_is_often_moved(blind):
    moved = []
    for seed in range(5):
        blind.reset(seed)
        for action in random_actions(seed, 100):
            before = blind.ball
            blind.step(action)
            moved.append(np.hypot(*(blind.ball - before)) > 0.01)
            assert np.abs(blind.ball).max() < 1 - BALL_RADIUS / 2 and np.isfinite(blind.joints).all()
    assert np.mean(moved) > 0.3


def test_the_ball_bounces_off_the_wall(blind):
    blind.reset(0)
    blind._data.qpos[:], blind._data.qvel[:] = (-0.6, -0.7, 0.5, 0.5), (0.0, 0.0, 1.0, 0.0)
    for _ in range(6):
        blind.step(np.zeros(2))
    assert blind._data.qvel[2] < -0.2


def test_an_action_out_of_range_is_cut_and_one_that_is_no_number_refused(blind):
    blind.reset(0)
    blind.step(np.array([5.0, -5.0]))
    far = blind.joints
    blind.reset(0)
    blind.step(np.array([1.0, -1.0]))
    np.testing.assert_array_equal(far, blind.joints)
    for wrong in ([np.nan, 0.0], [0.0], [[0.0, 0.0]]):
        with pytest.raises(InputError, match="2 finite numbers"):
            blind.step(np.array(wrong))


def test_random_steering_persists_stays_in_range_and_looks_like_keys_for_the_most_part():
    actions = np.stack([random_actions(seed, 200) for seed in range(20)])
    assert actions.shape == (20, 200, 2) and actions.dtype == np.float32 and np.abs(actions).max() <= 1
    keys = np.isin(actions, (-1, 0, 1)).all(axis=-1)
    assert 0.5 < keys.mean() < 0.9
    changes = (np.abs(np.diff(actions, axis=1)) > 0.6).any(axis=-1).mean()
    assert changes < 1 / HOLD_FRAMES[0]
    for sign in (-1, 0, 1):
        assert (actions == sign).mean() > 0.05


def test_random_steering_is_a_function_of_its_seed_and_longer_steering_begins_the_same():
    np.testing.assert_array_equal(random_actions(5, 40), random_actions(5, 40))
    assert (random_actions(5, 40) != random_actions(6, 40)).any()
    np.testing.assert_array_equal(random_actions(5, 40), random_actions(5, 90)[:40])
    with pytest.raises(InputError, match="at least 1"):
        random_actions(0, 0)


def test_a_frame_too_small_is_refused():
    with pytest.raises(InputError, match="at least 8"):
        ArmAndBall(4)
