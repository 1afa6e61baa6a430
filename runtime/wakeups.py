"""How late this host wakes a process that sleeps until a deadline: the floor under every command rate."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from typing import Any, NamedTuple

import numpy as np

from ..errors import RunFailed
from .clock import WallClock
from .histogram import rank_at
from .host import fifo, real_time

STARTED_WITHIN_S = 30.0  # a spawned interpreter's imports, on a loaded machine


class Wakeups(NamedTuple):
    """late_s: float64 [n], how long after each deadline the process was awake; scheduler: "fifo" or "other"."""

    late_s: np.ndarray
    scheduler: str

    def summary_us(self) -> dict[str, float]:
        """{"n", "p50", "p99", "p99.9", "max"} in microseconds."""
        late_us, n = np.sort(self.late_s) * 1e6, len(self.late_s)
        percentiles = {f"p{p:g}": float(late_us[rank_at(p, n) - 1]) for p in (50, 99, 99.9)}
        return {"n": n, **percentiles, "max": float(late_us[-1])}


def measure_wakeups(rate_hz: float, seconds: float, real_time_wanted: bool = True) -> Wakeups:
    """Wake `rate_hz` times a second in a process of its own, made ready by `real_time` or left as it is.

    Deadlines are absolute; those that have passed when a late wake-up comes are late as well, as a robot's would be.
    Raises RunFailed when the process says nothing.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_wake, args=(theirs, rate_hz, seconds, real_time_wanted), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(STARTED_WITHIN_S + seconds):
            raise RunFailed("wake-ups cannot be measured: a new process gave no answer; is the machine overloaded?")
        is_fifo = ours.recv_bytes() == b"fifo"
        late_s = np.frombuffer(ours.recv_bytes(), np.float64)
    except EOFError:
        raise RunFailed("wake-ups cannot be measured: the process that measures them died") from None
    finally:
        process.join(1.0)
        process.kill()
    return Wakeups(late_s, "fifo" if is_fifo else "other")


def _wake(pipe: Any, rate_hz: float, seconds: float, real_time_wanted: bool) -> None:
    told = real_time() if real_time_wanted else []
    clock, period_s = WallClock(), 1.0 / rate_hz
    late_s = np.zeros(max(1, round(seconds * rate_hz)))
    start_s = clock.now() + 0.05
    for i in range(len(late_s)):
        deadline_s = start_s + i * period_s
        clock.sleep_until(deadline_s)
        late_s[i] = clock.now() - deadline_s
    is_fifo = any(line.startswith("SCHED_FIFO at") for line in told)
    pipe.send_bytes(b"fifo" if is_fifo else b"other")
    pipe.send_bytes(late_s.tobytes())


def fifo_permitted() -> str | None:
    """None where a thread may have SCHED_FIFO, else why not and what mends it. Tried in a thread that then ends."""
    if not hasattr(os, "sched_setscheduler"):
        return f"SCHED_FIFO refused: not on {sys.platform}"
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(fifo(1)))
    thread.start()
    thread.join()
    return None if told and "refused" not in told[0] else (told or ["SCHED_FIFO refused: it could not be tried"])[0]
