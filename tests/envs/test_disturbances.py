"""Disturbances follow from the episode's seed alone, and nothing changes where they are nothing."""

import numpy as np
import pytest

from ontick.envs import find_task
from ontick.envs.disturbances import PUSH_WINDOW_STEPS, Disturbance, DisturbedEnv, make_disturbed
from ontick.errors import InputError

TASK = find_task("metaworld/pick-place-v3")


@pytest.fixture(scope="module")
def plain():
    env = TASK.make()
    yield env
    env.close()


def rollout(env, seed, steps=60, task=TASK):
    """(observations, executed actions as the simulator saw them, infos) of noisy actions of that seed."""
    actions, executed, infos = np.random.default_rng(seed), [], []
    sim = env.unwrapped
    step = sim.step
    sim.step = lambda action: executed.append(np.array(action)) or step(action)
    try:
        observations = [env.reset(seed=seed)[0]]
        for _ in range(steps):
            observation, *_, info = env.step(actions.uniform(-1, 1, task.action_dim).astype(np.float32))
            observations.append(observation)
            infos.append(info)
    finally:
        del sim.step
    return np.array(observations), np.array(executed), infos


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("push", Disturbance(push_m=0.03)),
        ("delay=3,push=0.05", Disturbance(push_m=0.05, delay_steps=3)),
        (" drop = 0.2 , delay ", Disturbance(delay_steps=2, drop_probability=0.2)),
        ("push=0,delay=0,drop=0", Disturbance()),
    ],
)
def test_the_text_of_a_disturbance_reads_back_as_itself(text, wanted):
    disturbance = Disturbance.parse(text)
    assert disturbance == wanted
    assert str(disturbance) == "" or Disturbance.parse(str(disturbance)) == disturbance


def test_order_and_spelling_do_not_tell_equal_disturbances_apart():
    assert str(Disturbance.parse("drop=0.10,push=3e-2")) == str(Disturbance.parse("push,drop"))


@pytest.mark.parametrize(
    "text",
    ["", "shove", "push,", "push=", "push=far", "push=-1", "push=inf", "push=nan", "delay=1.5", "delay=-1", "drop=1.1",
     "drop=nan", "push,push=0.1"],
)  # fmt: skip
def test_what_is_no_disturbance_is_refused(text):
    with pytest.raises(InputError, match="wanted"):
        Disturbance.parse(text)


def test_a_disturbance_of_nothing_is_bit_equal_to_the_plain_task(plain):
    observations, executed, _ = rollout(plain, 4)
    same, same_executed, infos = rollout(DisturbedEnv(plain, TASK, Disturbance()), 4)
    np.testing.assert_array_equal(observations, same)
    np.testing.assert_array_equal(executed, same_executed)
    assert not any(info["disturbed"] for info in infos)
    nothing = make_disturbed(TASK, Disturbance.parse("push=0"))
    assert not isinstance(nothing, DisturbedEnv)
    nothing.close()


def test_a_disturbed_episode_begins_as_the_plain_one_and_repeats(plain):
    disturbed = DisturbedEnv(plain, TASK, Disturbance.parse("push,delay,drop"))
    first, *_ = rollout(disturbed, 6)
    np.testing.assert_array_equal(first[0], plain.reset(seed=6)[0])
    np.testing.assert_array_equal(first, rollout(disturbed, 6)[0])


def test_a_delayed_observation_is_that_of_so_many_steps_ago(plain):
    now, *_ = rollout(plain, 2)
    late, *_ = rollout(DisturbedEnv(plain, TASK, Disturbance(delay_steps=3)), 2)
    np.testing.assert_array_equal(late[3:], now[:-3])
    np.testing.assert_array_equal(late[:3], now[[0, 0, 0]])


