"""The client: asks a policy server, ours or openpi's, and never waits for longer than it was told to.

    client = PolicyClient("ws://gpu:8000", token)
    metadata = client.connect()
    reply = client.ask(observation, request={"seed": 7}, timeout_s=0.2)

A reply that comes too late is never taken for another's: our servers say which request a reply answers, and late ones
are thrown away and counted; a foreign server does not say it, so its connection is closed.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ..clock import Clock, WallClock
from .codec import LARGEST_MESSAGE, WireError, pack, package, unpack
from .requests import OBSERVATION, OURS

CLOSE_S = 0.2
FIRST_WAIT_S, LONGEST_WAIT_S, LEAST_SHARE = 0.1, 5.0, 0.5


class WireTimeout(WireError):
    """No reply in time."""


class WireLate(WireTimeout):
    """The server said that it had no time for it."""


class WireClosed(WireError):
    """There is no server, or no connection to it any more."""


class WireRefused(WireError):
    """The server said no, and why, or said what cannot be used."""


class WireFull(WireRefused):
    """The server has no memory for an answer now; the connection stands."""


class Reply(NamedTuple):
    """rows: [Th, Da], as the server sent them, unchecked; metadata: the rest of its reply."""

    rows: np.ndarray
    metadata: dict[str, Any]

    @property
    def ontick(self) -> dict[str, Any]:
        """Our keys of it; empty from a foreign server."""
        keys = self.metadata.get(OURS)
        return keys if isinstance(keys, dict) else {}


def backoff(seed: int) -> Iterator[float]:
    """Seconds to wait before each try to connect again: 0.1, doubled up to 5, each shortened by up to a half, so that
    robots which lost one server do not come back together."""
    chance, wait_s = random.Random(seed), FIRST_WAIT_S
    while True:
        yield wait_s * chance.uniform(LEAST_SHARE, 1.0)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


class PolicyClient:
    """A connection to one server; a context manager. For one thread.

    token: shown as a bearer. timeout_s: of whatever is told none. observation_key: what the observation [Do] or
    [To, Do] is called; a server of ours wants "observation". ca: file of the authority to trust, for wss, where the
    system does not know it. Raises InputError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = 1.0,
        observation_key: str = OBSERVATION,
        ca: Path | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise InputError(f"got {url!r} for a policy server, wanted ws://HOST:PORT, or wss:// with TLS")
        self.url, self.timeout_s, self.observation_key = url, timeout_s, observation_key
        self.metadata: dict[str, Any] = {}
        self.late = 0  # replies that came when nobody waited for them any more
        self._token, self._clock, self._tls = token, clock or WallClock(), _trust(ca) if url.startswith("wss") else None
        self._websockets, self._errors = package("websockets.sync.client"), package("websockets.exceptions")
        self._connection: Any = None
        self._requests = 0

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, for all that is known."""
        return self._connection is not None

    @property
    def is_ours(self) -> bool:
        """Whether the server knows our keys."""
        return isinstance(self.metadata.get(OURS), dict)

    def connect(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Connect, anew where there is a connection, and return the server's metadata. Raises WireTimeout, WireClosed
        and WireRefused."""
        self.close()
        until_s = self._clock.now() + self._within(timeout_s)
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        options: dict[str, Any] = {"compression": None, "max_size": LARGEST_MESSAGE, "additional_headers": headers}
        # No proxy: what moves a robot goes straight to it. No pings: every question has its own time.
        options |= {"open_timeout": self._left(until_s), "close_timeout": CLOSE_S, "ssl": self._tls}
        options |= {"proxy": None, "ping_interval": None}
        try:
            # Entered, and left in `close`: some versions warn of a connection that is not.
            self._connection = self._websockets.connect(self.url, **options).__enter__()
        except TimeoutError:
            raise WireTimeout(f"{self.url} did not answer within {self._within(timeout_s):g} s") from None
        except self._errors.InvalidURI as error:
            raise InputError(f"got {self.url!r} for a policy server: {error}") from None
        except self._errors.InvalidStatus as error:
            raise WireRefused(f"{self.url} refused: {_told(error.response)}") from None
        except (OSError, self._errors.WebSocketException, EOFError) as error:
            raise WireClosed(f"{self.url} cannot be reached: {_line(error)}") from None
        try:
            _limit_sending(self._connection.socket, min(self.timeout_s, self._within(timeout_s)))
            metadata = self._receive(until_s)
        except OSError as error:  # it has hung up already
            self.drop()
            raise WireClosed(f"{self.url} is gone: {_line(error)}") from None
        except WireError:
            self.drop()
            raise
        self.metadata = metadata if isinstance(metadata, dict) else {}
        return self.metadata

    def ask(
        self,
        observation: np.ndarray | Mapping[str, Any],
        *,
        request: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        """The answer to an observation: an array [Do] or [To, Do], or a dictionary as a foreign server wants it.
        request: keys of ours; a foreign server is not told them.

        Raises WireTimeout (WireLate where the server says so), WireClosed and WireRefused (WireFull where it has no
        memory); `is_connected` says whether the connection stands.
        """
        if self._connection is None:
            raise WireClosed(f"{self.url} is not connected; call connect()")
        until_s = self._clock.now() + self._within(timeout_s)
        is_array = isinstance(observation, np.ndarray)
        message: dict[str, Any] = {self.observation_key: observation} if is_array else dict(observation)
        self._requests += 1
        if self.is_ours:
            message[OURS] = {**(request or {}), "request": self._requests}
        packed = pack(message)
        try:
            self._send(packed)
            return self._reply(until_s)
        except WireTimeout:
            if not self.is_ours:  # it may still reply, and could not be told from the next
                self.drop()
            raise
        except WireClosed:
            self.drop()
            raise

    def close(self) -> None:
        """Leave; again is no error."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def drop(self) -> None:
        """Leave at once, without a word to a server that may be hung; again is no error."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.socket.shutdown(socket.SHUT_RDWR)
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _within(self, timeout_s: float | None) -> float:
        return self.timeout_s if timeout_s is None else timeout_s

    def _left(self, until_s: float) -> float:
        return max(0.0, until_s - self._clock.now())

    def _send(self, packed: bytes) -> None:
        try:
            self._connection.send(packed)
        except (OSError, self._errors.WebSocketException) as error:
            raise WireClosed(f"{self.url} is gone: {_line(error)}") from None

    def _receive(self, until_s: float) -> Any:
        """One message, unpacked; text is the server's no."""
        try:
            message = self._connection.recv(timeout=self._left(until_s))
        except TimeoutError:
            raise WireTimeout(f"{self.url} did not reply in time") from None
        except (OSError, self._errors.WebSocketException, EOFError) as error:
            raise WireClosed(f"{self.url} is gone: {_line(error)}") from None
        if isinstance(message, str):
            self.close()  # openpi's servers and ours close after it
            raise WireRefused(f"{self.url} refused: {_last_line(message)}")
        try:
            return unpack(message)
        except WireError as error:
            self.close()
            raise WireRefused(f"{self.url} sent what cannot be read: {error}") from None

    def _reply(self, until_s: float) -> Reply:
        """The reply to the last request, whatever comes before it."""
        while True:
            message = self._receive(until_s)
            if not isinstance(message, dict):
                raise WireRefused(f"{self.url} sent {type(message).__name__}, wanted a dictionary with actions")
            keys = message.get(OURS) if self.is_ours else None
            if self.is_ours and (not isinstance(keys, dict) or keys.get("request") != self._requests):
                self.late += 1
                continue
            if isinstance(keys, dict) and "late" in keys:
                raise WireLate(f"{self.url} had no time for it: {_line(keys['late'])}")
            if isinstance(keys, dict) and "full" in keys:
                raise WireFull(f"{self.url} has no memory for it: {_line(keys['full'])}")
            rows = message.pop("actions", None)
            if not isinstance(rows, np.ndarray):
                raise WireRefused(f"{self.url} sent {type(rows).__name__} for actions, wanted an array")
            return Reply(rows, message)


def _trust(ca: Path | str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InputError(f"got {ca} for an authority to trust, wanted certificates as PEM ({error})") from None


def _limit_sending(sock: socket.socket, seconds: float) -> None:
    """A server that reads nothing must not hold up whoever sends: the kernel gives up after this time."""
    if sys.platform != "win32":
        whole, part = divmod(max(1, int(seconds * 1e6)), 1_000_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", whole, part))


def _told(response: Any) -> str:
    body = _line(bytes(response.body or b"").decode(errors="replace"))
    return f"{response.status_code} {body}".strip()


def _last_line(text: str) -> str:
    """openpi's servers send a traceback, whose last line is the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else "without a reason"


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
