"""robomimic's HDF5: `data/demo_i/{obs/..., actions, rewards, dones, states}`, masks, `env_args`.

Its own tools read what is written here: `SequenceDataset` the rows, `create_env_from_metadata` the environment. Files
of others are read too: what is observed stands under several keys, a demonstration may be in several masks, and
absolute actions are stored in axis-angle.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import whole
from .columns import key_of, side_by_side
from .demonstrations import ROBOSUITE_TYPE, Demonstrations
from .rotations import narrow_actions, widen_actions
from .tasks import TASKS

OBSERVATION_KEY = "flat"  # where an observation has no parts with names
# The order in which robomimic and Diffusion Policy put low-dimensional keys side by side.
USUAL_KEYS = ("object", *(f"robot{i}_{part}" for i in (0, 1) for part in ("eef_pos", "eef_quat", "gripper_qpos")))
GYM_TYPE = 2  # robomimic's EnvType
VALID_EVERY = 10  # one episode in ten goes to mask/valid


def write_robomimic(path: str | Path, demonstrations: Demonstrations) -> None:
    """Write the file under a temporary name first. The attribute `complete` comes last."""
    import h5py

    names = [f"demo_{i}" for i in range(len(demonstrations))]
    with whole(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        data = file.create_group("data")
        for i, name in enumerate(names):
            _put_episode(data.create_group(name), demonstrations, i)
        data.attrs["total"] = int(demonstrations.episode_ends[-1])
        data.attrs["env_args"] = json.dumps(_env_args(demonstrations.attributes))
        valid = names[VALID_EVERY - 1 :: VALID_EVERY] or names[-1:]
        train = [name for name in names if name not in set(valid)] or names
        file["mask/train"], file["mask/valid"] = np.array(train, "S"), np.array(valid, "S")
        data.attrs["complete"] = True


def read_robomimic(
    path: str | Path, columns: Sequence[str] | None = None, mask: str | None = None, simulated: bool = False
) -> Demonstrations:
    """Read and check such a file.

    columns: what the observation is made of, such as ("object", "robot0_eef_pos"); None: `flat`, or else the usual keys
    that are there. mask: the demonstrations of that one alone, such as "train"; None: all. Absolute actions are given
    with rotation_6d. simulated: with the simulator's states and scenes, where the file keeps them.
    `attributes["env_args"]` is what the file says of a simulator that is not ours.
    Raises InputError for what is missing, half written or inconsistent.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"got no file {path}, wanted robomimic demonstrations: make them with `ontick demos`")
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path, columns, mask, simulated)
    except OSError as error:
        raise InputError(f"got {path}, which is no whole HDF5 file ({error}): delete it and collect again") from error


def is_absolute(env_args: dict[str, Any]) -> bool:
    """Whether the actions of a file are poses: as robosuite tells it up to 1.4, and from 1.5 on."""
    told = env_args.get("env_kwargs", {}).get("controller_configs") or {}
    controllers = told if isinstance(told, list) else [told]
    arms = [arm for c in controllers for arm in (c, *(c.get("body_parts") or {}).values()) if isinstance(arm, dict)]
    return any(arm.get("control_delta") is False or arm.get("input_type") == "absolute" for arm in arms)


def _read(file: Any, path: Path, columns: Sequence[str] | None, mask: str | None, simulated: bool) -> Demonstrations:
    if "data" not in file or len(file["data"]) == 0:
        raise InputError(f"got {path} without data/demo_0, wanted robomimic demonstrations")
    data = file["data"]
    try:
        env_args = json.loads(data.attrs.get("env_args", "{}"))
        ours = env_args.pop("ontick", {})
        names = sorted(data, key=lambda name: int(name.rpartition("_")[2]))
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"got {path}, with damaged env_args or episode names ({error}): collect it again") from error
    if ours and not data.attrs.get("complete", False):
        raise InputError(f"got {path}, which was not written to its end: delete it and run `ontick demos` again")
    if mask is not None:
        names = _masked(file, path, names, mask)
    chosen = tuple(columns or _usual_columns(data[names[0]], path))
    _check_parts(data, names, chosen, path)
    observations = [_observations(data[name], chosen, path) for name in names]
    actions = [np.asarray(data[name]["actions"], np.float32) for name in names]
    ends = np.cumsum([len(rows) for rows in actions], dtype=np.int64)
    if any(len(o) != len(a) for o, a in zip(observations, actions, strict=True)):
        raise InputError(f"got {path} with episodes of unequal observations and actions, wanted a pair at each step")
    acted = np.concatenate(actions)
    if acted.ndim == 2 and is_absolute(env_args):
        acted = widen_actions(acted)
    seen = np.concatenate(observations)
    attributes = _about_episodes(ours, names, [f"demo_{i}" for i in range(len(data))])
    attributes |= _about_file(ours, env_args, (seen.shape[-1], acted.shape[-1]))
    if columns is not None or not ours:
        attributes["columns"] = list(chosen)
        attributes.pop("observation_keys", None)
    if mask is not None:
        attributes["mask"] = mask
    states, scenes = _simulated(data, names) if simulated else (None, ())
    return Demonstrations(seen, acted, ends, attributes, states, scenes)


