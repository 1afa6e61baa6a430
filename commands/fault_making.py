"""Makes one fault in a running drive, in time, and tells what became of it."""

import argparse
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import RunFailed
from ..runtime import WallClock
from ..runtime.controller import KINDS, STATES_OF, WHY
from ..runtime.driving import Driving
from ..runtime.faults import FAULTS, NONE, PAUSE, end_state
from ..runtime.inference import Inference, Source
from .sources import remote_opener, source_of

AT, LASTS = 0.35, 0.35  # when a fault begins, and how long it lasts, of the whole time
DISK_BYTES = 200_000  # that a full disk has left
PULSE_S, PULSES = 0.5, 3  # a fault of single replies lasts so long, in one of so many stretches
SERVER_S = 120.0  # until a server answers


class FaultMaker:
    """Makes the fault of that name, or none; watches the controller's ticks meanwhile."""

    def __init__(self, name: str | None, server: "Server | None" = None) -> None:
        self.name, self.server, self._clock = name, server, WallClock()
        self.fault = FAULTS[name] if name else None
        self.state = "begins"
        self._said: set[str] = set()
        self._ticks: list[np.void] = []
        self._made_s: float | None = None
        self._ended_s: float | None = None
        self._hogs: list[Any] = []
        self._begun_s = self._clock.now()

    @property
    def fills_disk(self) -> bool:
        return self.name == "disk-full"

    @property
    def recording_options(self) -> dict[str, Any]:
        return {"limit_bytes": DISK_BYTES} if self.fills_disk else {}

    @property
    def elapsed_s(self) -> float:
        return self._clock.now() - self._begun_s

    def begin(self, driving: Driving, inference: Inference, seconds: float | None) -> None:
        """The drive begins now."""
        self._driving, self._inference, self._seconds = driving, inference, seconds or 0.0
        self._begun_s = self._clock.now()

    def look(self, wait_s: float) -> None:
        """Wait a moment; make or end the fault if it is time; look at the ticks since the last look."""
        self._clock.sleep_until(self._clock.now() + wait_s)
        for tick in self._driving.ticks.take():
            self.state = _told(tick)
            if self.fault is not None:
                self._ticks.append(tick)
        if self.fault is None:
            return
        if (
            self._made_s is not None
            and self._ended_s is None
            and self.fault.where == "wire"
            and self.fault.end == "moving"
        ):
            self._pulse()
        if self._made_s is None and self.elapsed_s >= AT * self._seconds:
            self._make(True)
            self._made_s = self._clock.now()
            if self.name == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
        elif self._made_s is not None and self._ended_s is None and self.elapsed_s >= (AT + LASTS) * self._seconds:
            self._ended_s = self._clock.now()
            self._make(False)

    def _pulse(self) -> None:
        """Every other stretch of replies is spoiled: were all of them, there would be nothing to move on."""
        assert self.server is not None and self._made_s is not None
        spoils = int((self._clock.now() - self._made_s) / PULSE_S) % PULSES == 0
        self.server.make(self.name if spoils else None)

    def end(self) -> None:
        """Undo what still stands of the fault."""
        for hog in self._hogs:
            hog.kill()
        self._hogs = []

    def say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            print(sentence, file=sys.stderr, flush=True)

    def end_state(self, told: dict[str, Any], period_s: float) -> tuple[str, float]:
        """What the fault ended in and after how many ms; without a fault, that the robot came to rest at the end."""
        if self._made_s is None or self.fault is None:
            return "stopped", 0.0
        if self.fault.end == "stopped":
            stopped_s = told["stopped_s"]
            return "stopped" if stopped_s is not None else "moving", 1e3 * max(0.0, (stopped_s or 0.0) - self._made_s)
        ticks = np.array(self._ticks, dtype=self._driving.ticks.dtype)
        until_s = self._ended_s if self._ended_s is not None else self._clock.now()
        state, after_s = end_state(ticks, self._made_s, until_s, period_s)
        self._state_reached, self._after_s = state, after_s
        return state, after_s * 1e3

    def told(self) -> dict[str, Any]:
        """The fault, what was declared, and whether motion went on afterwards."""
        if self.fault is None:
            return {"name": None}
        ticks = np.array(self._ticks, dtype=self._driving.ticks.dtype)
        after = ticks[ticks["time_s"] > (self._ended_s or np.inf)]
        moved = after[after["state"] == STATES_OF.index("moving")]
        resumed_s = float(moved["time_s"][0]) - (self._ended_s or 0.0) if len(moved) else None
        reached = "stopped" if self.fault.end == "stopped" else getattr(self, "_state_reached", None)
        return {
            "name": self.name,
            "declared": self.fault.end,
            "bound": self.fault.bound,
            "kept": reached == self.fault.end,
            "resumed_ms": None if resumed_s is None else resumed_s * 1e3,
            "wire": self.server.counts if self.server is not None else None,
        }

    def _make(self, begins: bool) -> None:
        assert self.fault is not None
        where, code = self.fault.where, self.fault.code if begins else NONE
        if where in ("wire", "server") and self.server is not None:
            self.server.make(self.name if begins else None)
        elif where == "controller":
            self._driving.fault.value = code
        elif where == "inference":
            self._inference.fault.value = code
            if code in (NONE, PAUSE):
                self._driving.fault.value = code
        elif self.name == "cpu-hog" and begins:
            self._hogs = start_hogs()
        else:
            self.end()


