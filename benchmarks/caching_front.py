"""Schedules by evolution, as ECAD and EVO have them: the front of predicted milliseconds against action error.

    python benchmarks/caching_front.py [--tasks avoid ...] [--cost FILE] [--schedules DIR] [--out benchmarks/results]

DDPM-100 on the exact stack. Starts from the other schedulers' schedules at several M (bac and global from the files
beside the checkpoint; --start NAME ... from some alone), evolves on 16 samples, and judges front and others on held-out
ones. A front is at its start's cost no worse than that, where it was fitted; from the start of global it can but equal
or better it. The error is the mean over
samples of each one's RMS, as for global. Writes caching-front-TASK.json and .png; with --schedules the front as files
that `cache: {schedule: FILE}` takes.

Legend: b blocks, K steps, C schedules, M refreshes a block.
"""

import argparse
import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ontick import __version__
from ontick.accel.caching import CacheSchedule, sampler_of
from ontick.accel.caching.costs import CostModel
from ontick.accel.caching.evaluator import ActionError
from ontick.accel.caching.evolution import Front, evolve
from ontick.accel.caching.schedulers import UNCALIBRATED
from ontick.accel.fingerprint import fingerprint
from ontick.benchmarks.caching_predictors import (
    CARDS,
    HELD_OUT,
    LOOKED,
    OUT,
    UNLOOKED,
    Subject,
    compared,
    rounded,
    subject_of,
)
from ontick.benchmarks.caching_predictors import write as write_rows
from ontick.benchmarks.cost_model import measure_costs
from ontick.benchmarks.picture import OUR_COLOUR, pyplot
from ontick.diffusion import Program
from ontick.errors import InputError

DEFAULT = ("avoid", "pick-place")
SAMPLER = "ddpm-100"
CALIBRATED = 16
BUDGETS = (3, 5, 7, 10, 14, 20)
GENERATIONS, POPULATION = 24, 24


class MeanError:
    """What `evolve` minimises, [C, b, K] -> [C]. The RMS over all samples is ruled by the few that a small change turns
    to another mode."""

    def __init__(self, error: ActionError) -> None:
        self.per_sample, self.blocks, self.steps = error.per_sample, error.blocks, error.steps

    def __call__(self, candidates: np.ndarray) -> np.ndarray:
        return self.per_sample(candidates).mean(1)


def error_of(subject: Subject, program: Program, held_out: bool) -> ActionError:
    obs = subject.held_out if held_out else subject.calibration
    seeds = subject.seeds if held_out else torch.arange(len(obs))
    return ActionError(program, obs, seeds, rows=subject.rows, lanes=256)


def others(subject: Subject, program: Program, budgets: Sequence[int] = BUDGETS) -> dict[str, np.ndarray]:
    """name-M -> [b, K]: those that look at nothing, and those that are there."""
    blocks, steps = len(program.denoiser.blocks()), program.grid.steps
    found = {}
    for M in budgets:
        for name in UNLOOKED:
            found[f"{name}-{M}"] = UNCALIBRATED[name](blocks, steps, M)
        for name in LOOKED:
            refresh = subject.schedule(f"{name}-{M}", program)
            if refresh is not None:
                found[f"{name}-{M}"] = refresh
    return found


def cost_of(subject: Subject, program: Program, path: Path | None) -> CostModel:
    """Measured here, or read: a cost model, or a schedule that was made with one. Raises InputError."""
    if path is None:
        plan = dataclasses.replace(program.plan, backend="best")
        obs = subject.calibration[:1]
        return measure_costs(subject.checkpoint.network, plan, obs)
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--cost {path} cannot be read: {' '.join(str(error).split())}") from None
    found = data.get("about", {}).get("cost_model", data) if isinstance(data, dict) else data
    return CostModel.from_dict(found)


