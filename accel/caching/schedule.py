"""A cache schedule: which residual branch is computed at which step, as data.

schedule = load_schedule("bac-10.json")
schedule.refresh[b, k]      whether block b is computed at the k-th executed step, 0 being the noisiest; where it is
                            not, its last value is added once more
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...diffusion import Plan
from ...errors import InputError
from ...files import write_whole

FORMAT = "ontick-cache-schedule-1"


@dataclass(frozen=True, kw_only=True)
class CacheSchedule:
    """refresh  [blocks, S] bool; column 0, where there is nothing to reuse yet, is all true
    blocks    names, in the network's order
    sampler   what the steps are: grid, solver and what else `sampler_of` gives
    network   fingerprint of the weights that it was made for; None: made without looking at any
    about     provenance: scheduler, settings, observations, what was measured; free-form but JSON
    """

    refresh: np.ndarray
    blocks: tuple[str, ...]
    sampler: Mapping[str, Any]
    network: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.refresh.dtype != bool or self.refresh.ndim != 2 or self.refresh.shape[0] != len(self.blocks):
            got = f"{self.refresh.dtype} {self.refresh.shape}"
            raise InputError(f"a cache schedule is [{len(self.blocks)} blocks, steps] of booleans, got {got}")
        if not self.refresh.size or not self.refresh[:, 0].all():
            raise InputError("a cache schedule must refresh every block at its first step: nothing is cached there yet")

    @property
    def steps(self) -> int:
        return self.refresh.shape[1]

    @property
    def refreshes(self) -> float:
        """How often a block is computed in a chunk: the mean over blocks."""
        return float(self.refresh.sum(1).mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `schedule_from` undoes it."""
        return {
            "format": FORMAT,
            "network": self.network,
            "sampler": dict(self.sampler),
            "refreshes": self.refreshes,
            "refresh": {
                name: "".join("#" if r else "." for r in row)
                for name, row in zip(self.blocks, self.refresh, strict=True)
            },
            "about": dict(self.about),
        }

    def save(self, path: str | Path) -> Path:
        return write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")


def sampler_of(plan: Plan) -> dict[str, Any]:
    """What decides what a step is: the plan's grid and solver, and its noise and staircase where they are its own."""
    plain = plan.to_dict()
    return {key: plain[key] for key in ("grid", "solver", "eta", "gamma", "stagger", "block") if key in plain}


def schedule_from(data: Any, origin: str = "schedule") -> CacheSchedule:
    """A schedule from plain data. Raises InputError that starts with `origin`."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise InputError(f"{origin}: format is {got!r}, wanted {FORMAT!r} (`ontick calibrate` writes it)")
    rows, sampler, about = data.get("refresh"), data.get("sampler"), data.get("about", {})
    if not isinstance(rows, dict) or not rows or not isinstance(sampler, dict) or not isinstance(about, dict):
        raise InputError(f"{origin}: wanted refresh (block: a string of # and .), sampler and about")
    lengths = {len(row) if isinstance(row, str) and set(row) <= {"#", "."} else None for row in rows.values()}
    if len(lengths) != 1 or None in lengths:
        raise InputError(f"{origin}: refresh wants strings of # (computed) and . (reused), all of one length")
    network = data.get("network")
    if not (network is None or isinstance(network, str)):
        raise InputError(f"{origin}: network is {network!r}, wanted a fingerprint or null")
    refresh = np.array([[c == "#" for c in row] for row in rows.values()])
    try:
        return CacheSchedule(refresh=refresh, blocks=tuple(rows), sampler=sampler, network=network, about=about)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None


def load_schedule(path: str | Path) -> CacheSchedule:
    """Read a schedule file. Raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no cache schedule {path}; `ontick calibrate CHECKPOINT --plan NAME --out {path}` makes one")
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {' '.join(str(error).split())}") from None
    return schedule_from(data, str(path))


def check_fits(
    schedule: CacheSchedule, blocks: Sequence[str], plan: Plan, steps: int, network: str, origin: str
) -> None:
    """Raises InputError where the schedule was made for other blocks, another sampler or another network."""
    again = "calibrate one for this network and plan"
    if tuple(blocks) != schedule.blocks:
        got = f"{len(schedule.blocks)} blocks, {schedule.blocks[0]} to {schedule.blocks[-1]}"
        raise InputError(f"{origin} is for {got}; this network has {len(blocks)}: {again}")
    if schedule.steps != steps:
        raise InputError(f"{origin} has {schedule.steps} steps, this plan takes {steps}: {again}")
    if dict(schedule.sampler) != sampler_of(plan):
        raise InputError(f"{origin} is for the sampler {dict(schedule.sampler)}, this is {sampler_of(plan)}: {again}")
    if schedule.network is not None and schedule.network != network:
        raise InputError(f"{origin} is for the network {schedule.network}, this is {network}: {again}")
