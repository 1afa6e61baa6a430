"""A policy on the network: openpi's protocol, with optional keys of ours.

    server, once                    metadata, a dictionary
    client                          an observation, a dictionary
    server                          {"actions": [Th, Da], "server_timing": {...}}; in turn, one question at a time

Messages are binary frames of `codec`. What goes wrong is told in one line as a text frame, on which openpi's clients
raise, and then the connection is closed: 1008 where the client broke a rule, 1011 where the policy failed. Other
clients are served on. `GET /healthz` answers 200 when the policy is warm.

The key "ontick" of an observation, {"request", "deadline_s", "seed", "behind", "kept", "fixed", "rung", ...}, all
optional, is answered with one of the same name.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any
from weakref import WeakSet

import numpy as np

from ...errors import InputError
from ..clock import Clock, WallClock
from ..histogram import LatencyHistogram
from .address import check_address, is_loopback, server_tls, url_of
from .batching import Answered, Asked, Batcher, Full, Late
from .codec import LARGEST_MESSAGE, WireError, pack, package, unpack
from .requests import Request, read_request

CLOSE_S, START_S = 0.5, 10.0
PING_S, SILENT_S = 10.0, 20.0
SWITCH_S = 0.0005  # for `sys.setswitchinterval`: Python's own 5 ms hold up the loop while an answer is computed
WAITING = 2  # messages of a client that may lie unread
BAD_FRAME, FAILED = 1008, 1011

# Strangers open connections and send nonsense; what becomes of a handshake is no news.
_quiet = logging.getLogger(f"{__name__}.handshakes")
_quiet.setLevel(logging.CRITICAL)


@dataclass(eq=False)
class _Client:
    lane: int
    gone: asyncio.Future[None]
    seed: int | None  # of the episode that begins with the next question
    history: np.ndarray | None = None  # [To, Do]
    total_s: float | None = None  # of the question before


@dataclass
class Served:
    """What a server has done. seconds: from a question's arrival to its reply; queued: of these, before its turn."""

    requests: int = 0
    clients: int = 0
    late: int = 0
    full: int = 0  # questions for which there was no memory
    refused: Counter[str] = field(default_factory=Counter)
    seconds: LatencyHistogram = field(default_factory=LatencyHistogram)
    device: LatencyHistogram = field(default_factory=LatencyHistogram)
    queued: LatencyHistogram = field(default_factory=LatencyHistogram)

    def to_dict(self) -> dict[str, Any]:
        times = {name: getattr(self, name).summary_ms() for name in ("seconds", "device", "queued")}
        return {
            "requests": self.requests,
            "clients": self.clients,
            "late": self.late,
            "full": self.full,
            "refused": dict(self.refused),
            "reply_ms": times["seconds"],
            "device_ms": times["device"],
            "queued_ms": times["queued"],
        }


