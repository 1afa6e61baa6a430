"""robosuite demonstrations with delta actions, turned into ones with absolute actions.

The field's way: each state of the file is entered again, the controller is given the recorded action for one step of
the policy, and its goal is the absolute action. It is stored in 7 numbers (position in the world, axis-angle, gripper)
and learnt in 10 (`rotations.widen_actions`).

    absolute_actions("lift.hdf5", "lift-abs.hdf5")      # then: ontick train --data lift-abs.hdf5
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_place, whole
from .robomimic_hdf5 import is_absolute
from .robosuite_wrapper import check_env_args, goal_of, wrapped


def absolute_actions(source: str | Path, target: str | Path) -> None:
    """Write a copy of a robomimic file with absolute actions, whole or not at all; all else stays as it is.

    Raises InputError for a file that is absolute already, that keeps no states, or that another version of robosuite
    recorded.
    """
    import h5py

    source, target = Path(source), check_place(target)
    if not source.is_file():
        raise InputError(f"got no file {source}, wanted robomimic demonstrations: make them with `ontick demos`")
    if target.exists():
        raise InputError(f"{target} is already there; choose another place or remove it")
    with whole(target) as temporary:
        shutil.copyfile(source, temporary)
        try:
            with h5py.File(temporary, "r+") as file:
                _convert(file["data"], source)
        except (OSError, KeyError) as error:
            raise InputError(f"got {source}, which is no whole robomimic file ({error}): collect it again") from error


def goals(sim: Any, scene: str, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The poses that an episode's delta actions ask for: states [t, Ds], actions [t, 7] -> [t, 7]."""
    sim.reset_to({"model": scene, "states": states[0]})
    found = []
    for state, action in zip(states, actions, strict=True):
        sim.reset_to({"states": state})
        found.append(goal_of(sim, action))
    return np.stack(found)


def made_absolute(env_args: dict[str, Any]) -> dict[str, Any]:
    """The `env_args` of the same environment, commanded by poses in the world."""
    args = json.loads(json.dumps(env_args))
    controller = args["env_kwargs"]["controller_configs"]
    if "body_parts" in controller:
        for arm in controller["body_parts"].values():
            arm |= {"input_type": "absolute", "input_ref_frame": "world"}
    else:
        controller["control_delta"] = False
    if "task" in args.get("ontick", {}):
        args["ontick"]["task"] += "-abs"
    return args


def _convert(data: Any, source: Path) -> None:
    env_args = json.loads(data.attrs.get("env_args", "{}"))
    check_env_args(env_args, source)
    if is_absolute(env_args):
        raise InputError(f"got {source}, whose actions are absolute already: train on it as it is")
    for name in data:
        if "states" not in data[name] or "model_file" not in data[name].attrs:
            raise InputError(f"got {source} without the states or the scene of {name}, wanted both in every episode")
    sim = wrapped(env_args)
    try:
        for name in data:
            demo = data[name]
            demo["actions"][...] = goals(sim, demo.attrs["model_file"], demo["states"][:], demo["actions"][:])
    finally:
        sim.env.close()
    data.attrs["env_args"] = json.dumps(made_absolute(env_args))
