"""The contract of an accelerator: one class that rewrites a compiled program, or says why it cannot.

A plan names accelerators with their settings; `accel.build` compiles the plain program and lets each rewrite it, in the
order of their stages, whatever the order in the plan:

    NETWORK    what one network call computes, as exact does; then the network is put at the plan's precision
    SCHEDULE   which calls, or which of their blocks, are made at which step; then the program is put on its backend

Within a stage names decide, alphabetically.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

from ..diffusion import Denoiser, Program


class Stage(IntEnum):
    NETWORK = 1
    SCHEDULE = 2


@dataclass(frozen=True)
class Use:
    """What a program is built for, beyond its plan. tail: rows after the executed ones are used too, for example as
    what is played while the next chunk is late; device: where the denoiser's weights are; given: the denoiser as it
    was given to `build`, whatever accelerators have made of it."""

    tail: bool = False
    device: str = "cpu"
    given: Denoiser | None = None


class Accelerator(ABC):
    """Rewrites programs. Registered as an entry point of the group `ontick.accelerators`, under its `name`.

    name    as it stands in a plan's `accelerators`
    stage   its place in the order
    exact   whether the result equals the plain program's up to fp32 rounding; a claim that the conformance suite tests
    clashes accelerators that it cannot be used with: name -> reason
    staggered  whether it rewrites programs whose positions do not move together as well
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    exact: ClassVar[bool] = False
    clashes: ClassVar[Mapping[str, str]] = {}
    staggered: ClassVar[bool] = False

    @abstractmethod
    def rewrite(self, program: Program, settings: Mapping[str, Any], use: Use) -> Program:
        """A program that does the same work faster: `dataclasses.replace(program, ...)`.

        `program.plan` is the whole plan; the parts to replace are `denoiser` (NETWORK), `rewritten`, `ticked` and
        `skipped` (SCHEDULE). Raises InputError with the reason where the settings are unknown, where the program
        cannot be rewritten, and where the rewrite would do nothing. Must not change `program`, nor its denoiser.
        """
