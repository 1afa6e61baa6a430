"""What an evaluation was asked for: its options, checked, and the unfinished work that belongs to them."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..envs import find_task
from ..envs.disturbances import Disturbance
from ..envs.evaluation import Job, PolicyMaker
from ..errors import InputError
from ..files import check_place
from ..policy import read_config
from ..runtime import Charge, FixedDelay, LatencyBudget, LatencyTrace, Overlap, load_budget
from .families import (
    ASSETS,
    Candidate,
    check_device,
    checkpoint_for,
    fingerprint,
    make_ladder,
    parse_candidate,
    policy_maker,
    with_schedule_of,
)

FORMAT = "ontick-evaluation-1"
DEFAULT_BUDGET = "cpu-20hz"
LADDER = "+"  # between the plans of a ladder


@dataclass(frozen=True)
class Rung:
    """A plan of a row."""

    candidate: Candidate
    checkpoint: Path

    @property
    def name(self) -> str:
        return self.candidate.name


@dataclass(frozen=True)
class Entry:
    """One row to evaluate: a plan, or a ladder of them, dearest first."""

    task: str
    rungs: tuple[Rung, ...]
    device: str
    charged: bool = False  # late answers are filled with the tail of the chunk before, so it must be computed

    @property
    def name(self) -> str:
        return LADDER.join(rung.name for rung in self.rungs)

    @property
    def key(self) -> tuple[str, str]:
        return self.task, self.name

    @property
    def makers(self) -> list[PolicyMaker]:
        """Of each rung: makes its policy at a width; can be sent to a worker."""
        return [policy_maker(rung.candidate, rung.checkpoint, self.device, tail=self.charged) for rung in self.rungs]

    def maker(self, costs_s: Sequence[float]) -> PolicyMaker:
        """Makes the row's policy at a width; can be sent to a worker. costs_s: of each rung."""
        if len(self.rungs) == 1:
            return self.makers[0]
        return partial(make_ladder, [rung.name for rung in self.rungs], self.makers, list(costs_s))

    @property
    def demonstrated_modes(self) -> list[str]:
        """The mode of each demonstration that the policy was trained on; empty where that was not noted."""
        about = read_config(self.rungs[0].checkpoint).get("about", {})
        data = about.get("data")  # where training notes the attributes of its data; the baseline notes them beside
        noted = data if isinstance(data, dict) and "modes" in data else about
        return list(noted.get("modes") or [])


def entries_of(options: argparse.Namespace) -> list[Entry]:
    """Every task with every plan, checked."""
    tasks = _names("--tasks", options.tasks)
    for option, count in (("--episodes", options.episodes), ("--workers", options.workers)):
        if count < 1:
            raise InputError(f"{option} is {count}, wanted at least 1")
    rows = [[parse_candidate(plan) for plan in row.split(LADDER)] for row in _names("--plans", options.plans)]
    candidates = [candidate for row in rows for candidate in row]
    for task in tasks:
        find_task(task)
    names = [LADDER.join(candidate.name for candidate in row) for row in rows]
    if len(set(names)) < len(names) or any(len({plan.name for plan in row}) < len(row) for row in rows):
        raise InputError(f"--plans {options.plans} holds two plans with one name; rename one in its file")
    if options.checkpoint is not None:
        family = read_config(options.checkpoint).get("family")
        if not any(candidate.runs(family) for candidate in candidates):
            raise InputError(f"none of --plans {options.plans} runs {options.checkpoint}, whose family is {family}")
    check_device(options.device)
    if options.charge is not None and options.delay_ticks is not None:
        raise InputError("--charge and --delay-ticks both say how long an answer takes; give one of them")
    if options.delay_ticks is not None and any(len(row) > 1 for row in rows):
        raise InputError("a ladder chooses by what its plans cost, and with --delay-ticks all cost the same: --charge")
    charged = bool(options.charge or options.delay_ticks or options.stitch)
    return [
        Entry(task, tuple(_rung(task, candidate, options.checkpoint) for candidate in row), options.device, charged)
        for task in tasks
        for row in rows
    ]


def _rung(task: str, candidate: Candidate, given: str | None) -> Rung:
    checkpoint = checkpoint_for(task, candidate, given)
    return Rung(with_schedule_of(candidate, checkpoint), checkpoint)


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
            "plan": [rung.candidate.plan.to_dict() if rung.candidate.plan else rung.name for rung in entry.rungs],
            "checkpoint": [fingerprint(rung.checkpoint) for rung in entry.rungs],
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


def job_of(
    options: argparse.Namespace,
    entry: Entry,
    seeds: Sequence[int],
    samples_s: Sequence[np.ndarray],
    budget: LatencyBudget,
    disturbance: Disturbance,
) -> Job:
    """What is played of a row whose rungs have these latencies."""
    charges = tuple(_charge(options, latencies_s, budget) for latencies_s in samples_s)
    costs_s = [float(np.percentile(latencies_s, budget.percentile)) for latencies_s in samples_s]
    return Job(entry.task, entry.maker(costs_s), tuple(seeds), budget, charges, disturbance, overlap_of(options))


def _charge(options: argparse.Namespace, latencies_s: np.ndarray, budget: LatencyBudget) -> Charge:
    """What each answer of a rung costs: the ticks asked for, the rung's latencies, or nothing."""
    if options.delay_ticks is not None:
        return FixedDelay(options.delay_ticks, budget)
    return Charge(latencies_s) if options.charge else Charge.none()


def shipped_traces() -> dict[str, Path]:
    """Latency traces of other machines by name."""
    return {path.stem: path for path in sorted((ASSETS / "traces").glob("*.json"))}


def traced_name(plan: str, options: argparse.Namespace) -> str:
    """What a plan's latencies are called in a trace: answers that are told what was played take longer."""
    return f"{plan} inpaint" if options.stitch == "inpaint" else plan


def trace_of(options: argparse.Namespace) -> LatencyTrace | None:
    """The trace that `--charge` names: a file, or one that is shipped; None where there is none. Raises InputError."""
    if options.charge in (None, "measured"):
        return None
    shipped = shipped_traces()
    if not Path(options.charge).exists() and options.charge not in shipped:
        known = ", ".join(("measured", *shipped))
        raise InputError(f"--charge {options.charge}: no such file; wanted one, or of these: {known}")
    place: str = options.charge
    return LatencyTrace.load(shipped.get(place, place))


def budget_of(options: argparse.Namespace) -> LatencyBudget:
    name = options.budget
    if name is None and options.period_ms is None:
        name = DEFAULT_BUDGET
    return load_budget(name, options.period_ms, options.deadline_ms)


def unfinished(path: str, request: dict[str, Any], form: str = FORMAT) -> dict[str, Any] | None:
    """The unfinished document of the same request at `path`, if there is one; form: what its `format` says."""
    if not Path(path).is_file():
        return None
    try:
        document = json.loads(Path(path).read_text())
    except ValueError:
        return None
    same = isinstance(document, dict) and document.get("format") == form and document.get("request") == request
    return document if same and not document.get("complete") else None
