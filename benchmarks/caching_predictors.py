"""What stands for a branch that is not computed: how near each predictor brings the actions to the dense chunk's.

    python benchmarks/caching_predictors.py [--tasks avoid ...] [--samples N] [--out benchmarks/results]

Executed actions at common noise on held-out episodes, for DDPM-100, DDIM-50 and DDIM-20 on the exact stack, eager, with
schedules that look at nothing and with those beside the checkpoint. Writes caching-predictors-TASK.json and .png.

    affine         tables fitted on 16 samples along the cached trajectory; affine-4, affine-64: on as many
    affine-dense   on 16 along the dense one

Legend: n samples, b blocks, K steps, M refreshes a block.
"""

import argparse
import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ontick import __version__, accel
from ontick.accel.caching import cached, load_schedule
from ontick.accel.caching.affine import Affine, fit_affine
from ontick.accel.caching.cached import FOLDER
from ontick.accel.caching.predictors import AFFINE, PREDICTORS
from ontick.accel.caching.schedule import check_fits
from ontick.accel.caching.schedulers import UNCALIBRATED
from ontick.accel.fingerprint import fingerprint
from ontick.benchmarks.picture import FLOOR_COLOUR, OUR_COLOUR, PEER_COLOUR, pyplot
from ontick.commands.families import checkpoint_for, parse_candidate
from ontick.commands.observations import played
from ontick.diffusion import Program, load_plan, run_chunk
from ontick.files import write_whole
from ontick.policy import Checkpoint, load_checkpoint
from ontick.runtime import WallClock

CARDS = {
    "avoid": "ontick/Avoid-v0",
    "pick-place": "metaworld/pick-place-v3",
    "peg-insert-side": "metaworld/peg-insert-side-v3",
    "drawer-open": "metaworld/drawer-open-v3",
}
DEFAULT = ("avoid", "pick-place", "peg-insert-side")  # the published shape takes long
OUT = Path(__file__).resolve().parent / "results"
CALIBRATED, HELD_OUT = 64, 96
SAMPLERS = {"ddpm-100": 10, "ddim-50": 10, "ddim-20": 5}  # and M
UNLOOKED, LOOKED = ("uniform-last", "power"), ("bac", "global")
FITS = {AFFINE: (16, "cached"), "affine-4": (4, "cached"), "affine-64": (64, "cached"), "affine-dense": (16, "dense")}
TIMED = 31  # chunks of each; the median counts


@dataclass(frozen=True)
class Subject:
    """A shipped policy and what it is shown. calibration, held_out: [n, To, Do] normalised, of different episodes; the
    i-th of all is drawn with noise seed i; rows: those that are executed; folder: of the schedules beside it."""

    name: str
    checkpoint: Checkpoint
    folder: Path
    calibration: Tensor
    held_out: Tensor

    @property
    def rows(self) -> slice:
        config = self.checkpoint.network.config
        return slice(config.n_obs_steps - 1, config.n_obs_steps - 1 + config.n_action_steps)

    @property
    def seeds(self) -> Tensor:
        return torch.arange(len(self.calibration), len(self.calibration) + len(self.held_out))

    def program(self, sampler: str) -> Program:
        """The dense chunk, eager, on the exact stack."""
        config = self.checkpoint.network.config
        plan = dataclasses.replace(load_plan(f"exact-{sampler}"), backend="eager")
        return accel.build(self.checkpoint.network, plan, (config.action_dim,), config.horizon, device="cpu")

    def schedule(self, name: str, program: Program) -> np.ndarray | None:
        """[b, K] of a schedule beside the checkpoint; None where there is none. Raises InputError for another's."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        schedule = load_schedule(path)
        blocks = [block.name for block in program.denoiser.blocks()]
        network = fingerprint(self.checkpoint.network)
        check_fits(schedule, blocks, program.plan, program.grid.steps, network, str(path))
        return schedule.refresh


def subject_of(card: str, samples: int, calibrated: int = CALIBRATED) -> Subject:
    """A task's shipped checkpoint, and episodes that it plays."""
    folder = checkpoint_for(CARDS[card], parse_candidate("exact"), None)
    checkpoint = load_checkpoint(folder, "cpu")
    obs = played(checkpoint, calibrated + samples, 0)
    return Subject(CARDS[card], checkpoint, folder / FOLDER, obs[:calibrated], obs[calibrated:])


