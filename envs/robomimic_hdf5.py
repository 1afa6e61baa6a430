"""robomimic's HDF5: `data/demo_i/{obs/..., actions, rewards, dones, states}`, masks, `env_args`.

Its own tools read what is written here: `SequenceDataset` the rows, `create_env_from_metadata` the environment. Files
of others are read too: what is observed stands under several keys, a demonstration may be in several masks, and
absolute actions are stored in axis-angle.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import whole
from .columns import OTHER_KEYS, check_numbers, form_of, key_of, side_by_side
from .demonstrations import ROBOSUITE_TYPE, Demonstrations, misfits
from .rotations import narrow_actions, widen_actions
from .tasks import TASKS

OBSERVATION_KEY = "flat"  # where an observation has no parts with names
# The order in which robomimic and Diffusion Policy put low-dimensional keys side by side.
USUAL_KEYS = ("object", *(f"robot{i}_{part}" for i in (0, 1) for part in ("eef_pos", "eef_quat", "gripper_qpos")))
GYM_TYPE = 2  # robomimic's EnvType
AGAIN = "download it or collect it again"
MEND = "mend the file, or leave that episode out with a mask (--filter)"
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
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"got {path}, which is no whole HDF5 file ({error}): {AGAIN}") from error
    with file:
        try:
            return _read(file, path, columns, mask, simulated)
        except (OSError, KeyError, RuntimeError) as error:  # h5py's, for what is damaged inside
            raise InputError(f"got {path}, which is damaged ({error}): {AGAIN}") from error


def is_absolute(env_args: dict[str, Any]) -> bool:
    """Whether the actions of a file are poses: as robosuite tells it up to 1.4, and from 1.5 on."""
    controllers = _controllers(env_args)
    parts = [c["body_parts"] for c in controllers if isinstance(c.get("body_parts"), dict)]
    arms = [*controllers, *(arm for part in parts for arm in part.values() if isinstance(arm, dict))]
    return any(arm.get("control_delta") is False or arm.get("input_type") == "absolute" for arm in arms)


def _controllers(env_args: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that are told: one, or one a robot."""
    kwargs = env_args.get("env_kwargs")
    told = kwargs.get("controller_configs") if isinstance(kwargs, dict) else None
    return [c for c in (told if isinstance(told, list) else [told]) if isinstance(c, dict)]


def _before_1_5(env_args: dict[str, Any]) -> bool:
    """Whether robosuite up to 1.4 recorded it: by its version, or where none is told by the form of its controllers."""
    version = env_args.get("env_version")
    if version:
        return re.match(r"1\.[0-4](\.|$)", str(version)) is not None
    controllers = _controllers(env_args)
    old = any("control_delta" in c for c in controllers)
    return old and not any("body_parts" in c for c in controllers)


def _read(file: Any, path: Path, columns: Sequence[str] | None, mask: str | None, simulated: bool) -> Demonstrations:
    data = file.get("data")
    if not isinstance(data, Mapping) or len(data) == 0:
        raise InputError(f"got {path} without data/demo_0, wanted robomimic demonstrations")
    env_args, ours = _told(data, path)
    names = _episodes(data, path)
    if mask is not None:
        names = _masked(file, path, names, mask)
    for name in names:
        if not isinstance(data.get(name), Mapping):
            raise InputError(f"got {path}, whose {name} is {form_of(data.get(name))}, wanted a group: {MEND}")
    chosen = tuple(columns or _usual_columns(data[names[0]], path))
    parts = [f"obs/{key_of(column)}" for column in chosen]
    _check_parts(data, names, parts, path)
    observations = [side_by_side(chosen, [_rows(data, name, p, path) for p in parts], path) for name in names]
    actions = [_rows(data, name, "actions", path).astype(np.float32, copy=False) for name in names]
    ends = np.cumsum([len(rows) for rows in actions], dtype=np.int64)
    acted = np.concatenate(actions)
    if is_absolute(env_args):
        acted = widen_actions(acted)
    seen = np.concatenate(observations)
    attributes = _about_episodes(ours, names, [f"demo_{i}" for i in range(len(data))])
    attributes |= _about_file(ours, env_args, (seen.shape[-1], acted.shape[-1]))
    if columns is not None or not ours:
        attributes["columns"] = list(chosen)
        attributes.pop("observation_keys", None)
    if mask is not None:
        attributes["mask"] = mask
    states, scenes = _simulated(data, names, path) if simulated else (None, ())
    return Demonstrations(seen, acted, ends, attributes, states, scenes)


def _told(data: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file's account of its environment, and our attributes, which stand in it."""
    try:
        env_args = json.loads(data.attrs.get("env_args", "{}"))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"got {path}, whose env_args are no JSON ({error}): mend them, or {AGAIN}") from error
    if not isinstance(env_args, dict):
        raise InputError(f"got {path}, whose env_args are a {type(env_args).__name__}, wanted an object: mend them")
    ours = env_args.pop("ontick", {})
    wrong = misfits(ours) if isinstance(ours, dict) else {"ontick": "ontick is no object"}
    if wrong:
        raise InputError(f"got {path}, of whose env_args {next(iter(wrong.values()))}: mend it, or {AGAIN}")
    if ours and not np.array_equal(data.attrs.get("complete", False), True):
        raise InputError(f"got {path}, which was not written to its end: delete it and run `ontick demos` again")
    return env_args, ours


