"""Styles: the script stays in charge of what is done, the style decides how."""

import dataclasses

import numpy as np
import pytest

from ontick.envs import TASKS, collection, find_task
from ontick.envs.collection import Recipe, record_episode
from ontick.envs.metaworld import scripted_expert
from ontick.envs.styles import (
    ASIDE_SHARE,
    GRASP_OFFSET_M,
    HANDLING_STEPS,
    LIFT_M,
    LIFT_STEPS,
    MAX_PAUSES,
    NEAR_M,
    NOT_LIFTED,
    PAUSE_STEPS,
    SPEED_SHARE,
    TIMED,
    TIMED_SPEED_SHARE,
    Style,
    StyledExpert,
    styled_expert,
)

PLAIN = Style(speed_share=1.0, lift_m=0.0, grasp_offset_m=0.0, pauses=())


def seen_from(distance_m):
    """An observation of a hand that far from the object, at the origin."""
    observation = np.zeros(39)
    observation[:3] = distance_m, 0.0, 0.2
    return observation


FAR = seen_from(5 * NEAR_M)


def always(*action):
    return lambda observation: np.array(action, np.float32)


def test_equal_generators_draw_equal_styles_and_others_draw_others():
    styles = [Style.draw(np.random.default_rng(seed)) for seed in range(50)]
    assert styles == [Style.draw(np.random.default_rng(seed)) for seed in range(50)]
    assert len(set(styles)) == 50


def test_styles_stay_within_their_ranges():
    for style in (Style.draw(np.random.default_rng(seed)) for seed in range(200)):
        assert SPEED_SHARE[0] <= style.speed_share <= SPEED_SHARE[1]
        assert LIFT_M[0] <= style.lift_m <= LIFT_M[1]
        assert GRASP_OFFSET_M[0] <= style.grasp_offset_m <= GRASP_OFFSET_M[1]
        assert len(style.pauses) <= MAX_PAUSES
        assert all(PAUSE_STEPS[0] <= steps <= PAUSE_STEPS[1] for _, steps in style.pauses)


def test_timed_scripts_are_slowed_less():
    speeds = [Style.draw(np.random.default_rng(seed), timed=True).speed_share for seed in range(200)]
    assert TIMED_SPEED_SHARE[0] <= min(speeds) and max(speeds) <= TIMED_SPEED_SHARE[1]


def test_the_exceptions_are_tasks():
    assert {f"metaworld/{name}" for name in TIMED | NOT_LIFTED} <= set(TASKS)


@pytest.mark.parametrize("name", sorted(NOT_LIFTED))
def test_where_a_lift_would_never_end_there_is_none(name):
    assert styled_expert(name, always(0, 0, 0, 0), np.random.default_rng(0)).style.lift_m == 0


def test_the_plain_style_changes_no_bit():
    rng, script = np.random.default_rng(0), scripted_expert("pick-place-v3")
    expert = StyledExpert(script, PLAIN)
    for observation in rng.uniform(-0.5, 0.9, (50, 39)):
        np.testing.assert_array_equal(expert(observation), script(observation))


def test_the_speed_caps_each_axis_and_keeps_the_direction():
    action = StyledExpert(always(1.0, -0.5, 0.25, 0.7), dataclasses.replace(PLAIN, speed_share=0.4))(FAR)
    np.testing.assert_allclose(action, [0.4, -0.2, 0.1, 0.7], rtol=1e-6)
    assert action.dtype == np.float32


def test_motions_slower_than_the_cap_are_left_alone():
    action = StyledExpert(always(0.3, 0.1, 0.0, -1.0), dataclasses.replace(PLAIN, speed_share=0.4))(FAR)
    np.testing.assert_array_equal(action, np.array([0.3, 0.1, 0.0, -1.0], np.float32))


def test_a_pause_holds_the_hand_and_leaves_the_gripper_as_it_was():
    expert = StyledExpert(always(1.0, 1.0, 1.0, 0.6), dataclasses.replace(PLAIN, pauses=((2, 3),)))
    actions = np.stack([expert(FAR) for _ in range(7)])
    np.testing.assert_array_equal(np.flatnonzero(~actions[:, :3].any(axis=1)), [2, 3, 4])
    assert (actions[:, 3] == actions[0, 3]).all()


def test_a_script_that_switches_its_gripper_in_a_pause_switches_it_after_the_pause():
    grips = iter([-1.0, 0.6, 0.6, 0.6])
    style = dataclasses.replace(PLAIN, pauses=((1, 2),))
    expert = StyledExpert(lambda _: np.array([1, 0, 0, next(grips)], np.float32), style)
    np.testing.assert_allclose([expert(FAR)[3] for _ in range(4)], [-1.0, -1.0, -1.0, 0.6])


def test_a_timed_script_keeps_its_own_timing_while_its_gripper_switches():
    grips = iter([-1.0] * 3 + [0.6] * 50)
    style = dataclasses.replace(PLAIN, speed_share=0.5, pauses=((5, 10),))
    expert = StyledExpert(lambda _: np.array([1, 0, 0, next(grips)], np.float32), style, timed=True)
    speeds = [float(expert(FAR)[0]) for _ in range(40)]
    assert speeds == [0.5] * 3 + [1.0] * HANDLING_STEPS + [0.5] * (37 - HANDLING_STEPS)