def document_of(subject: Subject, samplers: Mapping[str, int]) -> dict[str, Any]:
    """Rows of every sampler, schedule and predictor, as JSON."""
    rows, times = [], []
    for sampler, M in samplers.items():
        program = subject.program(sampler)
        for name, refresh in schedules(subject, program, sampler, M).items():
            of = {"sampler": sampler, "schedule": name, "refreshes": float(refresh.sum(1).mean())}
            tables = fits(subject, program, refresh)
            rows += [{**of, **row} for row in judged(subject, program, refresh, tables)]
            if sampler == "ddpm-100":
                times.append({**of, **timed(subject, program, refresh, tables[AFFINE])})
    return {
        "task": subject.name,
        "version": __version__,
        "network": fingerprint(subject.checkpoint.network),
        "held_out": len(subject.held_out),
        "rows": rows,
        "ms": times,
    }


def schedules(subject: Subject, program: Program, sampler: str, M: int) -> dict[str, np.ndarray]:
    """Names -> [b, K]: those that look at nothing, and those that are there."""
    blocks, steps = len(program.denoiser.blocks()), program.grid.steps
    found = {f"{name}-{M}": UNCALIBRATED[name](blocks, steps, M) for name in UNLOOKED}
    for name in LOOKED:
        file = f"{name}-{M}" if sampler == "ddpm-100" else f"{name}-{M}-{sampler}"
        refresh = subject.schedule(file, program)
        if refresh is not None:
            found[f"{name}-{M}"] = refresh
    return found


def fits(subject: Subject, program: Program, refresh: np.ndarray) -> dict[str, Affine]:
    """Tables by the names of FITS; of fewer samples where there are no more."""
    found = {}
    for name, (count, along) in FITS.items():
        obs = subject.calibration[:count]
        found[name] = fit_affine(program, refresh, obs, torch.arange(len(obs)), along=along)
    return found


def judged(
    subject: Subject, program: Program, refresh: np.ndarray, tables: Mapping[str, Affine]
) -> list[dict[str, Any]]:
    """A row a predictor: RMS over all samples, of the median one, and against plain reuse, sample by sample."""
    dense = actions(subject, program)
    names = [*(name for name in PREDICTORS if name != AFFINE), *FITS]
    errors = {}
    for name in names:
        affine = tables.get(name)
        program_of = cached(program, refresh, name if affine is None else AFFINE, affine)
        errors[name] = ((actions(subject, program_of) - dense) ** 2).mean((1, 2)) ** 0.5
    rows = []
    for name, error in errors.items():
        row = {"predictor": name, "rms": float((error**2).mean() ** 0.5), "median": float(np.median(error))}
        rows.append({**row, **({} if name == "reuse" else compared(error, errors["reuse"]))})
    return rows


def actions(subject: Subject, program: Program) -> np.ndarray:
    """[n, rows, D] of the held-out samples, all at once."""
    with torch.inference_mode():
        context, seeds = program.prepare(subject.held_out), subject.seeds
        return run_chunk(program, context, seeds, torch.zeros_like(seeds))[:, subject.rows].double().numpy()


def compared(error: np.ndarray, reuse: np.ndarray, resamples: int = 10_000) -> dict[str, Any]:
    """Errors of samples [n] less those with reuse: the mean, its bootstrap 95 % interval, the share that is nearer."""
    difference = error - reuse
    drawn = np.random.default_rng(0).integers(len(difference), size=(resamples, len(difference)))
    low, high = np.quantile(difference[drawn].mean(1), (0.025, 0.975))
    verdict = "helps" if high < 0 else "hurts" if low > 0 else "open"
    told = {"difference": float(difference.mean()), "interval": [float(low), float(high)]}
    return {**told, "nearer": float((difference < 0).mean()), "verdict": verdict}


