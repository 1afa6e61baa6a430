"""Faults that are made, what is declared to become of them, and what became.

The declared end state of a fault is a promise: `moving` (motion goes on), `holding` (the robot has decelerated and
stays) or `stopped`. The bound is the time from the fault until that state is reached.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .clock import step_time_of_day
from .controller import FIRST, HOLDING, STOPPED
from .robots import Robot, RobotFault, Waypoint

LIVE_OBJECTS = 1_500_000  # that a process holds whose garbage is collected
CLOCK_STEP_S = 3600.0
SHORT_S = 0.5  # a wait for an episode's first answer that is not told apart from motion
NONE, DRIVER, STALE, FROZEN, CLOCK, PAUSE, MEMORY = range(7)  # what the processes are told to do wrong


@dataclass(frozen=True)
class Fault:
    """where: who makes it: the `wire` between client and server, the `server`, the `controller`'s process (`code`), the
    `inference`'s, the `host`, or the `recording`. end: the declared state. bound: in words."""

    where: str
    end: str
    bound: str
    code: int = NONE


CHUNK, ONCE = "chunk + 2 periods", "at once"
FAULTS: dict[str, Fault] = {
    "server-killed": Fault("server", "holding", CHUNK),
    "server-hung": Fault("server", "holding", CHUNK),
    "late-reply": Fault("wire", "moving", ONCE),
    "reorder": Fault("wire", "moving", ONCE),
    "duplicate": Fault("wire", "moving", ONCE),
    "nan-action": Fault("wire", "holding", CHUNK),
    "inf-action": Fault("wire", "holding", CHUNK),
    "wrong-shape": Fault("wire", "holding", CHUNK),
    "beyond-limits": Fault("wire", "holding", "10 actions + chunk + 2 periods"),
    "stale-observation": Fault("controller", "holding", "bound + 1 period", STALE),
    "frozen-camera": Fault("controller", "holding", "bound + 1 period", FROZEN),
    "clock-step": Fault("controller", "moving", ONCE, CLOCK),
    "gc-pause": Fault("inference", "moving", ONCE, PAUSE),
    "cpu-hog": Fault("host", "moving", ONCE),
    "disk-full": Fault("recording", "moving", ONCE),
    "device-oom": Fault("inference", "moving", "2 periods", MEMORY),
    "driver-raises": Fault("controller", "stopped", "2 periods", DRIVER),
    "interrupt": Fault("host", "stopped", "1 s"),
}


class FaultyRobot:
    """A robot whose driver and sensors fail when they are told to; else the robot itself."""

    def __init__(self, robot: Robot) -> None:
        self.robot, self._raises = robot, False

    def make(self, code: int) -> None:
        """Begin the fault of that code, or end it (NONE)."""
        self._raises = code == DRIVER
        inject: Callable[[str | None], None] | None = getattr(self.robot, "inject", None)
        if inject is not None:
            inject({STALE: "stale-observation", FROZEN: "frozen-camera"}.get(code))
        if code == CLOCK:
            step_time_of_day(CLOCK_STEP_S)
        if code == PAUSE:
            gc.collect()

    def command(self, waypoints: list[Waypoint]) -> None:
        if self._raises:
            raise RobotFault("the driver was told to fail")
        self.robot.command(waypoints)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.robot, name)


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


def _without_short_waits(ticks: np.ndarray, period_s: float) -> np.ndarray:
    waits = (ticks["state"] == HOLDING) & (ticks["why"] == FIRST)
    edges = np.flatnonzero(np.diff(waits.astype(int), prepend=0, append=0))
    keep = np.ones(len(ticks), bool)
    for start, end in edges.reshape(-1, 2):
        if (end - start) * period_s <= SHORT_S:
            keep[start:end] = False
    return ticks[keep]
