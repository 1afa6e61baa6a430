"""Plans: how to denoise, as data.

    name: ddim-10
    grid: {kind: trained, steps: 10, spacing: leading}
    solver: ddim
    stagger: 0

The names ddpm-K, ddim-K, dpmpp-K and unipc-K stand for K steps on the checkpoint's own schedule; exact-ddim-K is the
same on the exact stack; uniform-M, uniform-last-M, power-M, bac-M and global-M are DDPM-100 on the exact stack with
cached blocks, and bac-M-ddim-K the same on another sampler. Other names are presets in configs/plans; anything else is
a YAML file.
"""

import dataclasses
import re
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
BIRTHS = ("noise", "noised", "guess")
VIEWS = ("all", "partitions", "lookahead")
PRECISIONS = ("fp32", "tf32", "bf16", "int8")
BACKENDS = ("eager", "best", "compile", "cudagraph", "openvino")
PRESETS = Path(__file__).resolve().parent.parent / "configs" / "plans"
NAMED_SPACING = {"ddpm": "leading", "ddim": "leading", "dpmpp": "logsnr", "unipc": "logsnr"}
SAMPLER = rf"({'|'.join(NAMED_SPACING)})-(\d+)"
UNCALIBRATED, CALIBRATED = ("uniform", "uniform-last", "power"), ("bac", "global")
CACHED = rf"({'|'.join((*UNCALIBRATED, *CALIBRATED))})-(\d+)(?:-({SAMPLER}))?"


@dataclass(frozen=True, kw_only=True)
class GridSpec:
    """Which levels to visit.

    trained  `steps` levels of the trained schedule 0..`entry` (the top by default), divided by `spacing`
    custom   the training indices `labels`, ascending
    flow     `steps` levels of flow matching, moved by `shift`
    """

    kind: str = "trained"
    steps: int = 0
    spacing: str = "leading"
    entry: int | None = None
    labels: tuple[int, ...] = ()
    shift: float = 1.0

    def __post_init__(self) -> None:
        _one_of("grid kind", self.kind, GRID_KINDS)
        _one_of("spacing", self.spacing, SPACINGS)
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
            return at_indices(schedule, np.array(self.labels))
        return spaced(schedule, self.steps, self.spacing, self.entry)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Grid, solver, stagger, birth and view: the whole of a sampler (see the package's docstring).

    eta           DDIM's share of fresh noise
    block         positions that always share a level
    birth         noise: pure noise; noised: a guess, noised to the entry level; guess: a guess as it is
    view, pieces  all: one call sees every position; partitions: `pieces` calls, each its own part of the window;
                  lookahead: 2 `pieces` calls that overlap by half, of which the noisier half is kept

    The rest is not the sampler's: `accelerators` (name: settings), `precision` and `backend` say how it is computed,
    and are compiled by `ontick.accel.build`.
    """

    name: str
    grid: GridSpec
    solver: str
    eta: float = 0.0
    stagger: int = 0
    block: int = 1
    birth: str = "noise"
    view: str = "all"
    pieces: int = 1
    accelerators: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    backend: str = "eager"

    def __post_init__(self) -> None:
        _one_of("solver", self.solver, tuple(SOLVERS))
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("backend", self.backend, BACKENDS)
        _one_of("birth", self.birth, BIRTHS)
        _one_of("view", self.view, VIEWS)
        for key, least in (("stagger", 0), ("block", 1), ("pieces", 1)):
            if getattr(self, key) < least:
                raise InputError(f"plan {self.name!r}: {key} is {getattr(self, key)}, wanted at least {least}")
        for name, settings in self.accelerators.items():
            if not isinstance(name, str) or not isinstance(settings, dict):
                got = f"{name}: {settings!r}"
                raise InputError(f"plan {self.name!r}: accelerators are a name and its settings, got {got}")
        if not 0 <= self.eta <= 1:
            raise InputError(f"plan {self.name!r}: eta is {self.eta}, wanted 0 (no fresh noise) to 1")
        if self.pieces > 1 and self.view == "all":
            raise InputError(f"plan {self.name!r}: view all sees everything in 1 piece, got {self.pieces}")

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
        return Plan(**{**data, "grid": GridSpec(**grid)})


def named_plan(name: str) -> Plan | None:
    """A plan whose name says all (see the module's docstring); None for any other name."""
    if match := re.fullmatch(SAMPLER, name):
        solver, steps = match[1], int(match[2])
        return Plan(name=name, grid=GridSpec(steps=steps, spacing=NAMED_SPACING[solver]), solver=solver)
    if match := re.fullmatch(f"exact-({SAMPLER})", name):
        return _accelerated(name, match[1], {"exact": {}})
    if match := re.fullmatch(CACHED, name):
        scheduler, refreshes, sampler = match[1], int(match[2]), match[3] or "ddpm-100"
        settings = {"schedule": name}
        if scheduler in UNCALIBRATED:
            settings = {"scheduler": scheduler, "refreshes": refreshes}
        return _accelerated(name, sampler, {"exact": {}, "cache": settings})
    return None


def _accelerated(name: str, sampler: str, accelerators: dict[str, Any]) -> Plan:
    plan = named_plan(sampler)
    assert plan is not None, "the pattern has checked this"
    return dataclasses.replace(plan, name=name, accelerators=accelerators, backend="best")


def load_plan(name_or_file: str) -> Plan:
    """A plan by name or from a YAML file. Raises InputError, saying what is known."""
    plan = named_plan(name_or_file)
    if plan is not None:
        return plan
    import yaml  # named plans do without it

    path = Path(name_or_file)
    if not name_or_file.endswith((".yaml", ".yml")):
        if name_or_file not in plan_names():
            named = [f"{solver}-K" for solver in NAMED_SPACING]
            named += ["exact-ddim-K", *(f"{scheduler}-M" for scheduler in (*UNCALIBRATED, *CALIBRATED))]
            known = ", ".join([*named, *plan_names()])
            raise InputError(f"unknown plan {name_or_file!r}; wanted {known} (as in ddim-10) or a YAML file")
        path = PRESETS / f"{name_or_file}.yaml"
    if not path.is_file():
        raise InputError(f"no plan file {name_or_file}")
    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{name_or_file} is not YAML: {' '.join(str(error).split())}") from None
    return Plan.from_dict(data, name_or_file)


def plan_names() -> list[str]:
    """The presets of configs/plans."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as YAML, defaults left out."""
    import yaml

    Path(path).write_text(yaml.safe_dump(plan.to_dict(), sort_keys=False))


def _one_of(what: str, got: Any, known: tuple[str, ...]) -> None:
    if got not in known:
        raise InputError(f"unknown {what} {got!r}; known: {', '.join(known)}")


def _differences(value: Any) -> dict[str, Any]:
    """A dataclass as plain data, without what equals its default."""
    out = {}
    for item in dataclasses.fields(value):
        got = getattr(value, item.name)
        if dataclasses.is_dataclass(got):
            out[item.name] = _differences(got)
        elif got != (item.default_factory() if callable(item.default_factory) else item.default):
            out[item.name] = list(got) if isinstance(got, tuple) else got
    return out
