"""The accelerator `cache`: residual branches that are computed at some steps and reused at the others.

    accelerators:
      exact: {}
      cache: {scheduler: uniform-last, refreshes: 10}     one that needs no calibration: uniform, uniform-last, power
      cache: {schedule: bac-10.json}                      a file that `ontick calibrate` wrote
      cache: {schedule: bac-10}                           one that lies beside the checkpoint
      cache: {..., predictor: taylor-1}                   what stands for a branch that is not computed
      cache: {schedule: bac-10.json, predictor: affine}   with the tables of bac-10.safetensors beside it
      cache: {..., predictor: affine, tables: FILE}       with others, that `fit_affine` made

The schedule is part of the program, so no branch depends on data; what is cached lives in a chunk's own carry, so
nothing is left for another chunk or lane. In a staggered program the schedule's axis is one shift period, and what is
cached belongs to position ids (`staggered`).
"""

import copy
import dataclasses
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...diffusion import Plan, Program
from ...errors import InputError
from ..contracts import Accelerator, Stage, Use
from ..fingerprint import fingerprint
from ..streams import check_stream
from .affine import Affine, check_tables, load_affine
from .line import Step, follow, straight_line
from .predictors import AFFINE, predictor_named
from .schedule import CacheSchedule, check_fits, load_schedule, sampler_of, schedule_from
from .schedulers import UNCALIBRATED
from .staggered import cached_ticks, check_staggered

FOLDER = "schedules"  # of a checkpoint
TABLES = ".safetensors"  # beside a schedule, under its name


