"""Faults that are made, what is declared to become of them, and what became.

The declared end state of a fault is a promise: `moving` (motion goes on), `holding` (the robot has decelerated and
stays) or `stopped`. The bound is the time from the fault until that state is reached. A promise is kept where the fault
was made, which numbers show, the state is the declared one, and it was reached within the bound.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate, mktime_tz, parsedate_tz
from typing import Any

import numpy as np

from .channel import FINE, FULL, LATE, LOST
from .clock import step_time_of_day
from .controller import FIRST, HOLDING, STOPPED
from .robots import Robot, RobotFault, Waypoint

LIVE_OBJECTS = 500_000  # that a process holds whose garbage is collected: some 0.2 s to look through
CLOCK_STEP_S = 3600.0
AGE_S = 0.2  # of what may be acted on, where nobody says
REST_S = 0.1  # that coming to rest within the robot's limits may take
BUSY = 0.1  # share of every core that somebody who takes all of it has had at least
PAUSED = 2.0  # times what answers took before, the longest of a process that pauses takes
SHORT_S = 0.6  # a wait for an episode's first answer that is not told apart from motion: a lost one, and the next
USUAL_S, RESTART_S = 16.0, 45.0  # of a run with a fault; where a server has to begin again
RAISED = "the driver was told to fail"
NONE, DRIVER, STALE, FROZEN, CLOCK, PAUSE, MEMORY = range(7)  # what the processes are told to do wrong


CHUNK, TEN, AGE = "chunk + 2 periods", "10 actions + chunk + 2 periods", "bound + 1 period"
PERIODS, SECOND, ONCE = "2 periods", "1 s", "at once"
# chunk_s, period_s, age_s -> seconds
BOUNDS: dict[str, Callable[[float, float, float], float]] = {
    CHUNK: lambda chunk_s, period_s, age_s: chunk_s + 2 * period_s,
    TEN: lambda chunk_s, period_s, age_s: 10 * period_s + chunk_s + 2 * period_s,
    AGE: lambda chunk_s, period_s, age_s: age_s + period_s,
    PERIODS: lambda chunk_s, period_s, age_s: 2 * period_s,
    SECOND: lambda chunk_s, period_s, age_s: 1.0,
    ONCE: lambda chunk_s, period_s, age_s: period_s,
}


@dataclass(frozen=True)
class Fault:
    """where: who makes it: the `wire` between client and server, the `server`, the `controller`'s process (`code`), the
    `inference`'s, the `host`, or the `recording`. end: the declared state. bound: in words, of BOUNDS. usual_s: how
    long a run with it is to be, where nobody says."""

    where: str
    end: str
    bound: str
    code: int = NONE
    usual_s: float = USUAL_S

    def bound_s(self, chunk_s: float, period_s: float, age_s: float = AGE_S) -> float:
        """The bound [s]. chunk_s: how long the rows of an answer last; period_s: of the policy; age_s: the most that
        what is acted on may have. Where the robot is to hold, REST_S longer: it holds once it has come to rest, and
        that within its limits."""
        return BOUNDS[self.bound](chunk_s, period_s, age_s) + (REST_S if self.end == "holding" else 0.0)

    def with_rungs(self, rungs: int) -> Fault:
        """What is declared of a policy of so many plans: without another that fits, memory that is full is a hold."""
        return replace(self, end="holding", bound=CHUNK) if self.code == MEMORY and rungs == 1 else self

    def is_kept(self, state: str, after_s: float, held_s: float, bound_s: float, period_s: float) -> bool:
        """Whether `state`, reached after so long, is what was declared. held_s: the longest hold meanwhile; where
        motion is to go on, none may last a period of the policy, wherever it lies."""
        if state != self.end:
            return False
        return held_s < period_s - 1e-9 if self.end == "moving" else after_s <= bound_s


FAULTS: dict[str, Fault] = {
    "server-killed": Fault("server", "holding", CHUNK, usual_s=RESTART_S),
    "server-hung": Fault("server", "holding", CHUNK),
    "late-reply": Fault("wire", "moving", ONCE),
    "reorder": Fault("wire", "moving", ONCE),
    "duplicate": Fault("wire", "moving", ONCE),
    "nan-action": Fault("wire", "holding", CHUNK),
    "inf-action": Fault("wire", "holding", CHUNK),
    "wrong-shape": Fault("wire", "holding", CHUNK),
    "beyond-limits": Fault("wire", "holding", TEN),
    "stale-observation": Fault("controller", "holding", AGE, STALE),
    "frozen-camera": Fault("controller", "holding", AGE, FROZEN),
    "clock-step": Fault("controller", "moving", ONCE, CLOCK),
    "gc-pause": Fault("inference", "moving", ONCE, PAUSE),
    "cpu-hog": Fault("host", "moving", ONCE),
    "disk-full": Fault("recording", "moving", ONCE),
    "device-oom": Fault("inference", "moving", PERIODS, MEMORY),
    "driver-raises": Fault("controller", "stopped", PERIODS, DRIVER),
    "interrupt": Fault("host", "stopped", SECOND),
}


class FaultyRobot:
    """A robot whose driver and sensors fail when they are told to; else the robot itself."""

    def __init__(self, robot: Robot) -> None:
        self.robot, self._raises, self._stepped_s = robot, False, 0.0

    def make(self, code: int) -> None:
        """Begin the fault of that code, or end it (NONE)."""
        self._raises = code == DRIVER
        inject: Callable[[str | None], None] | None = getattr(self.robot, "inject", None)
        if inject is not None:
            inject({STALE: "stale-observation", FROZEN: "frozen-camera"}.get(code))
        if code == CLOCK:
            before_s = _time_of_day_s()
            step_time_of_day(CLOCK_STEP_S)
            self._stepped_s = _time_of_day_s() - before_s
        if code == PAUSE:
            gc.collect()

    def command(self, waypoints: list[Waypoint]) -> None:
        if self._raises:
            raise RobotFault(RAISED)
        self.robot.command(waypoints)

    def report(self) -> dict[str, Any]:
        """What the robot reports, where it does, and by how much the time of day was stepped here."""
        report: Callable[[], dict[str, Any]] | None = getattr(self.robot, "report", None)
        stepped = {"time_of_day_stepped_s": self._stepped_s} if self._stepped_s else {}
        return {**(report() if report is not None else {}), **stepped}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.robot, name)


def _time_of_day_s() -> float:
    """What a library in this process takes for the time of day, to a second; nobody here asks for it themselves."""
    told = parsedate_tz(formatdate())
    return 0.0 if told is None else float(mktime_tz(told))


def hold_objects() -> list[Any]:
    """So many live objects that looking through them takes a good part of a second."""
    return [{"n": [n]} for n in range(LIVE_OBJECTS // 2)]


def end_state(ticks: np.ndarray, fault_s: float, until_s: float, period_s: float) -> tuple[str, float]:
    """What a fault that lasted from fault_s to until_s ended in, and after how long [s], from the controller's ticks.

    The state is that of the last tick; its beginning is the first tick of the run of equal ones that leads there, where
    a robot that holds but still moves counts as moving. Waits for the first answer of an episode are left out, where
    they are short.
    """
    ticks = ticks[(ticks["time_s"] >= fault_s) & (ticks["time_s"] < until_s)]
    kept = _without_short_waits(ticks, period_s)
    if not len(kept):
        return "stopped", 0.0
    states = np.where((kept["state"] == HOLDING) & kept["at_rest"], "holding", "moving")
    states[kept["state"] == STOPPED] = "stopped"
    others = np.flatnonzero(states != states[-1])
    if not len(others):
        return str(states[-1]), 0.0
    return str(states[-1]), float(kept["time_s"][others[-1] + 1] - fault_s)


def longest_hold_s(ticks: np.ndarray, fault_s: float, until_s: float, period_s: float) -> float:
    """The longest time [s] without motion in that stretch of the controller's ticks; period_s: between two of them.
    Short waits for the first answer of an episode are none."""
    ticks = ticks[(ticks["time_s"] >= fault_s) & (ticks["time_s"] < until_s)]
    holds = (ticks["state"] == HOLDING) & ~_short_waits(ticks, period_s)
    return max((float(end - start) * period_s for start, end in _runs(holds)), default=0.0)


def _without_short_waits(ticks: np.ndarray, period_s: float) -> np.ndarray:
    return ticks[~_short_waits(ticks, period_s)]


def _short_waits(ticks: np.ndarray, period_s: float) -> np.ndarray:
    short = np.zeros(len(ticks), bool)
    for start, end in _runs((ticks["state"] == HOLDING) & (ticks["why"] == FIRST)):
        if (end - start) * period_s <= SHORT_S:
            short[start:end] = True
    return short


def _runs(which: np.ndarray) -> np.ndarray:
    """[n, 2] int: where runs of true begin, and the first place after each."""
    return np.flatnonzero(np.diff(which.astype(int), prepend=0, append=0)).reshape(-1, 2)


# -- what shows that a fault was made ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of a run with a fault that lasted from fault_s to until_s.

    ticks, answers: records of the controller and of whoever computes, of the whole run. told: what the controller
    told, robot: what the robot reported, recording: what became of one ({"failed"}), wire: what a proxy counted.
    ended_s: when the run was to end. busy_s: processor time that hogs took; cores: how many there are. camera: the part
    of an observation that a camera sees. age_s: the most that an observation may have.
    """

    ticks: np.ndarray
    answers: np.ndarray
    fault_s: float
    until_s: float
    ended_s: float
    told: dict[str, Any]
    robot: dict[str, Any] = field(default_factory=dict)
    recording: dict[str, Any] = field(default_factory=dict)
    wire: dict[str, int] = field(default_factory=dict)
    busy_s: float = 0.0
    cores: int = 1
    camera: tuple[int, int] = (0, 0)
    age_s: float = AGE_S

    def during(self, records: np.ndarray) -> np.ndarray:
        return records[(records["time_s"] >= self.fault_s) & (records["time_s"] < self.until_s)]

    def before(self, records: np.ndarray) -> np.ndarray:
        return records[records["time_s"] < self.fault_s]


