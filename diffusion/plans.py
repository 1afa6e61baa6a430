"""Plans: how to denoise, as data.

name: ddim-10
grid: {kind: trained, steps: 10, spacing: leading}
solver: ddim
stagger: 0
"""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..settings import checked
from .grids import SPACINGS, Grid, at_indices, flow, spaced
from .schedules import Schedule
from .solvers import SOLVERS

GRID_KINDS = ("trained", "custom", "flow")
GRID_FIELDS = {  # what a kind of grid reads
    "trained": ("steps", "spacing", "entry", "end"),
    "custom": ("labels", "told"),
    "flow": ("steps", "shift"),
}
GUESS_FIELDS = {"previous": ("cold", "clip"), "anchors": ("pick", "margin", "warm")}  # what a source reads
BIRTHS = ("noise", "noised", "guess")
SOURCES = ("given", "previous", "nearest", "regression", "anchors")
VIEWS = ("all", "partitions", "lookahead")
PRECISIONS = ("fp32", "tf32", "bf16", "int8")
BACKENDS = ("eager", "best", "compile", "cudagraph", "openvino")


@dataclass(frozen=True, kw_only=True)
class GridSpec:
    """Which levels to visit.

    trained  `steps` levels of the trained schedule `end`..`entry` (all by default), divided by `spacing`; the last
             step goes from `end` to clean
    custom   the training indices `labels`, ascending; the network is told `told` in their place, where that is given
    flow     `steps` levels of flow matching, moved by `shift`
    """

    kind: str = "trained"
    steps: int = 0
    spacing: str = "leading"
    entry: int | None = None
    end: int = 0
    labels: tuple[int, ...] = ()
    told: tuple[int, ...] = ()
    shift: float = 1.0

    def __post_init__(self) -> None:
        _one_of("grid kind", self.kind, GRID_KINDS)
        _one_of("spacing", self.spacing, SPACINGS)
        _read_alone(self, f"a grid of kind {self.kind!r}", ("kind", *GRID_FIELDS[self.kind]))
        if self.kind == "custom" and not self.labels:
            raise InputError("a custom grid needs its labels: a list of ascending training indices")
        if self.kind != "custom" and self.steps < 1:
            raise InputError(f"a grid needs at least 1 step, got {self.steps}")

    def build(self, schedule: Schedule) -> Grid:
        """The table of levels on a checkpoint's schedule. Raises InputError where the schedule cannot give it."""
        if schedule.is_flow != (self.kind == "flow"):
            raise InputError(f"a grid of kind {self.kind!r} does not fit a checkpoint with schedule {schedule.name!r}")
        if self.kind == "flow":
            return flow(self.steps, self.shift)
        if self.kind == "custom":
            return at_indices(schedule, np.array(self.labels), np.array(self.told) if self.told else None)
        return spaced(schedule, self.steps, self.spacing, self.entry, self.end)


