"""The link of a driver: a process that may wait for a robot, and its caller, who must not.

    controller --- waypoints ------> ring ---> the driver's process: a network, a serial line
               <-- measurements ---- ring <---    "
               <-- what it counted - ring <---    "

A process, not a thread: a thread that parses what a robot says has the interpreter to itself while it does, and the
controller's command waits for it, however high its priority is.

Legend: Do observation numbers, Dc of a command.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..child import Child, Parent
from ..clock import WallClock
from ..host import fifo
from ..rings import Ring
from .contract import RobotFault, Waypoint

START_S, CONNECT_S, STOP_S = 20.0, 10.0, 3.0
LOOK_S = 0.005  # between two looks at whether it has begun
LONGEST_REASON = 300  # bytes
WAYPOINTS = 256  # of one command, at most
PRIORITY = 40  # of SCHED_FIFO, below a controller's
COUNTS = ("measurements", "bad_measurements", "sent", "clipped")

STATUS = np.dtype([("lives", "?"), ("reason", f"S{LONGEST_REASON}"), *((name, "i8") for name in COUNTS)])


class Link:
    """The caller's end: the newest measurement, the newest command, and why the link broke.

    link = Link("arm", 6, 6)
    link.start(live, "ws://arm:9090")           # runs live(far, "ws://arm:9090") in its process; far: the `FarEnd`
    link.wait_for_first()
    values, stamp_s = link.newest()             # however old; RobotFault where the link is broken
    link.order(waypoints)                       # for whoever calls `far.orders`
    link.end()

    `start` wants what can be pickled. Whatever the process raises breaks the link and is what the caller hears. A robot
    that is silent is not lost: how old its last measurement may be is for the caller to judge.
    """

    def __init__(self, name: str, observation_dim: int, command_dim: int) -> None:
        self.name, self.clock = name, WallClock()
        row = np.dtype([("values", "f4", (observation_dim,)), ("stamp_s", "f8")])
        vectors = [(part, "f8", (command_dim,)) for part in ("position", "velocity")]
        order = np.dtype([("command", "i8"), ("left", "i8"), ("time_s", "f8"), *vectors, ("episode", "i8")])
        self._dim, self._child, self._commands = observation_dim, None, 0
        self._status: Any = np.zeros((), STATUS)[()]
        self._wake = multiprocessing.get_context("spawn").Semaphore(0)
        atexit.register(self.end)
        self._rings: tuple[Ring, ...] = ()
        for dtype, capacity in ((row, 64), (order, 4 * WAYPOINTS), (STATUS, 8)):
            self._rings += (Ring.create(dtype, capacity),)

    def start(self, live: Callable[..., None], *arguments: Any) -> None:
        """Run live(far, *arguments) in a process of its own, until it returns or `end`."""
        self._child = Child("ontick-link", _begin, self._rings, self._wake, live, arguments)

    def wait_for_first(self) -> None:
        """Until something was measured. Raises RobotFault."""
        self._wait(lambda: bool(self._newest_status()["lives"]), START_S, "its process has not begun")
        self._wait(lambda: self._rings[0].newest() is not None, CONNECT_S, "it has measured nothing")

    def newest(self) -> tuple[np.ndarray, float]:
        """The last measurement [Do], however old, and when it was made [s]. Raises RobotFault."""
        if why := self._why_broken():
            raise RobotFault(f"{self.name}: {why}")
        newest = self._rings[0].newest()
        if newest is None:
            raise RobotFault(f"{self.name} has measured nothing{self._of_bad()}")
        return np.array(newest["values"]), float(newest["stamp_s"])

    def order(self, waypoints: Sequence[Waypoint]) -> None:
        """A command, in the place of one that was not yet taken. Raises RobotFault where the link is broken."""
        if why := self._why_broken():
            raise RobotFault(f"{self.name}: {why}")
        if len(waypoints) > WAYPOINTS:
            raise RobotFault(f"got a command of {len(waypoints)} waypoints, wanted at most {WAYPOINTS}")
        self._commands += 1
        for left, waypoint in zip(reversed(range(len(waypoints))), waypoints, strict=True):
            self._rings[1].put((self._commands, left, *waypoint))
        self._wake.release()

    def report(self) -> dict[str, int]:
        """What was counted, also after `end`: `commands` of the caller; `measurements`, `bad_measurements` that were no
        numbers, what was `sent`, and how much of it `clipped`."""
        status = self._newest_status()
        return {"commands": self._commands, **{name: int(status[name]) for name in COUNTS}}

    def end(self) -> None:
        """Tell the process to end and wait for it; one that hangs is killed. Again is no error."""
        if self._child is not None:
            self._child.stop(STOP_S)
            self._status, self._child = self._newest_status(), None
        for ring in self._rings:
            ring.close()
            ring.unlink()
        self._rings = ()
        atexit.unregister(self.end)

    def _wait(self, until: Callable[[], bool], within_s: float, what: str) -> None:
        until_s = self.clock.now() + within_s
        while not until():
            if why := self._why_broken():
                raise RobotFault(f"{self.name} cannot be reached: {why}")
            if self.clock.now() > until_s:
                raise RobotFault(f"{self.name} cannot be reached: {what} within {within_s:g} s{self._of_bad()}")
            self.clock.sleep_until(self.clock.now() + LOOK_S)

    def _why_broken(self) -> str:
        """Empty while it is whole."""
        if self._child is None or self._child.is_alive:
            return _reason(self._newest_status())
        exit_code = self._child.process.exitcode  # what it said last may have come only now
        return _reason(self._newest_status()) or f"its process ended with {exit_code}"

    def _newest_status(self) -> Any:
        newest = self._rings[2].newest() if self._rings else None
        return self._status if newest is None else newest

    def _of_bad(self) -> str:
        bad = int(self._newest_status()["bad_measurements"])
        return f" ({bad} measurements were no {self._dim} finite numbers)" if bad else ""


class FarEnd:
    """The process's end. Its threads may share it."""

    def __init__(self, rings: Sequence[Ring], wake: Any, parent: Parent) -> None:
        self._measurements, self._orders, self._statuses = rings
        self._wake, self._parent, self.clock = wake, parent, WallClock()
        self._dim = self._measurements.dtype["values"].shape[0]
        self._lock = threading.Lock()  # a ring has one writer
        self._counts: Counter[str] = Counter()
        self._reason, self._is_ending = "", False
        self._half: list[np.void] = []  # the beginning of a command
        self._tell()

    @property
    def is_alive(self) -> bool:
        """Whether to go on: nobody has ended it, and nothing broke it."""
        self._is_ending = self._is_ending or self._parent.wants_end(0.0)
        return not (self._is_ending or self._reason)

    def measured(self, values: Sequence[float] | np.ndarray, stamp_s: float) -> None:
        """A measurement, [Do]. What is no number is counted and left out: the robot falls silent then."""
        try:
            with np.errstate(over="ignore"):
                row = np.asarray(values, np.float32)
        except (TypeError, ValueError, OverflowError):  # JSON has null for a NaN, and numbers of any length
            row = np.full(self._dim, np.nan, np.float32)
        is_good = row.shape == (self._dim,) and np.isfinite(row).all()
        if is_good:
            self._measurements.put((row, stamp_s))
        self.count("measurements" if is_good else "bad_measurements")

    def orders(self, within_s: float) -> Sequence[Waypoint] | None:
        """The newest command, once; None where none comes within the time."""
        if self._wake.acquire(timeout=max(0.0, within_s)):
            while self._wake.acquire(block=False):
                pass
        self._half += self._orders.take()
        lasts = [i for i, record in enumerate(self._half) if record["left"] == 0]
        if not lasts:
            return None
        whole, self._half = self._half[: lasts[-1] + 1], self._half[lasts[-1] + 1 :]
        return tuple(_waypoint(record) for record in whole if record["command"] == whole[-1]["command"])

    def count(self, name: str) -> None:
        """One more of COUNTS."""
        with self._lock:
            self._counts[name] += 1
            self._tell()

    def broke(self, reason: str) -> None:
        """It can be used no more; the first reason counts."""
        with self._lock:
            self._reason = self._reason or reason
            self._tell()

    @contextlib.contextmanager
    def guarded(self) -> Any:
        """What is raised inside breaks the link."""
        try:
            yield
        except (RobotFault, InputError) as error:
            self.broke(str(error) or type(error).__name__)
        except Exception as error:  # of a foreign driver: the caller hears of it with its next call
            self.broke(f"{type(error).__name__}: {error}")

    def _tell(self) -> None:
        reason = self._reason.encode()[:LONGEST_REASON]
        self._statuses.put((True, reason, *(self._counts[name] for name in COUNTS)))


def _begin(
    rings: Sequence[Ring], wake: Any, live: Callable[..., None], arguments: Sequence[Any], parent: Parent
) -> None:
    fifo(PRIORITY)  # where it is refused, the controller says so
    far = FarEnd(rings, wake, parent)
    try:
        with far.guarded():
            live(far, *arguments)
    finally:
        controller = multiprocessing.parent_process()
        if controller is not None and not controller.is_alive():
            for ring in rings:
                ring.unlink()  # nobody else is left to do it


def _waypoint(record: Any) -> Waypoint:
    position, velocity = (np.array(record[name]) for name in ("position", "velocity"))
    return Waypoint(float(record["time_s"]), position, velocity, int(record["episode"]))


def _reason(status: Any) -> str:
    return bytes(status["reason"]).decode(errors="replace")
