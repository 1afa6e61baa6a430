"""Calibrate a plan for a checkpoint: a cache schedule, the entry level of warm starts (rti), or drafts (draft-K).

A schedule says which residual branch is computed at which denoising step. This plays episodes of the checkpoint's task
to see what its network does, writes what it finds beside the checkpoint, where `ontick evaluate --plans NAME` finds it,
and draws it.
"""

import argparse
import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__, accel
from ..accel.caching import CacheSchedule, sampler_of
from ..accel.caching.affine import fit_affine
from ..accel.caching.cached import FOLDER, TABLES
from ..accel.caching.evaluator import ActionError
from ..accel.caching.features import Maps, measure_maps
from ..accel.caching.global_budget import budget_of, global_schedule
from ..accel.caching.schedulers import FORMS, UNCALIBRATED, bac
from ..accel.fingerprint import fingerprint
from ..diffusion import Plan, Program, load_plan
from ..diffusion.names import CACHED
from ..errors import InputError
from ..files import check_place
from ..policy import Checkpoint, ChunkNetwork, ConditionalUnet1D, TransformerForDiffusion, load_checkpoint
from ..runtime import describe_machine
from . import drafts, entry
from .families import check_device
from .observations import AN_EPISODE, demonstrated, played
from .picture import drawn
from .progress import progress_bar

SAMPLES = {"bac": 16, "global": 32}  # 0 for those that look at nothing
HELD_OUT = 32  # samples of other episodes that the error is told on
EVALUATIONS = 600  # schedules that are tried for global-M, about: most is gained by the first few hundred
UNITED = 5  # branches of the bubbling union, as published for simulation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick calibrate`."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a policy's folder")
    plans = "bac-M, global-M, uniform-M, uniform-last-M, power-M; -ddim-K behind it for another sampler than ddpm-100"
    plans += "; rti: the entry level of warm starts; draft-K: drafts from --data, into the checkpoint"
    parser.add_argument("--plan", required=True, metavar="NAME", help=plans)
    default = f"default: CHECKPOINT/{FOLDER}/NAME.json, of rti entry/rti.json, of drafts drafts.safetensors"
    parser.add_argument("--out", metavar="FILE", help=f"{default}; of a .json a .png is drawn beside it")
    default = "default: bac 16, where BAC itself takes 1; global 32; rti 32 pairs; drafts 2048"
    parser.add_argument("--samples", type=int, metavar="N", help=f"observations ({default})")
    parser.add_argument("--data", metavar="FILE", help="take them of demonstrations, where no simulator is there")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="base of the episodes' seeds and of the noise")
    parser.add_argument("--united", type=int, default=UNITED, metavar="N", help="bac: branches of the bubbling union")
    parser.add_argument("--form", choices=FORMS, default=FORMS[0], help="bac: the scheduler's segment score")
    parser.add_argument("--affine", action="store_true", help="also fit the tables of the predictor affine, beside it")
    parser.add_argument("--no-tail", action="store_true", help="bac: without the forced refresh of the last step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the network runs")


@dataclass(frozen=True)
class Subject:
    """What a schedule is made for: the dense program, what it is shown, and what has been seen of it."""

    checkpoint: Checkpoint
    plan: Plan
    program: Program
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    obs: Tensor  # [n, To, Do], normalised
    seeds: Tensor
    maps: Maps | None