def _masked(file: Any, path: Path, names: list[str], mask: str) -> list[str]:
    masks = file.get("mask", {})
    if mask not in masks:
        raise InputError(f"got {path} without mask {mask!r}, wanted one of {', '.join(sorted(masks)) or 'none there'}")
    wanted = {name.decode() if isinstance(name, bytes) else str(name) for name in masks[mask][:]}
    kept = [name for name in names if name in wanted]
    if not kept or len(kept) < len(wanted):
        raise InputError(
            f"got {path}, whose mask {mask!r} names {len(wanted)} episodes, of which {len(kept)} are there"
        )
    return kept


def _check_parts(data: Any, names: Sequence[str], columns: Sequence[str], path: Path) -> None:
    for name in names:
        for part in (*(f"obs/{key_of(column)}" for column in columns), "actions"):
            if part not in data[name]:
                held = ", ".join(sorted(data[name]["obs"])) if "obs" in data[name] else "nothing"
                raise InputError(
                    f"got {path} without {part} in {name}, wanted it in every episode; obs holds {held}: name what is "
                    "observed with --obs-keys"
                )


def _usual_columns(demo: Any, path: Path) -> list[str]:
    held = list(demo["obs"]) if "obs" in demo else []
    if OBSERVATION_KEY in held:
        return [OBSERVATION_KEY]
    usual = [key for key in USUAL_KEYS if key in held]
    if not usual:
        raise InputError(
            f"got {path}, whose obs holds {', '.join(sorted(held)) or 'nothing'}, none of robomimic's usual keys: name "
            "what is observed with --obs-keys"
        )
    return usual


def _observations(demo: Any, columns: Sequence[str], path: Path) -> np.ndarray:
    return side_by_side(columns, [np.asarray(demo[f"obs/{key_of(column)}"]) for column in columns], path)


def _about_episodes(ours: dict[str, Any], names: Sequence[str], every: Sequence[str]) -> dict[str, Any]:
    """Our attributes, of which those with an entry an episode are for the episodes read alone."""
    told, picks = dict(ours), [every.index(name) for name in names if name in every]
    for key in ("seeds", "success_steps", "modes"):
        if len(told.get(key, ())) == len(every):
            told[key] = [told[key][i] for i in picks]
    return told


def _about_file(ours: dict[str, Any], env_args: dict[str, Any], widths: tuple[int, int]) -> dict[str, Any]:
    """The simulator that made it. A task is named for files of others too, where their numbers are those of ours.

    From robosuite 1.5 on `object` holds the same numbers in another order, or with another sign: no task of ours.
    """
    about: dict[str, Any] = {}
    if env_args and not (ours and env_args.get("type") == GYM_TYPE):
        about["env_args"] = env_args
    alike = re.match(r"1\.[0-4]\.", str(env_args.get("env_version"))) and env_args.get("type") == ROBOSUITE_TYPE
    if not ours and alike:
        for ending in ("", "-abs"):
            task = TASKS.get(f"robosuite/{env_args.get('env_name')}{ending}")
            if task and (task.observation_dim, task.action_dim) == widths:
                about["task"] = task.id
    return about


def _simulated(data: Any, names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """States [T, Ds] and scenes, where every episode has them."""
    if not all("states" in data[name] and "model_file" in data[name].attrs for name in names):
        return None, ()
    states = np.concatenate([np.asarray(data[name]["states"], np.float64) for name in names])
    return states, tuple(str(data[name].attrs["model_file"]) for name in names)


def _env_args(attributes: dict[str, Any]) -> dict[str, Any]:
    """robomimic's account of the environment, with ours beside it."""
    gym = {
        "env_name": attributes.get("task", "unknown"),
        "env_version": attributes.get("versions", {}),
        "type": GYM_TYPE,
        "env_kwargs": {},
    }
    ours = {key: value for key, value in attributes.items() if key != "env_args"}
    return {**attributes.get("env_args", gym), "ontick": ours}


def _put_episode(group: Any, demonstrations: Demonstrations, index: int) -> None:
    """Rewards are sparse: 1 from the step of success on. Only the last step is `done`."""
    attributes, rows = demonstrations.attributes, demonstrations.episode(index)
    steps = rows.stop - rows.start
    success_steps = attributes.get("success_steps")
    success = success_steps[index] if success_steps else steps - 1
    first = 0
    for key, width in attributes.get("observation_keys") or [(OBSERVATION_KEY, demonstrations.observations.shape[1])]:
        part = demonstrations.observations[rows, first : first + width]
        group.create_dataset(f"obs/{key}", data=part, compression="gzip")
        first += width
    actions = demonstrations.actions[rows]
    if is_absolute(attributes.get("env_args", {})):
        actions = narrow_actions(actions)
    group.create_dataset("actions", data=actions, compression="gzip")
    group.create_dataset("rewards", data=(np.arange(steps) >= success).astype(np.float64))
    group.create_dataset("dones", data=(np.arange(steps) == steps - 1).astype(np.int64))
    group.attrs["num_samples"] = steps
    if demonstrations.states is not None:
        group.create_dataset("states", data=demonstrations.states[rows], compression="gzip")
    if demonstrations.scenes:
        group.attrs["model_file"] = demonstrations.scenes[index]
    seeds = attributes.get("seeds")
    if seeds:
        group.attrs["seed"] = seeds[index]
