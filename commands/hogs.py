"""Busy processes, a core each, beside which a controller must keep time."""

import multiprocessing
import os
from typing import Any

from ..runtime import WallClock
from ..runtime.child import ignore_interrupts, start_without_interrupts

HOG_S = 0.1  # between two looks of a hog at whether it is still wanted


def start_hogs() -> list[Any]:
    """A busy process for every core; `stop_hogs` ends them, and they do not outlive this process."""
    context = multiprocessing.get_context("spawn")
    hogs: list[Any] = []
    try:
        for _ in range(os.cpu_count() or 1):
            hogs.append(context.Process(target=_hog, daemon=True))
            start_without_interrupts(hogs[-1], on_any_core=True)
    except BaseException:
        stop_hogs(hogs)
        raise
    return hogs


def stop_hogs(hogs: list[Any]) -> float:
    """End them. Returns the processor time that they took [s], 0 where the system does not tell."""
    before_s = _children_s()
    for hog in hogs:
        if hog.pid is not None:
            hog.kill()
            hog.join()
    return _children_s() - before_s


def _children_s() -> float:
    """Processor time of the children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _hog() -> None:
    ignore_interrupts()
    clock, parent = WallClock(), multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        until_s = clock.now() + HOG_S
        while clock.now() < until_s:
            sum(range(10_000))
