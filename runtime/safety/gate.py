"""The safety gate: what stands between an answer and the robot, always on.

    gate.begin(seen.position)
    gate.refuses_observation(seen, now_s)       # before a policy is asked
    gate.refuses_chunk(rows, asked_s, now_s)    # before an answer is played
    target = gate.target(row)                   # every action
    position, velocity = gate.step(target)      # every command period

Finiteness is asked first, by name, everywhere: a NaN passes comparisons, min and max in one order and not in the other.

Legend: Da = Dc action and command numbers, Ta least rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import InputError
from ..robots.actions import ActionMap
from ..robots.contract import Observed, RobotDescription
from .audit import Audit
from .freshness import AHEAD_S, Freshness
from .motion import Motion
from .numbers import finite_numbers

BEYOND = 10  # so many actions in a row beyond their limits, and the policy is not to be trusted
TOLERATED = 0.01  # share of an action's range by which it may be beyond and still be in good faith
ROUNDING = 1e-6  # share of a range that float32 makes of a limit: clamped, not counted
EXPLAINED = 20  # so many clamps and refusals are kept in words


class SafetyGate:
    """Passes, clamps or refuses what a policy, a sensor or a controller brings. It never reads the time.

    rows: (Ta, Da), the least chunk. observation_age_s, chunk_age_s: the most. inside: a workspace, see `Motion`.
    action_period_s: how long an action lasts; a command period where it is not given.

    counts: what was clamped, refused or could not be had, by reason. explained: the first 20 in words. most_beyond:
    float64 [Da], by how much each action number was clamped at most. motion: what moves within the limits.

    Raises InputError where these do not fit each other.
    """

    def __init__(
        self,
        description: RobotDescription,
        actions: ActionMap,
        rows: tuple[int, int],
        observation_age_s: float,
        chunk_age_s: float,
        inside: Callable[[np.ndarray], bool] | None = None,
        action_period_s: float | None = None,
    ) -> None:
        if not actions.dim == description.command_dim == rows[1]:
            raise InputError(
                f"got chunks of {rows[1]} and an action map of {actions.dim} numbers for a robot of"
                f" {description.command_dim}, wanted one width"
            )
        if rows[0] < 1 or not (np.isfinite(chunk_age_s) and chunk_age_s > 0):
            raise InputError(f"got chunks of {rows[0]} rows at most {chunk_age_s} s old, wanted numbers above 0")
        self._description, self._actions, self._rows, self._chunk_age_s = description, actions, rows, chunk_age_s
        self._low, self._high = np.array(actions.low, np.float64), np.array(actions.high, np.float64)
        self._reach = description.limits.speed * (action_period_s or description.period_s)
        self._fresh = Freshness(description, observation_age_s)
        self.motion = Motion(description.limits, description.period_s, inside)
        self._audit = Audit(description.limits, description.period_s)
        self.counts = self.motion.counts
        self.explained: list[str] = []
        self.most_beyond = np.zeros(actions.dim)
        self._beyond, self._must_hold = 0, False
        self._target = (description.limits.low + description.limits.high) / 2

    def begin(self, position: Any) -> None:
        """A new episode: at rest at `position` [Dc]. Counters are kept. Raises InputError as `Motion.begin` does."""
        self.motion.begin(position)
        begins = self.motion.position
        self._audit.begin(begins)
        self._fresh.begin(begins)
        self.hold_target()
        self.resume()

    def refuses_chunk(self, rows: Any, asked_s: float, now_s: float) -> str | None:
        """Why a chunk, asked for with an observation of `asked_s`, may not be played at `now_s`; None: it may."""
        reason = self._wrong_chunk(rows) or self._old_chunk(asked_s, now_s)
        return self._refused("refused_chunks", reason)

    def refuses_observation(self, seen: Observed, now_s: float) -> str | None:
        """Why an observation may not be acted on at `now_s`; None: it may. See `Freshness`."""
        return self._refused("refused_observations", self._fresh.refuses(seen, now_s))

    def target(self, action: Any) -> np.ndarray:
        """The position [Dc] that an action [Da] means, both clamped to their limits; the last one, where the action is
        not Da finite numbers."""
        got = finite_numbers(action, self._actions.dim)
        if got is None:
            self._refused("refused_actions", f"action: wanted {self._actions.dim} finite numbers")
            return self._target.copy()
        limits = self._description.limits
        wanted = self._actions.position(self._target, self._clamped(got))
        if not np.isfinite(wanted).all():  # a scale may be so large
            self._refused("refused_actions", "action: what it means as a position is not finite")
            return self._target.copy()
        target = np.clip(wanted, limits.low, limits.high)
        self._count("clamped_position", wanted - target, limits.high - limits.low, "position")
        if (np.abs(wanted - self._target) > self._reach).any():
            self.counts["seam"] += 1  # further than the robot can go in an action: it will be behind
        self._target = target
        return target.copy()

    @property
    def beyond(self) -> int:
        """How many actions in a row were beyond their limits by more than 1 % of their range."""
        return self._beyond

    @property
    def must_hold(self) -> bool:
        """Whether so many were that the controller is to hold, until `resume`."""
        return self._must_hold

    def resume(self) -> None:
        """Trust the policy again."""
        self._beyond, self._must_hold = 0, False

    def step(self, target: Any, velocity: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The next command, see `Motion.step`, looked at once more; the last one, where it is not within the limits."""
        position, speeds = self.motion.step(target, velocity)
        reason = self._audit.refuses(position, speeds)
        if reason is not None:
            self._refused("gate", f"gate: {reason}; the last command is held. Please report this")
            position = self._audit.last
            self.motion.begin(position)
            self._audit.begin(position)
            speeds = np.zeros_like(position)
        self._fresh.commanded(position)
        return position, speeds

    def hold_target(self) -> None:
        """After a hold: the next action is counted from where the motion comes to rest."""
        limits = self._description.limits
        self._target = np.clip(self.motion.rests_at, limits.low, limits.high)

    def _wrong_chunk(self, rows: Any) -> str | None:
        least, width = self._rows
        if not isinstance(rows, np.ndarray):
            return f"chunk: got {type(rows).__name__}, wanted an array of float32 or float64"
        if rows.dtype not in (np.float32, np.float64):
            return f"chunk: got {rows.dtype}, wanted float32 or float64"
        if rows.ndim != 2 or rows.shape[0] < least or rows.shape[1] != width:
            return f"chunk: got shape {rows.shape}, wanted ({least} or more, {width})"
        wrong = ~np.isfinite(np.asarray(rows))  # not what a masked array would say
        if wrong.any():
            row, dim = np.argwhere(wrong)[0].tolist()
            return f"chunk: {int(wrong.sum())} of {rows.size} numbers are not finite, first row {row}, dimension {dim}"
        return None

    def _old_chunk(self, asked_s: float, now_s: float) -> str | None:
        age_s = now_s - asked_s
        if not np.isfinite(age_s):
            return f"chunk: cannot tell its age: asked at {asked_s} s, now {now_s} s"
        if age_s > self._chunk_age_s:
            return (
                f"chunk: its observation is {1000 * age_s:.1f} ms old, wanted at most {1000 * self._chunk_age_s:g} ms"
            )
        if age_s < -AHEAD_S:
            return f"chunk: asked {-1000 * age_s:.1f} ms in the future"
        return None

    def _clamped(self, got: np.ndarray) -> np.ndarray:
        action = np.clip(got, self._low, self._high)
        amounts, ranges = got - action, self._high - self._low
        self._count("clamped", amounts, ranges, "action")
        np.maximum(self.most_beyond, np.abs(amounts), out=self.most_beyond)
        self._beyond = self._beyond + 1 if (np.abs(amounts) > TOLERATED * ranges).any() else 0
        self._must_hold |= self._beyond >= BEYOND
        return action

    def _count(self, name: str, amounts: np.ndarray, ranges: np.ndarray, what: str) -> None:
        """Count a clamp once, and each of its dimensions."""
        dims = np.flatnonzero(np.abs(amounts) > ROUNDING * ranges).tolist()
        if not dims:
            return
        self.counts[name] += 1
        for dim in dims:
            self.counts[f"{name}_dim_{dim}"] += 1
        self._explain(f"{what}: " + ", ".join(f"dimension {dim} beyond by {amounts[dim]:+.4g}" for dim in dims))

    def _refused(self, name: str, reason: str | None) -> str | None:
        if reason is not None:
            self.counts[name] += 1
            self._explain(reason)
        return reason

    def _explain(self, text: str) -> None:
        if len(self.explained) < EXPLAINED:
            self.explained.append(text)
