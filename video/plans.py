"""The samplers of a stream by name, made to measure for the window that a network was trained with.

full     windows, each denoised together after `PAST` clean frames of the one before
fifo     FIFO-Diffusion (Kim et al. 2024): a queue of n f frames on the diagonal, seen by lookahead in 2 n calls of f,
         begun from a clip; `view` partitions or all leaves lookahead, or both, out
rolling  Rolling Diffusion (Ruhe et al. 2024): a window on the diagonal, `PAST` clean frames in sight, begun by the
         staircase's ramp, which is the paper's initial schedule: frame w at local time clip(w / W + t, 0, 1)
ar       AR-Diffusion (Sun et al. 2025), any stagger: what is not yet born is seen as noise
causal   one frame after another; clean frames are remembered as keys and values, the first `SINKS` for good
"""

import dataclasses
from dataclasses import dataclass

from ..diffusion import GridSpec, Plan, Schedule
from ..errors import InputError

STREAM_PLANS = ("full", "fifo", "rolling", "ar", "causal")
PAST, SINKS = 2, 1
PER_FRAME, AR_STEPS, CAUSAL_STEPS = 2, 8, 4  # solver steps: of full and rolling, for each frame that moves; of a frame


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """A plan of an endless stream, and what such a stream has beside it.

    causal  the network sees block by block
    memory  frames that are remembered as keys and values, sinks included; 0: none
    sinks   the first frames, which are never forgotten
    grows   while the ring fills, frames that have not begun are not shown: cheaper calls, and an earlier first frame
    clip    f: the stream begins with a clip, a block of `full` for a network that sees f frames; 0: with noise
    """

    plan: Plan
    causal: bool = False
    memory: int = 0
    sinks: int = 0
    grows: bool = False
    clip: int = 0

    def __post_init__(self) -> None:
        name = self.plan.name
        if self.plan.stagger < 1:
            raise InputError(f"plan {name!r} has stagger 0, wanted 1 or more: a stream's frames come one after another")
        if self.plan.birth != "noise":
            raise InputError(f"plan {name!r} is born from {self.plan.birth!r}; frames of a stream are born from noise")
        if self.memory and not self.causal:
            raise InputError(f"plan {name!r} remembers frames, which only a causal network can")
        if self.memory and self.plan.behind:
            raise InputError(f"plan {name!r} remembers frames and shows them too; set behind to 0")
        if self.memory and self.plan.stagger < self.plan.grid.steps:
            raise InputError(
                f"plan {name!r} remembers clean frames, so each must be clean before the next begins: stagger "
                f"{self.plan.grid.steps} or more, got {self.plan.stagger}"
            )
        if not 0 <= self.sinks <= self.memory:
            raise InputError(f"plan {name!r} has {self.sinks} sinks in a memory of {self.memory} frames")
        if self.clip and self.causal:
            raise InputError(f"plan {name!r} is causal and begins with noise; set clip to 0")

    @property
    def name(self) -> str:
        return self.plan.name


def stream_plan(
    name: str,
    schedule: Schedule,
    frames: int,
    *,
    steps: int | None = None,
    stagger: int | None = None,
    view: str = "lookahead",
) -> StreamPlan:
    """A sampler by name for a network trained on windows of `frames`. steps: S of a frame; stagger: ticks that a frame
    lags behind the one before; view: fifo's. Raises InputError for what does not fit."""
    if name not in STREAM_PLANS:
        raise InputError(f"unknown plan {name!r}; wanted one of {', '.join(STREAM_PLANS)}")
    if steps is not None and steps < 1:
        raise InputError(f"plan {name!r}: {steps} steps, wanted at least 1")
    if steps is not None and not schedule.is_flow and steps > schedule.train_levels:
        raise InputError(f"plan {name!r}: {steps} steps, wanted at most the {schedule.train_levels} trained levels")
    if frames < 2:
        raise InputError(f"plan {name!r}: the network sees {frames} frames at once; a stream needs 2 or more")
    if name == "fifo":
        return _fifo(schedule, frames, steps, stagger, view)
    if view != "lookahead":
        raise InputError(f"plan {name!r} has one view; view is fifo's")
    past = min(PAST, frames // 2)
    moving = frames - past
    S = steps or {"ar": AR_STEPS, "causal": CAUSAL_STEPS}.get(name, PER_FRAME * moving)
    if name in ("full", "causal"):
        if stagger is not None:
            raise InputError(f"plan {name!r} takes no stagger: a block begins when the one before is clean")
        if name == "full":
            return StreamPlan(plan=_plan(name, schedule, S, stagger=S, block=moving, behind=past))
        return StreamPlan(plan=_plan(name, schedule, S, stagger=S), causal=True, memory=frames - 1, sinks=SINKS)
    least = -(-S // moving)  # that keeps all frames in flight in sight
    s = stagger if stagger is not None else max(least, S // 4 if name == "ar" else 1)
    if s < 1:
        raise InputError(f"plan {name!r}: stagger {s}, wanted 1 or more")
    flying = -(-S // min(s, S))
    if flying > moving:
        raise InputError(
            f"plan {name!r}: {S} steps and stagger {s} put {flying} frames in flight, the network sees {moving} beside "
            f"{past} clean ones; use stagger {least} or more"
        )
    ahead = moving - flying if name == "ar" else 0
    return StreamPlan(plan=_plan(name, schedule, S, stagger=s, behind=past, ahead=ahead))


def _fifo(schedule: Schedule, frames: int, steps: int | None, stagger: int | None, view: str) -> StreamPlan:
    if stagger not in (None, 1):
        raise InputError(f"plan 'fifo' is the diagonal itself: stagger 1, got {stagger}")
    f = frames - frames % 2
    S = steps or f
    if S % f:
        raise InputError(f"plan 'fifo' queues whole windows of {f} frames: steps {f}, {2 * f}, ...; got {S}")
    pieces = 1 if view == "all" else S // f
    plan = _plan("fifo", schedule, S, stagger=1)
    return StreamPlan(plan=dataclasses.replace(plan, view=view, pieces=pieces), clip=f)


def _plan(
    name: str, schedule: Schedule, steps: int, *, stagger: int, block: int = 1, behind: int = 0, ahead: int = 0
) -> Plan:
    """Levels evenly from T / S - 1 to the top, so that the last step is as long as the others."""
    grid, solver = GridSpec(kind="flow", steps=steps), "euler"
    if not schedule.is_flow:
        top, end = schedule.train_levels - 1, schedule.train_levels // steps - 1 if steps > 1 else 0
        grid, solver = GridSpec(steps=steps, spacing="linspace", entry=top, end=end), "ddim"
    return Plan(name=name, grid=grid, solver=solver, stagger=stagger, block=block, behind=behind, ahead=ahead)
