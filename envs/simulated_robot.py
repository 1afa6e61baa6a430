"""The simulated robot: Avoid in a process of its own, in real time, with a watchdog that judges its controller.

controller --- waypoints ----> ring ---> the robot's process: physics each 5 ms of the wall clock
           <-- observations -- ring <---    "
           <-- status -------- ring <---    "
           --- begin, inject -> pipe -->    "
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime.child import Child
from ..runtime.clock import WallClock
from ..runtime.rings import Ring
from ..runtime.robots import Observed, RobotDescription, RobotFault, Waypoint
from ..runtime.robots.refusals import refuse_bad
from .simulated_process import COUNTS, OBSERVATION, STATUS, WAYPOINT, live

TASK = "ontick/Avoid-v0"
FAULTS = ("stale-observation", "frozen-camera")
CONNECT_S, BEGIN_S, STOP_S = 30.0, 10.0, 2.0
HUNG_S = 1.0  # a robot that has not moved on for so long will not


class SimulatedRobot:
    """A `Robot`: the tool of Avoid. Before `connect` it can be given to another process.

    period_s: how often it wants a command. watchdog_periods: after so many commands that did not come it stops.
    """

    def __init__(self, task: str = TASK, period_s: float = 0.02, watchdog_periods: int = 2) -> None:
        if task != TASK:
            raise InputError(f"got the task {task!r} for the simulated robot, wanted {TASK}")
        if not (0.001 <= period_s <= 1.0 and watchdog_periods >= 1):
            raise InputError(
                f"got a period of {period_s} s and a watchdog of {watchdog_periods} periods, wanted 0.001 to 1 s, 1 up"
            )
        self.period_s, self.watchdog_periods = period_s, watchdog_periods
        self._clock = WallClock()
        self._child: Child | None = None
        self._pipe: Any = None
        self._rings: tuple[Ring, ...] = ()
        self._is_connected = False
        self._commands = self._begun = 0
        self._status = np.zeros((), STATUS)[()]

    def connect(self) -> RobotDescription:
        """Start the robot's process and wait until it lives. Raises RobotFault."""
        if self._child is not None:
            raise RobotFault("the simulated robot is connected already: stop it first")
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def begin(self, seed: int) -> None:
        """Go to the start of evaluation seed number `seed`; the watchdog waits for the first command after it."""
        if seed < 0:
            raise InputError(f"got the seed {seed}, wanted 0 or more")
        self._check()
        self._begun += 1
        self._tell("begin", seed)
        until_s = self._clock.now() + BEGIN_S
        while self._newest_status()["begun"] < self._begun:
            if self._clock.now() > until_s:
                raise RobotFault(f"the simulated robot has not begun within {BEGIN_S:g} s")
            self._check()
            self._clock.sleep_until(self._clock.now() + 0.001)

    def observe(self) -> Observed:
        self._check()
        newest = self._rings[1].newest()
        if newest is None:
            raise RobotFault("the simulated robot has not measured anything")
        values, stamps_s, position, episode = newest.tolist()
        return Observed(np.array(values, np.float32), np.array(stamps_s), np.array(position), episode)

    def command(self, waypoints: Sequence[Waypoint]) -> None:
        self._check()
        refuse_bad(waypoints, self._limits)
        self._commands += 1
        sent_s = self._clock.now()
        for time_s, position, velocity, episode in waypoints:
            self._rings[0].put((self._commands, sent_s, time_s, position, velocity, episode))

    def inject(self, fault: str | None) -> None:
        """Have the robot fail: `stale-observation` (it publishes nothing any more), `frozen-camera` (the camera shows
        what it shows now, with fresh stamps); None ends it. Raises InputError for others."""
        if fault is not None and fault not in FAULTS:
            raise InputError(f"got the fault {fault!r}, wanted {', '.join(FAULTS)} or None")
        self._check()
        self._tell("inject", fault)

    def report(self) -> dict[str, Any]:
        """What the robot counted since it was connected, also after `stop`: episodes that ended, successes,
        watchdog_stops, commands, ignored ones (of episodes that were over), too_fast (physics steps in which the target
        was asked to outrun the limits), physics_steps, late_steps (by more than 1 ms), longest_gap_ms between two
        commands, and its scheduler."""
        status = self._newest_status() if self._rings else self._status
        return {
            **{name: int(status[name]) for name in COUNTS},
            "longest_gap_ms": float(status["longest_gap_s"]) * 1e3,
            "scheduler": "fifo" if status["is_fifo"] else "other",
        }

    def stop(self) -> None:
        self._is_connected = False
        if self._child is not None:
            self._child.stop(STOP_S)
            self._status = self._newest_status()
            self._child = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        for ring in self._rings:
            ring.close()
            ring.unlink()
        self._rings = ()
        atexit.unregister(self.stop)

    def _start(self) -> RobotDescription:
        self._commands = self._begun = 0
        self._status = np.zeros((), STATUS)[()]
        atexit.register(self.stop)
        for dtype, capacity in ((WAYPOINT, 256), (OBSERVATION, 64), (STATUS, 8)):
            self._rings += (Ring.create(dtype, capacity),)
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._child = Child("ontick-robot", live, theirs, *self._rings, self.period_s, self.watchdog_periods)
        theirs.close()
        try:
            described = self._pipe.recv() if self._pipe.poll(CONNECT_S) else "it took too long"
        except EOFError:
            described = "its process ended"
        if not isinstance(described, RobotDescription):
            raise RobotFault(f"the simulated robot does not start: {described}")
        self._limits, self._is_connected = described.limits, True
        return described

    def _check(self) -> None:
        """Raise RobotFault unless the robot lives and would be moved."""
        if not self._is_connected:
            raise RobotFault("the simulated robot is not connected")
        status = self._newest_status()
        if fired_after_s := float(status["fired_after_s"]):
            wanted = f"wanted one every {self.period_s * 1e3:.0f} ms"
            raise RobotFault(f"watchdog: no command for {fired_after_s * 1e3:.0f} ms, {wanted}")
        if self._child is None or not self._child.is_alive:
            raise RobotFault(f"the simulated robot has died: {self._why_dead()}")
        if (silent_s := self._clock.now() - float(status["time_s"])) > HUNG_S:
            raise RobotFault(f"the simulated robot hangs: it has not moved on for {silent_s:.1f} s")

    def _why_dead(self) -> str:
        """What the process said last, or how it ended; empty while it lives."""
        with contextlib.suppress(OSError, EOFError):
            if self._pipe.poll():
                return str(self._pipe.recv())
        code = None if self._child is None else self._child.process.exitcode
        return "" if code is None else f"its process ended with {code}"

    def _newest_status(self) -> Any:
        newest = self._rings[2].newest() if self._rings else None
        return self._status if newest is None else newest

    def _tell(self, word: str, what: Any) -> None:
        try:
            self._pipe.send((word, what))
        except OSError as error:
            raise RobotFault(f"the simulated robot does not listen: {error}") from None