def test_a_dropped_action_leaves_the_target_and_the_gripper(plain):
    _, wanted, _ = rollout(plain, 2)
    _, executed, infos = rollout(DisturbedEnv(plain, TASK, Disturbance(drop_probability=0.4)), 2)
    dropped = (executed != wanted).any(axis=1)
    assert 0.2 < dropped.mean() < 0.6
    assert [info["disturbed"] for info in infos] == (np.cumsum(dropped) > 0).tolist()
    gripper = np.append(0.0, executed[:, 3])[:-1]
    assert (executed[dropped, :3] == 0).all()
    np.testing.assert_array_equal(executed[dropped, 3], gripper[dropped])


def test_a_likelier_drop_drops_the_same_actions_and_more(plain):
    _, wanted, _ = rollout(plain, 2)
    few, many = (
        (rollout(DisturbedEnv(plain, TASK, Disturbance(drop_probability=p)), 2)[1] != wanted).any(axis=1)
        for p in (0.1, 0.5)
    )
    assert few.sum() < many.sum() and not (few & ~many).any()


def test_every_action_is_dropped_at_probability_one(plain):
    _, executed, _ = rollout(DisturbedEnv(plain, TASK, Disturbance(drop_probability=1.0)), 2)
    assert not executed.any()


def pushes_of(env, disturbance, seed):
    """[(step, displacement [m])] of an episode; nothing is pushed in truth."""
    disturbed, displacements, pushes = DisturbedEnv(env, TASK, disturbance), [], []
    env.unwrapped.push = displacements.append
    disturbed.reset(seed=seed)
    for step in range(50):
        disturbed.step(np.zeros(4, np.float32))
        pushes += [(step, xy_m) for xy_m in displacements]
        displacements.clear()
    del env.unwrapped.push
    return pushes


def test_a_push_comes_once_in_its_window_in_a_direction_of_the_seed(plain):
    episodes = [pushes_of(plain, Disturbance(push_m=0.04), seed) for seed in range(8)]
    assert all(len(pushes) == 1 for pushes in episodes)
    steps, displacements_m = zip(*(pushes[0] for pushes in episodes), strict=True)
    first, last = PUSH_WINDOW_STEPS
    assert all(first <= step <= last for step in steps) and len(set(steps)) > 3
    np.testing.assert_allclose(np.hypot(*np.transpose(displacements_m)), 0.04)
    assert len({tuple(xy_m) for xy_m in displacements_m}) == 8
    [(step, xy_m)] = pushes_of(plain, Disturbance(push_m=0.08, drop_probability=0.3), 0)
    assert step == steps[0], "whatever its size, and whatever else disturbs"
    np.testing.assert_allclose(xy_m, 2 * displacements_m[0])


def test_what_is_drawn_for_an_episode_without_a_given_seed_is_that_of_the_seed_it_tells(plain):
    env = DisturbedEnv(plain, TASK, Disturbance(push_m=0.03))
    plain.reset(seed=1)
    observation, info = env.reset()
    drawn = env._push_step, env._push_xy_m
    again, _ = env.reset(seed=info["seed"])
    np.testing.assert_array_equal(observation, again)
    assert env._push_step == drawn[0] and (env._push_xy_m == drawn[1]).all()


@pytest.mark.parametrize(
    ("name", "seeds"),
    [("pick-place", 4), ("peg-insert-side", 3), ("drawer-open", 3), ("door-open", 2)],
)
def test_a_pushed_episode_stays_sound_and_the_expert_mostly_recovers(name, seeds):
    task = find_task(f"metaworld/{name}-v3")
    env, successes = make_disturbed(task, Disturbance(push_m=0.03)), 0
    for seed in range(seeds):
        expert = task.expert()
        observation, _ = env.reset(seed=seed)
        done = False
        while not done:
            observation, _, terminated, truncated, info = env.step(expert(observation))
            assert np.isfinite(observation).all() and observation[6] > -0.02, "on the table or above it"
            done = terminated or truncated
        assert info["disturbed"]
        successes += info["success"]
    env.close()
    assert successes >= seeds - 1