@dataclass(frozen=True, kw_only=True)
class GuessSpec:
    """What a chunk is born from, where it is not noise.

    source  given       whoever runs the chunk gives it
            previous    the answer before, shifted by the actions that were used: a warm start
            nearest     a draft: the demonstration whose observations are nearest
            regression  a draft: a small network's
            anchors     the network's anchors, all of them; confidence picks one of the chunks that they become
    cold    previous: the plan of the first answer, before which there is none
    clip    previous: discrete dimensions (grippers) of the answer are put to their nearer limit before it is shifted
    pick    anchors: argmax, or sample, which draws from the confidences
    margin  anchors: the anchor nearest to the previous answer is kept unless another's probability leads by this much
    warm    anchors: the shifted previous answer is one more anchor
    """

    source: str = "given"
    cold: str = "ddim-10"
    clip: bool = False
    pick: str = "argmax"
    margin: float = 0.0
    warm: bool = False

    def __post_init__(self) -> None:
        _one_of("source of a guess", self.source, SOURCES)
        _one_of("pick", self.pick, ("argmax", "sample"))
        if not 0 <= self.margin <= 1:
            raise InputError(f"margin is {self.margin}, wanted a difference of probabilities, 0 to 1")
        _read_alone(self, f"a guess that is {self.source}", ("source", *GUESS_FIELDS.get(self.source, ())))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Grid, solver, stagger, birth and view: the whole of a sampler (see the package's docstring).

    eta           DDIM's share of fresh noise
    gamma         what fresh noise is multiplied with: below 1 for few steps
    block         positions that always share a level
    birth         noise: pure noise; noised: a guess, noised to the entry level; guess: a guess as it is
    guess         where that guess comes from
    execute       actions of a chunk that are executed before the next; 0: as the checkpoint says
    view, pieces  all: one call sees every position; partitions: `pieces` calls, each its own part of the window;
                  lookahead: 2 `pieces` calls that overlap by half, of which the noisier half is kept
    behind        endless streams, view all: clean positions that the call still sees, before the moving ones
    ahead         endless streams, view all: positions that the call sees before they move, as what they are born as

    The rest is not the sampler's: `accelerators` (name: settings), `precision` and `backend` say how it is computed,
    and are compiled by `ontick.accel.build`.
    """

    name: str
    grid: GridSpec
    solver: str
    eta: float = 0.0
    gamma: float = 1.0
    stagger: int = 0
    block: int = 1
    birth: str = "noise"
    guess: GuessSpec = field(default_factory=GuessSpec)
    execute: int = 0
    view: str = "all"
    pieces: int = 1
    behind: int = 0
    ahead: int = 0
    accelerators: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    backend: str = "eager"

    def __post_init__(self) -> None:
        _one_of("solver", self.solver, tuple(SOLVERS))
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("backend", self.backend, BACKENDS)
        _one_of("birth", self.birth, BIRTHS)
        _one_of("view", self.view, VIEWS)
        for key, least in (("stagger", 0), ("block", 1), ("pieces", 1), ("execute", 0), ("behind", 0), ("ahead", 0)):
            if getattr(self, key) < least:
                raise InputError(f"plan {self.name!r}: {key} is {getattr(self, key)}, wanted at least {least}")
        for name, settings in self.accelerators.items():
            if not isinstance(name, str) or not isinstance(settings, dict):
                got = f"{name}: {settings!r}"
                raise InputError(f"plan {self.name!r}: accelerators are a name and its settings, got {got}")
        if not 0 <= self.gamma < math.inf:
            raise InputError(f"plan {self.name!r}: gamma is {self.gamma}, wanted 0 (no fresh noise) or more")
        if self.birth == "noise" and self.guess != GuessSpec():
            raise InputError(f"plan {self.name!r}: birth noise starts from no guess; use guess or noised")
        if not 0 <= self.eta <= 1:
            raise InputError(f"plan {self.name!r}: eta is {self.eta}, wanted 0 (no fresh noise) to 1")
        if self.pieces > 1 and self.view == "all":
            raise InputError(f"plan {self.name!r}: view all sees everything in 1 piece, got {self.pieces}")
        if (self.behind or self.ahead) and self.view != "all":
            raise InputError(
                f"plan {self.name!r}: behind {self.behind} and ahead {self.ahead} are positions of a call that sees "
                f"everything, and view is {self.view!r}; use view all"
            )

    @property
    def uses_guess(self) -> bool:
        """Whether a chunk goes on from a guess: what it is born from, or what a warm `picard` is first told."""
        return self.birth != "noise" or bool(self.accelerators.get("picard", {}).get("warm"))

    def plain(self) -> "Plan":
        """The sampler alone: without accelerators, in fp32, run eagerly."""
        return dataclasses.replace(self, accelerators={}, precision="fp32", backend="eager")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, defaults left out; `from_dict` undoes it."""
        return _differences(self)

    @staticmethod
    def from_dict(data: Any, origin: str = "plan") -> "Plan":
        """Checks names and types of a plan read from a file. Raises InputError."""
        data = checked(Plan, data, origin)
        if "grid" not in data or "solver" not in data or "name" not in data:
            raise InputError(f"{origin}: a plan needs name, grid and solver, got {', '.join(data) or 'nothing'}")
        grid = checked(GridSpec, data["grid"], f"{origin}, grid")
        guess = checked(GuessSpec, data.get("guess", {}), f"{origin}, guess")
        return Plan(**{**data, "grid": GridSpec(**grid), "guess": GuessSpec(**guess)})


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as YAML, defaults left out."""
    import yaml

    Path(path).write_text(yaml.safe_dump(plan.to_dict(), sort_keys=False))


def _one_of(what: str, got: Any, known: tuple[str, ...]) -> None:
    if got not in known:
        raise InputError(f"unknown {what} {got!r}; known: {', '.join(known)}")


def _read_alone(spec: Any, what: str, fields: tuple[str, ...]) -> None:
    """Raises InputError where `spec` sets a field that `what` does not read: it would do nothing."""
    idle = [name for name in _differences(spec) if name not in fields]
    if idle:
        raise InputError(f"{what} does not read {', '.join(idle)}; it reads {', '.join(fields)}: leave the others out")


def _differences(value: Any) -> dict[str, Any]:
    """A dataclass as plain data, without what equals its default."""
    out = {}
    for item in dataclasses.fields(value):
        got = getattr(value, item.name)
        if got == (item.default_factory() if callable(item.default_factory) else item.default):
            continue
        if dataclasses.is_dataclass(got):
            out[item.name] = _differences(got)
        else:
            out[item.name] = list(got) if isinstance(got, tuple) else got
    return out
