"""The stream in a browser: a page, the frames over a WebSocket, and the keys that come back.

The producer never waits for a viewer. Every viewer has a short outbox that drops its oldest message, so whoever is slow
sees fewer frames, not older ones, and learns how many were dropped.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import logging
import math
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import numpy as np

from ..errors import InputError
from .recording import check_frame

KEYS = frozenset({"ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"})
OUTBOX = 2  # messages that may wait for a viewer
MOST_VIEWERS = 32
LARGEST_MESSAGE = 512  # bytes that a viewer may send at once
SEND_BUFFER = 1 << 18  # bytes in the kernel: what lies there is old before it is seen
CLOSE_S, START_S = 0.5, 10.0
JPEG = {"format": "JPEG", "quality": 90, "subsampling": 0}
# The page needs nothing but itself and its own server.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"

log = logging.getLogger(__name__)
# Browsers open connections that they never use; what becomes of a handshake is no news.
_quiet = logging.getLogger(f"{__name__}.handshakes")
_quiet.setLevel(logging.CRITICAL)


@dataclass(eq=False)
class _Viewer:
    connection: Any
    since: int  # the last frame shown before it came
    outbox: deque[tuple[dict, bytes]] = field(default_factory=deque)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    keys: frozenset[str] = frozenset()
    dropped: int = 0


class Player:
    """A page at `url` that shows the frames and sends the keys; the server runs in a thread of its own.

    One binary message a frame: 4 bytes, big endian, the length of the JSON; the JSON, what `show` was told and
    "dropped", the number of frames that this viewer missed; the JPEG. From the page: {"keys": [...]}, those now held.
    `on_keys` is called in the server's thread with what all viewers hold together, some of KEYS, whenever that changes;
    W, A, S and D are sent as arrows. Port 0 takes a free one. Raises InputError for a host or port that cannot be
    served, and without the packages websockets and pillow.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, on_keys: Callable[[set[str]], None] = lambda keys: None):
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise InputError(f"got port {port!r}, wanted a whole number from 0 (any free one) to 65535: choose another")
        if not isinstance(host, str) or not host:
            raise InputError(f"got host {host!r}, wanted a name or an address such as 127.0.0.1: choose another")
        self.host, self.port, self.on_keys = host, port, on_keys
        self.url, self.dropped = "", 0  # dropped: the frames that viewers missed, all together
        self._websockets, self._image = _package("websockets.asyncio.server"), _package("PIL.Image")
        self._page = Path(__file__).with_name("player.html").read_bytes()
        self._viewers: set[_Viewer] = set()
        self._held: frozenset[str] = frozenset()
        self._lock = Lock()
        self._shown = self._taken = 0
        self._newest: tuple[int, np.ndarray, dict] | None = None
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._failed: Exception | None = None

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return len(self._viewers)

    def __enter__(self) -> Player:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> Player:
        """Serve; returns when `url` answers. Raises InputError when the host and port cannot be served."""
        if self._thread is not None:
            return self
        self._failed, started = None, Event()
        self._thread = Thread(target=self._run, args=(started,), name="ontick-player", daemon=True)
        self._thread.start()
        if not started.wait(START_S) or self._failed:
            reason = str(self._failed or "no answer").splitlines()[0]
            self.stop()
            raise InputError(f"got {self.host}:{self.port}, which cannot be served ({reason}): choose another port")
        return self

    def stop(self) -> None:
        """Take leave of the viewers and end the thread; again is no error."""
        if self._thread is None:
            return
        if self._ended is not None:
            self._call(self._ended.set)
        self._thread.join()
        self._thread, self.url = None, ""

    def show(self, frame: np.ndarray, told: Mapping[str, Any]) -> None:
        """Hand over a frame, uint8 [H, W, 3] in RGB, and what is told beside it; both are copied. It never waits.

        `told` has: frame, plan, fps [Hz], first_frame_ms, frame_ms {p50, p99, max}, reaction_ms (or None),
        calls_per_frame, repeats, effort (a text), budget {name, met}, levels (the share of noise, 0 to 1, of each frame
        of the queue, the cleanest first) and action (numbers). Raises InputError for a frame of another kind.
        """
        check_frame(frame)
        self._shown += 1
        if not self._viewers:
            return
        newest = (self._shown, frame.copy(), _plain(told))
        with self._lock:
            waiting, self._newest = self._newest is not None, newest
        if not waiting:
            self._call(self._distribute)

    def _call(self, work: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody watches any more
            if (loop := self._loop) is not None:
                loop.call_soon_threadsafe(work)

    # What follows runs in the server's thread.

    def _run(self, started: Event) -> None:
        try:
            asyncio.run(self._serve(started))
        except (OSError, OverflowError, UnicodeError) as error:
            self._failed = error
        finally:
            self._loop, self._newest = None, None
            started.set()

    async def _serve(self, started: Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), (ended := asyncio.Event())
        options: dict[str, Any] = {"compression": None, "max_size": LARGEST_MESSAGE, "max_queue": 4, "logger": _quiet}
        times = {"open_timeout": 5, "ping_interval": 5, "ping_timeout": 10, "close_timeout": CLOSE_S}
        connections = WeakSet()

        def connected(*inputs: Any, **named: Any) -> Any:
            connections.add(connection := self._websockets.ServerConnection(*inputs, **named))
            return connection

        options.update(times, create_connection=connected, process_request=self._answer)
        server = await self._websockets.serve(self._watch, self.host, self.port, **options)
        self.url = _url(*server.sockets[0].getsockname()[:2])
        started.set()
        await ended.wait()
        server.close()
        for connection in connections:
            if connection.state.name == "CONNECTING":  # it never said a word, and would be waited for
                connection.transport.abort()
        await server.wait_closed()

    def _answer(self, connection: Any, request: Any) -> Any:
        """The page at /, the stream at /stream, for this page alone; 404 elsewhere."""
        path, headers = urlsplit(request.path).path, request.headers
        if path == "/":
            response = connection.respond(200, "")
            response.body = self._page
            for name in ("Content-Type", "Content-Length"):
                del response.headers[name]
            response.headers.update(
                {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(self._page))}
            )
            response.headers.update({"Cache-Control": "no-store", "Content-Security-Policy": POLICY})
            return response
        if path != "/stream":
            return connection.respond(404, "not found: the page is at /\n")
        # A browser lets any page open a WebSocket to this machine, and says which page it is.
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
            return connection.respond(403, "the stream is for its own page\n")
        if len(self._viewers) >= MOST_VIEWERS:
            return connection.respond(503, f"{MOST_VIEWERS} viewers watch already\n")
        return None

    async def _watch(self, connection: Any) -> None:
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        viewer = _Viewer(connection, self._shown)
        self._viewers.add(viewer)
        sender = asyncio.create_task(self._send(viewer))
        try:
            await self._listen(viewer)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._viewers.discard(viewer)
            self._hold()

    async def _listen(self, viewer: _Viewer) -> None:
        closed = importlib.import_module("websockets.exceptions").ConnectionClosed
        with suppress(closed):
            async for message in viewer.connection:
                keys = _keys(message)
                if keys is None:
                    await viewer.connection.close(1008, 'wanted {"keys": [...]} with names of arrow keys')
                    return
                viewer.keys = keys
                self._hold()

    def _hold(self) -> None:
        held = frozenset().union(*(viewer.keys for viewer in self._viewers))
        if held != self._held:
            self._held = held
            try:
                self.on_keys(set(held))
            except Exception:  # whatever a foreign function raises: it is logged, and its viewers stay
                log.exception("on_keys failed; the stream goes on")

    async def _send(self, viewer: _Viewer) -> None:
        while True:
            await viewer.ready.wait()
            viewer.ready.clear()
            while viewer.outbox:
                told, picture = viewer.outbox.popleft()
                text = json.dumps({**told, "dropped": viewer.dropped}).encode()
                await viewer.connection.send(struct.pack(">I", len(text)) + text + picture)

    def _distribute(self) -> None:
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is None or not self._viewers:
            return
        number, frame, told = newest
        picture = self._encoded(frame)
        for viewer in self._viewers:
            missed = max(0, number - max(viewer.since, self._taken) - 1)
            if len(viewer.outbox) >= OUTBOX:
                viewer.outbox.popleft()
                missed += 1
            viewer.dropped += missed
            self.dropped += missed
            viewer.outbox.append((told, picture))
            viewer.ready.set()
        self._taken = number

    def _encoded(self, frame: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        self._image.fromarray(frame).save(buffer, **JPEG)
        return buffer.getvalue()


def _keys(message: str | bytes) -> frozenset[str] | None:
    """The keys of a message of the page; None where it is malformed."""
    try:
        keys = json.loads(message)["keys"] if isinstance(message, str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in KEYS for key in keys):
        return None
    return frozenset(keys)


def _plain(value: Any) -> Any:
    """The value as JSON knows it: numpy's numbers as Python's, and None for what no number is."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inside) for key, inside in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inside) for inside in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _url(host: str, port: int) -> str:
    address = ip_address(host)
    if address.is_unspecified:  # bound to every address: this one is always there
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}/" if address.version == 6 else f"http://{address}:{port}/"


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f'the page needs websockets and pillow ({error}): pip install "ontick[video]"') from error
