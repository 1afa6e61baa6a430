"""The world of the simulated robot: Avoid in small steps, a tool that follows waypoints, and a watchdog.

Everything here is told the time, so that tests need not wait. Lengths in metres; positions are [2], (x, y).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..runtime.robots import Limits, RobotDescription, Waypoint
from .avoid import GOAL_Y_M, SUBSTEPS, TICK_S, TOOL_RADIUS_M, WALL_X_M, AvoidEnv, mujoco
from .seeds import evaluation_seeds

STEP_S = TICK_S / SUBSTEPS  # of the physics
EPISODE_S = 200 * TICK_S
PAUSE_S = 0.3  # between two episodes
NOISE_M = 1e-6  # of the sensors: the last digits of a living one move
REACH_X_M = WALL_X_M - TOOL_RADIUS_M
# Speed, acceleration and jerk are those of a small fast axis. With an action that turns round on both axes every 50 ms
# the gate's path is 3 mm behind the one asked for on average; with 10 m/s2 and 400 m/s3 it would be 11 mm.
LIMITS = Limits(
    low=np.array([-REACH_X_M, -0.13]),
    high=np.array([REACH_X_M, 0.70]),
    speed=np.full(2, 0.5),
    acceleration=np.full(2, 20.0),
    jerk=np.full(2, 2000.0),
)
# Its servo is stiffer than the training environment's, whose target jumps once in 50 ms and whose tool follows 2 / 28 s
# = 71 ms behind. Here actions are spread over a tick, one command period late: 50 / 2 + 20 ms, and 2 / 95 s = 21 ms of
# the servo make about as much. A policy that meets another delay than in training leaves its own distribution.
SERVO_RAD_S = 95.0
STREAMS = (("tool", 0, 4), ("camera", 4, 6))


def describe(period_s: float) -> RobotDescription:
    """What the simulated robot says of itself."""
    return RobotDescription(
        name="simulated Avoid", observation_dim=6, limits=LIMITS, period_s=period_s, streams=STREAMS
    )


class AvoidWorld(AvoidEnv):
    """Avoid, a physics step of 5 ms at a time; the scene and what counts are those of the environment."""

    def __init__(self) -> None:
        super().__init__()
        model = self._model
        mass_kg = model.body_subtreemass[model.body("tool").id]
        model.actuator_gainprm[:, 0] = SERVO_RAD_S**2 * mass_kg
        model.actuator_biasprm[:, 1] = -(SERVO_RAD_S**2) * mass_kg
        model.actuator_biasprm[:, 2] = -2 * SERVO_RAD_S * mass_kg  # critically damped

    def start(self, seed_number: int) -> None:
        """Put the tool to the start of the so many-th evaluation seed."""
        self.reset(seed=evaluation_seeds(0, seed_number + 1)[-1])

    def advance(self, target_m: np.ndarray) -> None:
        """One physics step with the tool drawn to `target_m`."""
        self._data.ctrl[:] = target_m
        mujoco.mj_step(self._model, self._data)
        self._feel()
        self._note_rows_passed()
        self._succeeded = not self._touched and bool(self._succeeded or self._data.qpos[1] >= GOAL_Y_M)

    @property
    def observation(self) -> np.ndarray:
        """What AvoidEnv observes: float64 [6]."""
        return self._observation()

    @property
    def is_over(self) -> bool:
        return self._touched or self._succeeded

    @property
    def is_solved(self) -> bool:
        return self._succeeded


class Follower:
    """The target of the tool: on straight lines from waypoint to waypoint, then still. `ignored`: how many were of an
    episode that is over; `too_fast`: steps in which the target was asked to move faster than the robot can."""

    def __init__(self) -> None:
        self.ignored = self.too_fast = 0
        self.rest(np.zeros(2), 0)

    def rest(self, position: np.ndarray, episode: int) -> None:
        """Be still at `position`; from now on only waypoints of `episode` count."""
        self.target, self.velocity = np.array(position, np.float64), np.zeros(2)
        self.episode, self._ahead = episode, deque[Waypoint]()

    def hear(self, waypoints: Iterable[Waypoint]) -> bool:
        """One command: its waypoints replace those that lie later. Returns whether it was of this episode."""
        meant = [waypoint for waypoint in waypoints if waypoint.episode == self.episode]
        if not meant:
            self.ignored += 1
            return False
        while self._ahead and self._ahead[-1].time_s >= meant[0].time_s:
            self._ahead.pop()
        self._ahead.extend(meant)
        return True

    def move(self, from_s: float, to_s: float) -> np.ndarray:
        """The target [2] at `to_s`, which was where it is at `from_s`."""
        before, time_s, target = self.target, from_s, self.target
        while self._ahead and time_s < to_s:
            waypoint = self._ahead[0]
            if waypoint.time_s <= to_s:
                target, time_s = waypoint.position, max(time_s, waypoint.time_s)
                self._ahead.popleft()
            else:
                target = target + (waypoint.position - target) * (to_s - time_s) / (waypoint.time_s - time_s)
                break
        return self._go(before, target, to_s - from_s)

    def brake(self, duration_s: float) -> np.ndarray:
        """The target [2] after `duration_s` of coming to rest, as fast as the limits allow."""
        self._ahead.clear()
        slower = LIMITS.acceleration * duration_s
        velocity = np.sign(self.velocity) * np.maximum(np.abs(self.velocity) - slower, 0.0)
        return self._go(self.target, self.target + velocity * duration_s, duration_s)

    @property
    def is_still(self) -> bool:
        return not self._ahead and not self.velocity.any()

    def _go(self, before: np.ndarray, target: np.ndarray, duration_s: float) -> np.ndarray:
        """Move the target as far towards the one asked for as speed and walls allow."""
        most = LIMITS.speed * duration_s
        step = target - before
        if (np.abs(step) > most * 1.001).any():
            self.too_fast += 1
            step = np.clip(step, -most, most)
        self.target = np.clip(before + step, LIMITS.low, LIMITS.high)
        self.velocity = (self.target - before) / duration_s
        return self.target


class Watchdog:
    """Stops a robot whose controller has fallen silent: after `periods` commands that did not come, with half a period
    of grace. It watches from the first command on."""

    def __init__(self, period_s: float, periods: int) -> None:
        self.bound_s = (periods + 0.5) * period_s
        self.fired_after_s = self.longest_s = 0.0
        self._last_s: float | None = None

    def rest(self) -> None:
        """Watch again from the next command on."""
        self._last_s = None

    def heard(self, time_s: float) -> None:
        """A command was given at `time_s`."""
        self.look(time_s)
        if self._last_s is not None:
            self.longest_s = max(self.longest_s, time_s - self._last_s)
        self._last_s = time_s

    def look(self, time_s: float) -> bool:
        """Whether it has fired, now or before; then `fired_after_s` says after how long a silence."""
        if not self.has_fired and self._last_s is not None and time_s - self._last_s > self.bound_s:
            self.fired_after_s = self.longest_s = time_s - self._last_s
        return self.has_fired

    @property
    def has_fired(self) -> bool:
        return self.fired_after_s > 0


class Life:
    """Episodes one after another: a start, what happens until success, a contact or the end of its time, a pause.

    The time of an episode begins with the first waypoint that is meant for it.
    """

    def __init__(self, world: AvoidWorld) -> None:
        self.world, self.follower = world, Follower()
        self.episode, self.episodes, self.successes = -1, 0, 0
        self.begin(0)

    def begin(self, seed_number: int) -> None:
        """Put the robot to a start; an episode that was under way counts for nothing."""
        self._seed_number = seed_number
        self.episode += 1
        self.world.start(seed_number)
        self.follower.rest(self.world.tool_m, self.episode)
        self._since_s: float | None = None
        self._pause_until_s: float | None = None

    def hear(self, waypoints: Iterable[Waypoint], time_s: float) -> None:
        """A command that was given at `time_s`."""
        if self._pause_until_s is None and self.follower.hear(waypoints) and self._since_s is None:
            self._since_s = time_s

    def step(self, time_s: float, is_stopping: bool) -> None:
        """The physics step that ends at `time_s`."""
        if self._pause_until_s is not None and time_s >= self._pause_until_s:
            self.begin(self._seed_number + 1)
        braking = is_stopping or self._pause_until_s is not None
        follower = self.follower
        self.world.advance(follower.brake(STEP_S) if braking else follower.move(time_s - STEP_S, time_s))
        if self._pause_until_s is None and self._is_over(time_s):
            self.episodes += 1
            self.successes += self.world.is_solved
            self._pause_until_s = time_s + PAUSE_S

    def _is_over(self, time_s: float) -> bool:
        is_out_of_time = self._since_s is not None and time_s - self._since_s >= EPISODE_S
        return self.world.is_over or is_out_of_time


class Sensors:
    """What is published: the observation with a little noise, and its stamps. A frozen camera says what it said."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._frozen: np.ndarray | None = None
        self._last = np.zeros(6)

    def freeze_camera(self, is_frozen: bool) -> None:
        self._frozen = self._last[4:].copy() if is_frozen else None

    def read(self, world: AvoidWorld) -> np.ndarray[Any, Any]:
        """float32 [6]"""
        values = world.observation + self._rng.normal(0.0, NOISE_M, 6)
        if self._frozen is not None:
            values[4:] = self._frozen
        self._last = values
        return values.astype(np.float32)