class CachedLook:
    """What the chunk asks at a step: the straight line of a schedule. refresh: [blocks, S] bool; tables: of the
    predictor affine, on the denoiser's device."""

    def __init__(
        self, program: Program, refresh: np.ndarray, predictor: str = "reuse", tables: Affine | None = None
    ) -> None:
        self.refresh, self.predictor, self.tables = refresh, predictor, tables
        self._lines: dict[torch.dtype, tuple[Step, ...]] = {}
        self.line = self._line_of(torch.float32)
        self._denoiser, self._asked = program.denoiser, program.asked

    def on(self, denoiser: Any) -> "CachedLook":
        """The same on other parts: whatever has enter, tell, blocks and leave."""
        other = copy.copy(self)
        other._denoiser = denoiser
        return other

    def __call__(self, x: Tensor, step: int, context: Any, index: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """See `Program.rewritten`. carry: the values that later steps read."""
        asked = self._asked(x, step, context, index)
        values = dict(carry or {})
        h = self._denoiser.enter(x, asked)
        line = self._line_of(h.dtype)[len(self.line) - step]
        if line.refreshes:
            told, blocks = self._denoiser.tell(asked), self._denoiser.blocks()
            h = follow(line, h, values, lambda block, h: blocks[block].branch(h, told))
        else:
            h = follow(line, h, values, _nothing)
        return self._denoiser.leave(h, asked).float(), values

    def _line_of(self, dtype: torch.dtype) -> tuple[Step, ...]:
        """The line with its tables at the stream's precision: mixed with another, they would change the stream's."""
        if self.tables is None:
            dtype = torch.float32
        if dtype not in self._lines:
            corrections = None if self.tables is None else self.tables.corrections(dtype)
            self._lines[dtype] = straight_line(self.refresh, self.predictor, corrections)
        return self._lines[dtype]


def cached(program: Program, refresh: np.ndarray, predictor: str = "reuse", tables: Affine | None = None) -> Program:
    """The program on a schedule, [blocks, S] bool, of which column 0 is all true. An all-true one gives its bits.
    tables: fitted for this schedule, on the denoiser's device, for the predictor affine alone. Raises InputError."""
    if tables is not None and (tables.refresh.shape != refresh.shape or (tables.refresh != refresh).any()):
        raise InputError("the tables were fitted for another schedule; fit them for this one with `fit_affine`")
    look = CachedLook(program, refresh, predictor, tables)
    idle = sum(not line.refreshes for line in look.line)
    refreshes = float(refresh.sum(1).mean())
    return dataclasses.replace(program, rewritten=look, skipped=program.skipped + idle, refreshes=refreshes)


class Cache(Accelerator):
    name, stage, staggered = "cache", Stage.SCHEDULE, True

    def rewrite(self, program: Program, settings: Mapping[str, Any], use: Use) -> Program:
        """See `Accelerator`. Refused: a denoiser without blocks, steps that another accelerator has rewritten, a
        schedule of another network, sampler or shape, and one that refreshes everything."""
        check_stream(program.denoiser)
        blocks = tuple(block.name for block in program.denoiser.blocks())
        if program.rewritten is not None:
            raise InputError("another accelerator decides already what is asked at each step; leave one out")
        predictor = settings.get("predictor", "reuse")
        predictor_named(predictor)
        if "tables" in settings and predictor != AFFINE:
            raise InputError(f"tables are for predictor affine, and it is {predictor}; leave one out")
        if not program.moves_together:
            check_staggered(program)
        axis = program.grid.steps if program.moves_together else program.staircase.lag
        schedule = _schedule_of(settings, blocks, program, axis, use)
        if schedule.refresh.all():
            raise InputError("its schedule refreshes every block at every step, so it would do nothing; leave it out")
        if program.moves_together:
            tables = _tables_of(settings, schedule, program, use) if predictor == AFFINE else None
            return cached(program, schedule.refresh, predictor, tables)
        if predictor != "reuse":
            raise InputError(f"predictor {predictor} is for chunks whose positions move together; use reuse")
        return cached_ticks(program, schedule.refresh)


def with_schedules(plan: Plan, checkpoint: str | Path) -> Plan:
    """The plan with the schedule that it names, of a file or of those beside the checkpoint, taken in as data: so it
    can be sent to another process, and compared. Tables of the predictor affine stay a file, named by its whole path.
    Raises InputError where there is none."""
    settings = dict(plan.accelerators.get("cache", {}))
    name = settings.get("schedule")
    if isinstance(name, str):
        path = Path(name) if name.endswith(".json") else Path(checkpoint) / FOLDER / f"{name}.json"
        if not path.is_file():
            wanted = f"ontick calibrate {checkpoint} --plan {name}"
            raise InputError(f"plan {plan.name!r}: no cache schedule {path}; make it with `{wanted}`")
        settings["schedule"] = load_schedule(path).to_dict()
        if settings.get("predictor") == AFFINE:
            settings.setdefault("tables", str(path.with_suffix(TABLES)))
    if isinstance(settings.get("tables"), str):
        tables = Path(settings["tables"]).absolute()
        if not tables.is_file():
            raise InputError(
                f"plan {plan.name!r}: no tables {tables} of the predictor affine; make them by `fit_affine`"
            )
        settings["tables"], settings["tables_sha256"] = str(tables), sha256(tables.read_bytes()).hexdigest()
    if settings == plan.accelerators.get("cache", {}):
        return plan
    return dataclasses.replace(plan, accelerators={**plan.accelerators, "cache": settings})


def _schedule_of(
    settings: Mapping[str, Any], blocks: tuple[str, ...], program: Program, axis: int, use: Use
) -> CacheSchedule:
    given = set(settings) - {"predictor", "tables", "tables_sha256"}
    if given == {"scheduler", "refreshes"}:
        refresh = _scheduler_named(settings["scheduler"])(len(blocks), axis, _count(settings["refreshes"], axis))
        return CacheSchedule(refresh=refresh, blocks=blocks, sampler=sampler_of(program.plan))
    if given != {"schedule"}:
        got = ", ".join(sorted(map(str, settings))) or "nothing"
        raise InputError(f"got {got}; wanted schedule, or scheduler and refreshes, and predictor if meant")
    named = settings["schedule"]
    origin = f"schedule {named}" if isinstance(named, str) else "its schedule"
    if isinstance(named, str) and not named.endswith(".json"):
        raise InputError(f"{origin} is beside no checkpoint here; give its .json, or build by `with_schedules`")
    schedule = load_schedule(named) if isinstance(named, str) else schedule_from(named, origin)
    if schedule.network is not None and not isinstance(use.given or program.denoiser, nn.Module):
        raise InputError(f"{origin} is for certain weights, and this denoiser shows none (it is no torch.nn.Module)")
    check_fits(schedule, blocks, program.plan, axis, fingerprint(use.given or program.denoiser), origin)
    return schedule


def _tables_of(settings: Mapping[str, Any], schedule: CacheSchedule, program: Program, use: Use) -> Affine:
    """Those that are named, or those beside the schedule's file."""
    named, path = settings.get("schedule"), settings.get("tables")
    if path is None and isinstance(named, str):
        path = Path(named).with_suffix(TABLES)
    if not isinstance(path, str | Path):
        beside = "a schedule's .json that has them beside it"
        raise InputError(f"predictor affine needs its tables, got {path!r}; give tables: FILE{TABLES}, or {beside}")
    affine = load_affine(path)
    if settings.get("tables_sha256") not in (None, sha256(Path(path).read_bytes()).hexdigest()):
        raise InputError(f"{path} is not what it was when this plan was read; read the plan again")
    network = fingerprint(use.given or program.denoiser)
    check_tables(affine, schedule.refresh, sampler_of(program.plan), network, str(path))
    return affine.to(use.device)


def _scheduler_named(name: Any) -> Any:
    if not isinstance(name, str) or name not in UNCALIBRATED:
        calibrated = "others are calibrated, and given as a schedule"
        raise InputError(f"scheduler is {name!r}, wanted one of {', '.join(UNCALIBRATED)}; {calibrated}")
    return UNCALIBRATED[name]


def _count(refreshes: Any, axis: int) -> int:
    if type(refreshes) is not int or not 1 <= refreshes <= axis:
        raise InputError(f"refreshes is {refreshes!r}, wanted a whole number from 1 to {axis}")
    return refreshes


def _nothing(block: int, h: Tensor) -> Tensor:
    raise AssertionError("nothing is refreshed at this step")