def proof_of(name: str, seen: Seen) -> tuple[dict[str, Any], bool]:
    """Numbers that show that the fault of that name was made, as JSON data, and whether they do."""
    where = FAULTS[name].where
    if where == "wire":
        return _wire_proof(name, seen)
    if where == "server":
        answers = seen.during(seen.answers)
        missing = int(np.isin(answers["state"], (LATE, LOST)).sum())
        after = seen.answers[(seen.answers["time_s"] >= seen.until_s) & (seen.answers["state"] == FINE)]
        return {"late_or_lost": missing, "answers_afterwards": len(after)}, missing > 0 and len(after) > 0
    return _PROOFS[name](seen)


def _wire_proof(name: str, seen: Seen) -> tuple[dict[str, Any], bool]:
    told = seen.told
    made = {"replies": int(seen.wire.get(name, 0))}
    if FAULTS[name].end == "moving":
        made["discarded"] = int(told.get("discarded", 0))
    elif name == "beyond-limits":
        made["clamped"] = int(told.get("gate", {}).get("clamped", 0))
    else:
        made["refused"] = int(told.get("unanswered", {}).get("refused", 0)) + int(told.get("refused", 0))
    return made, min(made.values()) > 0


def _driver(seen: Seen) -> tuple[dict[str, Any], bool]:
    said = seen.told.get("fault")
    return {"said": said}, said is not None and RAISED in said


