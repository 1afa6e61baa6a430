"""`build`: a plan with accelerators, a precision and a backend, compiled for one denoiser, or refused with a reason."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..diffusion import Denoiser, Plan, Program
from ..diffusion import build as build_plain
from ..errors import InputError
from .backends import backend_for
from .contracts import Accelerator, Stage, Use
from .precision import at_precision
from .registry import find_accelerator


def build(
    denoiser: Denoiser,
    plan: Plan,
    shape: tuple[int, ...],
    positions: int | None,
    *,
    tail: bool = False,
    device: str | None = None,
) -> Program:
    """Compile a plan: the plain program, rewritten by the NETWORK accelerators, put at the plan's precision, rewritten
    by the SCHEDULE accelerators, and put on its backend.

    shape, positions: as for `diffusion.build`; tail, device: see `Use`, the device being that of the denoiser's weights
    where it is not told. The denoiser is read, never changed, and a plan without any of the three gives exactly
    `diffusion.build`'s program. Raises InputError with the reason where anything cannot be done.
    """
    program = build_plain(denoiser, plan.plain(), shape, positions)
    use = Use(tail=tail, device=str(device or _device_of(denoiser)), given=denoiser)
    chosen = sorted(
        ((find_accelerator(name), settings) for name, settings in plan.accelerators.items()),
        key=lambda pair: pair[0].name,
    )
    _refuse_clashes(plan, [accelerator for accelerator, _ in chosen])
    program = dataclasses.replace(program, plan=plan)
    for stage in Stage:
        for accelerator, settings in chosen:
            if accelerator.stage == stage:
                program = _rewritten(program, accelerator, settings, use)
        if stage == Stage.NETWORK:  # before schedules, which hold on to the network that they are shown
            program = at_precision(program, use)
    return backend_for(program, use)


def _rewritten(program: Program, accelerator: Accelerator, settings: Mapping[str, Any], use: Use) -> Program:
    name = accelerator.name
    if not (program.moves_together or accelerator.staggered):
        raise InputError(
            f"plan {program.plan.name!r}: {name} rewrites chunks whose positions move together; this plan has "
            f"stagger {program.plan.stagger} and view {program.plan.view}; leave {name} out, or use stagger 0, view all"
        )
    if program.denoiser.scores and accelerator.stage == Stage.SCHEDULE:
        raise InputError(
            f"plan {program.plan.name!r}: {name} changes what is asked at a step, and the confidences of this network "
            "would be those of another step; leave it out"
        )
    try:
        return accelerator.rewrite(program, settings, use)
    except InputError as error:
        raise InputError(f"plan {program.plan.name!r}, accelerator {name}: {error}") from None


def _device_of(denoiser: Denoiser) -> torch.device | str:
    if isinstance(denoiser, nn.Module):
        return next((parameter.device for parameter in denoiser.parameters()), "cpu")
    return "cpu"


def _refuse_clashes(plan: Plan, chosen: list[Accelerator]) -> None:
    names = {accelerator.name for accelerator in chosen}
    for accelerator in chosen:
        for other, reason in accelerator.clashes.items():
            if other in names:
                raise InputError(f"plan {plan.name!r}: {accelerator.name} cannot be used with {other}: {reason}")
