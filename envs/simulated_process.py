"""The process of the simulated robot: every 5 ms of the wall clock it takes in what was said, steps, and publishes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from itertools import groupby
from multiprocessing.connection import Connection

import numpy as np

from ..runtime.child import Parent
from ..runtime.clock import WallClock
from ..runtime.host import real_time
from ..runtime.rings import Ring
from ..runtime.robots import Waypoint

LATE_S = 0.001
BEHIND_S = 0.2  # further behind the clock than this, time is skipped
PRIORITY = 80  # above a controller's: a real robot does not share its processor

WAYPOINT = np.dtype(
    [("command", "i8"), ("sent_s", "f8"), ("time_s", "f8"), ("xy", "f8", 2), ("velocity", "f8", 2), ("episode", "i8")]
)
OBSERVATION = np.dtype([("values", "f4", 6), ("stamps_s", "f8", 2), ("position", "f8", 2), ("episode", "i8")])
COUNTS = ("episodes", "successes", "watchdog_stops", "commands", "ignored", "too_fast", "physics_steps", "late_steps")
STATUS = np.dtype(
    [
        ("time_s", "f8"),
        ("begun", "i8"),
        ("fired_after_s", "f8"),
        ("longest_gap_s", "f8"),
        ("is_fifo", "?"),
        *((name, "i8") for name in COUNTS),
    ]
)


def live(
    pipe: Connection,
    waypoints: Ring,
    observations: Ring,
    statuses: Ring,
    period_s: float,
    watchdog_periods: int,
    parent: Parent,
) -> None:
    """Until `parent` says so. What goes wrong is said through the pipe: the terminal is the controller's."""
    os.environ.setdefault("MUJOCO_GL", "disable")  # nothing is drawn here
    rings = (waypoints, observations, statuses)
    try:
        _RobotProcess(pipe, *rings, period_s, watchdog_periods).run(parent)
    except Exception as error:  # whatever it is, who commands it hears of it
        with contextlib.suppress(OSError):
            pipe.send(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None
    finally:
        controller = multiprocessing.parent_process()
        for ring in rings:
            ring.close()
            if controller is not None and not controller.is_alive():
                ring.unlink()


class _RobotProcess:
    """What runs in it: every 5 ms of the wall clock take in what was said, step the physics, publish."""

    def __init__(
        self, pipe: Connection, waypoints: Ring, observations: Ring, statuses: Ring, period_s: float, periods: int
    ) -> None:
        from .simulated_world import STEP_S, AvoidWorld, Life, Sensors, Watchdog, describe

        self.description = describe(period_s)
        self.pipe, self.waypoints, self.observations, self.statuses = pipe, waypoints, observations, statuses
        self.step_s, self.clock = STEP_S, WallClock()
        self.life, self.sensors, self.watchdog = Life(AvoidWorld()), Sensors(), Watchdog(period_s, periods)
        self.commands = self.steps = self.late_steps = self.begun = 0
        self.is_stopping = self.is_silent = False
        self.is_fifo = not any("SCHED_FIFO refused" in said for said in real_time(PRIORITY))

    def run(self, parent: Parent) -> None:
        """Until it is told to end and has come to rest."""
        step_at_s = self.clock.now()
        while not (self.is_stopping and self.life.follower.is_still):
            step_at_s += self.step_s
            if self.clock.now() - step_at_s > BEHIND_S:
                step_at_s = self.clock.now()
            self.clock.sleep_until(step_at_s)
            now_s = self.clock.now()  # what was sent before is taken in below: silence is the controller's, not ours
            self.late_steps += now_s - step_at_s > LATE_S
            self.is_stopping = self.is_stopping or parent.wants_end(0.0)
            self._listen()
            self._take_commands()
            self.watchdog.look(now_s)
            self.life.step(step_at_s, self.is_stopping or self.watchdog.has_fired)
            self.steps += 1
            self._publish(step_at_s)
            if self.steps == 1:
                self.pipe.send(self.description)  # it lives

    def _listen(self) -> None:
        while not self.is_stopping and self.pipe.poll():
            word, what = self.pipe.recv()
            if word == "begin":
                self._take_commands()  # those of before are nothing to measure a silence from
                self.watchdog.rest()
                self.life.begin(what)
                self.begun += 1
            elif word == "inject":
                self.is_silent = what == "stale-observation"
                self.sensors.freeze_camera(what == "frozen-camera")

    def _take_commands(self) -> None:
        for command, group in groupby(self.waypoints.take(), key=lambda taken: int(taken["command"])):
            records = list(group)
            self.commands = command  # they are numbered from 1
            self.watchdog.heard(float(records[0]["sent_s"]))
            if not self.watchdog.has_fired:
                self.life.hear([_waypoint(record) for record in records], float(records[0]["sent_s"]))

    def _publish(self, time_s: float) -> None:
        values = self.sensors.read(self.life.world)
        if not self.is_silent:
            self.observations.put((values, (time_s, time_s), self.life.world.tool_m, self.life.episode))
        watchdog, life = self.watchdog, self.life
        counts = (life.episodes, life.successes, int(watchdog.has_fired), self.commands)
        counts += (life.follower.ignored, life.follower.too_fast, self.steps, self.late_steps)
        self.statuses.put((time_s, self.begun, watchdog.fired_after_s, watchdog.longest_s, self.is_fifo, *counts))


def _waypoint(record: np.void) -> Waypoint:
    time_s, position, velocity, episode = (record[name] for name in ("time_s", "xy", "velocity", "episode"))
    return Waypoint(float(time_s), np.array(position), np.array(velocity), int(episode))
