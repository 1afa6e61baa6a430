"""The link of a driver: what its threads, which may wait for a robot, share with its caller, who must not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import InputError
from ..clock import WallClock
from .contract import RobotFault, Waypoint

CONNECT_S, STOP_S = 10.0, 3.0
SILENT_S = 1.0  # a robot that has measured nothing for so long is lost


class Link:
    """The newest measurement, the newest command, and why the link broke.

    link = Link("arm", 6)
    link.run(read_forever, write_forever)       # each in a thread; what one raises breaks the link
    link.wait_for_first()
    values, stamp_s = link.newest()             # RobotFault where the link is broken or silent
    link.order(waypoints)                       # for whoever calls `orders`
    link.end()
    """

    def __init__(self, name: str, dim: int) -> None:
        self.name, self.dim, self.clock = name, dim, WallClock()
        self.bad = 0  # measurements that were no numbers
        self._changed = threading.Condition()
        self._newest: tuple[np.ndarray, float] | None = None
        self._orders: Sequence[Waypoint] | None = None
        self._reason = ""
        self._threads: list[threading.Thread] = []
        self.is_ending = False

    def run(self, *bodies: Callable[[], None]) -> None:
        """Run each in a thread of its own."""
        for body in bodies:
            thread = threading.Thread(target=self._guarded, args=(body,), name=self.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait_for_first(self) -> None:
        """Until something was measured. Raises RobotFault."""
        until_s = self.clock.now() + CONNECT_S
        with self._changed:
            while self._newest is None and not self._reason and (left_s := until_s - self.clock.now()) > 0:
                self._changed.wait(left_s)
            if self._newest is None:
                silence = f"it has measured nothing within {CONNECT_S:g} s{self._of_bad()}"
                raise RobotFault(f"{self.name} cannot be reached: {self._reason or silence}")

    def measured(self, values: Sequence[float] | np.ndarray, stamp_s: float) -> None:
        """A measurement, [Do]. What is no number is counted and left out: the robot falls silent then."""
        try:
            with np.errstate(over="ignore"):
                row = np.asarray(values, np.float32)
        except (TypeError, ValueError, OverflowError):  # JSON has null for a NaN, and numbers of any length
            row = np.full(self.dim, np.nan, np.float32)
        with self._changed:
            if row.shape == (self.dim,) and np.isfinite(row).all():
                self._newest = row, stamp_s
                self._changed.notify_all()
            else:
                self.bad += 1

    def broke(self, reason: str) -> None:
        """It can be used no more; the first reason counts."""
        with self._changed:
            self._reason = self._reason or reason
            self._changed.notify_all()

    def newest(self) -> tuple[np.ndarray, float]:
        """The last measurement [Do] and when it was made [s]. Raises RobotFault."""
        with self._changed:
            if self._reason:
                raise RobotFault(f"{self.name}: {self._reason}")
            assert self._newest is not None, "waited for"
            values, stamp_s = self._newest
        if (silent_s := self.clock.now() - stamp_s) > SILENT_S:
            raise RobotFault(f"{self.name} has measured nothing for {silent_s:.1f} s{self._of_bad()}")
        return values.copy(), stamp_s

    def order(self, waypoints: Sequence[Waypoint]) -> None:
        """A command, in the place of one that was not yet taken. Raises RobotFault where the link is broken."""
        with self._changed:
            if self._reason:
                raise RobotFault(f"{self.name}: {self._reason}")
            self._orders = tuple(waypoints)
            self._changed.notify_all()

    def orders(self, within_s: float) -> Sequence[Waypoint] | None:
        """The newest command, once; None where none comes within the time or the link ends."""
        until_s = self.clock.now() + within_s
        with self._changed:
            while self._orders is None and self.is_alive and (left_s := until_s - self.clock.now()) > 0:
                self._changed.wait(left_s)
            orders, self._orders = self._orders, None
            return orders

    @property
    def is_alive(self) -> bool:
        return not (self.is_ending or self._reason)

    def end(self) -> None:
        """Tell the threads to end and wait for them; one that hangs is left behind."""
        with self._changed:
            self.is_ending = True
            self._changed.notify_all()
        until_s = self.clock.now() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - self.clock.now()))

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except (RobotFault, InputError) as error:
            self.broke(str(error))
        except Exception as error:
            self.broke(f"{type(error).__name__}: {error}")

    def _of_bad(self) -> str:
        return f" ({self.bad} measurements were no {self.dim} finite numbers)" if self.bad else ""
