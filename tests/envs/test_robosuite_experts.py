"""The experts' reasoning, in a world of points: a hand that moves as it is told, a thing that it can hold."""

import dataclasses

import numpy as np
import pytest

from ontick.envs.robosuite_experts import (
    ASIDE_M,
    CLOSE,
    HOVER_M,
    IN_BIN_Z_M,
    MAX_PAUSES,
    OPEN,
    PLACE_M,
    PLAIN,
    RISE_M,
    SPEED_SHARE,
    PickExpert,
    PickStyle,
    pick_expert,
)
from ontick.envs.rotations import axis_angle_to_matrix, matrix_to_axis_angle

DOWN = np.diag([1.0, -1.0, -1.0])


def quaternion(rotation):
    vector = matrix_to_axis_angle(rotation)
    angle = np.linalg.norm(vector)
    axis = vector / angle if angle else vector
    return np.append(axis * np.sin(angle / 2), np.cos(angle / 2))


class PointWorld:
    """A step goes a fixed share of what is asked; a closed hand near the thing holds it; what is let go falls."""

    def __init__(self, object_dim, seed=0, floor_m=0.82):
        rng = np.random.default_rng(seed)
        self.hand_m, self.hand = np.array([-0.1, 0.0, 1.0]), axis_angle_to_matrix([0, 0, rng.normal() * 0.05]) @ DOWN
        self.thing_m = np.array([*rng.uniform(-0.03, 0.03, 2), floor_m])
        self.thing = axis_angle_to_matrix(np.array([0, 0, rng.uniform(0, 2 * np.pi)]))
        self.object_dim, self.floor_m, self.held = object_dim, floor_m, False

    def seen(self):
        spare = np.zeros(self.object_dim - 7)
        return np.concatenate(
            [self.thing_m, quaternion(self.thing), spare, self.hand_m, quaternion(self.hand), [0.04, -0.04]]
        )

    def step(self, action):
        moved_m, turned = 0.02 * action[:3], axis_angle_to_matrix(0.2 * action[3:6])
        self.held = action[6] > 0 and (self.held or bool(np.linalg.norm(self.thing_m - self.hand_m) < 0.015))
        self.hand_m, self.hand = self.hand_m + moved_m, turned @ self.hand
        if self.held:
            self.thing_m, self.thing = self.thing_m + moved_m, turned @ self.thing
        else:
            self.thing_m = np.append(self.thing_m[:2], max(self.floor_m, self.thing_m[2] - 0.1))


def lift(style, seed=0, steps=200):
    world, expert, actions = PointWorld(10, seed), PickExpert(style, bring=False), []
    while len(actions) < steps and world.thing_m[2] < 0.87:
        actions.append(expert(world.seen()))
        world.step(actions[-1])
    return world, np.stack(actions)


@pytest.mark.parametrize("seed", range(10))
def test_the_thing_is_lifted_in_every_style(seed):
    for style in (PLAIN, PickStyle.draw(np.random.default_rng(seed))):
        world, actions = lift(style, seed)
        assert world.held and world.thing_m[2] > 0.86
        assert actions.dtype == np.float32 and np.abs(actions).max() <= 1.0


@pytest.mark.parametrize("seed", range(10))
def test_the_can_is_brought_to_its_quarter_of_the_bin_and_left_there(seed):
    style = PickStyle.draw(np.random.default_rng(seed)) if seed else PLAIN
    world, expert = PointWorld(14, seed, floor_m=0.86), PickExpert(style, bring=True)
    for _ in range(300):
        world.step(expert(world.seen()))
    assert not world.held and (np.abs(world.thing_m[:2] - PLACE_M) < 0.05).all() and world.thing_m[2] < IN_BIN_Z_M
    assert world.hand_m[2] - world.thing_m[2] > 0.05, "the hand has left it"


def test_a_thing_that_slips_out_is_picked_up_again():
    world, expert, dropped = PointWorld(10), PickExpert(PLAIN, bring=False), False
    for _ in range(300):
        action = expert(world.seen())
        if world.held and world.thing_m[2] > 0.85 and not dropped:
            world.held, dropped = False, True
            world.thing_m = np.array([0.03, 0.02, world.floor_m])
        else:
            world.step(action)
        if dropped and world.thing_m[2] > 0.87:
            return
    raise AssertionError("it was not picked up again")


def test_the_speed_caps_each_axis():
    _, actions = lift(dataclasses.replace(PLAIN, speed_share=0.5))
    assert np.abs(actions[:, :6]).max() <= 0.5 + 1e-6


def test_a_pause_holds_the_hand_and_leaves_the_gripper_as_it_was():
    _, actions = lift(dataclasses.replace(PLAIN, pauses=((3, 4),)))
    np.testing.assert_array_equal(np.flatnonzero(~actions[:, :6].any(axis=1))[:4], [3, 4, 5, 6])
    assert (actions[3:7, 6] == OPEN).all()


def test_the_hand_turns_to_the_other_faces_by_a_quarter_more():
    turns = []
    for other in (False, True):
        world, expert = PointWorld(10, seed=3), PickExpert(dataclasses.replace(PLAIN, other_faces=other), False)
        before = np.arctan2(world.hand[1, 0], world.hand[0, 0])
        expert(world.seen())
        turns.append(expert._yaw_rad - before)
    assert abs(turns[0]) <= np.pi / 4 and abs(turns[1]) >= np.pi / 4
    np.testing.assert_allclose(abs(turns[0] - turns[1]), np.pi / 2)


def test_the_gripper_is_always_open_or_closed():
    _, actions = lift(PLAIN)
    assert set(np.unique(actions[:, 6])) == {OPEN, CLOSE}


def test_equal_generators_draw_equal_styles_within_their_ranges():
    styles = [PickStyle.draw(np.random.default_rng(seed)) for seed in range(100)]
    assert styles == [PickStyle.draw(np.random.default_rng(seed)) for seed in range(100)] and len(set(styles)) == 100
    ranges = {"speed_share": SPEED_SHARE, "hover_m": HOVER_M, "rise_m": RISE_M, "aside_m": ASIDE_M}
    for style in styles:
        assert all(low <= getattr(style, name) <= high for name, (low, high) in ranges.items())
        assert len(style.pauses) <= MAX_PAUSES
    assert {style.other_faces for style in styles} == {False, True}


def test_without_a_generator_the_expert_is_the_plain_one():
    for name, bring in (("Lift", False), ("PickPlaceCan", True)):
        expert = pick_expert(name, None)
        assert expert.style == PLAIN and expert.bring == bring
