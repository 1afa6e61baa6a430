"""How far every shipped cache schedule is from the dense chunk, on observations that none was calibrated on.

python benchmarks/caching_errors.py [--samples 96] [--tasks ...]     writes benchmarks/results/caching-errors.json

The samples are of episodes that each policy plays itself, on seeds of neither a calibration nor an evaluation. At
common noise a small change can turn a sample to another of several good ways: such samples rule the RMS over all, so
three numbers stand beside it: the mean and the median of each sample's own RMS, and the share of samples above FLIPPED.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ontick import accel
from ontick.accel.caching import load_schedule, with_schedules
from ontick.accel.caching.evaluator import ActionError
from ontick.commands.observations import played
from ontick.diffusion import load_plan, named_plan
from ontick.files import write_whole
from ontick.policy import Checkpoint, load_checkpoint

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "diffusion-transformer"
OUT = Path(__file__).resolve().parent / "results" / "caching-errors.json"
SEED = 1  # base of the episodes' seeds and of the noise; calibrations take 0
FLIPPED = 0.2
UNCALIBRATED = [f"{name}-{m}" for name in ("uniform", "uniform-last", "power") for m in (5, 10, 20)]


def rows(checkpoint: Checkpoint, folder: Path, samples: int) -> Iterator[dict[str, Any]]:
    """One a schedule, of the sampler that it is for."""
    obs = played(checkpoint, samples, SEED)
    names = [*UNCALIBRATED, *sorted(file.stem for file in (folder / "schedules").glob("*.json"))]
    errors: dict[str, ActionError] = {}
    for name in names:
        sampler = "-".join(name.split("-")[-2:]) if name.split("-")[-2] in ("ddim", "dpmpp") else "ddpm-100"
        if sampler not in errors:
            errors[sampler] = _error(checkpoint, sampler, obs)
        refresh = _refresh(name, folder, errors[sampler])
        each = errors[sampler].per_sample(refresh[None])[0]
        yield {
            "plan": name,
            "refreshes": float(refresh.sum(1).mean()),
            "active_steps": int(refresh.any(0).sum()),
            "rms": float(np.sqrt((each**2).mean())),
            "mean_of_samples": float(each.mean()),
            "median_of_samples": float(np.median(each)),
            "flipped": float((each > FLIPPED).mean()),
            "samples": len(each),
        }


def _error(checkpoint: Checkpoint, sampler: str, obs: torch.Tensor) -> ActionError:
    config = checkpoint.network.config
    plan = load_plan(f"exact-{sampler}")
    from dataclasses import replace

    program = accel.build(
        checkpoint.network, replace(plan, backend="eager"), (config.action_dim,), config.horizon, device="cpu"
    )
    seeds = torch.arange(10**6 * SEED, 10**6 * SEED + len(obs))
    executed = slice(config.n_obs_steps - 1, config.n_obs_steps - 1 + config.n_action_steps)
    return ActionError(program, obs, seeds, rows=executed)


def _refresh(name: str, folder: Path, error: ActionError) -> np.ndarray:
    file = folder / "schedules" / f"{name}.json"
    if file.is_file():
        return load_schedule(file).refresh
    from ontick.accel.caching.schedulers import UNCALIBRATED as MAKERS

    plan = named_plan(name)
    assert plan is not None, "it is in the list above"
    settings = with_schedules(plan, folder).accelerators["cache"]
    return MAKERS[settings["scheduler"]](error.blocks, error.steps, settings["refreshes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--tasks", nargs="+", default=sorted(path.name for path in ASSETS.iterdir()))
    parser.add_argument("--json", default=str(OUT))
    options = parser.parse_args()
    torch.set_num_threads(1)
    document: dict[str, Any] = {"flipped_above": FLIPPED, "tasks": {}}
    for task in options.tasks:
        print(f"\n{task}")
        checkpoint = load_checkpoint(ASSETS / task)
        found = document["tasks"].setdefault(task, [])
        for row in rows(checkpoint, ASSETS / task, options.samples):
            found.append(row)
            print(
                f"{row['plan']:24} refreshes {row['refreshes']:5.1f}  active {row['active_steps']:3}  "
                f"RMS {row['rms']:.4f}  mean {row['mean_of_samples']:.4f}  median {row['median_of_samples']:.4f}  "
                f"flipped {row['flipped']:.0%}",
                flush=True,
            )
        write_whole(options.json, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
