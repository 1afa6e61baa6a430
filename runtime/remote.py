"""Answers from a policy server, for the inference process: with time limits, and a new connection after a lost one.

Legend: To, Do, Ta, Th, Da.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, RunFailed
from .card import PolicyCard
from .channel import FULL, LATE, LOST, REFUSED, Asked, Told
from .clock import WallClock
from .questions import Given
from .wire.client import PolicyClient, WireError, WireFull, WireLate, WireRefused, WireTimeout, backoff
from .wire.requests import OURS

CONNECT_S, RECONNECT_S = 10.0, 1.0
SILENT = 3  # questions without a word from the server, after which the connection is thought dead
MOST_CALLS = 10**6

Parts = Mapping[str, Any]  # see `RemoteSource`


class RemoteSource:
    """A server, as it says itself what it is; a foreign one, which says nothing that we know, is asked once.

    A question that is not answered in time is given up, and after three in a row without a word the connection too:
    where a network fails, nobody may say so for minutes. After a lost connection the next questions are lost at once,
    until it is time to try again: the waits grow from 0.1 s to 5 s, until there is an answer again. A server that comes
    back with another policy is not asked.
    """

    def __init__(
        self,
        client: PolicyClient,
        steps: int | None = None,
        dims: tuple[int, int] | None = None,
        parts: Parts | None = None,
    ) -> None:
        """steps: Ta of a foreign server; dims: (Do, Da), of the robot; parts: what a foreign server wants to be told,
        key by key: [start, end] of the observation's numbers, or a text or number as it is. A server of ours is told
        the whole observation.

        Raises RunFailed where no server answers, and InputError for parts that the observation does not have."""
        self.client, self._clock, self._parts = client, WallClock(), None
        if parts is not None:
            if dims is None:
                raise InputError("got parts of an observation, and nobody says how many numbers it has")
            self._parts = checked_parts(parts, dims[0])
        try:
            metadata = client.connect(CONNECT_S)
        except WireError as error:
            raise RunFailed(f"no policy server at {client.url}: {error}") from None
        self.is_ours = metadata.get(OURS) is not None
        self.card = self._told_card(metadata) if self.is_ours else self._probed(steps, dims)
        self._about = _about(metadata)
        self._is_connected, self._is_fresh, self._silent, self._why = True, True, 0, ""
        self._waits, self._again_s = backoff(secrets.randbits(32)), -math.inf

    def answer(self, asked: Asked) -> Told:
        if not self._is_connected and not self._reconnects():
            return self._failed(asked, LOST, f"no connection to the server: {self._why}")
        left_s = asked.deadline_s - (self._clock.now() - asked.time_s)
        if left_s <= 0:
            return self._failed(asked, LATE, "there was no time left to ask")
        try:
            reply = self.client.ask(self._observation(asked), request=self._request(asked, left_s), timeout_s=left_s)
            told = self._told(asked, reply.rows, reply.ontick)
        except WireLate as error:
            self._hear()
            return self._failed(asked, LATE, error)
        except WireTimeout as error:
            self._hear_nothing(error)
            return self._failed(asked, LATE, error)
        except WireFull as error:
            self._hear()
            return self._failed(asked, FULL, error)
        except WireRefused as error:
            self._silent, self._is_connected, self._why = 0, self.client.is_connected, str(error)
            return self._failed(asked, REFUSED, error)
        except WireError as error:
            self._is_connected, self._why = False, str(error)
            return self._failed(asked, LOST, error)
        self._hear()
        return told

    def close(self) -> None:
        self.client.close()

    # -- what comes ---------------------------------------------------------------------------------------------------

    def _told(self, asked: Asked, rows: np.ndarray, ontick: Mapping[str, Any]) -> Told:
        """Raises WireRefused for what no answer of this policy is; whether it is finite the gate sees."""
        card = self.card
        wanted = f"float [{card.n_action_steps} to {card.rows}, {card.action_dim}]"
        if rows.dtype not in (np.float32, np.float64):
            raise WireRefused(f"got actions of {rows.dtype}, wanted {wanted}")
        if rows.ndim != 2 or rows.shape[1] != card.action_dim or not card.n_action_steps <= len(rows):
            raise WireRefused(f"got actions of shape {rows.shape}, wanted {wanted}")
        with np.errstate(over="ignore"):
            rows = rows[: card.rows].astype(np.float32)
        steps = _whole(ontick, "steps", card.n_action_steps, 1, len(rows))
        calls = _whole(ontick, "calls", 1, 0, MOST_CALLS - 1)
        rung = _whole(ontick, "rung", 0, 0, len(card.plans) - 1)
        share, device_ms = _finite(ontick, "share", 1.0), _finite(ontick, "device_ms", 0.0)
        if share <= 0 or device_ms < 0:
            raise WireRefused(f"got share {share:g} and device_ms {device_ms:g}, wanted more than 0, and 0 or more")
        now_s, given = self._clock.now(), Given(rows, steps, calls, share)
        latency_s = now_s - asked.time_s
        return Told(asked.id, now_s, latency_s, device_ms * 1e-3, rung=rung, given=given, discarded=self.client.late)

    def _failed(self, asked: Asked, state: int, why: Exception | str) -> Told:
        now_s = self._clock.now()
        return Told(asked.id, now_s, now_s - asked.time_s, 0.0, state, str(why), discarded=self.client.late)

    def _told_card(self, metadata: Mapping[str, Any]) -> PolicyCard:
        return PolicyCard.from_dict(metadata[OURS], f"the server {self.client.url}")

    # -- what is asked ------------------------------------------------------------------------------------------------

    def _observation(self, asked: Asked) -> Any:
        """[To, Do] for a server of ours, the newest [Do], or its parts, for others, which keep no history."""
        obs = asked.question.obs[0]
        return obs if self.is_ours else self._foreign(obs[-1])

    def _foreign(self, obs: np.ndarray) -> Any:
        if self._parts is None:
            return obs
        return {key: obs[part].copy() if isinstance(part, slice) else part for key, part in self._parts.items()}

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

    # -- the connection -----------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """The server lives."""
        self._silent = 0
        if self._again_s > -math.inf:
            self._waits, self._again_s = backoff(secrets.randbits(32)), -math.inf

    def _hear_nothing(self, error: Exception) -> None:
        self._silent += 1
        if self._silent >= SILENT:
            self.client.drop()
        self._is_connected, self._why = self.client.is_connected, str(error)

    def _reconnects(self) -> bool:
        """Try to, if it is time; `_why` says why not. It lasts up to a second, which holds up nobody but this."""
        if self._clock.now() < self._again_s:
            return False
        try:
            self._check_same(self.client.connect(RECONNECT_S))
        except (WireError, InputError) as error:
            self.client.close()
            self._why = str(error)
        else:
            self._is_connected, self._is_fresh, self._silent = True, True, 0  # it knows nothing of this episode
        self._again_s = self._clock.now() + next(self._waits)
        return self._is_connected

    def _check_same(self, metadata: Mapping[str, Any]) -> None:
        """Raises WireRefused, or InputError, for another policy than the controller was made for."""
        is_ours = metadata.get(OURS) is not None
        is_same = is_ours == self.is_ours and self._about == _about(metadata)
        if is_same and is_ours:
            is_same = self.card.is_same_policy(self._told_card(metadata))
        if not is_same:
            raise WireRefused(f"{self.client.url} has another policy now; start anew to drive with it")

    def _probed(self, steps: int | None, dims: tuple[int, int] | None) -> PolicyCard:
        """A foreign server's card, by the answer to an observation of zeros."""
        if dims is None:
            raise InputError(f"{self.client.url} does not say what its policy is, and the robot does not either")
        try:
            reply = self.client.ask(self._foreign(np.zeros(dims[0], np.float32)), request=None, timeout_s=CONNECT_S)
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


