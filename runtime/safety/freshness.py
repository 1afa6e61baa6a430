"""Whether an observation may be acted on: whole, new, and of a world that still answers.

Legend: Do observation numbers, Dc of a command, C streams.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InputError
from ..robots.contract import Observed, RobotDescription
from .numbers import finite_numbers

AHEAD_S = 0.005  # a stamp may be so far in the future: two clocks of one host, read one after the other
MOVED = 1e-3  # share of a command's range that a robot is to have been moved by before its sensors must show it


class Freshness:
    """Judges observations of one robot, each stream by itself.

    A stream is frozen when its values stay equal, bit for bit, for more than `age_s` after what was commanded has moved
    by more than a thousandth of its range since they changed; it stays so until they change.

    Raises InputError for an age that is no number above 0.
    """

    def __init__(self, description: RobotDescription, age_s: float) -> None:
        if not (np.isfinite(age_s) and age_s > 0):
            raise InputError(f"got an observation age of {age_s} s, wanted a number above 0")
        self._description, self._age_s = description, float(age_s)
        streams = len(description.streams)
        self._range = description.limits.high - description.limits.low
        self._values: list[bytes | None] = [None] * streams
        self._anchors = np.zeros((streams, description.command_dim))  # where it was commanded when the values changed
        self._commanded = np.zeros(description.command_dim)
        self._unseen_s = np.zeros(streams)  # since it was commanded away from there
        self._frozen = np.zeros(streams, bool)
        self._episode: int | None = None

    def begin(self, position: np.ndarray) -> None:
        """The robot was put to `position` [Dc], which its streams need not show."""
        self._commanded = position
        self._anchors[:] = position
        self._unseen_s[:] = 0.0

    def commanded(self, position: np.ndarray) -> None:
        """One more command period, at `position` [Dc]."""
        self._commanded = position
        away = (np.abs(position - self._anchors) > MOVED * self._range).any(1)
        self._unseen_s[away | (self._unseen_s > 0)] += self._description.period_s

    def refuses(self, seen: Any, now_s: float) -> str | None:
        """Why `seen` may not be acted on at `now_s`, or None."""
        if not isinstance(seen, Observed):
            return f"got {type(seen).__name__} as an observation, wanted Observed"
        wanted = self._description
        if not (isinstance(seen.values, np.ndarray) and seen.values.dtype in (np.float32, np.float64)):
            return "observation: wanted values as an array of float32"
        if seen.values.shape != (wanted.observation_dim,):
            return f"observation: got shape {seen.values.shape}, wanted ({wanted.observation_dim},)"
        self._watch(seen.values)  # a stream that comes to life while another is broken is alive
        if not np.isfinite(seen.values).all():
            return f"observation: {int((~np.isfinite(seen.values)).sum())} of {seen.values.size} numbers are not finite"
        if finite_numbers(seen.position, wanted.command_dim) is None:
            return f"observation: wanted a position of {wanted.command_dim} finite numbers"
        stamps_s = finite_numbers(seen.stamps_s, len(wanted.streams))
        if stamps_s is None:
            return f"observation: wanted {len(wanted.streams)} finite stamps, one a stream"
        return self._old_episode(seen.episode) or self._stale(stamps_s, now_s) or self._is_frozen()

    def _watch(self, values: np.ndarray) -> None:
        for stream, (_, start, end) in enumerate(self._description.streams):
            bits = values[start:end].tobytes()
            if bits != self._values[stream]:
                self._values[stream] = bits
                self._anchors[stream] = self._commanded
                self._unseen_s[stream] = 0.0
                self._frozen[stream] = False
        self._frozen |= self._unseen_s > self._age_s

    def _old_episode(self, episode: int) -> str | None:
        if not isinstance(episode, int | np.integer):
            return f"observation: got {episode!r} as its episode, wanted a whole number"
        if self._episode is not None and episode < self._episode:
            return f"observation: got one of episode {episode}, after one of {self._episode}"
        self._episode = int(episode)
        return None

    def _stale(self, stamps_s: np.ndarray, now_s: float) -> str | None:
        ages_s = now_s - stamps_s
        if not np.isfinite(ages_s).all():
            return f"observation: cannot tell its age at {now_s} s"
        for (name, _, _), age_s in zip(self._description.streams, ages_s, strict=True):
            if age_s > self._age_s:
                return f"observation: {name} is {1000 * age_s:.1f} ms old, wanted at most {1000 * self._age_s:g} ms"
            if age_s < -AHEAD_S:
                return f"observation: {name} is stamped {-1000 * age_s:.1f} ms in the future; check the driver's clock"
        return None

    def _is_frozen(self) -> str | None:
        names = [name for (name, _, _), frozen in zip(self._description.streams, self._frozen, strict=True) if frozen]
        if not names:
            return None
        return f"observation: {', '.join(names)} is frozen: nothing in it changed while the robot was moved"