def _interrupt(seen: Seen) -> tuple[dict[str, Any], bool]:
    stopped_s = seen.told.get("stopped_s")
    early_s = None if stopped_s is None else seen.ended_s - stopped_s
    return {"ended_early_s": early_s}, early_s is not None and early_s > 0


def _stale(seen: Seen) -> tuple[dict[str, Any], bool]:
    oldest_s = float(max(seen.during(seen.ticks)["age_s"], default=0.0))
    return {"oldest_ms": oldest_s * 1e3}, oldest_s > seen.age_s


def _frozen(seen: Seen) -> tuple[dict[str, Any], bool]:
    """A living camera's last digits move; one that is frozen shows one thing while its stamps are fresh."""
    ticks = seen.during(seen.ticks)
    ticks = ticks[len(ticks) // 4 :]
    shown = len(np.unique(ticks["observation"][:, slice(*seen.camera)], axis=0))
    oldest_s = float(max(ticks["age_s"], default=0.0))
    return {"pictures": shown, "of": len(ticks), "oldest_ms": oldest_s * 1e3}, shown == 1 and len(ticks) > 10


def _clock(seen: Seen) -> tuple[dict[str, Any], bool]:
    stepped_s, after = float(seen.robot.get("time_of_day_stepped_s", 0.0)), len(seen.during(seen.ticks))
    return {"stepped_s": stepped_s, "commands_afterwards": after}, abs(stepped_s - CLOCK_STEP_S) < 60 and after > 0


def _pause(seen: Seen) -> tuple[dict[str, Any], bool]:
    made = _latencies(seen)
    usual, longest = made["usual_ms"], made["longest_ms"]
    return made, usual is not None and longest is not None and longest > PAUSED * usual


def _hog(seen: Seen) -> tuple[dict[str, Any], bool]:
    wanted_s = BUSY * seen.cores * (seen.until_s - seen.fault_s)
    return {"busy_s": seen.busy_s, "cores": seen.cores, **_latencies(seen)}, seen.busy_s > wanted_s


def _disk(seen: Seen) -> tuple[dict[str, Any], bool]:
    return {"failed": seen.recording.get("failed")}, seen.recording.get("failed") is not None


def _memory(seen: Seen) -> tuple[dict[str, Any], bool]:
    """The dearest rung answered before, and not any more."""
    answers, before = seen.during(seen.answers), seen.before(seen.answers)
    full = int((answers["state"] == FULL).sum())
    lower = int(((answers["state"] == FINE) & (answers["rung"] > 0)).sum())
    dearest = int(((before["state"] == FINE) & (before["rung"] == 0)).sum())
    return {"dearest_before": dearest, "lower": lower, "no_plan_fits": full}, dearest > 0 and lower + full > 0


_PROOFS: dict[str, Callable[[Seen], tuple[dict[str, Any], bool]]] = {
    "stale-observation": _stale,
    "frozen-camera": _frozen,
    "clock-step": _clock,
    "gc-pause": _pause,
    "cpu-hog": _hog,
    "disk-full": _disk,
    "device-oom": _memory,
    "driver-raises": _driver,
    "interrupt": _interrupt,
}


def _latencies(seen: Seen) -> dict[str, Any]:
    """What answers usually took before, the longest of the fault, and how many of each rung it had."""
    before, answers = (part(seen.answers) for part in (seen.before, seen.during))
    rungs, counts = np.unique(answers["rung"][answers["state"] == FINE], return_counts=True)
    return {
        "usual_ms": float(np.median(before["latency_s"])) * 1e3 if len(before) else None,
        "longest_ms": float(answers["latency_s"].max()) * 1e3 if len(answers) else None,
        "rungs": {str(rung): int(n) for rung, n in zip(rungs, counts, strict=True)},
    }