def checked_parts(parts: Any, width: int) -> dict[str, Any]:
    """Of an observation of `width` numbers: key -> slice, or a text or number. Raises InputError."""
    if not isinstance(parts, Mapping) or not parts:
        raise InputError(
            f"got {parts!r} for an observation's parts, wanted KEY: [start, end], or KEY: a text or number"
        )
    checked: dict[str, Any] = {}
    for key, part in parts.items():
        if not isinstance(key, str) or not key:
            raise InputError(f"got {key!r} for a part of the observation, wanted a text: put it in quotes")
        if isinstance(part, str | int | float):
            checked[key] = part
            continue
        is_pair = isinstance(part, list | tuple) and len(part) == 2 and all(type(n) is int for n in part)
        if not is_pair or not 0 <= part[0] < part[1] <= width:
            wanted = f"wanted [start, end] within 0 to {width}, or a text or number"
            raise InputError(f"got {part!r} for the observation's part {key!r}, {wanted}")
        checked[key] = slice(*part)
    return checked


def _about(metadata: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a server of ours tells of its policy beside its card."""
    told = metadata.get(OURS)
    return (told.get("family"), told.get("task")) if isinstance(told, dict) else (None, None)


def _number(keys: Mapping[str, Any], name: str, otherwise: float) -> Any:
    value = keys.get(name, otherwise)
    return value.item() if isinstance(value, np.number) else value


def _whole(keys: Mapping[str, Any], name: str, otherwise: int, least: int, most: int) -> int:
    value = _number(keys, name, otherwise)
    if type(value) is not int or not least <= value <= most:
        raise WireRefused(f"got {name} {str(value)[:40]}, wanted a whole number from {least} to {most}")
    return value


def _finite(keys: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = _number(keys, name, otherwise)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise WireRefused(f"got {name} {str(value)[:40]}, wanted a finite number")
    return float(value)
