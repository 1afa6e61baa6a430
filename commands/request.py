"""What an evaluation was asked for: its options, checked, and the unfinished work that belongs to them."""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..envs import find_task
from ..envs.disturbances import Disturbance
from ..envs.evaluation import PolicyMaker
from ..errors import InputError
from ..files import check_place
from ..policy import read_config
from ..runtime import Charge, FixedDelay, LatencyBudget, LatencyTrace, Overlap, Policy, load_budget
from .families import (
    Candidate,
    check_device,
    checkpoint_for,
    fingerprint,
    parse_candidate,
    policy_maker,
    with_schedule_of,
)

FORMAT = "ontick-evaluation-1"
DEFAULT_BUDGET = "cpu-20hz"


@dataclass(frozen=True)
class Entry:
    """One row to evaluate."""

    task: str
    candidate: Candidate
    checkpoint: Path
    device: str
    charged: bool = False  # late answers are filled with the tail of the chunk before, so it must be computed

    @property
    def key(self) -> tuple[str, str]:
        return self.task, self.candidate.name

    @property
    def maker(self) -> PolicyMaker:
        """Makes the policy at a width; can be sent to a worker."""
        return policy_maker(self.candidate, self.checkpoint, self.device, tail=self.charged)

    def policy(self, width: int) -> Policy:
        return self.maker(width)

    @property
    def demonstrated_modes(self) -> list[str]:
        """The mode of each demonstration that the policy was trained on; empty where that was not noted."""
        about = read_config(self.checkpoint).get("about", {})
        data = about.get("data")  # where training notes the attributes of its data; the baseline notes them beside
        noted = data if isinstance(data, dict) and "modes" in data else about
        return list(noted.get("modes") or [])


def entries_of(options: argparse.Namespace) -> list[Entry]:
    """Every task with every plan, checked."""
    tasks = _names("--tasks", options.tasks)
    for option, count in (("--episodes", options.episodes), ("--workers", options.workers)):
        if count < 1:
            raise InputError(f"{option} is {count}, wanted at least 1")
    candidates = [parse_candidate(plan) for plan in _names("--plans", options.plans)]
    for task in tasks:
        find_task(task)
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise InputError(f"--plans {options.plans} holds two plans with one name; rename one in its file")
    if options.checkpoint is not None:
        family = read_config(options.checkpoint).get("family")
        if all(candidate.family != family for candidate in candidates):
            raise InputError(f"none of --plans {options.plans} runs {options.checkpoint}, whose family is {family}")
    check_device(options.device)
    if options.charge is not None and options.delay_ticks is not None:
        raise InputError("--charge and --delay-ticks both say how long an answer takes; give one of them")
    charged = bool(options.charge or options.delay_ticks or options.stitch)
    entries = []
    for task in tasks:
        for candidate in candidates:
            checkpoint = checkpoint_for(task, candidate, options.checkpoint)
            entries.append(Entry(task, with_schedule_of(candidate, checkpoint), checkpoint, options.device, charged))
    return entries


def request_of(
    options: argparse.Namespace,
    entries: list[Entry],
    budget: LatencyBudget,
    trace: LatencyTrace | None,
    disturbance: Disturbance,
) -> dict[str, Any]:
    """What was asked for, by content: two runs with equal requests are one evaluation. Gives `options.json` a place
    where none was told, and checks all places."""
    rows = [
        {
            "task": entry.task,
            "plan": entry.candidate.plan.to_dict() if entry.candidate.plan else entry.candidate.name,
            "checkpoint": fingerprint(entry.checkpoint),
        }
        for entry in entries
    ]
    charge = options.charge if trace is None else trace.to_dict()["plans"]
    request = {
        "version": __version__,
        "packages": {task: find_task(task).version for task in sorted({entry.task for entry in entries})},
        "rows": rows,
        "episodes": options.episodes,
        "seed": options.seed,
        "device": options.device,
        "budget": budget.to_dict(),
        "charge": charge,
        "delay_ticks": options.delay_ticks,
        "stitch": options.stitch,
        "late": options.late,
        "disturb": str(disturbance) or None,
    }
    if options.json is None:  # a name of its own for every request, so that none is written over another
        told = hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=4).hexdigest()
        options.json = str(Path("runs") / f"evaluation-{told}.json")
    _check_places(options)
    return request


def trace_file(options: argparse.Namespace) -> Path:
    """Where the latencies measured for `--charge measured` are written."""
    return Path(options.json).with_suffix(".trace.json")


def _check_places(options: argparse.Namespace) -> None:
    """Nothing that is there may be lost: each file to write is a place of its own, and no folder or input."""
    check_place(options.json)
    places = [options.json] + [options.html] * (options.html is not None)
    places += [trace_file(options)] * (options.charge == "measured")
    for place in places:
        if check_place(place).is_dir():
            raise InputError(f"{place} is a folder, wanted a file to write")
    if options.charge not in (None, "measured"):
        places.append(options.charge)
    resolved = [Path(place).resolve() for place in places]
    if len(set(resolved)) < len(resolved):
        raise InputError(f"two of {', '.join(map(str, places))} are one file; give each its own")


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option} is empty; wanted one or more names, separated by commas")
    if len(set(names)) < len(names):
        raise InputError(f"{option} {text} names something twice")
    return names


def disturbance_of(options: argparse.Namespace) -> Disturbance:
    return Disturbance() if options.disturb is None else Disturbance.parse(options.disturb)


def overlap_of(options: argparse.Namespace) -> Overlap:
    return Overlap(options.stitch, options.late)


def charge_of(options: argparse.Namespace, latencies_s: np.ndarray, budget: LatencyBudget) -> Charge:
    """What each answer of a row costs: the ticks asked for, the row's latencies, or nothing."""
    if options.delay_ticks is not None:
        return FixedDelay(options.delay_ticks, budget)
    return Charge(latencies_s) if options.charge else Charge.none()


def budget_of(options: argparse.Namespace) -> LatencyBudget:
    name = options.budget
    if name is None and options.period_ms is None:
        name = DEFAULT_BUDGET
    return load_budget(name, options.period_ms, options.deadline_ms)


def unfinished(path: str, request: dict[str, Any]) -> dict[str, Any] | None:
    """The unfinished document of the same request at `path`, if there is one."""
    if not Path(path).is_file():
        return None
    try:
        document = json.loads(Path(path).read_text())
    except ValueError:
        return None
    same = isinstance(document, dict) and document.get("format") == FORMAT and document.get("request") == request
    return document if same and not document.get("complete") else None
