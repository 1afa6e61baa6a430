"""Answers from a policy server, for the inference process: with time limits, and a new connection after a lost one.

Legend: To, Do, Ta, Th, Da.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError, RunFailed
from .card import PolicyCard
from .channel import LATE, LOST, REFUSED, Asked, Told
from .clock import WallClock
from .questions import Given
from .wire.client import PolicyClient, WireError, WireRefused, WireTimeout, backoff
from .wire.requests import OURS

CONNECT_S = 10.0


class RemoteSource:
    """A server, as it says itself what it is; a foreign one, which says nothing that we know, is asked once.

    A question that is not answered in time is given up. After a lost connection the next questions are lost at once,
    until it is time to try again: the waits grow from 0.1 s to 5 s.
    """

    def __init__(self, client: PolicyClient, steps: int | None = None, dims: tuple[int, int] | None = None) -> None:
        """steps: Ta of a foreign server; dims: (Do, Da), of the robot. Raises RunFailed where no server answers."""
        self.client, self._clock = client, WallClock()
        try:
            metadata = client.connect(CONNECT_S)
        except WireError as error:
            raise RunFailed(f"no policy server at {client.url}: {error}") from None
        told = metadata.get(OURS)
        self.is_ours = told is not None
        self.card = (
            PolicyCard.from_dict(told, f"the server {client.url}") if self.is_ours else self._probed(steps, dims)
        )
        self._waits, self._again_s, self._is_connected = backoff(0), 0.0, True

    def answer(self, asked: Asked) -> Told:
        now_s = self._clock.now()
        if not self._is_connected and not self._reconnects(now_s):
            return Told(asked.id, now_s, now_s - asked.time_s, 0.0, LOST, "no connection to the server")
        left_s = asked.deadline_s - (now_s - asked.time_s)
        try:
            reply = self.client.ask(self._observation(asked), request=self._request(asked, left_s), timeout_s=left_s)
        except WireTimeout as error:
            self._is_connected = self.client.is_connected
            return self._failed(asked, LATE, error)
        except WireRefused as error:
            self._is_connected = self.client.is_connected
            return self._failed(asked, REFUSED, error)
        except WireError as error:
            self._is_connected = False
            return self._failed(asked, LOST, error)
        return self._told(asked, reply.rows, reply.ontick)

    def close(self) -> None:
        self.client.close()

    def _told(self, asked: Asked, rows: Any, ontick: dict[str, Any]) -> Told:
        now_s = self._clock.now()
        wanted = f"float [{self.card.n_action_steps} to {self.card.rows}, {self.card.action_dim}]"
        latency_s = now_s - asked.time_s
        if not isinstance(rows, np.ndarray) or rows.dtype not in (np.float32, np.float64):
            got = rows.dtype if isinstance(rows, np.ndarray) else type(rows).__name__
            return Told(asked.id, now_s, latency_s, 0.0, REFUSED, f"got actions of {got}, wanted {wanted}")
        if rows.ndim != 2 or rows.shape[1] != self.card.action_dim or not self.card.n_action_steps <= len(rows):
            return Told(asked.id, now_s, latency_s, 0.0, REFUSED, f"got actions of shape {rows.shape}, wanted {wanted}")
        rows = rows[: self.card.rows].astype(np.float32)
        given = Given(
            rows,
            int(ontick.get("steps", self.card.n_action_steps)),
            int(ontick.get("calls", 1)),
            float(ontick.get("share", 1.0)),
        )
        device_s = float(ontick.get("device_ms", 0.0)) * 1e-3
        rung = int(ontick.get("rung", 0))
        return Told(asked.id, now_s, latency_s, device_s, rung=rung, given=given, discarded=self.client.late)

    def _failed(self, asked: Asked, state: int, error: Exception) -> Told:
        now_s = self._clock.now()
        return Told(asked.id, now_s, now_s - asked.time_s, 0.0, state, str(error), discarded=self.client.late)

    def _observation(self, asked: Asked) -> np.ndarray:
        """[To, Do] for a server of ours, the newest [Do] for others, which keep no history."""
        obs = asked.question.obs[0]
        return obs if self.is_ours else obs[-1]

    def _request(self, asked: Asked, left_s: float) -> dict[str, Any] | None:
        if not self.is_ours:
            return None
        question = asked.question
        told: dict[str, Any] = {
            "observed_s": asked.observed_s,
            "deadline_s": left_s,
            "behind": question.behind[0],
        }
        if asked.begins or self._is_fresh:
            told["seed"] = asked.seed
            self._is_fresh = False
        if question.kept is not None and len(question.kept[0][0]):
            kept, fixed = question.kept[0]
            told["kept"], told["fixed"] = kept.astype(np.float32), min(fixed, len(kept))
        if question.rungs is not None:
            told["rung"] = question.rungs[0]
        return told

    _is_fresh = True  # the server knows nothing of this episode yet

    def _reconnects(self, now_s: float) -> bool:
        if now_s < self._again_s:
            return False
        try:
            self.client.connect(1.0)
        except WireError:
            self._again_s = self._clock.now() + next(self._waits)
            return False
        self._waits, self._is_connected, self._is_fresh = backoff(0), True, True
        return True

    def _probed(self, steps: int | None, dims: tuple[int, int] | None) -> PolicyCard:
        """A foreign server's card, by the answer to an observation of zeros."""
        if dims is None:
            raise InputError(f"{self.client.url} does not say what its policy is, and the robot does not either")
        try:
            reply = self.client.ask(np.zeros(dims[0], np.float32), request=None, timeout_s=CONNECT_S)
        except WireError as error:
            raise RunFailed(f"{self.client.url} answers no observation of {dims[0]} numbers: {error}") from None
        rows = np.asarray(reply.rows)
        if rows.ndim != 2 or rows.shape[1] != dims[1]:
            raise RunFailed(f"{self.client.url} answers with {rows.shape}, wanted [rows, {dims[1]}] for this robot")
        return PolicyCard(
            n_obs_steps=1,
            n_action_steps=min(steps or len(rows), len(rows)),
            observation_dim=dims[0],
            action_dim=dims[1],
            rows=len(rows),
            plans=("server",),
            costs_s=(0.1,),
        )
