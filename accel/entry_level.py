"""The entry level of real-time iteration, estimated offline: how far a shifted answer lies from a fresh one, and what a
chain of K levels makes of that distance.

    guess  = shift(full sample of window t)          fresh = full sample of window t + 1, the same noise
    entry  = the smallest K with sigma_K >= c * RMS(guess - fresh)
    factor = the top singular value of J = d RTI_K(x) / d x at the guess; below 1 two guesses come nearer
    narrowing = the spread of RTI_K fed back for many ticks, as a share of the full sampler's

Level K is training index K - 1, so that RTI_K makes K calls. RTI-DP's printed factor (Duan et al. 2025, Theorem 1) is
never below 1 and cannot show contraction; the Jacobian's can.

Legend: P pairs of windows, B lanes, N rows, D numbers of an action, To, Do, T trained levels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..diffusion import Program, Schedule, begin, run_chunk, shifted, unroll
from ..errors import InputError

ITERATIONS = 8  # of the power iteration
LANES = 16  # that are computed at once: a chain of 20 calls keeps all that its backward pass reads


class Deviation(NamedTuple):
    """guess, fresh: [P, N, D], normalised; rms: [P], of their difference."""

    guess: Tensor
    fresh: Tensor
    rms: Tensor


@dataclass(frozen=True)
class EntryLevel:
    """What the rule says of many pairs. A level is None where no trained one is noisy enough: start from noise.

    rms     root of the mean square over all pairs, which the few that turned to another mode rule
    median  over pairs: the typical tick
    """

    rms: float
    median: float
    by_rms: int | None
    by_median: int | None


def level_sigmas(schedule: Schedule) -> Tensor:
    """[T] float64: sigma_K = sqrt(1 - alpha_bar), entry K - 1 for level K. Raises InputError for flow matching."""
    if schedule.is_flow:
        raise InputError(f"schedule {schedule.name!r} has no trained levels; entry levels are for trained schedules")
    return torch.from_numpy(1 - schedule.alpha_bar).sqrt()


def entry_level(sigma: Tensor, rms: float, c: float = 1.0) -> int | None:
    """The smallest K with sigma_K >= c * rms, for sigma [T] from `level_sigmas`; None where there is none."""
    if not rms >= 0 or not c > 0:
        raise InputError(f"got a deviation of {rms} and c = {c}, wanted a finite RMS from 0 on and c above 0")
    enough = (sigma >= c * rms).nonzero()
    return int(enough[0]) + 1 if len(enough) else None


def choose(sigma: Tensor, rms: Tensor, c: float = 1.0) -> EntryLevel:
    """By the rule, and by the median pair. rms: [P], a pair's each."""
    if len(rms) == 0 or not rms.isfinite().all():
        raise InputError(f"got deviations {rms.tolist()}, wanted at least one pair and finite numbers")
    whole, median = float(rms.square().mean().sqrt()), float(rms.quantile(0.5))
    return EntryLevel(whole, median, entry_level(sigma, whole, c), entry_level(sigma, median, c))


@torch.no_grad()
def sampled(program: Program, obs: Tensor, seed: Tensor, birth: int = 0, guess: Tensor | None = None) -> Tensor:
    """Chunks [B, N, D] of windows obs [B, To, Do], normalised; seed: [B] int64; guess: [B, N, D], where the plan's
    birth takes one."""

    def some(part: slice) -> Tensor:
        births = torch.full_like(seed[part], birth)
        held = None if guess is None else guess[part]
        return run_chunk(program, program.prepare(obs[part]), seed[part], births, held, obs.device).clone()

    return _in_parts(some, len(obs))


def deviations(program: Program, before: Tensor, after: Tensor, seed: Tensor, rows: int = 1) -> Deviation:
    """How far the shifted full sample of a window lies from that of the window `rows` ticks later, at common noise.

    program: the full sampler, born from noise; before, after: [P, To, Do], normalised; seed: [P] int64, a pair's.
    """
    _check(program, "noise")
    if before.shape != after.shape or len(seed) != len(before):
        got = f"{tuple(before.shape)}, {tuple(after.shape)} and {len(seed)} seeds"
        raise InputError(f"got windows {got}, wanted two windows and a seed for every pair")
    guess, fresh = shifted(sampled(program, before, seed), rows), sampled(program, after, seed)
    return Deviation(guess, fresh, (guess - fresh).square().mean((1, 2)).sqrt())


