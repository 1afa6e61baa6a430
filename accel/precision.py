"""Precision of the weights and of what is computed with them: a field of the plan. Solver steps stay fp32.

fp32   as trained
tf32   fp32 storage, tensor-core products of 10-bit mantissas; a GPU's
bf16   weights and activations
int8   weights alone, symmetric, one scale an output channel; activations fp32

Only fp32 is ever called exact; the others' error is measured (`ontick bench`, action_error).
"""

import dataclasses

from ..diffusion import Program
from ..errors import InputError
from .contracts import Use
from .exact_network import ExactDecoder


def at_precision(program: Program, use: Use) -> Program:
    """The program at its plan's precision. Raises InputError where it cannot be had."""
    precision, name = program.plan.precision, program.plan.name
    if precision == "fp32":
        return program
    if precision == "tf32":
        if not use.device.startswith("cuda"):
            raise InputError(f"plan {name!r}: precision tf32 is for CUDA devices, and this runs on {use.device}")
        return program
    if not isinstance(program.denoiser, ExactDecoder):
        raise InputError(
            f"plan {name!r}: precision {precision} needs the accelerator exact, which lays out the weights; add "
            "`exact: {}` to the plan's accelerators"
        )
    return dataclasses.replace(program, denoiser=program.denoiser.at_precision(precision))