def _episodes(data: Any, path: Path) -> list[str]:
    """Names of all episodes, by their numbers."""
    for name in data:
        if not re.fullmatch(r"(.*_)?\d{1,18}", name, re.DOTALL):
            raise InputError(f"got {path} with an episode {name[:40]!r}, wanted demo_0, demo_1 and so on: rename it")
    return sorted(data, key=lambda name: int(name.rpartition("_")[2]))


def _masked(file: Any, path: Path, names: list[str], mask: str) -> list[str]:
    masks = file.get("mask")
    masks = masks if isinstance(masks, Mapping) else {}
    if mask not in masks:
        raise InputError(f"got {path} without mask {mask!r}, wanted one of {', '.join(sorted(masks)) or 'none there'}")
    found: Any = masks.get(mask)
    if len(getattr(found, "shape", None) or ()) != 1 or found.dtype.kind not in "SO":
        raise InputError(f"got {path}, whose mask {mask!r} is {form_of(found)}, wanted names of episodes: leave it out")
    wanted = {name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found[:]}
    kept = [name for name in names if name in wanted]
    if not kept or len(kept) < len(wanted):
        raise InputError(
            f"got {path}, whose mask {mask!r} names {len(wanted)} episodes, of which {len(kept)} are there"
        )
    return kept


def _check_parts(data: Any, names: Sequence[str], parts: Sequence[str], path: Path) -> None:
    """Every part is there in every episode, in numbers, a row at each step and as wide as in the first episode."""
    first: dict[str, list[int]] = {}
    for name in names:
        for part in ("actions", *parts):
            _check_part(data[name], name, part, path)
            shape, steps = list(data[name][part].shape), data[name]["actions"].shape[0]
            wanted = [steps, *first.setdefault(part, shape[1:])]
            if shape != wanted:
                raise InputError(f"got {path}, whose {part} of {name} has the shape {shape}, wanted {wanted}: {MEND}")
            if steps == 0:
                raise InputError(f"got {path}, whose {name} has no steps, wanted at least one: {MEND}")


def _check_part(demo: Any, name: str, part: str, path: Path) -> None:
    found = demo.get(part)
    if found is None:
        held = ", ".join(_observed(demo)) or "nothing"
        fix = MEND if part == "actions" else "name what is observed with --obs-keys"
        raise InputError(f"got {path} without {part} in {name}, wanted it in every episode; obs holds {held}: {fix}")
    axes, fix = ((1, 2, 3), OTHER_KEYS) if part.startswith("obs/") else ((2,), MEND)
    check_numbers(found, f"{path}, whose {part} of {name}", axes, fix)


def _observed(demo: Any) -> list[str]:
    """The keys of an episode's observations."""
    found = demo.get("obs")
    return sorted(found) if isinstance(found, Mapping) else []


def _usual_columns(demo: Any, path: Path) -> list[str]:
    held = _observed(demo)
    if OBSERVATION_KEY in held:
        return [OBSERVATION_KEY]
    usual = [key for key in USUAL_KEYS if key in held]
    if not usual:
        raise InputError(
            f"got {path}, whose obs holds {', '.join(held) or 'nothing'}, none of robomimic's usual keys: name "
            "what is observed with --obs-keys"
        )
    return usual


def _rows(data: Any, name: str, part: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(data[name][part])
    # A damaged chunk, a filter that is not installed, a shape beyond all memory.
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        raise InputError(f"got {path}, whose {part} of {name} cannot be read ({error}): {AGAIN}") from error


def _about_episodes(ours: dict[str, Any], names: Sequence[str], every: Sequence[str]) -> dict[str, Any]:
    """Our attributes, of which those with an entry an episode are for the episodes read alone."""
    told, picks = dict(ours), [every.index(name) for name in names if name in every]
    for key in ("seeds", "success_steps", "modes"):
        if len(told.get(key) or ()) == len(every):
            told[key] = [told[key][i] for i in picks]
    return told


def _about_file(ours: dict[str, Any], env_args: dict[str, Any], widths: tuple[int, int]) -> dict[str, Any]:
    """The simulator that made it. A task is named for files of others too, where their numbers are those of ours.

    From robosuite 1.5 on `object` holds the same numbers in another order, or with another sign: no task of ours.
    """
    about: dict[str, Any] = {}
    if env_args and not (ours and env_args.get("type") == GYM_TYPE):
        about["env_args"] = env_args
    if not ours and env_args.get("type") == ROBOSUITE_TYPE and _before_1_5(env_args):
        for ending in ("", "-abs"):
            task = TASKS.get(f"robosuite/{env_args.get('env_name')}{ending}")
            if task and (task.observation_dim, task.action_dim) == widths:
                about["task"] = task.id
    return about


def _simulated(data: Any, names: Sequence[str], path: Path) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """States [T, Ds] and scenes, where every episode has them."""
    if not all("states" in data[name] and "model_file" in data[name].attrs for name in names):
        return None, ()
    _check_parts(data, names, ["states"], path)
    states = np.concatenate([_rows(data, name, "states", path) for name in names]).astype(np.float64, copy=False)
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
    success_steps, seeds = (attributes.get(name) or () for name in ("success_steps", "seeds"))
    success = success_steps[index] if len(success_steps) == len(demonstrations) else steps - 1
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
    if len(seeds) == len(demonstrations):
        group.attrs["seed"] = seeds[index]
