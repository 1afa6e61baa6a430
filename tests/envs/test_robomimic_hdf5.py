"""robomimic's files: those of others are read as they are, ours are read by robomimic's own tools."""

import json

import h5py
import numpy as np
import pytest

from ontick.envs.dataset import read_demonstrations, write_demonstrations
from ontick.envs.demonstrations import Demonstrations, recorded_versions
from ontick.envs.robomimic_hdf5 import is_absolute, read_robomimic
from ontick.envs.rotations import widen_actions
from ontick.errors import InputError

LIFT = {"object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
DELTA = {
    "env_name": "Lift",
    "env_version": "1.4.1",
    "type": 1,
    "env_kwargs": {"robots": ["Panda"], "controller_configs": {"type": "OSC_POSE", "control_delta": True}},
}
ABSOLUTE = json.loads(json.dumps(DELTA).replace('"control_delta": true', '"control_delta": false'))
NEW_ABSOLUTE = {
    **DELTA,
    "env_kwargs": {"controller_configs": {"type": "BASIC", "body_parts": {"right": {"input_type": "absolute"}}}},
}


def published(path, env_args=DELTA, keys=LIFT, lengths=(5, 3, 4), arms=1):
    """A file in the published low-dimensional form. Returns {demo: {key: rows}}."""
    rng, held = np.random.default_rng(0), {}
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(env_args)
        file["data"].attrs["total"] = sum(lengths)
        for i, steps in enumerate(lengths):
            rows = {f"obs/{key}": rng.normal(size=(steps, width)) for key, width in keys.items()}
            rows |= {"actions": rng.uniform(-1, 1, (steps, 7 * arms)), "states": rng.normal(size=(steps, 32))}
            rows |= {"obs/robot0_joint_pos": rng.normal(size=(steps, 7)), "rewards": np.zeros(steps)}
            for name, values in rows.items():
                file[f"data/demo_{i}/{name}"] = values
            file[f"data/demo_{i}"].attrs["num_samples"] = steps
            held[f"demo_{i}"] = rows
        file["mask/train"] = np.array(["demo_0", "demo_2"], "S")
        file["mask/valid"] = np.array(["demo_1"], "S")
        file["mask/gone"] = np.array(["demo_0", "demo_7"], "S")
    return held


def joined(held, *names):
    return np.concatenate([np.concatenate([rows[name] for name in names], 1) for rows in held.values()])


def test_a_published_file_is_read_in_robomimics_usual_order(tmp_path):
    held = published(tmp_path / "low_dim.hdf5")
    found = read_demonstrations(tmp_path / "low_dim.hdf5")
    wanted = joined(held, *(f"obs/{key}" for key in LIFT))
    np.testing.assert_array_equal(found.observations, wanted.astype(np.float32))
    np.testing.assert_array_equal(found.actions, joined(held, "actions").astype(np.float32))
    assert found.lengths.tolist() == [5, 3, 4]


def test_a_published_file_tells_its_simulator_and_the_task_that_its_numbers_fit(tmp_path):
    published(tmp_path / "low_dim.hdf5")
    attributes = read_demonstrations(tmp_path / "low_dim.hdf5").attributes
    assert attributes["env_args"] == DELTA
    assert attributes["task"] == "robosuite/Lift" and attributes["columns"] == list(LIFT)


def test_no_task_is_named_where_the_numbers_do_not_fit(tmp_path):
    published(tmp_path / "low_dim.hdf5")
    found = read_demonstrations(tmp_path / "low_dim.hdf5", ("object",))
    assert "task" not in found.attributes and found.observations.shape[1] == 10


def test_no_task_is_named_for_a_simulator_in_which_the_same_keys_hold_other_numbers(tmp_path):
    published(tmp_path / "new.hdf5", {**DELTA, "env_version": "1.5.1"})
    assert "task" not in read_demonstrations(tmp_path / "new.hdf5").attributes


BODY_PARTS = {"type": "BASIC", "body_parts": {"right": {"input_type": "delta"}}}


@pytest.mark.parametrize("version", [{}, {"env_version": None}, {"env_version": ""}], ids=["none", "null", "empty"])
@pytest.mark.parametrize(
    "controllers, task",
    [
        ({"type": "OSC_POSE", "control_delta": True}, "robosuite/Lift"),
        ({"type": "OSC_POSE", "control_delta": False}, "robosuite/Lift-abs"),
        ([{"type": "OSC_POSE", "control_delta": True}], "robosuite/Lift"),
        (BODY_PARTS, None),
        ({**BODY_PARTS, "control_delta": True}, None),
        ({"type": "OSC_POSE"}, None),
        (None, None),
        ("OSC_POSE", None),
    ],
)
def test_without_a_version_the_form_of_the_controllers_tells_the_simulator(controllers, task, version, tmp_path):
    env_args = {"env_name": "Lift", "type": 1, "env_kwargs": {"controller_configs": controllers}, **version}
    published(tmp_path / "low_dim.hdf5", env_args)
    attributes = read_demonstrations(tmp_path / "low_dim.hdf5").attributes
    assert attributes.get("task") == task and recorded_versions(attributes) == {}


def test_a_version_counts_for_more_than_the_form_of_the_controllers(tmp_path):
    for version, task in (("1.5.1", None), ("1.4", "robosuite/Lift"), ("1.40", None)):
        published(tmp_path / "low_dim.hdf5", {**DELTA, "env_version": version})
        attributes = read_demonstrations(tmp_path / "low_dim.hdf5").attributes
        assert attributes.get("task") == task and recorded_versions(attributes) == {"robosuite": version}


@pytest.mark.parametrize(
    "told",
    [{"versions": "1.4"}, {"versions": {"robosuite": 1}}, {"env_args": "text"}, {"env_args": None}, {"versions": None}],
)
def test_versions_that_are_no_versions_are_not_told(told):
    assert recorded_versions(told) == {}


def test_two_arms_stand_one_after_the_other(tmp_path):
    keys = {"robot1_eef_pos": 3, "robot0_eef_pos": 3, "object": 41}
    held = published(tmp_path / "transport.hdf5", {**ABSOLUTE, "env_name": "TwoArmTransport"}, keys, arms=2)
    found = read_demonstrations(tmp_path / "transport.hdf5")
    wanted = joined(held, "obs/object", "obs/robot0_eef_pos", "obs/robot1_eef_pos")
    np.testing.assert_array_equal(found.observations, wanted.astype(np.float32))
    assert found.actions.shape[1] == 20


def test_the_observation_may_be_told_by_keys(tmp_path):
    held = published(tmp_path / "low_dim.hdf5")
    found = read_demonstrations(tmp_path / "low_dim.hdf5", ("robot0_joint_pos", "object[:3]"))
    wanted = np.concatenate([joined(held, "obs/robot0_joint_pos"), joined(held, "obs/object")[:, :3]], 1)
    np.testing.assert_array_equal(found.observations, wanted.astype(np.float32))


def test_a_mask_chooses_its_demonstrations_in_their_order(tmp_path):
    held = published(tmp_path / "low_dim.hdf5")
    found = read_demonstrations(tmp_path / "low_dim.hdf5", mask="train")
    wanted = np.concatenate([held[name]["actions"] for name in ("demo_0", "demo_2")])
    np.testing.assert_array_equal(found.actions, wanted.astype(np.float32))
    assert found.attributes["mask"] == "train"


@pytest.mark.parametrize(
    "columns, mask, complaint",
    [
        (None, "test", "gone, train, valid"),
        (None, "gone", "names 2 episodes, of which 1"),
        (("objekt",), None, "obs holds object, robot0_eef_pos"),
        (("object[:11]",), None, "object has 10 numbers"),
    ],
)
def test_keys_and_masks_that_are_not_there_are_refused_with_what_is(columns, mask, complaint, tmp_path):
    published(tmp_path / "low_dim.hdf5")
    with pytest.raises(InputError, match=complaint):
        read_demonstrations(tmp_path / "low_dim.hdf5", columns, mask)


def test_a_file_without_usual_keys_asks_for_them(tmp_path):
    published(tmp_path / "other.hdf5", keys={"joints": 7})
    with pytest.raises(InputError, match=r"joints, robot0_joint_pos, none of robomimic's usual keys.*--obs-keys"):
        read_demonstrations(tmp_path / "other.hdf5")


@pytest.mark.parametrize("env_args", [ABSOLUTE, NEW_ABSOLUTE])
def test_absolute_actions_are_given_with_rotation_6d(env_args, tmp_path):
    held = published(tmp_path / "abs.hdf5", env_args)
    found = read_demonstrations(tmp_path / "abs.hdf5")
    np.testing.assert_allclose(found.actions, widen_actions(joined(held, "actions")), atol=1e-6)
    assert found.attributes["task"] == "robosuite/Lift-abs"


def test_absolute_is_told_in_the_old_way_and_in_the_new():
    assert not is_absolute({}) and not is_absolute(DELTA)
    assert is_absolute(ABSOLUTE) and is_absolute(NEW_ABSOLUTE)
    two_arms = {"env_kwargs": {"controller_configs": [{"control_delta": False}, {"control_delta": False}]}}
    assert is_absolute(two_arms)


# -- ours -------------------------------------------------------------------------------------------------------------


def ours(env_args=DELTA, task="robosuite/Lift", width=7, lengths=(5, 3)):
    """Demonstrations as `collect` makes them, of random numbers."""
    rng, steps = np.random.default_rng(0), sum(lengths)
    actions = rng.uniform(-1, 1, (steps, 7)).astype(np.float32)
    return Demonstrations(
        rng.normal(size=(steps, 19)).astype(np.float32),
        actions if width == 7 else widen_actions(actions),
        np.cumsum(lengths),
        {
            "task": task,
            "versions": {"robosuite": "1.4.1"},
            "seeds": [1, 3],
            "success_steps": [2, 1],
            "observation_keys": [[key, width] for key, width in LIFT.items()],
            "env_args": env_args,
        },
        rng.normal(size=(steps, 32)),
        ("<mujoco/>", "<mujoco model='other'/>"),
    )


@pytest.mark.parametrize("env_args, task, width", [(DELTA, "robosuite/Lift", 7), (ABSOLUTE, "robosuite/Lift-abs", 10)])
def test_a_robosuite_file_of_ours_comes_back_with_states_scenes_and_env_args(env_args, task, width, tmp_path):
    made = ours(env_args, task, width)
    write_demonstrations(tmp_path / "lift.hdf5", made)
    found = read_robomimic(tmp_path / "lift.hdf5", simulated=True)
    np.testing.assert_array_equal(found.observations, made.observations)
    np.testing.assert_allclose(found.actions, made.actions, atol=1e-6)
    np.testing.assert_array_equal(found.states, made.states)
    assert found.scenes == made.scenes and found.attributes == made.attributes


def test_absolute_actions_of_ours_are_stored_as_robomimic_stores_them(tmp_path):
    write_demonstrations(tmp_path / "abs.hdf5", ours(ABSOLUTE, "robosuite/Lift-abs", 10))
    with h5py.File(tmp_path / "abs.hdf5") as file:
        assert file["data/demo_0/actions"].shape == (5, 7)


def test_of_a_mask_the_seeds_too_are_those_of_its_episodes(tmp_path):
    write_demonstrations(tmp_path / "lift.hdf5", ours())
    found = read_demonstrations(tmp_path / "lift.hdf5", mask="valid")
    assert found.attributes["seeds"] == [3] and found.attributes["success_steps"] == [1] and len(found) == 1


def test_without_states_and_scenes_none_are_given(saved):
    found = read_robomimic(saved["hdf5"], simulated=True)
    assert found.states is None and found.scenes == ()


def test_robomimics_dataset_reads_the_keys_of_ours(tmp_path):
    from ontick._torchvision import ensure_torchvision

    ensure_torchvision()
    import robomimic.algo  # noqa: F401  registers the encoders that its configs name
    from robomimic.utils import file_utils, obs_utils
    from robomimic.utils.dataset import SequenceDataset

    made = ours()
    write_demonstrations(tmp_path / "lift.hdf5", made)
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": list(LIFT), "rgb": []}})
    dataset = SequenceDataset(
        str(tmp_path / "lift.hdf5"),
        obs_keys=list(LIFT),
        dataset_keys=["actions", "rewards", "dones", "states"],
        hdf5_cache_mode="all",
        load_next_obs=False,
    )
    assert len(dataset) == 8
    row = np.concatenate([dataset[6]["obs"][key][0] for key in LIFT])
    np.testing.assert_array_equal(row, made.observations[6])
    np.testing.assert_allclose(dataset[6]["states"][0], made.states[6], rtol=1e-6)
    told = file_utils.get_env_metadata_from_dataset(str(tmp_path / "lift.hdf5"))
    assert {key: told[key] for key in DELTA} == DELTA