class PolicyServer:
    """Serves a batcher's policy at `url`, in a thread of its own; a context manager.

    batcher: entered by the caller; until it is ready, clients are sent away with 503. metadata: told to clients beside
    the batcher's facts. token: what clients must show, as `Authorization: Bearer TOKEN` or `Api-Key TOKEN`. tls:
    certificate and key files. insecure: listen beyond this machine without a token. told: is given a line when a client
    comes or goes, in the server's thread, and a warning where a token goes over the network unencrypted.

    Raises InputError for a host or port that cannot be served, a host beyond this machine without a token, an empty
    token, and files that are no certificate.
    """

    def __init__(
        self,
        batcher: Batcher,
        metadata: Mapping[str, Any],
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        tls: tuple[Path, Path] | None = None,
        insecure: bool = False,
        largest_message: int = LARGEST_MESSAGE,
        told: Callable[[str], None] = lambda line: None,
        clock: Clock | None = None,
    ) -> None:
        check_address(host, port)
        if token is not None and not token.strip():
            raise InputError("the token is empty; wanted a secret of some length, or none")
        if token is None and not insecure and not is_loopback(host):
            wanted = "wanted a token (--token-env), or --insecure on a network that you trust"
            raise InputError(f"got host {host}, which others can reach, and no token: {wanted}")
        self.batcher, self.host, self.port, self.told = batcher, host, port, told
        self.served, self.url = Served(), ""
        self._metadata, self._token, self._tls = dict(metadata), token, None if tls is None else server_tls(*tls)
        self._largest, self._clock = largest_message, clock or WallClock()
        self._websockets = package("websockets.asyncio.server")
        self._closed = package("websockets.exceptions").ConnectionClosed
        package("msgpack")
        self._free = list(range(batcher.lanes))[::-1]
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._failed: Exception | None = None

    @property
    def clients(self) -> int:
        """How many are connected now."""
        return self.batcher.lanes - len(self._free)

    def __enter__(self) -> PolicyServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> PolicyServer:
        """Listen; returns when `url` answers. Raises InputError when the host and port cannot be served."""
        if self._thread is not None:
            return self
        self._failed, started = None, Event()
        self._thread = Thread(target=self._run, args=(started,), name="ontick-server", daemon=True)
        self._thread.start()
        if not started.wait(START_S) or self._failed:
            reason = str(self._failed or "no answer").splitlines()[0]
            self.stop()
            raise InputError(f"got {self.host}:{self.port}, which cannot be served ({reason}): choose another port")
        if self._token is not None and self._tls is None and not is_loopback(self.host):
            self.told(
                f"warning: {self.url} is not encrypted, and whoever listens learns the token; use TLS or a tunnel"
            )
        return self

    def stop(self) -> None:
        """Take leave of the clients and end the thread; again is no error."""
        if self._thread is None:
            return
        with suppress(RuntimeError):  # the loop has ended by itself
            if self._loop is not None and self._ended is not None:
                self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._thread = None

    # What follows runs in the server's thread.

    def _run(self, started: Event) -> None:
        try:
            asyncio.run(self._serve(started))
        except (OSError, OverflowError, UnicodeError) as error:
            self._failed = error
        finally:
            self._loop = None
            started.set()

    async def _serve(self, started: Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), (ended := asyncio.Event())
        options: dict[str, Any] = {"compression": None, "max_size": self._largest, "max_queue": WAITING}
        options |= {"logger": _quiet, "ssl": self._tls, "process_request": self._admit, "open_timeout": 5}
        options |= {"ping_interval": PING_S, "ping_timeout": SILENT_S, "close_timeout": CLOSE_S}
        connections = WeakSet()

        def connected(*inputs: Any, **named: Any) -> Any:
            connections.add(connection := self._websockets.ServerConnection(*inputs, **named))
            return connection

        server = await self._websockets.serve(
            self._attend, self.host, self.port, create_connection=connected, **options
        )
        self.url = url_of("ws" if self._tls is None else "wss", *server.sockets[0].getsockname()[:2])
        started.set()
        await ended.wait()
        server.close()
        for connection in connections:
            transport = getattr(connection, "transport", None)  # none before the handshake of TLS
            if transport is not None and connection.state.name == "CONNECTING":
                transport.abort()  # it never said a word, and would be waited for
        await server.wait_closed()

    def _admit(self, connection: Any, request: Any) -> Any:
        """None for a client that may come in, else the answer that sends it away."""
        if request.path == "/healthz":
            return connection.respond(200, "OK\n") if self.batcher.ready else connection.respond(503, "warming up\n")
        if not self._knows(request.headers.get_all("Authorization")):
            return self._away(connection, 401, "wanted Authorization: Bearer TOKEN", "token")
        if request.headers.get("Origin") is not None:  # a browser lets any page speak to this machine
            return self._away(connection, 403, "no pages", "page")
        if not self.batcher.ready:
            return self._away(connection, 503, "warming up", "warming up")
        if not self._free:
            return self._away(connection, 503, f"{self.batcher.lanes} clients are served already", "too many clients")
        return None

    def _knows(self, given: list[str]) -> bool:
        if self._token is None:
            return True
        scheme, _, secret = (given[0] if len(given) == 1 else "").partition(" ")
        same = hmac.compare_digest(secret.strip().encode("utf-8", "replace"), self._token.encode())
        return same and scheme.lower() in ("bearer", "api-key")

    def _away(self, connection: Any, status: int, reason: str, counted: str) -> Any:
        self.served.refused[counted] += 1
        return connection.respond(status, reason + "\n")

    async def _attend(self, connection: Any) -> None:
        """Serve one client from its coming to its going."""
        if not self._free:  # they were admitted together
            await connection.close(FAILED, "too many clients")
            return
        self.served.clients += 1
        address = connection.remote_address
        name = f"client {self.served.clients} ({address[0]})" if address else f"client {self.served.clients}"
        gone = asyncio.ensure_future(connection.wait_closed())
        client = _Client(self._free.pop(), gone, self.served.clients - 1)
        self.told(f"{name} has come, {self.clients} now")
        why = ""
        try:
            with suppress(self._closed):
                await connection.send(pack({"ontick": {**self.batcher.facts, **self._metadata}}))
                async for message in connection:
                    why = await self._serve_one(connection, client, message)
                    if why:
                        break
        finally:
            gone.cancel()
            self._free.append(client.lane)
            self.told(f"{name} has gone{f' ({why})' if why else ''}, {self.clients} now")

    async def _serve_one(self, connection: Any, client: _Client, message: str | bytes) -> str:
        """Answer one question. Returns why the connection was closed, "" where it goes on."""
        start_s = self._clock.now()
        try:
            if isinstance(message, str):
                raise WireError("got a text frame, wanted a binary one")
            request = read_request(unpack(message), self.batcher.facts)
            answered = await self._ask(client, request, start_s)
            if answered is None:
                return "left before its answer"
            reply = pack(self._reply(client, request, answered))
        except Late as error:
            self.served.late += 1
            reply = pack({"ontick": {"request": request.number, "late": str(error)}})
        except Full as error:
            self.served.full += 1
            if not request.ours:  # it would take a reply without actions for a broken one
                return await self._close(connection, FAILED, str(error))
            reply = pack({"ontick": {"request": request.number, "full": str(error)}})
        except WireError as error:
            return await self._close(connection, BAD_FRAME, str(error))
        except Exception as error:  # whatever a policy raises: its client is told, the others are served on
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            return await self._close(connection, FAILED, reason)
        await connection.send(reply)
        client.total_s = self._clock.now() - start_s
        self.served.requests += 1
        self.served.seconds.record(client.total_s)
        return ""

    async def _ask(self, client: _Client, request: Request, start_s: float) -> Answered | None:
        """The answer; None where the client left before it."""
        if request.seed is not None:
            client.seed, client.history = request.seed, None
        client.history = _following(client.history, request.obs, self.batcher.facts["n_obs_steps"])
        asked = Asked(
            client.lane,
            client.history,
            start_s,
            np.inf if request.deadline_s is None else start_s + request.deadline_s,
            request.rung,
            client.seed,
            request.behind,
            request.kept,
            request.fixed,
        )
        pending = self.batcher.ask(asked)
        answer = asyncio.wrap_future(pending)

        def leave(_: object) -> None:
            answer.cancel()  # and `pending` with it

        client.gone.add_done_callback(leave)
        try:
            answered = await answer
            client.seed = None  # its episode has begun
            return answered
        except asyncio.CancelledError:
            if not client.gone.done():
                raise
            return None
        finally:
            client.gone.remove_done_callback(leave)
            pending.cancel()
            answer.cancel()

    def _reply(self, client: _Client, request: Request, answered: Answered) -> dict[str, Any]:
        given, device_ms, queued_ms = answered.given, answered.device_s * 1e3, answered.queued_s * 1e3
        self.served.device.record(answered.device_s)
        self.served.queued.record(max(0.0, answered.queued_s))
        timing = {"infer_ms": device_ms}
        if client.total_s is not None:
            timing["prev_total_ms"] = client.total_s * 1e3
        reply: dict[str, Any] = {"actions": given.rows, "server_timing": timing}
        if request.ours:
            reply["ontick"] = {
                "request": request.number,
                "rung": answered.plan,
                "steps": int(given.steps),
                "calls": int(given.calls),
                "share": float(given.share),
                "device_ms": device_ms,
                "queued_ms": queued_ms,
                "batch": answered.batch,
            }
        return reply

    async def _close(self, connection: Any, code: int, reason: str) -> str:
        line = " ".join(reason.split())[:400]
        self.served.refused["bad frame" if code == BAD_FRAME else "policy failed"] += 1
        with suppress(self._closed):
            await connection.send(line)
            await connection.close(code, line.encode()[:120].decode(errors="ignore"))
        return line


def _following(history: np.ndarray | None, obs: np.ndarray, steps: int) -> np.ndarray:
    """[To, Do]: a whole history replaces the one there is, a newest observation follows it."""
    if obs.ndim == 2:
        return obs
    if history is None:
        return np.repeat(obs[None], steps, 0)
    return np.concatenate([history[1:], obs[None]])
