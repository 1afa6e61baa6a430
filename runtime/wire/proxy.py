"""A proxy that spoils what a policy server says: for fault injection, and for benchmarks over a worse network.

    with FaultyProxy(server.url, delay_s=0.05, lose=0.05) as proxy:
        client = PolicyClient(proxy.url)
        ...
        proxy.set("nan-action")

What the server says first, its metadata, passes untouched.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import numpy as np

from ...errors import InputError
from .codec import WireError, pack, package, unpack

BEYOND = 10.0  # times what the actions were
START_S, CLOSE_S = 10.0, 0.2

_quiet = logging.getLogger(f"{__name__}.handshakes")
_quiet.setLevel(logging.CRITICAL)


def _filled(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def spoil(actions: np.ndarray) -> np.ndarray:
        spoiled = np.array(actions, np.float32)
        spoiled[..., -1] = value
        return spoiled

    return spoil


SPOILED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nan-action": _filled(np.nan),
    "inf-action": _filled(np.inf),
    "wrong-shape": lambda actions: actions[..., :-1],
    "beyond-limits": lambda actions: actions * np.float32(BEYOND),
}
FAULTS = ("late-reply", "reorder", "duplicate", *SPOILED)


class FaultyProxy:
    """Passes on what clients and `target_url` say, on this machine, in a thread of its own; a context manager.

    delay_s: what every reply is late. lose: probability that a reply is dropped, by `seed`. late_s: what a reply is
    late under the fault "late-reply": longer than the client's timeout. counts: what was done, by name.

    The other faults: "reorder" keeps a reply until the next one has gone; "duplicate" sends it twice; "nan-action",
    "inf-action", "wrong-shape" and "beyond-limits" change its actions. Raises InputError for another one.
    """

    def __init__(
        self,
        target_url: str,
        port: int = 0,
        delay_s: float = 0.0,
        lose: float = 0.0,
        late_s: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.target_url, self.port = target_url, port
        self.delay_s, self.lose, self.late_s = delay_s, lose, late_s
        self.counts: Counter[str] = Counter()
        self.url = ""
        self._fault: str | None = None
        self._chance = random.Random(seed)
        self._servers, self._clients = package("websockets.asyncio.server"), package("websockets.asyncio.client")
        self._errors = package("websockets.exceptions")
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._flows: asyncio.Event | None = None
        self._failed: Exception | None = None

    def __enter__(self) -> FaultyProxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> FaultyProxy:
        """Listen; returns when `url` answers. Raises InputError where the port cannot be had."""
        if self._thread is not None:
            return self
        started = Event()
        self._thread = Thread(target=self._run, args=(started,), name="ontick-proxy", daemon=True)
        self._thread.start()
        if not started.wait(START_S) or self._failed:
            self.stop()
            raise InputError(
                f"got port {self.port} for the proxy, which cannot be had ({self._failed}): choose another"
            )
        return self

    def stop(self) -> None:
        """Hang up on everybody and end the thread; again is no error."""
        if self._thread is None:
            return
        self._call(lambda: self._ended and self._ended.set())
        self._thread.join()
        self._thread = None

    def set(self, fault: str | None) -> None:
        """What befalls the next replies; None: nothing. Raises InputError."""
        if fault is not None and fault not in FAULTS:
            raise InputError(f"got the fault {fault!r}, wanted one of {', '.join(FAULTS)}")
        self._fault = fault

    def hang(self) -> None:
        """Pass nothing on any more, in neither direction; connections stand, and new ones are let in."""
        self._call(lambda: self._flows and self._flows.clear())

    def resume(self) -> None:
        """End `hang`: what has come meanwhile is passed on."""
        self._call(lambda: self._flows and self._flows.set())

    def _call(self, work: Callable[[], Any]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            if (loop := self._loop) is not None:
                loop.call_soon_threadsafe(work)

    # What follows runs in the proxy's thread.

    def _run(self, started: Event) -> None:
        try:
            asyncio.run(self._serve(started))
        except (OSError, OverflowError) as error:
            self._failed = error
        finally:
            self._loop = None
            started.set()

    async def _serve(self, started: Event) -> None:
        self._ended, self._flows = asyncio.Event(), asyncio.Event()
        self._flows.set()
        self._loop = asyncio.get_running_loop()
        options = {"compression": None, "max_size": None, "logger": _quiet, "ping_interval": None}
        serving = self._servers.serve(self._attend, "127.0.0.1", self.port, close_timeout=CLOSE_S, **options)
        async with serving as server:
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set()
            await self._ended.wait()

    async def _attend(self, client: Any) -> None:
        """One client, and its own connection to the server, until either ends."""
        headers = {name: client.request.headers[name] for name in ("Authorization",) if name in client.request.headers}
        options = {"compression": None, "max_size": None, "ping_interval": None, "proxy": None, "logger": _quiet}
        options |= {"additional_headers": headers, "close_timeout": CLOSE_S}
        try:
            async with self._clients.connect(self.target_url, **options) as server:
                ways = [
                    asyncio.create_task(self._ask(client, server)),
                    asyncio.create_task(self._reply(client, server)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, self._errors.WebSocketException) as error:
            await client.close(1011, f"the server cannot be reached: {error}"[:100])

    async def _ask(self, client: Any, server: Any) -> None:
        with suppress(self._errors.ConnectionClosed):
            async for message in client:
                await self._flows_on()
                await server.send(message)

    async def _reply(self, client: Any, server: Any) -> None:
        sending: set[asyncio.Task] = set()
        kept: list[str | bytes] = []  # under "reorder", one that waits for the next
        try:
            with suppress(self._errors.ConnectionClosed):
                await self._deliver(client, await server.recv(), 0.0)
                async for message in server:
                    for part, after_s in self._spoiled(message, kept):
                        sending.add(task := asyncio.create_task(self._deliver(client, part, after_s)))
                        task.add_done_callback(sending.discard)
            await asyncio.gather(*sending)  # a server's last word is why it hangs up
        finally:
            for task in sending:
                task.cancel()

    async def _deliver(self, client: Any, message: str | bytes, after_s: float) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        await self._flows_on()
        with suppress(self._errors.ConnectionClosed):
            await client.send(message)

    async def _flows_on(self) -> None:
        if self._flows is not None:
            await self._flows.wait()

    def _spoiled(self, message: str | bytes, kept: list[str | bytes]) -> list[tuple[str | bytes, float]]:
        """What to send in the place of a reply, and after how many seconds."""
        fault = self._fault
        self.counts["replies"] += 1
        if self._chance.random() < self.lose:
            self.counts["lost"] += 1
            return []
        if fault is None:
            released, kept[:] = [(before, self.delay_s) for before in kept], []
            return [(message, self.delay_s), *released]
        self.counts[fault] += 1
        if fault == "late-reply":
            return [(message, self.delay_s + self.late_s)]
        if fault == "duplicate":
            return [(message, self.delay_s)] * 2
        if fault == "reorder":
            if not kept:
                kept.append(message)
                return []
            return [(message, self.delay_s), (kept.pop(), self.delay_s)]
        return [(_with_actions(message, SPOILED[fault]), self.delay_s)]


def _with_actions(message: str | bytes, spoil: Callable[[np.ndarray], np.ndarray]) -> str | bytes:
    """The reply with other actions; as it was where it has none."""
    try:
        reply = unpack(message) if isinstance(message, bytes) else None
    except WireError:
        return message
    if not isinstance(reply, dict) or not isinstance(reply.get("actions"), np.ndarray):
        return message
    return pack({**reply, "actions": spoil(reply["actions"])})
