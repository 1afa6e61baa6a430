"""How far every shipped cache schedule is from the dense chunk, on observations that none was calibrated on.

python benchmarks/caching_errors.py [--samples 96] [--tasks ...]     writes benchmarks/results/caching-errors-cpu.json
python benchmarks/caching_errors.py --time                           adds the time of a chunk; on a quiet machine

The samples are of episodes that each policy plays itself, on seeds of neither a calibration nor an evaluation. At
common noise a small change can turn a sample to another of several good ways: such samples rule the RMS over all, so
three numbers stand beside it: the mean and the median of each sample's own RMS, and the share of samples above FLIPPED.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ontick import accel
from ontick.accel.caching import schedule_from, schedulers, with_schedules
from ontick.accel.caching.evaluator import ActionError
from ontick.benchmarks.contestants import Contestant, Ours
from ontick.benchmarks.policy import interleaved
from ontick.commands.observations import played
from ontick.commands.progress import progress_bar
from ontick.diffusion import load_plan
from ontick.files import write_whole
from ontick.policy import Checkpoint, load_checkpoint

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "diffusion-transformer"
OUT = Path(__file__).resolve().parent / "results" / "caching-errors-cpu.json"
SEED = 1  # base of the episodes' seeds and of the noise; calibrations take 0
FLIPPED, CHUNKS = 0.2, 30
UNCALIBRATED = [f"{name}-{m}" for name in ("uniform", "uniform-last", "power") for m in (5, 10, 20)]


def rows(checkpoint: Checkpoint, folder: Path, samples: int) -> Iterator[dict[str, Any]]:
    """One a schedule of DDPM-100."""
    error = _error(checkpoint, played(checkpoint, samples, SEED))
    for name in names_of(folder):
        refresh = _refresh(name, folder, error)
        each = error.per_sample(refresh[None])[0]
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


def names_of(folder: Path) -> list[str]:
    """Uncalibrated plans, and those whose schedules lie in a checkpoint's folder."""
    calibrated = [file.stem for file in (folder / "schedules").glob("*.json") if file.stem.count("-") == 1]
    return [*UNCALIBRATED, *sorted(calibrated, key=lambda name: (name.split("-")[0], int(name.split("-")[1])))]


def times_ms(checkpoint: Checkpoint, folder: Path) -> dict[str, float]:
    """p50 of a chunk of each plan at batch 1, one thread, taken in turn; needs a quiet machine."""
    device = torch.device("cpu")
    plans = {name: with_schedules(load_plan(name), folder) for name in ("exact", *names_of(folder))}
    contestants: list[Contestant] = [Ours(name, plan, checkpoint.network, device) for name, plan in plans.items()]
    obs = list(played(checkpoint, 8, SEED)[:, None])
    with torch.inference_mode(), progress_bar(CHUNKS + 1, "timing", "round") as bar:
        times = interleaved(contestants, obs, device, CHUNKS, bar.update)
    return {name: float(np.median(seconds) * 1e3) for name, seconds in times.items()}


def _error(checkpoint: Checkpoint, obs: torch.Tensor) -> ActionError:
    config = checkpoint.network.config
    plan = dataclasses.replace(load_plan("exact"), backend="eager")
    program = accel.build(checkpoint.network, plan, (config.action_dim,), config.horizon, device="cpu")
    seeds = torch.arange(10**6 * SEED, 10**6 * SEED + len(obs))
    executed = slice(config.n_obs_steps - 1, config.n_obs_steps - 1 + config.n_action_steps)
    return ActionError(program, obs, seeds, rows=executed)


def _refresh(name: str, folder: Path, error: ActionError) -> np.ndarray:
    settings = with_schedules(load_plan(name), folder).accelerators["cache"]
    if "schedule" in settings:
        return schedule_from(settings["schedule"]).refresh
    return schedulers.UNCALIBRATED[settings["scheduler"]](error.blocks, error.steps, settings["refreshes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--tasks", nargs="+", default=sorted(path.name for path in ASSETS.iterdir()))
    parser.add_argument("--json", default=str(OUT))
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    document: dict[str, Any] = {"flipped_above": FLIPPED, "tasks": {}}
    if options.time and Path(options.json).is_file():
        document = json.loads(Path(options.json).read_text())
    for task in options.tasks:
        print(f"\n{task}")
        checkpoint = load_checkpoint(ASSETS / task)
        if options.time:
            _add_times(document, task, times_ms(checkpoint, ASSETS / task))
        else:
            document["tasks"][task] = {"rows": []}
            for row in rows(checkpoint, ASSETS / task, options.samples):
                document["tasks"][task]["rows"].append(row)
                _tell(row)
        write_whole(options.json, json.dumps(document, indent=1) + "\n")


def _add_times(document: dict[str, Any], task: str, times: dict[str, float]) -> None:
    found = document["tasks"].setdefault(task, {"rows": []})
    found["exact_ms"] = times["exact"]
    for row in found["rows"]:
        row["p50_ms"] = times[row["plan"]]
        _tell(row)


def _tell(row: dict[str, Any]) -> None:
    print(
        f"{row['plan']:18} {row.get('p50_ms', 0):6.2f} ms  refreshes {row['refreshes']:5.1f}  "
        f"active {row['active_steps']:3}  RMS {row['rms']:.4f}  mean {row['mean_of_samples']:.4f}  "
        f"median {row['median_of_samples']:.4f}  flipped {row['flipped']:.0%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
