"""The accelerator `cache`: residual branches that are computed at some steps and reused at the others.

    accelerators:
      exact: {}
      cache: {scheduler: uniform-last, refreshes: 10}     one that needs no calibration: uniform, uniform-last, power
      cache: {schedule: bac-10.json}                      a file that `ontick calibrate` wrote
      cache: {schedule: bac-10}                           one that lies beside the checkpoint
      cache: {..., predictor: taylor-1}                   what stands for a branch that is not computed

The schedule is part of the program, so no branch depends on data; what is cached lives in a chunk's own carry, so
nothing is left for another chunk or lane. In a staggered program the schedule's axis is one shift period, and what is
cached belongs to position ids (`staggered`).
"""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...diffusion import Asked, Plan, Program, Rows
from ...errors import InputError
from ..contracts import Accelerator, Stage, Use
from ..fingerprint import fingerprint
from .line import follow, straight_line
from .predictors import predictor_named
from .schedule import CacheSchedule, check_fits, load_schedule, sampler_of, schedule_from
from .schedulers import UNCALIBRATED
from .staggered import cached_ticks, check_staggered

FOLDER = "schedules"  # of a checkpoint


class CachedLook:
    """What the chunk asks at a step: the straight line of a schedule. refresh: [blocks, S] bool."""

    def __init__(self, program: Program, refresh: np.ndarray, predictor: str = "reuse") -> None:
        self.refresh, self.predictor = refresh, predictor
        self.line = straight_line(refresh, predictor)
        self._denoiser, self._label = program.denoiser, program.grid.label

    def on(self, denoiser: Any) -> "CachedLook":
        """The same on other parts: whatever has enter, tell, blocks and leave."""
        other = copy.copy(self)
        other._denoiser = denoiser
        return other

    def __call__(self, x: Tensor, step: int, context: Any, index: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """See `Program.rewritten`. carry: the values that later steps read."""
        line = self.line[len(self.line) - step]
        label = x.new_full(x.shape[:2], float(self._label[step]))
        asked = Asked(label, context, Rows(index, step=step))
        values = dict(carry or {})
        h = self._denoiser.enter(x, asked)
        if line.refreshes:
            told, blocks = self._denoiser.tell(asked), self._denoiser.blocks()
            h = follow(line, h, values, lambda block, h: blocks[block].branch(h, told))
        else:
            h = follow(line, h, values, _nothing)
        return self._denoiser.leave(h, asked).float(), values


def cached(program: Program, refresh: np.ndarray, predictor: str = "reuse") -> Program:
    """The program on a schedule, [blocks, S] bool, of which column 0 is all true. An all-true one gives its bits."""
    look = CachedLook(program, refresh, predictor)
    idle = sum(not line.refreshes for line in look.line)
    refreshes = float(refresh.sum(1).mean())
    return dataclasses.replace(program, rewritten=look, skipped=program.skipped + idle, refreshes=refreshes)


class Cache(Accelerator):
    name, stage, staggered = "cache", Stage.SCHEDULE, True

    def rewrite(self, program: Program, settings: Mapping[str, Any], use: Use) -> Program:
        """See `Accelerator`. Refused: a denoiser without blocks, steps that another accelerator has rewritten, a
        schedule of another network, sampler or shape, and one that refreshes everything."""
        blocks = tuple(block.name for block in program.denoiser.blocks())
        if not blocks:
            raise InputError(f"{type(program.denoiser).__name__} lists no blocks (Denoiser.blocks), so none is cached")
        if program.rewritten is not None:
            raise InputError("another accelerator decides already what is asked at each step; leave one out")
        predictor = settings.get("predictor", "reuse")
        predictor_named(predictor)
        if not program.moves_together:
            check_staggered(program)
        axis = program.grid.steps if program.moves_together else program.staircase.lag
        schedule = _schedule_of(settings, blocks, program, axis, use)
        if schedule.refresh.all():
            raise InputError("its schedule refreshes every block at every step, so it would do nothing; leave it out")
        if program.moves_together:
            return cached(program, schedule.refresh, predictor)
        if predictor != "reuse":
            raise InputError(f"predictor {predictor} is for chunks whose positions move together; use reuse")
        return cached_ticks(program, schedule.refresh)


def with_schedules(plan: Plan, checkpoint: str | Path) -> Plan:
    """The plan with the schedule that it names, of a file or of those beside the checkpoint, taken in as data: so it
    can be sent to another process, and compared. Raises InputError where there is none."""
    settings = plan.accelerators.get("cache", {})
    name = settings.get("schedule")
    if not isinstance(name, str):
        return plan
    path = Path(name) if name.endswith(".json") else Path(checkpoint) / FOLDER / f"{name}.json"
    if not path.is_file():
        wanted = f"ontick calibrate {checkpoint} --plan {name}"
        raise InputError(f"plan {plan.name!r}: no cache schedule {path}; make it with `{wanted}`")
    settings = {**settings, "schedule": load_schedule(path).to_dict()}
    return dataclasses.replace(plan, accelerators={**plan.accelerators, "cache": settings})


def _schedule_of(
    settings: Mapping[str, Any], blocks: tuple[str, ...], program: Program, axis: int, use: Use
) -> CacheSchedule:
    given = set(settings) - {"predictor"}
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
    check_fits(schedule, blocks, program.plan, axis, fingerprint(use.given or program.denoiser), origin)
    return schedule


def _scheduler_named(name: Any) -> Any:
    if name not in UNCALIBRATED:
        calibrated = "others are calibrated, and given as a schedule"
        raise InputError(f"scheduler is {name!r}, wanted one of {', '.join(UNCALIBRATED)}; {calibrated}")
    return UNCALIBRATED[name]


def _count(refreshes: Any, axis: int) -> int:
    if type(refreshes) is not int or not 1 <= refreshes <= axis:
        raise InputError(f"refreshes is {refreshes!r}, wanted a whole number from 1 to {axis}")
    return refreshes


def _nothing(block: int, h: Tensor) -> Tensor:
    raise AssertionError("nothing is refreshed at this step")
