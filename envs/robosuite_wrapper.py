"""robomimic's wrapper of robosuite: making it, what a file says of it, and reading its controller's goal."""

import contextlib
import copy
import functools
import importlib
import importlib.metadata
import importlib.util
import io
import logging
import sys
import types
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .demonstrations import ROBOSUITE_TYPE
from .rendering import import_mujoco
from .rotations import matrix_to_axis_angle, matrix_to_quaternion, quaternion_to_matrix
from .tasks import INSTALL, ROBOSUITE_KEYS, ROBOSUITE_OBJECT_DIMS

mujoco: Any = import_mujoco()  # first, so that the rendering backend is our choice

CONTROL_HZ = 20
THINGS = {"Lift": "cube", "PickPlaceCan": "Can"}  # as robosuite calls what they are about


def flat(sim: Any, seen: dict[str, Any]) -> NDArray[np.float64]:
    """The observation as one row: `object`, then the hand's position, orientation and fingers.

    `object` holds the numbers of robomimic's published data, in their order: the thing's position and orientation; then
    of Lift the way from it to the hand, of PickPlaceCan its pose seen from the hand. (robosuite 1.5 has other signs and
    another order, and its pose seen from the hand is one step old.)
    """
    thing_m, thing = (_told(sim, f"{THINGS[sim.name]}_{part}") for part in ("pos", "quat"))
    hand_m, hand, fingers = (np.asarray(seen[key], np.float64) for key in dict(ROBOSUITE_KEYS))
    if sim.name == "Lift":
        between = hand_m - thing_m
    else:
        to_hand = quaternion_to_matrix(hand).T
        turned = matrix_to_quaternion(to_hand @ quaternion_to_matrix(thing))
        between = np.concatenate([to_hand @ (thing_m - hand_m), turned])
    return np.concatenate([thing_m, thing, between, hand_m, hand, fingers])


def _told(sim: Any, name: str) -> NDArray[np.float64]:
    return np.array(sim.env._observables[name].obs, np.float64)


def env_args(name: str, absolute: bool = False) -> dict[str, Any]:
    """What robomimic keeps of an environment in a file, and makes it from again. Raises InputError as `wrapped`.

    Targets are in the world's frame, as the published data have them; the Panda's base is not turned in it, so
    displacements are the same in both.
    """
    _wrapper_class()  # tells what is missing
    controllers = importlib.import_module("robosuite.controllers")
    controller = controllers.load_composite_controller_config(controller="BASIC", robot="Panda")
    arm = controller["body_parts"]["right"]
    arm |= {"input_type": "absolute" if absolute else "delta", "input_ref_frame": "world"}
    controller["body_parts"] = {"right": arm}  # a Panda has no other of the parts
    kwargs = {
        "robots": "Panda",
        "controller_configs": controller,
        "control_freq": CONTROL_HZ,
        "lite_physics": True,
        "reward_shaping": False,
        "renderer": "mujoco",
    }
    return {"env_name": name, "env_version": installed_version(), "type": ROBOSUITE_TYPE, "env_kwargs": kwargs}


def installed_version() -> str:
    """robosuite's version. Raises InputError where it is not installed."""
    try:
        return importlib.metadata.version("robosuite")
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"got no package robosuite, wanted the simulator: {INSTALL['robosuite']}") from None


def check_env_args(recorded: dict[str, Any], path: Any) -> None:
    """Raises InputError where a file's `env_args` are of another simulator than the one installed here."""
    name, kind, version = (recorded.get(key) for key in ("env_name", "type", "env_version"))
    if kind != ROBOSUITE_TYPE or name not in ROBOSUITE_OBJECT_DIMS:
        known = " or ".join(ROBOSUITE_OBJECT_DIMS)
        raise InputError(f"got {path}, recorded in {name!r} (robomimic's type {kind}), wanted robosuite's {known}")
    if version != installed_version():
        raise InputError(
            f"got {path}, recorded with robosuite {version}, while robosuite {installed_version()} is installed, in "
            f"which the same actions go elsewhere: use an environment with robosuite {version}, or collect it anew"
        )


def wrapped(recorded: dict[str, Any]) -> Any:
    """robomimic's `EnvRobosuite`, made from `env_args`. Raises InputError where a package is missing."""
    wrapper = _wrapper_class()
    obs_utils = importlib.import_module("robomimic.utils.obs_utils")
    with contextlib.redirect_stdout(io.StringIO()):  # robomimic prints as it sets up
        if obs_utils.OBS_KEYS_TO_MODALITIES is None:
            keys = ["object", *dict(ROBOSUITE_KEYS)]
            obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": keys, "rgb": []}})
        return wrapper(recorded["env_name"], **copy.deepcopy(recorded["env_kwargs"]))


def stand_in_for_mujoco_py() -> None:
    """robomimic 0.3's wrapper imports mujoco_py, of which it needs the name of one exception."""
    if "mujoco_py" not in sys.modules and importlib.util.find_spec("mujoco_py") is None:
        module: Any = types.ModuleType("mujoco_py")
        module.builder = types.SimpleNamespace(MujocoException=RuntimeError)
        sys.modules["mujoco_py"] = module


def _wrapper_class() -> Any:
    stand_in_for_mujoco_py()
    logging.disable(logging.WARNING)  # robosuite warns of optional files and robots that nobody asked for
    try:
        importlib.import_module("robosuite")
        _compile_once()
        return importlib.import_module("robomimic.envs.env_robosuite").EnvRobosuite
    except ModuleNotFoundError as error:
        raise InputError(f"got no package {error.name}, wanted the simulator: {INSTALL['robosuite']}") from error
    finally:
        logging.disable(logging.NOTSET)
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)


@functools.lru_cache(maxsize=2)  # the robot, and the newest scene
def _compiled(xml: str) -> Any:
    return mujoco.MjModel.from_xml_string(xml)


def _compile_once() -> None:
    """At every reset robosuite compiles the robot alone, which only its whole-body controller would read, and then the
    scene, which on Can is the same each time: a third of a reset of Lift, four fifths of one of Can."""
    base, binding = (importlib.import_module(f"robosuite.{name}") for name in ("models.base", "utils.binding_utils"))

    def get_model(self: Any, mode: str = "mujoco") -> Any:
        return _compiled(ElementTree.tostring(self.root, encoding="unicode"))

    def from_xml_string(cls: Any, xml: str) -> Any:
        return cls(copy.deepcopy(_compiled(xml)))  # an episode may change its own

    base.MujocoXML.get_model, binding.MjSim.from_xml_string = get_model, classmethod(from_xml_string)


def goal_of(sim: Any, action: np.ndarray) -> np.ndarray:
    """The pose that one delta action asks for in the present state, as the controller computes it.

    action: [7] -> [7]: position in the world (m), axis-angle (rad), the gripper's command. The simulation does not
    advance: the controller takes the action and its goal is read.
    """
    robot = sim.env.robots[0]
    robot.control(np.asarray(action, np.float64), policy_step=True)
    controller = robot.composite_controller.part_controllers["right"]
    position_m, rotation = np.array(controller.goal_pos), np.array(controller.goal_ori)
    if controller.input_ref_frame == "base":
        position_m = controller.origin_pos + controller.origin_ori @ position_m
        rotation = controller.origin_ori @ rotation
    return np.concatenate([position_m, matrix_to_axis_angle(rotation), action[6:]])