def timed(subject: Subject, program: Program, refresh: np.ndarray, tables: Affine) -> dict[str, float]:
    """Median milliseconds of a chunk at batch 1 on the best backend here, with and without the tables, in turn."""
    plan = dataclasses.replace(program.plan, backend="best")
    programs = {
        name: accel.backends.backend_for(dataclasses.replace(of, plan=plan), accel.Use())
        for name, of in (("reuse", cached(program, refresh)), (AFFINE, cached(program, refresh, AFFINE, tables)))
    }
    clock, seed = WallClock(), torch.zeros(1, dtype=torch.int64)
    took: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(TIMED + 1):
        for name, timed_program in programs.items():
            start = clock.now()
            with torch.inference_mode():
                run_chunk(timed_program, timed_program.prepare(subject.held_out[:1]), seed, seed)
            took[name].append(clock.now() - start)
    return {name: float(np.median(seconds[1:]) * 1e3) for name, seconds in took.items()}


# -- what is told ------------------------------------------------------------------------------------------------------


def draw(document: dict[str, Any], path: Path) -> None:
    """A panel a sampler: held-out RMS of every predictor, grouped by schedule; a dot is the median sample."""
    plt = pyplot()
    names = [name for name in (*PREDICTORS, "affine-dense") if name != "reuse"]
    colours = ["#f3c178", "#e0a030", "#e58f97", FLOOR_COLOUR, OUR_COLOUR, "#9dbcf2"]
    colour = {"reuse": PEER_COLOUR, **dict(zip(names, colours, strict=True))}
    samplers = list(dict.fromkeys(row["sampler"] for row in document["rows"]))
    figure, axes = plt.subplots(1, len(samplers), figsize=(5.2 * len(samplers), 4.4), sharey=True, squeeze=False)
    for axis, sampler in zip(axes[0], samplers, strict=True):
        mine = [row for row in document["rows"] if row["sampler"] == sampler and row["predictor"] in colour]
        groups = list(dict.fromkeys(row["schedule"] for row in mine))
        for row in mine:
            place = groups.index(row["schedule"]) + (list(colour).index(row["predictor"]) - 3) * 0.12
            label = row["predictor"] if row["schedule"] == groups[0] else None
            axis.bar(place, row["rms"], 0.11, color=colour[row["predictor"]], label=label)
            axis.plot(place, row["median"], ".", color="black", markersize=4)
        axis.set_yscale("log")
        axis.set_xticks(range(len(groups)), groups)
        axis.set_title(sampler, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("RMS from the dense chunk; dot: the median sample")
    told = f"{document['task']}: {document['held_out']} held-out samples"
    figure.suptitle(told, x=0.01, ha="left", fontsize=10, color="#555")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=75)
    plt.close(figure)


def tell(document: dict[str, Any]) -> None:
    print(f"\n{document['task']}")
    for row in document["rows"]:
        at = f"{row['sampler']} {row['schedule']} ({row['refreshes']:.1f}) {row['predictor']}"
        against = (
            f"{row['difference']:+.4f}, nearer in {row['nearer']:.0%}: {row['verdict']}" if "verdict" in row else ""
        )
        print(f"  {at:45s} RMS {row['rms']:.4f}, median {row['median']:.4f}  {against}")
    for row in document["ms"]:
        print(f"  {row['schedule']}: reuse {row['reuse']:.1f} ms, affine {row[AFFINE]:.1f} ms")


def rounded(value: Any) -> Any:
    """Numbers to five significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float | np.floating) else value


def write(document: dict[str, Any], path: Path) -> None:
    """A line a row."""

    def lines(value: Any) -> str:
        rows = isinstance(value, list) and value and isinstance(value[0], dict)
        return "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]" if rows else json.dumps(value)

    parts = (f"{json.dumps(key)}: {lines(value)}" for key, value in rounded(document).items())
    write_whole(path, "{\n" + ",\n".join(parts) + "\n}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=CARDS, default=list(DEFAULT))
    parser.add_argument("--samples", type=int, default=HELD_OUT, metavar="N", help=f"held out (default: {HELD_OUT})")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)  # simulators' start-up chatter
    for card in options.tasks:
        document = document_of(subject_of(card, options.samples), SAMPLERS)
        path = options.out / f"caching-predictors-{card}.json"
        write(document, path)
        draw(document, path.with_suffix(".png"))
        tell(rounded(document))


if __name__ == "__main__":
    main()
