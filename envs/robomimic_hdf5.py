"""robomimic's HDF5: `data/demo_i/{obs/flat, actions, rewards, dones}`, read by its own `SequenceDataset`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import whole
from .demonstrations import Demonstrations

OBSERVATION_KEY = "flat"
GYM_TYPE = 2  # robomimic's EnvType.GYM_TYPE
VALID_EVERY = 10  # one episode in ten goes to mask/valid


def write_robomimic(path: str | Path, demonstrations: Demonstrations) -> None:
    """Write the file under a temporary name first. The attribute `complete` comes last."""
    import h5py

    attributes = demonstrations.attributes
    names = [f"demo_{i}" for i in range(len(demonstrations))]
    with whole(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        data = file.create_group("data")
        for i, name in enumerate(names):
            _put_episode(data.create_group(name), demonstrations, i)
        data.attrs["total"] = int(demonstrations.episode_ends[-1])
        data.attrs["env_args"] = json.dumps(
            {
                "env_name": attributes.get("task", "unknown"),
                "env_version": attributes.get("versions", {}),
                "type": GYM_TYPE,
                "env_kwargs": {},
                "ontick": attributes,
            }
        )
        valid = names[VALID_EVERY - 1 :: VALID_EVERY] or names[-1:]
        train = [name for name in names if name not in set(valid)] or names
        file["mask/train"], file["mask/valid"] = np.array(train, "S"), np.array(valid, "S")
        data.attrs["complete"] = True


def read_robomimic(path: str | Path, key: str = OBSERVATION_KEY) -> Demonstrations:
    """Read and check such a file. Files of others are read too, if they have the observation `key`.

    Raises InputError for what is missing, half written or inconsistent.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"got no file {path}, wanted robomimic demonstrations: make them with `ontick demos`")
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path, key)
    except OSError as error:
        raise InputError(f"got {path}, which is no whole HDF5 file ({error}): delete it and collect again") from error


def _read(file: Any, path: Path, key: str) -> Demonstrations:
    if "data" not in file or len(file["data"]) == 0:
        raise InputError(f"got {path} without data/demo_0, wanted robomimic demonstrations")
    data = file["data"]
    try:
        attributes = json.loads(data.attrs.get("env_args", "{}")).get("ontick", {})
        names = sorted(data, key=lambda name: int(name.rpartition("_")[2]))
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"got {path}, with damaged env_args or episode names ({error}): collect it again") from error
    if attributes and not data.attrs.get("complete", False):
        raise InputError(f"got {path}, which was not written to its end: delete it and run `ontick demos` again")
    for name in names:
        if f"obs/{key}" not in data[name] or "actions" not in data[name]:
            raise InputError(f"got {path} without obs/{key} or actions in {name}, wanted both in every episode")
    observations = [np.asarray(data[name][f"obs/{key}"], np.float32) for name in names]
    actions = [np.asarray(data[name]["actions"], np.float32) for name in names]
    ends = np.cumsum([len(rows) for rows in actions], dtype=np.int64)
    if any(len(o) != len(a) for o, a in zip(observations, actions, strict=True)):
        raise InputError(f"got {path} with episodes of unequal observations and actions, wanted a pair at each step")
    return Demonstrations(np.concatenate(observations), np.concatenate(actions), ends, attributes)


def _put_episode(group: Any, demonstrations: Demonstrations, index: int) -> None:
    """Rewards are sparse: 1 from the step of success on. Only the last step is `done`."""
    rows = demonstrations.episode(index)
    steps = rows.stop - rows.start
    success_steps = demonstrations.attributes.get("success_steps")
    success = success_steps[index] if success_steps else steps - 1
    group.create_dataset(f"obs/{OBSERVATION_KEY}", data=demonstrations.observations[rows], compression="gzip")
    group.create_dataset("actions", data=demonstrations.actions[rows], compression="gzip")
    group.create_dataset("rewards", data=(np.arange(steps) >= success).astype(np.float64))
    group.create_dataset("dones", data=(np.arange(steps) == steps - 1).astype(np.int64))
    group.attrs["num_samples"] = steps
    seeds = demonstrations.attributes.get("seeds")
    if seeds:
        group.attrs["seed"] = seeds[index]
