"""A cache schedule as a straight line of additions: what a step does, decided before anything runs.

Blocks that are refreshed are computed and added to the stream. Runs of cached blocks between them are one tensor each,
summed once and added until a member changes; a step with nothing to refresh is one addition. Sums are put together
from sums that exist already where there are some. Where there are tables, what is added is the sum times a scale plus a
shift (`affine`).

A value is named by what it is: a block and the step at which it was computed, or the blocks of a run and the steps of
each. So no value is ever changed, and each is forgotten after its last use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import InputError
from .predictors import AFFINE, predictor_named

Value = tuple[int, tuple[int, ...]]  # (first block, the step at which each block of the run was computed)
Corrections = Mapping[tuple[int, int], tuple[Any, Any]]  # (step, first block of a run): scale and shift, [E] each


@dataclass(frozen=True)
class Refresh:
    """Compute `block` on the stream, keep it as `value`, add it."""

    block: int
    value: Value


@dataclass(frozen=True)
class Sum:
    """value = parts[0] + parts[1] + ..."""

    value: Value
    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Reuse:
    """Add weight * value for each term."""

    terms: tuple[tuple[float, Value], ...]


@dataclass(frozen=True)
class Corrected:
    """Add scale * value + shift, [E] each."""

    value: Value
    scale: Any = field(compare=False)
    shift: Any = field(compare=False)


Instruction = Refresh | Sum | Reuse | Corrected


@dataclass(frozen=True)
class Step:
    """What is done at a step, in order; `forget`: values that nothing reads afterwards."""

    instructions: tuple[Instruction, ...]
    forget: tuple[Value, ...]

    @property
    def refreshes(self) -> bool:
        return any(isinstance(instruction, Refresh) for instruction in self.instructions)


def straight_line(
    refresh: np.ndarray, predictor: str = "reuse", corrections: Corrections | None = None
) -> tuple[Step, ...]:
    """refresh: [blocks, S] bool, column 0 all true -> a `Step` for each of the S steps. corrections: of every run, for
    the predictor affine alone. Raises InputError."""
    if (predictor == AFFINE) != (corrections is not None):
        raise InputError(f"predictor {predictor} {'needs its tables' if corrections is None else 'has no tables'}")
    kept, weights = predictor_named(predictor)
    taken: list[list[int]] = [[] for _ in refresh]  # steps at which each block was computed, newest first
    known: set[Value] = set()
    steps = []
    for k in range(refresh.shape[1]):
        instructions: list[Instruction] = []
        for first, stop in _pieces(refresh[:, k], taken):
            if refresh[first, k]:
                taken[first] = [k, *taken[first]][:kept]
                instructions.append(Refresh(first, (first, (k,))))
            else:
                instructions += _reused(first, taken[first:stop], weights(k, taken[first]), known)
                if corrections is not None:
                    instructions[-1] = _corrected(instructions[-1], (k, first), corrections)
        steps.append(instructions)
    return _with_lifetimes(steps)


def follow(step: Step, h: Any, values: dict[Value, Any], branch: Callable[[int, Any], Any]) -> Any:
    """Do a step on the stream h: anything that adds. `values` is what the steps before left, and is changed."""
    for instruction in step.instructions:
        if isinstance(instruction, Refresh):
            values[instruction.value] = branch(instruction.block, h)
            h = h + values[instruction.value]
        elif isinstance(instruction, Sum):
            total = values[instruction.parts[0]]
            for part in instruction.parts[1:]:
                total = total + values[part]
            values[instruction.value] = total
        elif isinstance(instruction, Corrected):
            h = h + (values[instruction.value] * instruction.scale + instruction.shift)
        else:
            for weight, value in instruction.terms:
                h = h + (values[value] if weight == 1.0 else values[value] * weight)
    for value in step.forget:
        del values[value]
    return h


def _pieces(refreshed: np.ndarray, taken: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """[first, stop) of each refreshed block, and of each run of cached ones that were computed at the same steps as
    far as their predictor looks, or, where that is one value, of each whole run."""
    pieces: list[tuple[int, int]] = []
    one_value = all(len(steps) <= 1 for steps in taken)
    for block, computed in enumerate(refreshed):
        joins = pieces and not computed and not refreshed[block - 1] and (one_value or taken[block] == taken[block - 1])
        if joins:
            pieces[-1] = (pieces[-1][0], block + 1)
        else:
            pieces.append((block, block + 1))
    return pieces


def _reused(
    first: int, taken: Sequence[Sequence[int]], weights: Sequence[float], known: set[Value]
) -> list[Sum | Reuse]:
    """Sums that are not there yet, and the addition of a run."""
    sums: list[Sum | Reuse] = []
    terms = []
    for age, weight in enumerate(weights):
        steps = tuple(block[age] for block in taken)
        value = (first, steps)
        if len(steps) > 1 and value not in known:
            sums.append(Sum(value, _fewest_parts(first, steps, known)))
            known.add(value)
        terms.append((float(weight), value))
    return [*sums, Reuse(tuple(terms))]


def _corrected(reuse: Any, run: tuple[int, int], corrections: Corrections) -> Corrected:
    if run not in corrections:
        raise InputError(f"no table for the run from block {run[1]} at step {run[0]}; fit them for this schedule")
    return Corrected(reuse.terms[0][1], *corrections[run])


def _fewest_parts(first: int, steps: tuple[int, ...], known: set[Value]) -> tuple[Value, ...]:
    """The run as a chain of known sums and single blocks, the fewest there are: a shortest path from left to right."""
    best: list[tuple[Value, ...]] = [()]
    for stop in range(1, len(steps) + 1):
        chains = []
        for start in range(stop):
            part = (first + start, steps[start:stop])
            if stop - start == 1 or part in known:
                chains.append((*best[start], part))
        best.append(min(chains, key=len))
    return best[-1]


def _with_lifetimes(steps: list[list[Instruction]]) -> tuple[Step, ...]:
    last: dict[Value, int] = {}
    for k, instructions in enumerate(steps):
        for instruction in instructions:
            for value in _touched(instruction):
                last[value] = k
    forget: list[list[Value]] = [[] for _ in steps]
    for value, k in last.items():
        forget[k].append(value)
    return tuple(Step(tuple(s), tuple(f)) for s, f in zip(steps, forget, strict=True))


def _touched(instruction: Instruction) -> list[Value]:
    if isinstance(instruction, Refresh | Corrected):
        return [instruction.value]
    if isinstance(instruction, Sum):
        return [instruction.value, *instruction.parts]
    return [value for _, value in instruction.terms]