def test_a_timed_script_keeps_its_own_timing_on_arrival_at_the_object_too():
    expert = StyledExpert(always(1.0, 0.0, 0.0, 0.0), dataclasses.replace(PLAIN, speed_share=0.5), timed=True)
    assert expert(FAR)[0] == 0.5
    near = seen_from(NEAR_M / 2)
    assert [float(expert(near)[0]) for _ in range(HANDLING_STEPS + 1)] == [1.0] * HANDLING_STEPS + [0.5]


def rising(height_m):
    observation = FAR.copy()
    observation[2] += height_m
    return observation


def test_the_hand_rises_before_it_travels():
    expert = StyledExpert(always(1.0, -1.0, -0.5, 0.7), dataclasses.replace(PLAIN, lift_m=0.08))
    actions = np.stack([expert(rising(height_m)) for height_m in (0.0, 0.04, 0.075, 0.0)])
    up, along = [ASIDE_SHARE, -ASIDE_SHARE, 1.0, 0.7], [1.0, -1.0, -0.5, 0.7]
    np.testing.assert_allclose(actions, [up, up, along, along], rtol=1e-6)  # once up, it does not rise again


def test_a_lift_that_cannot_be_done_is_given_up():
    expert = StyledExpert(always(1.0, 0.0, 0.0, 0.0), dataclasses.replace(PLAIN, lift_m=0.08))
    actions = np.stack([expert(FAR) for _ in range(LIFT_STEPS + 2)])
    np.testing.assert_array_equal(np.flatnonzero(actions[:, 0] == 1.0), [LIFT_STEPS, LIFT_STEPS + 1])


def test_a_pause_holds_while_the_hand_rises_too():
    style = dataclasses.replace(PLAIN, lift_m=0.08, pauses=((0, 2),))
    np.testing.assert_array_equal(StyledExpert(always(1.0, 0.0, 0.0, 0.0), style)(FAR)[:3], np.zeros(3))


def test_the_height_is_kept_until_the_object_is_near_and_does_not_come_back():
    shown = []
    style = dataclasses.replace(PLAIN, lift_m=0.08)
    expert = StyledExpert(lambda o: shown.append(o[2]) or np.zeros(4, np.float32), style)
    for distance_m in (5 * NEAR_M, 1.1 * NEAR_M, NEAR_M / 2, 5 * NEAR_M):
        expert(seen_from(distance_m))
    np.testing.assert_allclose(0.2 - np.array(shown), [0.08, 0.08, 0.0, 0.0], atol=1e-9)


def test_an_object_that_has_moved_ends_the_approach():
    shown = []
    expert = StyledExpert(
        lambda o: shown.append(o[2]) or np.zeros(4, np.float32), dataclasses.replace(PLAIN, lift_m=0.08)
    )
    moved = FAR.copy()
    moved[4] -= 0.02
    for observation in (FAR, moved, FAR):
        expert(observation)
    np.testing.assert_allclose(0.2 - np.array(shown), [0.08, 0.0, 0.0], atol=1e-9)


def test_the_grasp_offset_shows_the_hand_on_the_other_side():
    shown = []
    style = dataclasses.replace(PLAIN, grasp_offset_m=0.01)
    StyledExpert(lambda o: shown.append(o) or np.zeros(4, np.float32), style)(FAR)
    np.testing.assert_allclose(shown[0] - FAR, np.eye(39)[0] * -0.01, atol=1e-12)


@pytest.mark.parametrize("name", ["door-open-v3", "door-close-v3", "button-press-v3"])
def test_scripts_that_write_into_what_they_see_do_not_reach_the_observation(name):
    observation = np.random.default_rng(0).uniform(0.0, 0.5, 39)
    before = observation.copy()
    find_task(f"metaworld/{name}").expert(np.random.default_rng(1))(observation)
    np.testing.assert_array_equal(observation, before)


def test_without_a_generator_the_expert_is_the_script():
    task, script = find_task("metaworld/pick-place-v3"), scripted_expert("pick-place-v3")
    for observation in np.random.default_rng(0).uniform(-0.5, 0.9, (20, 39)):
        np.testing.assert_array_equal(task.expert(None)(observation), script(observation))


def test_styled_episodes_succeed_differ_and_can_be_repeated():
    recipe = Recipe("metaworld/pick-place-v3", episodes=2, styled=True)
    task = find_task(recipe.task)
    env = task.make(stop_on_success=False)
    one, again, other = (record_episode(env, collection.expert_of(recipe, s), task, recipe, 1) for s in (1, 1, 3))
    env.close()
    assert one.success_step >= 0 and other.success_step >= 0
    np.testing.assert_array_equal(one.actions, again.actions)
    assert one.actions.shape != other.actions.shape or (one.actions != other.actions).any()
