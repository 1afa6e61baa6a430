"""The clock: the only place in the house that reads the time."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod

# The system's sleep may wake late by a timer's tick, so the last stretch is waited out awake.
SPIN_S = {"win32": 0.002, "darwin": 0.005}.get(sys.platform, 0.0005)


class Clock(ABC):
    """Time in seconds since an arbitrary origin. It never runs backwards."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since this clock's origin."""

    @abstractmethod
    def sleep_until(self, time_s: float) -> None:
        """Return at `time_s`; at once if it has passed. Lateness is the caller's to measure."""


class WallClock(Clock):
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep_until(self, time_s: float) -> None:
        while (left_s := time_s - self.now()) > 0:
            if left_s > SPIN_S:
                time.sleep(left_s - SPIN_S)


class VirtualClock(Clock):
    """A clock that moves only when it is told to: runs on it repeat exactly and cost no waiting."""

    def __init__(self, start_s: float = 0.0):
        self._now_s = float(start_s)

    def now(self) -> float:
        return self._now_s

    def sleep_until(self, time_s: float) -> None:
        self._now_s = max(self._now_s, float(time_s))

    def advance(self, duration_s: float) -> None:
        """Move on by `duration_s` seconds (not negative)."""
        if duration_s < 0:
            raise ValueError(f"a clock never runs backwards: got {duration_s} s")
        self._now_s += duration_s


def step_time_of_day(seconds: float) -> None:
    """From now on `time.time` in this process is off by so much: a fault that is made. No clock here looks at it."""
    real = time.time
    time.time = lambda: real() + seconds
