"""Train a policy on demonstrations: a diffusion transformer (EMA, published defaults) or robomimic's BC."""

import argparse
import sys
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError

PRESETS = resources.files(__package__.rpartition(".")[0]) / "configs" / "training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="demonstrations: a .zarr folder or a robomimic .hdf5 file")
    parser.add_argument("--out", required=True, help="checkpoint folder to write")
    parser.add_argument("--algorithm", choices=("diffusion", "bc"), default="diffusion", help="bc is robomimic's")
    parser.add_argument("--preset", default="diffusion-policy", help="a name in configs/training or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a preset's setting")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, batches and noise")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch")


def run(options: argparse.Namespace) -> None:
    import torch

    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"--threads is {options.threads}, wanted at least 1")
        torch.set_num_threads(options.threads)
    if options.device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"--device {options.device}: torch sees no GPU here; use --device cpu")
    out = Path(options.out)
    if (out / "config.json").exists():
        raise InputError(f"{out} already holds a checkpoint; choose another --out or remove it")
    settings = load_preset(options.preset, options.set)
    if options.algorithm == "bc":
        _train_bc(options, settings, out)
    else:
        _train_diffusion(options, settings, out)
    print(f"checkpoint: {out}")


def load_preset(name: str, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """{network: {...}, training: {...}} of a preset, with KEY=VALUE overrides; unknown keys raise InputError."""
    from ..policy import TrainingConfig, TransformerConfig

    path = Path(name) if name.endswith((".yaml", ".yml")) else Path(str(PRESETS / f"{name}.yaml"))
    if not path.is_file():
        known = sorted(p.name.removesuffix(".yaml") for p in PRESETS.iterdir())
        raise InputError(f"no training preset {name!r}; known: {', '.join(known)}, or a YAML file")
    settings = yaml.safe_load(path.read_text()) or {}
    known = {
        "network": {f.name for f in fields(TransformerConfig)} - {"action_dim", "observation_dim"},
        "training": {f.name for f in fields(TrainingConfig)} - {"seed"},
    }
    for item in overrides:
        key, equals, value = item.partition("=")
        part = next((p for p, names in known.items() if key in names), None)
        if not equals or part is None:
            names = ", ".join(sorted(known["network"] | known["training"]))
            raise InputError(f"--set {item}: wanted KEY=VALUE with one of {names}")
        settings.setdefault(part, {})[key] = yaml.safe_load(value)
    for part, values in settings.items():
        extra = set(values) - known.get(part, set())
        if extra:
            raise InputError(f"preset {name!r}: unknown {part} settings {', '.join(sorted(extra))}")
    return settings


def _train_diffusion(options: argparse.Namespace, settings: dict[str, dict[str, Any]], out: Path) -> None:
    from tqdm import tqdm

    from ..envs import find_task
    from ..envs.dataset import read_demonstrations
    from ..policy import TrainingConfig, TransformerConfig, save_checkpoint, train

    data = read_demonstrations(options.data)
    task_id = data.attributes["task"]
    try:
        network = TransformerConfig(
            observation_dim=data.observations.shape[1],
            action_dim=data.actions.shape[1],
            **settings.get("network", {}),
        )
        training = TrainingConfig(seed=options.seed, **settings.get("training", {}))
    except TypeError as error:
        raise InputError(f"training settings do not fit: {error}") from None
    state = out.parent / f"{out.name}.state"
    state.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=training.steps, unit="step", smoothing=0.05, file=sys.stderr) as bar:
        recent = [1.0]

        def progress(step: int, loss: float) -> None:
            recent[0] += 0.01 * (loss - recent[0])
            bar.update(step + 1 - bar.n)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{recent[0]:.4f}", refresh=False)

        checkpoint = train(
            data.observations,
            data.actions,
            data.episode_ends,
            network,
            training,
            discrete_dims=find_task(task_id).gripper_dims,
            state_file=state,
            about={"task": task_id, "data": data.attributes, "preset": options.preset},
            device=options.device,
            progress=progress,
        )
    save_checkpoint(out, checkpoint)
    state.unlink(missing_ok=True)
