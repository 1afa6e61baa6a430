"""A policy server on loopback that can be killed, hung and made to err."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RunFailed
from ..runtime import WallClock

SERVER_S = 120.0  # until a server answers


class Server:
    """`ontick serve` on loopback, in a process that can be killed or hung, behind a proxy that can be told to err."""

    def __init__(self, arguments: list[str]) -> None:
        from ..runtime.wire.proxy import FaultyProxy

        self._arguments, self._port = arguments, _free_port()
        self._process: subprocess.Popen | None = None
        self.proxy = FaultyProxy(f"ws://127.0.0.1:{self._port}")
        try:
            self._start()
            self._wait_until_ready()
            self.proxy.start()
        except BaseException:  # an interrupt too: it hears none itself, and would stay for ever
            self.stop()
            raise

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.proxy.counts)

    def make(self, name: str | None) -> None:
        """Begin the fault of that name; None: end it."""
        assert self._process is not None
        if name == "server-killed":
            self._process.kill()
            self._process.wait()
        elif name == "server-hung":
            self._process.send_signal(signal.SIGSTOP)
        elif name is not None:
            self.proxy.set(name)
        elif self._process.poll() is not None:
            self._start()
        else:
            self._process.send_signal(signal.SIGCONT)
            self.proxy.set(None)

    def stop(self) -> None:
        """End the server and the proxy; again is no error."""
        with _uninterrupted():
            if self._process is not None:
                self._process.kill()  # it may be stopped: to this, that is nothing
                self._process.wait()
            self.proxy.stop()

    def _start(self) -> None:
        command = [sys.executable, "-m", "ontick", "serve", *self._arguments, "--port", str(self._port)]
        with _uninterrupted():
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        clock = WallClock()
        until_s = clock.now() + SERVER_S
        while not _is_ready(self._port):
            if self._process.poll() is not None or clock.now() > until_s:
                raise RunFailed(f"the server for this fault did not start (exit {self._process.poll()})")
            clock.sleep_until(clock.now() + 0.2)


def _is_ready(port: int) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1.0) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """An interrupt that comes meanwhile is heard afterwards: a process that has begun must have been noted down."""
    if threading.current_thread() is not threading.main_thread():  # others are not interrupted
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)