def run(options: argparse.Namespace) -> int:
    """Check everything first, then look, schedule, judge, write and draw."""
    for begin, verb in (("draft", drafts.run), ("rti", entry.run)):
        if options.plan.startswith(begin):
            _refuse_schedule_options(options)
            return verb(options)
    scheduler, nominal = _scheduler(options.plan)
    samples = SAMPLES.get(scheduler, 0) if options.samples is None else options.samples
    if samples < 1 and (scheduler in SAMPLES or options.samples is not None):
        raise InputError(f"--samples is {samples}, wanted at least 1")
    plan = load_plan(options.plan)
    least = 2 if scheduler == "global" else 1
    if not least <= nominal <= plan.grid.steps:
        raise InputError(f"--plan {options.plan}: {nominal} refreshes, wanted {least} to {plan.grid.steps}, its steps")
    if options.affine and not samples:
        raise InputError("--affine is fitted on samples: give --samples N")
    if options.united < 0:
        raise InputError(f"--united is {options.united}, wanted 0 (no union) or more")
    check_device(options.device)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(options.checkpoint, options.device)
    if type(checkpoint.network) not in (TransformerForDiffusion, ConditionalUnet1D):
        got, wanted = checkpoint.network.family, f"{TransformerForDiffusion.family} or {ConditionalUnet1D.family}"
        raise InputError(f"{options.checkpoint} is of the family {got}, and schedules are for a {wanted}")
    out = Path(options.out or Path(options.checkpoint) / FOLDER / f"{options.plan}.json")
    if check_place(out).is_dir() or out.suffix != ".json":
        raise InputError(f"--out {out}: wanted the name of a .json file")
    others = -(-samples // AN_EPISODE) * AN_EPISODE  # where the first episode begins that is not calibrated on
    obs = _observations(checkpoint, others + HELD_OUT, options)
    subject = _subject(checkpoint, plan, options.device, obs[:samples], options.seed)
    refresh, about = MAKERS[scheduler](subject, nominal, options)
    held_out = _error(subject, obs[others:], options.seed + others)
    about = {
        "plan": options.plan,
        "scheduler": scheduler,
        "nominal": nominal,
        **about,
        "samples": samples,
        "observations": options.data or f"episodes of {checkpoint.about.get('task')}",
        "seed": options.seed,
        "held_out": {
            "samples": len(obs) - others,
            "action_rms": float(held_out(refresh[None])[0]),
            "median_rms": float(np.median(held_out.per_sample(refresh[None])[0])),
            "action_error": float(held_out.largest(refresh[None])[0]),
        },
        "version": __version__,
    }
    schedule = CacheSchedule(
        refresh=refresh,
        blocks=subject.names,
        sampler=sampler_of(plan),
        network=fingerprint(checkpoint.network),
        about=about,
    )
    schedule.save(out)
    if options.affine:
        fit_affine(subject.program, refresh, subject.obs, subject.seeds, network=schedule.network).save(
            out.with_suffix(TABLES)
        )
        print(f"tables: {out.with_suffix(TABLES)}")
    _tell(schedule, about, out)
    drawn(lambda path: _draw(schedule, subject, path), out.with_suffix(".png"))
    return 0


def _refuse_schedule_options(options: argparse.Namespace) -> None:
    """Raises InputError where an option was given that only cache schedules have."""
    defaults = {"united": UNITED, "form": FORMS[0], "affine": False, "no_tail": False}
    given = [f"--{name.replace('_', '-')}" for name, default in defaults.items() if getattr(options, name) != default]
    if given:
        raise InputError(f"--plan {options.plan} has no {', '.join(given)}, which is of cache schedules; leave it out")


# -- schedulers -------------------------------------------------------------------------------------------------------


def _uncalibrated(subject: Subject, nominal: int, options: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    scheduler, _ = _scheduler(options.plan)
    return UNCALIBRATED[scheduler](len(subject.names), subject.program.grid.steps, nominal), {}


def _bac(subject: Subject, nominal: int, options: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    assert subject.maps is not None, "it has samples"
    settings = {"united": options.united, "form": options.form, "tail": not options.no_tail}
    refresh = bac(subject.maps, nominal, n=options.united, tail=not options.no_tail, form=options.form)
    return refresh, settings


def _global(subject: Subject, nominal: int, options: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    from ..benchmarks.cost_model import measure_costs, rounds

    steps = subject.program.grid.steps
    network = subject.checkpoint.network
    assert isinstance(network, ChunkNetwork), "checked before anything was looked at"
    with progress_bar(rounds(list(subject.kinds), steps), "measuring costs", "round") as bar:
        cost = measure_costs(network, subject.plan, subject.obs[:1], bar.update)
    budget_ms = budget_of(cost, nominal, len(subject.names), steps, subject.kinds)
    error = _error(subject, subject.obs, options.seed)
    with progress_bar(EVALUATIONS, "searching", "schedule") as bar:

        def advance(done: int, error: float) -> None:
            bar.set_postfix_str(f"error {error:.4f}", refresh=False)
            bar.update(done - bar.n)

        refresh = global_schedule(error, cost, subject.kinds, steps, budget_ms, advance, EVALUATIONS)
    told = {
        "cost_model": {**cost.to_dict(), "backend": subject.plan.backend, "machine": describe_machine()},
        "budget_ms": budget_ms,
        "predicted_ms": cost(refresh, subject.kinds),
        "evaluations": EVALUATIONS,
    }
    return refresh, told


MAKERS: dict[str, Callable[..., tuple[np.ndarray, dict[str, Any]]]] = {
    **dict.fromkeys(UNCALIBRATED, _uncalibrated),
    "bac": _bac,
    "global": _global,
}


def _scheduler(name: str) -> tuple[str, int]:
    match = re.fullmatch(CACHED, name)
    if not match:
        raise InputError(f"--plan {name}: wanted bac-M, global-M, uniform-M, uniform-last-M or power-M, as in bac-10")
    return match[1], int(match[2])


# -- what is looked at ------------------------------------------------------------------------------------------------


def _observations(checkpoint: Checkpoint, n: int, options: argparse.Namespace) -> Tensor:
    if options.data is not None:
        return demonstrated(checkpoint, n, options.data)
    with progress_bar(None, "playing", "episode") as bar:
        return played(checkpoint, n, options.seed, bar.update)


def _subject(checkpoint: Checkpoint, plan: Plan, device: str, obs: Tensor, seed: int) -> Subject:
    config = checkpoint.network.config
    dense = {name: settings for name, settings in plan.accelerators.items() if name != "cache"}
    eager = dataclasses.replace(plan, accelerators=dense, backend="eager")
    program = accel.build(checkpoint.network, eager, (config.action_dim,), config.horizon, device=device)
    blocks = program.denoiser.blocks()
    kinds, names = tuple(b.kind for b in blocks), tuple(b.name for b in blocks)
    seeds = torch.arange(seed, seed + len(obs))
    maps = _maps(program, obs, seeds) if len(obs) else None
    return Subject(checkpoint, plan, program, kinds, names, obs, seeds, maps)


def _maps(program: Program, obs: Tensor, seeds: Tensor) -> Maps:
    """Over all samples, one after another."""
    found: list[Maps] = []
    with progress_bar(len(obs), "looking at features", "sample") as bar:
        for i in range(len(obs)):
            found.append(measure_maps(program, obs[i : i + 1], seeds[i : i + 1]))
            bar.update()
    mean = {name: np.mean([getattr(maps, name) for maps in found], 0) for name in ("cosine", "l1")}
    return dataclasses.replace(found[0], **mean)


def _error(subject: Subject, obs: Tensor, seed: int) -> ActionError:
    config = subject.checkpoint.network.config
    executed = slice(config.n_obs_steps - 1, config.n_obs_steps - 1 + config.n_action_steps)
    return ActionError(subject.program, obs, torch.arange(seed, seed + len(obs)), rows=executed)


# -- what is told -----------------------------------------------------------------------------------------------------


def _tell(schedule: CacheSchedule, about: dict[str, Any], out: Path) -> None:
    held_out = about["held_out"]
    active = int(schedule.refresh.any(0).sum())
    print(
        f"{about['plan']}: {schedule.refreshes:.1f} refreshes a block of {schedule.steps} steps, {active} steps active"
    )
    if "predicted_ms" in about:
        print(f"predicted {about['predicted_ms']:.1f} ms a chunk here, within {about['budget_ms']:.1f}")
    rms, largest = held_out["action_rms"], held_out["action_error"]
    told = f"RMS {rms:.4f} from dense, of the median sample {held_out['median_rms']:.4f}, {largest:.3f} at most"
    print(f"executed actions, on {held_out['samples']} other samples: {told}")
    print(f"schedule: {out}")


def _draw(schedule: CacheSchedule, subject: Subject, path: Path) -> None:
    from ..benchmarks.schedule_picture import draw_schedule

    draw_schedule(schedule, subject.maps, path)
