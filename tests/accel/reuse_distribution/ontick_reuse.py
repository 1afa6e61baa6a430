"""Reuse: the network is asked at every N-th step alone, and its last answer stands for the steps between.

    accelerators:
      reuse: {every: 3}         100 steps, 34 network calls

The static schedule of FORA (Selvaraju et al. 2024, "FORA: Fast-Forward Caching in Diffusion Transformer Acceleration",
arXiv 2407.01425), which refreshes at a fixed interval; there it keeps the outputs of attention and feed-forward in each
layer, here that of the whole network. The last step is always refreshed: nothing corrects it afterwards.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ontick.accel import Accelerator, Stage, Use
from ontick.diffusion import Program
from ontick.errors import InputError


class Reuse(Accelerator):
    name, stage = "reuse", Stage.SCHEDULE

    def rewrite(self, program: Program, settings: Mapping[str, Any], use: Use) -> Program:
        """Refused: unknown settings, an interval below 2, a grid too short for it, calls that are skipped already."""
        if set(settings) != {"every"}:
            raise InputError(f"got settings {', '.join(map(str, settings)) or 'none'}; wanted every alone, as every: 2")
        every, steps = settings["every"], program.grid.steps
        if type(every) is not int or every < 2:
            raise InputError(f"every is {every!r}, wanted a whole number from 2 (1 asks at every step, as without it)")
        if program.skipped:
            raise InputError("another accelerator decides already which network calls are made; leave one out")
        refreshed = {step for step in range(1, steps + 1) if step == 1 or (steps - step) % every == 0}
        if len(refreshed) == steps:
            raise InputError(f"every of {steps} steps would be refreshed, so it would do nothing; leave it out")
        look = program.look

        def reused(x: Tensor, step: int, context: Any, index: Tensor, carry: Any) -> tuple[Tensor, Any]:
            """carry: the wrapped look's own and its last output; None when a chunk begins, which is a refresh."""
            inner, out = carry or (None, None)
            if step in refreshed:
                out, inner = look(x, step, context, index, inner)
            assert out is not None, "the first step is refreshed"
            return out, (inner, out)

        return dataclasses.replace(program, rewritten=reused, skipped=steps - len(refreshed))