def start_hogs() -> list[Any]:
    """A busy process for every core; `kill` them."""
    context = multiprocessing.get_context("spawn")
    hogs = [context.Process(target=_hog, daemon=True) for _ in range(os.cpu_count() or 1)]
    for hog in hogs:
        hog.start()
    return hogs


def _hog() -> None:
    while True:
        sum(range(100_000))


def _told(tick: np.void) -> str:
    if tick["state"] != 1:
        return f"{STATES_OF[tick['state']]}, {KINDS[tick['kind']]}"
    return f"holding: {WHY[tick['why']]}"


class Server:
    """`ontick serve` on loopback, in a process that can be killed or hung, behind a proxy that can be told to err."""

    def __init__(self, arguments: list[str]) -> None:
        from ..runtime.wire.proxy import FaultyProxy

        self._arguments, self._port = arguments, _free_port()
        self._process = self._start()
        self.proxy = FaultyProxy(f"ws://127.0.0.1:{self._port}")
        self.proxy.start()

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.proxy.counts)

    def make(self, name: str | None) -> None:
        """Begin the fault of that name; None: end it."""
        if name == "server-killed":
            self._process.kill()
            self._process.wait()
        elif name == "server-hung":
            self._process.send_signal(signal.SIGSTOP)
        elif name is not None:
            self.proxy.set(name)
        elif self._process.poll() is not None:
            self._process = self._start(waits=False)
        else:
            self._process.send_signal(signal.SIGCONT)
            self.proxy.set(None)

    def stop(self) -> None:
        self.proxy.stop()
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()

    def _start(self, waits: bool = True) -> subprocess.Popen:
        command = [sys.executable, "-m", "ontick", "serve", *self._arguments, "--port", str(self._port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True)
        clock = WallClock()
        until_s = clock.now() + SERVER_S
        while waits and not _is_ready(self._port):
            if process.poll() is not None or clock.now() > until_s:
                process.kill()
                raise RunFailed(f"the server for this fault did not start (exit {process.poll()})")
            clock.sleep_until(clock.now() + 0.2)
        return process


@contextmanager
def served_source(options: argparse.Namespace) -> Iterator[tuple[FaultMaker, Callable[[], Source]]]:
    """A policy of this machine behind a server of its own, and who makes faults between the two."""
    source = source_of(options.policy, options.plan)
    arguments = [
        str(options.policy or source.checkpoints[0]),
        "--plan",
        "+".join(source.names),
        "--device",
        options.device,
    ]
    print("starting a server for this fault", flush=True)
    server = Server(arguments)
    try:
        yield FaultMaker(options.fault, server), remote_opener(server.proxy.url, None, "observation", None, None, None)
    finally:
        server.stop()


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
