"""The exact stack: the same chunk, up to fp32 rounding, for a fraction of the work.

    accelerators:
      exact: {}                 everything
      exact: {fold: false}      all but one

Each setting is a switch: memory, time_table, fold, rows and weights rewrite the network (`exact_network`); noise draws
all noise before the loop; solver takes a solver step as one expression. `rows` is "auto" by default: dropped unless the
tail is used; true insists, and is refused where the tail is needed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from ..diffusion import Eager, Program
from ..diffusion import build as build_plain
from ..errors import InputError
from .contracts import Accelerator, Stage, Use
from .exact_network import ExactDecoder, Rewrites

SWITCHES = ("memory", "time_table", "fold", "rows", "weights", "noise", "solver")


class Exact(Accelerator):
    name, stage, exact = "exact", Stage.NETWORK, True

    def rewrite(self, program: Program, settings: Mapping[str, Any], use: Use) -> Program:
        """See `Accelerator`. Refused: a denoiser without an anatomy; `memory` and `time_table` where memory tokens see
        each other; `fold` without both; `rows` where rows are seen by the ones before them, or the tail is used."""
        switches = _switches(settings)
        anatomy = program.denoiser.anatomy()
        if anatomy is None:
            raise InputError(
                f"{type(program.denoiser).__name__} does not show its weights (Denoiser.anatomy), so it "
                "cannot be rewritten"
            )
        if not any(switches.values()):
            raise InputError("every switch is off, so it would do nothing; leave it out of the plan")
        for name in ("memory", "time_table"):
            if switches[name] and anatomy.mixed_memory:
                raise InputError(
                    f"{name}: the memory tokens of this network see each other (n_cond_layers > 0), so they change "
                    f"with the level; set memory, time_table and fold to false"
                )
        if switches["fold"] and not (switches["memory"] and switches["time_table"]):
            raise InputError("fold: folding at every step costs more than it saves; it needs memory and time_table")
        first, end = anatomy.answer
        end = first + program.plan.execute if program.plan.execute else end
        stop = _rows(program, switches["rows"], anatomy.causal, end, use)
        network = {name: bool(switches[name]) for name in ("memory", "time_table", "fold", "weights")}
        if stop is not None:
            plan = program.plan
            program = dataclasses.replace(build_plain(program.denoiser, plan.plain(), program.shape, stop), plan=plan)
        if any(network.values()) or stop is not None:
            labels = torch.from_numpy(program.grid.label[1:]).float()
            with torch.no_grad():
                denoiser = ExactDecoder(program.denoiser, labels, Rewrites(**network, rows=program.rows))
            program = dataclasses.replace(program, denoiser=denoiser)
        executor = Eager(fused=bool(switches["solver"]), noise_first=bool(switches["noise"]))
        return dataclasses.replace(program, executor=executor)


def _switches(settings: Mapping[str, Any]) -> dict[str, bool | str]:
    unknown = set(settings) - set(SWITCHES)
    if unknown:
        raise InputError(f"unknown {', '.join(sorted(map(str, unknown)))}; switches: {', '.join(SWITCHES)}")
    switches: dict[str, Any] = dict.fromkeys(SWITCHES, True) | {"rows": "auto"} | dict(settings)
    for name, value in switches.items():
        if not (isinstance(value, bool) or (name == "rows" and value == "auto")):
            wanted = "true, false or auto" if name == "rows" else "true or false"
            raise InputError(f"{name} is {value!r}, wanted {wanted}")
    return switches


def _rows(program: Program, wanted: bool | str, causal: bool, stop: int, use: Use) -> int | None:
    """How many rows to compute, or None for all. Raises InputError where `wanted` cannot be had."""
    reason = None
    if not causal:
        reason = "this network is not causal, so the rows before the end see those after it"
    elif use.tail:
        reason = "the rows after the executed ones are used here (they are played while the next chunk is late)"
    elif program.plan.guess.source == "previous" or (program.plan.uses_guess and program.plan.birth == "noise"):
        reason = "the next answer starts from the tail of this one"
    elif stop >= program.rows:
        reason = "there are none after the executed ones, so it would do nothing"
    if wanted is True and reason:
        raise InputError(f"rows: {reason}; set rows to false or auto")
    return None if reason or not wanted else stop
