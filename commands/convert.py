"""Turn a checkpoint of another library into one of ours, without running anything that it holds.

A Diffusion Policy checkpoint (.ckpt), a folder of LeRobot's `diffusion` policy (pretrained_model), with cameras or
without, or a robomimic BC checkpoint (.pth). What is not served is told in one line, and nothing is written then.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints import listed, read_json, shown
from ..envs import Task, find_task
from ..errors import InputError
from ..files import check_place

if TYPE_CHECKING:
    from ..envs.robomimic_policy import RobomimicPolicy
    from ..policy import Checkpoint

KINDS = ("stanford", "lerobot", "robomimic")
ENDINGS = {"stanford": ".ckpt", "robomimic": ".pth"}
LIMITS = 1.0  # where grippers end in normalised actions whose normaliser covers -1 to 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a .ckpt or .pth file, or a folder pretrained_model")
    parser.add_argument("target", help="checkpoint folder to write")
    parser.add_argument("--kind", choices=KINDS, help="what the source is (default: found by looking)")
    parser.add_argument("--task", metavar="ID", help="the task it is for, such as robosuite/Lift: tells the gripper")


def run(options: argparse.Namespace) -> None:
    source = _there(Path(options.source))
    target = check_place(options.target, make=False)
    if target.exists():
        raise InputError(f"{target} is already there; choose another place or remove it")
    task = find_task(options.task) if options.task else None
    about, told = _convert(source, options.kind, task, target)
    for line in [*told, f"checkpoint: {target}", f"next: {_next(about, task, target)}"]:
        print(line)


@contextmanager
def in_place(checkpoint: str | None, task_ids: Sequence[str]) -> Iterator[str | None]:
    """A checkpoint of another library as a folder of ours that is there for as long as it is used, and told; ours, and
    what is none, as they are. task_ids: that of the one task it is for tells the gripper."""
    source = Path(checkpoint or "")
    if checkpoint is None or not _exists(source) or _ours(source):
        yield checkpoint
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "converted"
        task = find_task(task_ids[0]) if len(task_ids) == 1 else None
        for line in _convert(source, None, task, target)[1]:
            print(line)
        yield str(target)


def _ours(source: Path) -> bool:
    """A folder that says so, or that is none of LeRobot's, which is refused as ours are."""
    if not source.is_dir():
        return False
    try:
        return "format" in read_json(_policy_folder(source) / "config.json")
    except InputError:
        return True


def _policy_folder(source: Path) -> Path:
    nested = source / "pretrained_model"
    return nested if nested.is_dir() else source


def _exists(source: Path) -> bool:
    try:
        return source.exists()
    except OSError:  # a name that no file can have
        return False


def _there(source: Path) -> Path:
    if not _exists(source):
        raise InputError(f"got no file or folder {source}, wanted a checkpoint")
    return source


def _convert(source: Path, kind: str | None, task: Task | None, target: Path) -> tuple[dict[str, Any], list[str]]:
    """Write the target -> what it says of itself, and lines to print."""
    convert = _convert_folder if _there(source).is_dir() else _convert_file
    return convert(source, kind, task, target)


def _convert_folder(
    source: Path, kind: str | None, task: Task | None, target: Path
) -> tuple[dict[str, Any], list[str]]:
    from ..policy.foreign import from_lerobot

    if kind not in (None, "lerobot"):
        raise InputError(f"{source} is a folder, which {kind} does not write: wanted a {ENDINGS[kind]} file")
    source = _policy_folder(source)
    if not (source / "config.json").is_file():
        raise InputError(
            f"{source} is no checkpoint of LeRobot: wanted its folder pretrained_model, with config.json in it, or a "
            ".ckpt or .pth file"
        )
    if "format" in (config := read_json(source / "config.json")):
        raise InputError(f"{source} is one of ours already (format {shown(config['format'])}): use it as it is")
    return _save_diffusion(from_lerobot(source), task, target)


def _convert_file(source: Path, kind: str | None, task: Task | None, target: Path) -> tuple[dict[str, Any], list[str]]:
    from ..policy.foreign import from_stanford, open_torch_file, tensors

    if kind == "lerobot" or source.suffix == ".safetensors":
        raise InputError(f"{source} is a file, wanted LeRobot's folder pretrained_model, with config.json in it")
    with open_torch_file(source) as contents:
        if (kind or _kind_of(contents, source)) == "stanford":
            return _save_diffusion(from_stanford(contents, source.name), task, target)
        from ..envs.robomimic_checkpoint import from_robomimic

        has_model = isinstance(contents, dict) and "model" in contents
        weights = tensors(contents["model"], f"{source}: model") if has_model else {}
        policy = from_robomimic(contents, weights, source.name)
    return _save_baseline(policy, task, target)


