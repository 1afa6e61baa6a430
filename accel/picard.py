"""Parallel in time: the chunk of a plan whose positions move together, by Picard iteration (`backends.picard`).

    accelerators:
      picard: {window: 8}                     8 steps in one network call
      picard: {window: 8, tolerance: 0}       until nothing moves: the sequential chunk up to rounding
      picard: {window: 8, warm: true}         the first window is filled with what the previous answer, shifted, says

tolerance: how far a state may still have moved when it is left, in standard deviations of its step's noise; 0.1 is the
published one. `warm` is the policy's: it keeps the previous answer and hands it over, and a chunk that is run without
one is a cold one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..diffusion import Program
from ..diffusion.solvers import BASE, PREV, PREV2
from ..errors import InputError
from .backends.picard import Picard
from .contracts import Accelerator, Stage, Use

DEFAULTS: dict[str, Any] = {"window": 0, "tolerance": 0.1, "warm": False}


class ParallelInTime(Accelerator):
    name, stage = "picard", Stage.SCHEDULE

    def rewrite(self, program: Program, settings: Mapping[str, Any], use: Use) -> Program:
        """See `Accelerator`. Refused: a window of one step and a grid of one, which are the sequential run; solvers
        that remember earlier steps; steps that another accelerator has rewritten; noise that is not drawn first."""
        window, tolerance = _checked(settings)
        steps, plan = program.grid.steps, program.plan
        if window < 2 or steps < 2:
            raise InputError(
                f"window {window} of {steps} steps is the sequential run, so it would do nothing; leave it out"
            )
        if any(program.table.uses(column) for column in (BASE, PREV, PREV2)):
            reason = "remembers earlier steps, and here they are not known yet"
            raise InputError(f"solver {plan.solver} {reason}; use ddpm, ddim or euler")
        if program.rewritten is not None:
            raise InputError("another accelerator decides already what is asked at each step; leave one out")
        if program.executor is not None and not program.executor.noise_first:
            raise InputError("it takes all noise before the loop; leave the switch noise of exact on")
        return dataclasses.replace(program, executor=Picard(program, window, tolerance))


def _checked(settings: Mapping[str, Any]) -> tuple[int, float]:
    """window and tolerance. Raises InputError."""
    unknown = set(settings) - set(DEFAULTS)
    if unknown:
        raise InputError(f"unknown {', '.join(sorted(map(str, unknown)))}; settings: {', '.join(DEFAULTS)}")
    window, tolerance, warm = (settings.get(name, default) for name, default in DEFAULTS.items())
    if type(window) is not int:
        raise InputError(f"window is {window!r}, wanted a number of steps, 2 or more")
    if type(tolerance) not in (int, float) or not 0 <= tolerance < float("inf"):
        raise InputError(f"tolerance is {tolerance!r}, wanted 0 or more standard deviations of a step's noise")
    if type(warm) is not bool:
        raise InputError(f"warm is {warm!r}, wanted true or false")
    return window, float(tolerance)