def document_of(
    subject: Subject, program: Program, cost: CostModel, front: Front, seeds: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Front and others on the held-out samples; `against`: each other with what the front has at its cost."""
    kinds = [block.kind for block in program.denoiser.blocks()]
    names = [*(f"front-{i}" for i in range(len(front.ms))), *seeds]
    schedules = np.concatenate([front.refresh, np.stack(list(seeds.values()))])
    samples = error_of(subject, program, held_out=True).per_sample(schedules)
    ms = cost(schedules, kinds)
    rows = [
        {
            "schedule": name,
            "predicted_ms": float(ms[i]),
            "refreshes": float(schedules[i].sum(1).mean()),
            "active_steps": int(schedules[i].any(0).sum()),
            "mean": float(samples[i].mean()),
            "rms": float((samples[i] ** 2).mean() ** 0.5),
            "median": float(np.median(samples[i])),
        }
        for i, name in enumerate(names)
    ]
    for i, row in enumerate(rows[: len(front.ms)]):
        row["fitted"] = float(front.error[i])
    against = []
    for i, name in enumerate(names[len(front.ms) :], len(front.ms)):
        affordable = np.flatnonzero(front.ms <= ms[i] + 1e-9)
        if not len(affordable):
            continue
        place = int(affordable[-1])
        told = compared(samples[place], samples[i])
        against.append({"other": name, "front": names[place], "other_mean": float(samples[i].mean()), **told})
    return {
        "task": subject.name,
        "version": __version__,
        "network": fingerprint(subject.checkpoint.network),
        "calibrated_on": len(subject.calibration),
        "held_out": len(subject.held_out),
        "cost_model": cost.to_dict(),
        "rows": rows,
        "against": against,
    }


def save_front(subject: Subject, program: Program, front: Front, folder: Path, card: str) -> None:
    """front-TASK-I.json each, cheapest first."""
    names = tuple(block.name for block in program.denoiser.blocks())
    network = fingerprint(subject.checkpoint.network)
    for i, refresh in enumerate(front.refresh):
        about = {"scheduler": "evolution", "predicted_ms": float(front.ms[i]), "fitted_error": float(front.error[i])}
        sampler = sampler_of(program.plan)
        schedule = CacheSchedule(refresh=refresh, blocks=names, sampler=sampler, network=network, about=about)
        schedule.save(folder / f"front-{card}-{i}.json")


def draw(document: dict[str, Any], path: Path) -> None:
    """Held-out error over predicted milliseconds, a line a scheduler."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7, 4.6))
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for row in document["rows"]:
        name, _, M = row["schedule"].rpartition("-")
        lines.setdefault(name, []).append((row["predicted_ms"], row["mean"], M))
    markers = {"front": "o", "uniform-last": "x", "power": "s", "bac": "^", "global": "D"}
    colours = {"front": OUR_COLOUR, "uniform-last": "#9aa5b1", "power": "#e0a030", "bac": "#d1495b", "global": "black"}
    for name, points in lines.items():
        points = sorted(points)
        x, y = [p[0] for p in points], [p[1] for p in points]
        style = "-" if name == "front" else ":"
        axis.plot(x, y, style, marker=markers[name], color=colours[name], markersize=5, label=name)
        for ms, error, M in points if name != "front" else []:
            axis.annotate(M, (ms, error), fontsize=7, xytext=(3, 3), textcoords="offset points")
    told = f"{document['task']}: {document['held_out']} held-out samples, evolved on {document['calibrated_on']}"
    axis.set_title(told, loc="left", fontsize=10)
    axis.set(yscale="log", xlabel="predicted milliseconds of a chunk", ylabel="action error, mean over samples")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def tell(document: dict[str, Any]) -> None:
    print(f"\n{document['task']}")
    for row in document["rows"]:
        fitted = f", {row['fitted']:.4f} where fitted" if "fitted" in row else ""
        at = f"{row['schedule']:16s} {row['predicted_ms']:6.2f} ms, {row['refreshes']:.1f} refreshes"
        print(f"  {at}: mean {row['mean']:.4f}, RMS {row['rms']:.4f}, median {row['median']:.4f}{fitted}")
    for row in document["against"]:
        low, high = row["interval"]
        at = f"{row['front']} against {row['other']} ({row['other_mean']:.4f})"
        print(f"  {at}: {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}] {row['verdict']}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=CARDS, default=list(DEFAULT))
    parser.add_argument("--cost", type=Path, metavar="FILE", help="a cost model, or a schedule made with one")
    parser.add_argument("--start", nargs="+", choices=(*UNLOOKED, *LOOKED), default=[*UNLOOKED, *LOOKED])
    parser.add_argument("--schedules", type=Path, metavar="DIR", help="where the front's schedules are written")
    parser.add_argument("--samples", type=int, default=HELD_OUT, metavar="N", help=f"held out (default: {HELD_OUT})")
    parser.add_argument("--generations", type=int, default=GENERATIONS)
    parser.add_argument("--population", type=int, default=POPULATION)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)  # simulators' start-up chatter
    for card in options.tasks:
        subject = subject_of(card, options.samples, CALIBRATED)
        program = subject.program(SAMPLER)
        cost, seeds = cost_of(subject, program, options.cost), others(subject, program)
        kinds = [block.kind for block in program.denoiser.blocks()]
        error: Any = MeanError(error_of(subject, program, held_out=False))
        size = options.generations, options.population, options.seed
        start = [refresh for name, refresh in seeds.items() if name.rpartition("-")[0] in options.start]
        front = evolve(error, cost, kinds, start, *size)
        document = document_of(subject, program, cost, front, seeds)
        path = options.out / f"caching-front-{card}.json"
        write_rows(document, path)
        draw(rounded(document), path.with_suffix(".png"))
        tell(rounded(document))
        if options.schedules is not None:
            save_front(subject, program, front, options.schedules, card)


if __name__ == "__main__":
    main()
