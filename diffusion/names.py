"""Plans by name, or from a file.

    ddpm-K  ddim-K  dpmpp-K  unipc-K      K steps on the checkpoint's own schedule
    uniform-M  power-M  bac-M  global-M   DDPM-100 on the exact stack with cached blocks; bac-M-ddim-K: another sampler
    rti-K  rti-K-renoise                  warm starts: the shifted previous answer, K levels, an answer every tick
    anchored-K                            K truncated levels from anchors, of which one is drawn by confidence
    anchored-K-argmax|-hysteresis|-warm   the most confident; the same, kept while it is nearly that; drawn, the shifted
                                          previous answer being one more anchor
    diagonal-H                            a queue of 16 rows that gives H clean actions a call
    draft-K  draft-regression-K           K steps from a draft: the nearest demonstration's, or a small network's
    picard-P  picard-P-ddim-K  ...-warm   DDPM-100 or another sampler, P steps in one network call, until it converges;
                                          warm: its first window is filled from the shifted previous answer

exact- in front puts a plan on the exact stack and the best backend; -every-N behind executes N actions of a chunk.
Other names are presets in configs/plans; anything else is a YAML file.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .plans import GridSpec, GuessSpec, Plan

PRESETS = Path(__file__).resolve().parent.parent / "configs" / "plans"
NAMED_SPACING = {"ddpm": "leading", "ddim": "leading", "dpmpp": "logsnr", "unipc": "logsnr"}
SAMPLER = rf"({'|'.join(NAMED_SPACING)})-(\d+)"
UNCALIBRATED, CALIBRATED = ("uniform", "uniform-last", "power"), ("bac", "global")
CACHED = rf"({'|'.join((*UNCALIBRATED, *CALIBRATED))})-(\d+)(?:-({SAMPLER}))?"
QUEUE = 16  # rows of the queue of diagonal-H
ANCHORED_ENTRY, ANCHORED_TOLD = 8, 10  # DiffusionDrive noises to level 8 and tells the network 10
MARGIN = 0.3  # by which another anchor's probability must lead
DRAFT_ENTRY = 30  # trained level to which a draft is noised


def named_plan(name: str) -> Plan | None:
    """A plan whose name says all (see the module's docstring); None for any other name."""
    if match := re.fullmatch(r"(.+)-every-(\d+)", name):
        plan, execute = named_plan(match[1]), int(match[2])
        if execute < 1:
            raise InputError(f"plan {name!r} executes {execute} actions of a chunk, wanted at least 1")
        return None if plan is None else dataclasses.replace(plan, name=name, execute=execute)
    if match := re.fullmatch(r"exact-(.+)", name):
        return _exact(name, named_plan(match[1]))
    if match := re.fullmatch(CACHED, name):
        scheduler, refreshes, sampler = match[1], int(match[2]), match[3] or "ddpm-100"
        settings = {"schedule": name}
        if scheduler in UNCALIBRATED:
            settings = {"scheduler": scheduler, "refreshes": refreshes}
        return _accelerated(name, named_plan(sampler), {"exact": {}, "cache": settings})
    for pattern, make in PATTERNS.items():
        if match := re.fullmatch(pattern, name):
            return make(name, match)
    return None


def queue_grid(steps: int) -> GridSpec:
    """The levels of a diagonal queue: even, from clean to one below the top of 100, which is nearly singular."""
    return GridSpec(steps=steps, spacing="linspace", entry=98)


def _sampler(name: str, match: re.Match[str]) -> Plan:
    solver, steps = match[1], int(match[2])
    return Plan(name=name, grid=GridSpec(steps=steps, spacing=NAMED_SPACING[solver]), solver=solver)


def _rti(name: str, match: re.Match[str]) -> Plan:
    """Levels K..1 of the trained schedule, each told as it is."""
    calls = int(match[1])
    grid = GridSpec(steps=calls, entry=max(calls, 1) - 1)
    birth = "noised" if match[2] else "guess"
    return Plan(name=name, grid=grid, solver="ddpm", birth=birth, guess=GuessSpec(source="previous"), execute=1)


def _anchored(name: str, match: re.Match[str]) -> Plan:
    calls = int(match[1])
    if not 1 <= calls <= ANCHORED_ENTRY + 1:
        raise InputError(f"plan {name!r}: {calls} calls, wanted 1 to {ANCHORED_ENTRY + 1}")
    levels, told = (_down_to_0(top, calls) for top in (ANCHORED_ENTRY, ANCHORED_TOLD))
    grid = GridSpec(kind="custom", labels=levels, told=told)
    return Plan(name=name, grid=grid, solver="ddim", birth="noised", guess=PICKED[match[2]])


def _down_to_0(top: int, calls: int) -> tuple[int, ...]:
    """Ascending, the first 0 and the last `top`; `top` alone where there is one call."""
    return tuple(int(v) for v in np.round(np.linspace(0, top, calls))) if calls > 1 else (top,)


def _diagonal(name: str, match: re.Match[str]) -> Plan:
    block = int(match[1])
    if not 1 <= block < QUEUE or QUEUE % block:
        raise InputError(f"plan {name!r}: blocks of {block} rows, wanted a divisor of {QUEUE} below it")
    return Plan(name=name, grid=queue_grid(QUEUE // block), solver="ddpm", stagger=1, block=block)


def _draft(name: str, match: re.Match[str]) -> Plan:
    grid = GridSpec(steps=int(match[2]), spacing="linspace", entry=DRAFT_ENTRY)
    source = "regression" if match[1] else "nearest"
    return Plan(name=name, grid=grid, solver="ddim", birth="noised", guess=GuessSpec(source=source))


def _picard(name: str, match: re.Match[str]) -> Plan:
    plan = named_plan(match[2] or "ddpm-100")
    assert plan is not None, "it is a sampler's name"
    settings: dict[str, Any] = {"window": int(match[1])} | ({"warm": True} if match[5] else {})
    return dataclasses.replace(plan, name=name, accelerators={"picard": settings})


PICKED = {
    None: GuessSpec(source="anchors", pick="sample"),
    "argmax": GuessSpec(source="anchors"),
    "hysteresis": GuessSpec(source="anchors", margin=MARGIN),
    "warm": GuessSpec(source="anchors", pick="sample", warm=True),
}
PATTERNS: dict[str, Callable[[str, re.Match[str]], Plan]] = {
    SAMPLER: _sampler,
    r"rti-(\d+)(-renoise)?": _rti,
    r"anchored-(\d+)(?:-(argmax|hysteresis|warm))?": _anchored,
    r"diagonal-(\d+)": _diagonal,
    r"draft-(regression-)?(\d+)": _draft,
    rf"picard-(\d+)(?:-({SAMPLER}))?(-warm)?": _picard,
}


def _exact(name: str, plan: Plan | None) -> Plan | None:
    """The exact stack rewrites the published network; anchored and streaming networks have the backend alone."""
    rewritten = plan is not None and plan.guess.source != "anchors" and not plan.stagger
    return _accelerated(name, plan, {"exact": {}} if rewritten else {})


def _accelerated(name: str, plan: Plan | None, accelerators: dict[str, dict]) -> Plan | None:
    if plan is None or set(plan.accelerators) - {"picard"} or plan.backend != "eager":
        return None
    return dataclasses.replace(plan, name=name, accelerators={**accelerators, **plan.accelerators}, backend="best")


def load_plan(name_or_file: str) -> Plan:
    """A plan by name or from a YAML file. Raises InputError, saying what is known."""
    plan = named_plan(name_or_file)
    if plan is not None:
        return plan
    path = Path(name_or_file)
    if not name_or_file.endswith((".yaml", ".yml")):
        if name_or_file not in plan_names():
            raise InputError(f"unknown plan {name_or_file!r}; wanted {', '.join(known_plans())} or a YAML file")
        path = PRESETS / f"{name_or_file}.yaml"
    if not path.is_file():
        raise InputError(f"no plan file {name_or_file}")
    import yaml  # named plans do without it

    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{name_or_file} is not YAML: {' '.join(str(error).split())}") from None
    return Plan.from_dict(data, name_or_file)


def known_plans() -> list[str]:
    """Patterns of names, as a help text says them, and the presets."""
    named = [*(f"{solver}-K" for solver in NAMED_SPACING), "rti-K", "anchored-K", "diagonal-H", "draft-K", "picard-P"]
    named += [*(f"{scheduler}-M" for scheduler in (*UNCALIBRATED, *CALIBRATED)), "exact-..., ...-every-N"]
    return [*named, *plan_names()]


def plan_names() -> list[str]:
    """The presets of configs/plans."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))