def contraction(
    program: Program,
    obs: Tensor,
    guess: Tensor,
    seed: Tensor,
    iterations: int = ITERATIONS,
    tick: Callable[[], object] = lambda: None,
) -> Tensor:
    """[B]: each lane's top singular value of the Jacobian of x -> RTI_K(x), noise and conditioning fixed, where x is
    what the chunk is born as; for birth `noised` a guess's share in it is alpha_K.

    obs: [B, To, Do], normalised; guess: [B, N, D]; seed: [B] int64. Power iteration on J^T J: v <- J^T J v / |.|, and
    |J v| at the end, which approaches the value from below. All lanes go at once, for J has a block a lane. `tick` is
    called after every part of the lanes.
    """
    _check(program, "guess", "noised")
    if iterations < 1:
        raise InputError(f"got {iterations} power iterations, wanted at least 1")

    def some(part: slice) -> Tensor:
        found = _top_singular_value(program, obs[part], guess[part], seed[part], iterations)
        tick()
        return found

    return _in_parts(some, len(obs))


@torch.no_grad()
def _top_singular_value(program: Program, obs: Tensor, guess: Tensor, seed: Tensor, iterations: int) -> Tensor:
    start = begin(program, program.prepare(obs), seed, torch.ones_like(seed), guess, guess.device)

    def chain(x: Tensor) -> Tensor:
        return unroll(program, start._replace(x=x)).x

    # One direction for all lanes, so that a lane's number does not depend on its neighbours.
    direction = torch.randn(guess.shape[1:], generator=torch.Generator().manual_seed(0)).to(guess)
    v = direction.expand_as(guess)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative
        pull = vjp(chain, start.x)[1]
        for _ in range(iterations):
            v = pull(jvp(chain, (start.x,), (_unit(v),))[1])[0]
        pushed = jvp(chain, (start.x,), (_unit(v),))[1]
    return _norm(pushed).flatten()


def narrowing(answers: Tensor, program: Program, obs: Tensor, seed: Tensor, ticks: int) -> float:
    """std of RTI_K's answers after it was fed its own answers back for `ticks` ticks, without shift, as a share of
    std(answers); both over seeds, as the root of the variances' sum over rows and numbers.

    answers: [B, N, D], the full sampler's at the one observation obs [1, To, Do], normalised, for seed [B] int64; they
    are the first guesses. A spread between modes is counted in both: RTI seldom leaves the mode that it was given.
    """
    _check(program, "guess", "noised")
    if len(answers) < 2 or len(answers) != len(seed) or len(obs) != 1 or ticks < 1:
        got = f"{len(answers)} answers, {len(seed)} seeds, {len(obs)} observations and {ticks} ticks"
        raise InputError(f"got {got}, wanted at least 2 answers with a seed each, 1 observation and 1 tick")
    wide = obs.expand(len(seed), *obs.shape[1:])
    x = answers
    for tick in range(1, ticks + 1):
        x = sampled(program, wide, seed, tick, x)
    return float(_spread(x) / _spread(answers).clamp(min=1e-12))


def _spread(chunks: Tensor) -> Tensor:
    return chunks.double().var(0).sum().sqrt()


def _norm(x: Tensor) -> Tensor:
    """[B, N, D] -> [B, 1, 1]."""
    return x.square().sum((1, 2), keepdim=True).sqrt()


def _unit(x: Tensor) -> Tensor:
    return x / _norm(x).clamp(min=1e-30)


def _in_parts(some: Callable[[slice], Tensor], n: int) -> Tensor:
    """some(slice) for LANES lanes at a time, laid together."""
    return torch.cat([some(slice(i, min(i + LANES, n))) for i in range(0, n, LANES)])


def _check(program: Program, *births: str) -> None:
    if program.endless or not program.moves_together:
        raise InputError(f"plan {program.plan.name!r}: entry levels are of chunks whose rows move together (stagger 0)")
    if program.plan.birth not in births:
        got, wanted = program.plan.birth, " or ".join(births)
        raise InputError(f"plan {program.plan.name!r} has birth {got}, wanted {wanted}, as in rti-3 or ddpm-100")
