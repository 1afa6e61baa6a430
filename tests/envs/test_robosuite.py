"""robosuite through robomimic's wrapper: what needs the simulator is skipped where it is not installed."""

import json

import gymnasium
import h5py
import numpy as np
import pytest

import ontick.envs  # noqa: F401  registers the tasks
from ontick.commands import main
from ontick.envs import find_task
from ontick.envs.collection import Recipe, collect, record_episode
from ontick.envs.dataset import read_demonstrations, write_demonstrations
from ontick.envs.rendering import import_mujoco, render_available
from ontick.envs.robomimic_hdf5 import read_robomimic
from ontick.envs.rotations import matrix_to_rotation_6d, narrow_actions, quaternion_to_matrix
from ontick.errors import InputError

import_mujoco()
pytest.importorskip("robosuite", reason="robosuite is not installed: `make robosuite`")

pytestmark = pytest.mark.slow  # a reset builds a scene, which takes a second and more

TASKS = {"robosuite/Lift": 19, "robosuite/PickPlaceCan": 23}


@pytest.fixture(scope="module")
def lift():
    env = gymnasium.make("robosuite/Lift", stop_on_success=False)
    yield env
    env.close()


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Two short demonstrations without noise, in memory and in a file."""
    folder = tmp_path_factory.mktemp("robosuite")
    recipe = Recipe("robosuite/Lift", episodes=2, noise=0.0, settle_steps=2)
    demonstrations = collect(recipe, folder / "partial")
    write_demonstrations(folder / "lift.hdf5", demonstrations)
    return demonstrations, folder / "lift.hdf5"


def rollout(env, seed, steps=10):
    """Observations, rewards and success of noisy actions, which depend on the seed alone."""
    actions = np.random.default_rng(seed)
    trace = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, reward, *_, info = env.step(actions.uniform(-1, 1, 7))
        trace.append(np.append(observation, [reward, info["success"]]))
    return np.concatenate(trace)


@pytest.mark.parametrize("task_id", TASKS)
def test_a_used_environment_gives_the_episode_of_a_fresh_one(task_id):
    fresh, used = gymnasium.make(task_id), gymnasium.make(task_id)
    rollout(used, 3)
    first = rollout(fresh, 7)
    np.testing.assert_array_equal(first, rollout(used, 7))
    assert (first != rollout(used, 8)).any()
    fresh.close(), used.close()


@pytest.mark.parametrize("task_id, width", TASKS.items())
def test_the_observation_is_robomimics_low_dimensional_one(task_id, width):
    env = gymnasium.make(task_id)
    env.reset(seed=1)
    observation = env.step(np.full(7, 0.3, np.float32))[0]
    seen, keys = env.unwrapped._sim.get_observation(), dict(find_task(task_id).observation_keys)
    assert list(keys) == ["object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"]
    assert [len(seen[key]) for key in keys] == list(keys.values())
    robot = np.concatenate([seen[key] for key in list(keys)[1:]])
    np.testing.assert_allclose(observation[-9:], robot, atol=5e-3)  # a step shows what was so 2 ms before its end
    assert observation.shape == (width,) and observation.dtype == np.float64
    assert env.observation_space.contains(observation)
    env.close()


def test_the_object_is_told_as_in_the_published_data(lift):
    """Before robosuite 1.5: the thing's pose first; then on Lift the way from the cube to the hand, on Can its pose
    seen from the hand."""
    cube = lift.reset(seed=1)[0]
    np.testing.assert_allclose(cube[7:10], cube[10:13] - cube[:3], atol=1e-12)
    assert abs(cube[2] - 0.83) < 0.02 and np.linalg.norm(cube[3:7]) == pytest.approx(1.0)
    env = gymnasium.make("robosuite/PickPlaceCan")
    can = env.reset(seed=1)[0]
    env.close()
    hand = quaternion_to_matrix(can[17:21])
    np.testing.assert_allclose(can[14:17] + hand @ can[7:10], can[:3], atol=1e-9)
    np.testing.assert_allclose(hand @ quaternion_to_matrix(can[10:14]), quaternion_to_matrix(can[3:7]), atol=1e-9)
    assert can[13] >= 0 and 0.8 < can[2] < 0.95


def test_seeds_give_distinct_initial_states(lift):
    assert len({lift.reset(seed=seed)[0].tobytes() for seed in range(4)}) == 4


def test_without_a_seed_one_is_drawn_from_the_environments_own_generator(lift):
    lift.reset(seed=11)
    first = lift.reset()[1]["seed"]
    lift.reset(seed=11)
    assert first == lift.reset()[1]["seed"]


@pytest.mark.parametrize("task_id", TASKS)
def test_the_expert_succeeds(task_id):
    task = find_task(task_id)
    env, expert = task.make(), task.expert()
    observation, _ = env.reset(seed=0)
    terminated = truncated = False
    while not (terminated or truncated):
        action = expert(observation)
        assert np.abs(action).max() <= 1.0
        observation, _, terminated, truncated, info = env.step(action)
    env.close()
    assert terminated and info["success"] is True and info["is_success"] is True


def test_an_action_of_one_displaces_the_hands_target_by_five_centimetres(lift):
    lift.reset(seed=2)
    sim = lift.unwrapped._sim
    here_m, rotation = lift.unwrapped._hand_pose()
    lift.step(np.array([1, 0, -1, 0, 0, 0, -1.0]))
    controller = sim.env.robots[0].composite_controller.part_controllers["right"]
    np.testing.assert_allclose(controller.goal_pos - here_m, [0.05, 0, -0.05], atol=1e-6)
    np.testing.assert_allclose(controller.goal_ori, rotation, atol=1e-6)


@pytest.mark.parametrize("action", [np.full(7, np.nan), np.zeros(6), np.zeros((1, 7))])
def test_an_action_that_is_no_action_is_refused(lift, action):
    with pytest.raises(InputError, match="wanted 7 finite numbers"):
        lift.step(action)


@pytest.mark.parametrize("options", [{"max_steps": 0}, {"render_mode": "human"}, {"name": "Lit"}])
def test_impossible_options_are_refused(options):
    from ontick.envs.robosuite_env import RobosuiteEnv

    with pytest.raises(InputError):
        RobosuiteEnv(**options)


def test_an_episode_is_cut_off_at_max_steps():
    env = gymnasium.make("robosuite/Lift", max_steps=2)
    env.reset(seed=0)
    assert [env.step(np.zeros(7, np.float32))[3] for _ in range(2)] == [False, True]
    env.close()


PUSH_XY_M = np.array([0.02, 0.03])


def test_a_push_slides_the_free_object_and_leaves_it_at_rest(lift):
    before = lift.reset(seed=0)[0][:3]
    for _ in range(10):
        before = lift.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))[0][:3]
    lift.unwrapped.push(PUSH_XY_M)
    after = lift.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))[0][:3]
    np.testing.assert_allclose(after[:2] - before[:2], PUSH_XY_M, atol=2e-3)


def test_a_held_object_is_pushed_with_the_hand(lift):
    expert, (observation, _) = find_task("robosuite/Lift").expert(), lift.reset(seed=1)
    for _ in range(120):
        observation, *_, info = lift.step(expert(observation))
        if info["success"]:
            break
    lift.unwrapped.push(PUSH_XY_M)
    after = lift.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))[0]
    np.testing.assert_allclose(after[:2] - observation[:2], PUSH_XY_M, atol=0.012)
    assert after[2] > 0.84, "still held"


def test_a_frame_can_be_drawn_in_every_episode():
    if not render_available()[0]:
        pytest.skip(render_available()[1])
    env = gymnasium.make("robosuite/Lift", render_mode="rgb_array", width=64, height=48)
    frames = []
    for seed in (0, 1):
        env.reset(seed=seed)
        frames.append(env.render())
    env.close()
    assert frames[0].shape == (48, 64, 3) and frames[0].std() > 5 and (frames[0] != frames[1]).any()


# -- absolute actions -------------------------------------------------------------------------------------------------


def test_absolute_actions_lead_where_the_displacements_did(collected, tmp_path):
    from ontick.envs.absolute_actions import absolute_actions

    made, path = collected
    absolute_actions(path, tmp_path / "abs.hdf5")
    found = read_demonstrations(tmp_path / "abs.hdf5")
    assert found.attributes["task"] == "robosuite/Lift-abs" and found.actions.shape == (len(made.actions), 10)
    np.testing.assert_array_equal(found.observations, made.observations)
    env, rows = gymnasium.make("robosuite/Lift-abs", stop_on_success=False), made.episode(0)
    env.reset(seed=made.attributes["seeds"][0])
    states = []
    for action in found.actions[rows]:
        states.append(env.unwrapped.simulator_state())
        *_, info = env.step(action)
    env.close()
    assert info["success"]
    np.testing.assert_allclose(np.stack(states)[:, 1:10], made.states[rows][:, 1:10], atol=5e-3)


def test_the_command_makes_absolute_demonstrations_and_keeps_those_they_are_made_of(tmp_path, capsys):
    out = tmp_path / "lift.hdf5"
    wanted = ["demos", "robosuite/Lift-abs", "--episodes", "1", "--out"]
    assert main([*wanted, str(out)]) == 0
    made, kept = (read_demonstrations(path) for path in (out, tmp_path / "lift-displacements.hdf5"))
    assert made.attributes["task"] == "robosuite/Lift-abs" and made.actions.shape[1] == 10
    assert kept.attributes["task"] == "robosuite/Lift" and len(kept.actions) == len(made.actions)
    assert main([*wanted, str(out)]) == 2 and "already there" in capsys.readouterr().err
    assert main([*wanted, str(tmp_path / "lift.zarr")]) == 2 and ".hdf5" in capsys.readouterr().err


def test_a_file_is_made_absolute_once(collected, tmp_path):
    from ontick.envs.absolute_actions import absolute_actions

    absolute_actions(collected[1], tmp_path / "abs.hdf5")
    with pytest.raises(InputError, match="absolute already"):
        absolute_actions(tmp_path / "abs.hdf5", tmp_path / "again.hdf5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abs.hdf5"]


def test_no_pose_at_all_keeps_the_hand_where_it_is():
    env = gymnasium.make("robosuite/Lift-abs")
    before = env.reset(seed=0)[0][10:13]
    for _ in range(10):
        after = env.step(np.zeros(10, np.float32))[0][10:13]
    env.close()
    np.testing.assert_allclose(after, before, atol=0.01)


def test_a_pose_is_reached():
    env = gymnasium.make("robosuite/Lift-abs")
    env.reset(seed=0)
    position_m, rotation = env.unwrapped._hand_pose()
    goal_m = position_m + 0.05 * np.array([1, 1, -1])
    for _ in range(40):
        env.step(np.concatenate([goal_m, matrix_to_rotation_6d(rotation), [-1.0]]))
    there_m, turned = env.unwrapped._hand_pose()
    env.close()
    np.testing.assert_allclose(there_m, goal_m, atol=0.01)
    np.testing.assert_allclose(turned, rotation, atol=0.05)


# -- files ------------------------------------------------------------------------------------------------------------


def test_collecting_twice_gives_the_same_and_keeps_states_and_scenes(collected):
    made, path = collected
    task = find_task("robosuite/Lift")
    env = task.make(stop_on_success=False)
    recipe = Recipe("robosuite/Lift", episodes=2, noise=0.0, settle_steps=2)
    again = record_episode(env, task.expert(), task, recipe, made.attributes["seeds"][0])
    env.close()
    np.testing.assert_array_equal(again.actions, made.actions[made.episode(0)])
    np.testing.assert_array_equal(again.states, made.states[made.episode(0)])
    found = read_robomimic(path, simulated=True)
    assert found.attributes == made.attributes and found.scenes == made.scenes
    assert len(set(made.scenes)) == 2, "cubes differ in size"


def test_robomimics_own_tools_make_the_environment_and_enter_its_states(collected):
    from ontick._torchvision import ensure_torchvision

    ensure_torchvision()
    from robomimic.utils import env_utils, file_utils, obs_utils

    made, path = collected
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["object", "robot0_eef_pos"], "rgb": []}})
    sim = env_utils.create_env_from_metadata(file_utils.get_env_metadata_from_dataset(str(path)))
    step = made.episode(1).start + 20
    with h5py.File(path) as file:
        demo = file["data/demo_1"]
        seen = sim.reset_to({"model": demo.attrs["model_file"], "states": demo["states"][20]})
    # What a step shows was looked at one substep of 2 ms before its end.
    np.testing.assert_allclose(seen["object"][:7], made.observations[step, :7], atol=5e-3)
    np.testing.assert_allclose(seen["robot0_eef_pos"], made.observations[step, 10:13], atol=5e-3)
    sim.env.close()


def test_a_file_of_another_version_is_refused_where_its_physics_matter(collected, tmp_path):
    from ontick.envs.absolute_actions import absolute_actions

    path = tmp_path / "old.hdf5"
    path.write_bytes(collected[1].read_bytes())
    with h5py.File(path, "r+") as file:
        args = json.loads(file["data"].attrs["env_args"])
        file["data"].attrs["env_args"] = json.dumps({**args, "env_version": "1.4.1"})
    with pytest.raises(InputError, match=r"recorded with robosuite 1\.4\.1, while robosuite 1\.5\.2 is installed"):
        absolute_actions(path, tmp_path / "abs.hdf5")


def test_a_stored_pose_is_the_hands_own(collected):
    """rotation_6d of an action that asks for no turn is the orientation of the hand's site."""
    made, _ = collected
    env = gymnasium.make("robosuite/Lift")
    env.reset(seed=made.attributes["seeds"][0])
    from ontick.envs.robosuite_wrapper import goal_of

    goal = goal_of(env.unwrapped._sim, np.zeros(7))
    position_m, rotation = env.unwrapped._hand_pose()
    np.testing.assert_allclose(goal[:3], position_m, atol=1e-9)
    pose = np.concatenate([position_m, matrix_to_rotation_6d(rotation), [0.0]])
    np.testing.assert_allclose(narrow_actions(pose), goal, atol=1e-9)
    hand = quaternion_to_matrix(env.unwrapped._sim.get_observation()["robot0_eef_quat"])
    env.close()
    np.testing.assert_allclose(hand[:, 2], rotation[:, 2], atol=1e-6)  # observed is the wrist, turned about their axis