def _kind_of(contents: Any, source: Path) -> str:
    """By what the file's dictionary holds."""
    names = set(contents) if isinstance(contents, dict) else set()
    if {"cfg", "state_dicts"} <= names:
        return "stanford"
    if {"model", "config", "algo_name"} <= names:
        return "robomimic"
    held = listed(sorted(names, key=shown)) or type(contents).__name__
    raise InputError(
        f"{source} is neither of Diffusion Policy (cfg, state_dicts) nor of robomimic (model, config, algo_name): it "
        f"holds {held}"
    )


def _save_diffusion(checkpoint: "Checkpoint", task: Task | None, target: Path) -> tuple[dict[str, Any], list[str]]:
    from ..policy import save_checkpoint

    config, about = checkpoint.network.config, dict(checkpoint.about)
    if task is not None:
        _check_widths(task, config.observation_dim, config.action_dim)
        about |= {"task": task.id, **_grippers(task, str(about["source"]["normaliser"]))}
    save_checkpoint(target, replace(checkpoint, about=about), half=False)
    source = about["source"]
    network: Any = checkpoint.network
    clip = "no clipping" if config.clip is None else f"clipped to {config.clip:g}"
    lines = [
        f"found: {source['policy']} ({source['kind']}), weights of {source['weights']}, as {network.family}",
        f"shape: {config.n_obs_steps} observations of {config.observation_dim}, {config.horizon} actions of "
        f"{config.action_dim}, {config.n_action_steps} executed; {_parameters(network)}",
        f"schedule: {config.schedule}, {config.train_levels} levels, predicts {network.prediction}, {clip}",
        f"normaliser: {source['normaliser']}",
    ]
    return about | {"family": network.family, "widths": (config.observation_dim, config.action_dim)}, lines


def _save_baseline(policy: "RobomimicPolicy", task: Task | None, target: Path) -> tuple[dict[str, Any], list[str]]:
    source = policy.about["source"]
    if task is not None:
        _check_widths(task, policy.observation_dim, policy.action_dim)
        keys = dict(task.observation_keys)
        if keys and list(keys.items()) != list(source["observations"].items()):
            raise InputError(f"{task.id} observes {', '.join(keys)}, the policy {', '.join(source['observations'])}")
        policy.about["task"] = task.id
    policy.save(target, half=False)
    versions = [f"{name} {version}" for name, version in source["versions"].items()]
    keys = ", ".join(f"{key} ({width})" for key, width in source["observations"].items())
    lines = [
        f"found: {source['policy']} (robomimic), weights of {source['weights']}, as {policy.family}",
        f"shape: observations {keys}; {policy.action_dim} actions; {_parameters(policy.network)}",
        f"trained in: {' '.join([str(source['environment']), *versions])}",
        f"normaliser: {source['normaliser']}",
    ]
    return policy.about | {"family": policy.family, "widths": (policy.observation_dim, policy.action_dim)}, lines


def _check_widths(task: Task, observation_dim: int, action_dim: int) -> None:
    if (observation_dim, action_dim) != (task.observation_dim, task.action_dim):
        raise InputError(
            f"{task.id} has {task.observation_dim} observation and {task.action_dim} action numbers, the policy "
            f"{observation_dim} and {action_dim}"
        )


def _grippers(task: Task, normaliser: str) -> dict[str, Any]:
    """Which actions are grippers, and where they end, normalised; none where means and standard deviations were used,
    which tell of no ends."""
    if "action MEAN_STD" in normaliser or normaliser == "linear":
        return {"discrete_dims": []}
    return {"discrete_dims": list(task.gripper_dims), "discrete_scale": LIMITS}


def _parameters(network: Any) -> str:
    return f"{sum(value.numel() for value in network.parameters()) / 1e6:.2f} M parameters"


def _next(about: dict[str, Any], task: Task | None, target: Path) -> str:
    plans = about["family"] if str(about["family"]).startswith("robomimic") else "ddpm-100,ddim-10"
    command = f"ontick evaluate --tasks {'TASK' if task is None else task.id} --plans {plans} --checkpoint {target}"
    observations, actions = about["widths"]
    return command if task else f"{command}, with a TASK of {observations} observation and {actions} action numbers"
