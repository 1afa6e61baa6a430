"""Accelerators: plug-ins that rewrite a plan's program, the backends that run it, and the suite that tests both.

program = accel.build(denoiser, load_plan("exact"), shape=(action_dim,), positions=16)
chunk = run_chunk(program, program.prepare(obs), seed, birth)
"""

from .attach import Attachment, attach, record
from .building import build
from .contracts import Accelerator, Stage, Use
from .registry import GROUP, ROUNDING, accelerator_names, find_accelerator, only_rounds

__all__ = [
    "GROUP",
    "ROUNDING",
    "Accelerator",
    "Attachment",
    "Stage",
    "Use",
    "accelerator_names",
    "attach",
    "build",
    "find_accelerator",
    "only_rounds",
    "record",
]
