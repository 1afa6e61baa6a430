"""Makes one fault in a running drive, in time, and tells what became of it."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..runtime import WallClock
from ..runtime.controller import KINDS, MOVING, STATES_OF, WHY
from ..runtime.driving import Driving
from ..runtime.faults import AGE_S, FAULTS, NONE, PAUSE, USUAL_S, Seen, end_state, longest_hold_s, proof_of
from ..runtime.inference import Inference, Source
from .fault_server import Server
from .hogs import start_hogs, stop_hogs
from .robot_terms import PERIOD_MS
from .sources import remote_opener, source_of

AT, LASTS = 0.35, 0.35  # when a fault begins, and how long it lasts, of the whole time,
MOST_S = 6.0  # but both at most this: what was taken away needs the rest to come back
DISK_BYTES = 200_000  # that a full disk has left
STRETCH_S = 1.2  # a fault of single replies spoils one in each stretch of so long
SETTLED_S, WAITS = 0.3, 0.15  # a fault begins once motion has lasted so long; that share of the time it waits for it


def usual_seconds(name: str | None) -> float:
    """How long a run with the fault of that name is to be, where nobody says."""
    return FAULTS[name].usual_s if name else USUAL_S


class FaultMaker:
    """Makes the fault of that name, or none; watches the controller's ticks and the answers meanwhile."""

    def __init__(self, name: str | None, server: "Server | None" = None) -> None:
        self.name, self.server, self._clock = name, server, WallClock()
        self.fault = FAULTS[name] if name else None
        self.state = "begins"
        self._said: set[str] = set()
        self._ticks: list[np.void] = []
        self._answers: list[np.void] = []
        self._made_s: float | None = None
        self._ended_s: float | None = None
        self._moves_since_s: float | None = None
        self._stretch = (-1, 0)  # its number, and how many replies had been spoiled when it began
        self._hogs: list[Any] = []
        self._busy_s = 0.0
        self._verdict = ("none", 0.0)
        self._told: dict[str, Any] = {}
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

    def begin(
        self,
        driving: Driving,
        inference: Inference,
        seconds: float | None,
        period_s: float = PERIOD_MS * 1e-3,
        age_s: float = AGE_S,
    ) -> None:
        """The drive begins now. period_s: of the policy; age_s: the most that an observation may have."""
        self._driving, self._inference, self._seconds = driving, inference, seconds or 0.0
        self._period_s, self._age_s = period_s, age_s
        if self.fault is not None:
            self.fault = self.fault.with_rungs(len(inference.card.plans))
        if self.name == "interrupt" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        self._begun_s = self._clock.now()

    def look(self, wait_s: float) -> None:
        """Wait a moment; make or end the fault if it is time; look at what has come since the last look."""
        self._clock.sleep_until(self._clock.now() + wait_s)
        self._take()
        if self.fault is None:
            return
        if self._made_s is None:
            if self.elapsed_s >= self._share_s(AT) and self._is_ripe():
                self._made_s = self._clock.now()
                self._make(True)
                if self.name == "interrupt":
                    os.kill(os.getpid(), signal.SIGINT)
        elif self._ended_s is None:
            if self._clock.now() >= self._made_s + self._share_s(LASTS) and not self.fills_disk:  # that stays full
                self._ended_s = self._clock.now()
                self._make(False)
            elif self._is_pulsed:
                self._pulse()

    def end(self) -> None:
        """Undo what still stands of the fault."""
        hogs, self._hogs = self._hogs, []
        if hogs:
            self._busy_s += stop_hogs(hogs)

    def say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            print(sentence, file=sys.stderr, flush=True)

    def end_state(self, told: dict[str, Any], period_s: float) -> tuple[str, float]:
        """The drive is over, and so is the fault: what it ended in and after how many ms; without one, that the robot
        came to rest at the end. told: by the controller; period_s: of the robot."""
        self._told, self._robot_period_s = told, period_s
        if self._made_s is not None and self._ended_s is None:
            self._ended_s = self._clock.now()
        self.end()
        if self._made_s is None or self.fault is None:
            return "stopped", 0.0
        self._take()
        if self.fault.end == "stopped" or told["fault"] is not None:  # whatever it was, the robot was stopped
            stopped_s = told["stopped_s"]
            after_s = 0.0 if stopped_s is None else max(0.0, stopped_s - self._made_s)
            self._verdict = ("moving" if stopped_s is None else "stopped", after_s)
        else:
            ticks = self._records(self._ticks, self._driving.ticks)
            self._verdict = end_state(ticks, self._made_s, self._until_s, period_s)
        return self._verdict[0], 1e3 * self._verdict[1]

    def told(self, robot: dict[str, Any] | None = None, recording: dict[str, Any] | None = None) -> dict[str, Any]:
        """After `end_state`: the fault, what was declared, whether it was kept and, in one or two words, why not; what
        shows that it was made; and whether motion went on afterwards. robot: its report; recording: what became of
        it, {"failed", ...}."""
        if self.fault is None:
            return {"name": None}
        bound_s = self.fault.bound_s(self._inference.card.rows * self._period_s, self._period_s, self._age_s)
        told = {
            "name": self.name,
            "declared": self.fault.end,
            "bound": self.fault.bound,
            "bound_ms": bound_s * 1e3,
            "kept": False,
            "verdict": "NOT MADE",
            "made": {},
            "held_ms": None,
            "resumed_ms": None,
            "wire": self.server.counts if self.server is not None else None,
        }
        if self._made_s is None:
            return told
        ticks = self._records(self._ticks, self._driving.ticks)
        held_s = longest_hold_s(ticks, self._made_s, self._until_s, self._robot_period_s)
        made, is_made = proof_of(str(self.name), self._seen(ticks, self._made_s, robot, recording))
        is_kept = self.fault.is_kept(*self._verdict, held_s, bound_s, self._period_s)
        if is_made:
            told["verdict"] = "as declared" if is_kept else self._broken(held_s)
        told |= {"made": made, "kept": is_made and is_kept, "resumed_ms": self._resumed_ms(ticks)}
        told["held_ms"] = held_s * 1e3 if self.fault.end == "moving" else None
        return told

    # -- inside -------------------------------------------------------------------------------------------------------

    @property
    def _until_s(self) -> float:
        return self._ended_s if self._ended_s is not None else self._clock.now()

    def _take(self) -> None:
        for tick in self._driving.ticks.take():
            self.state = _told(tick)
            if tick["state"] != MOVING:
                self._moves_since_s = None
            elif self._moves_since_s is None:
                self._moves_since_s = float(tick["time_s"])
            if self.fault is not None:
                self._ticks.append(tick)
        if self.fault is not None:
            self._answers += self._inference.answers.take()

    def _is_ripe(self) -> bool:
        """What is to come to rest has to move first; patience is not endless."""
        moves_s = 0.0 if self._moves_since_s is None else self._clock.now() - self._moves_since_s
        return moves_s > SETTLED_S or self.elapsed_s >= self._share_s(AT) + self._share_s(WAITS)

    def _share_s(self, share: float) -> float:
        return min(share * self._seconds, MOST_S)

    @property
    def _is_pulsed(self) -> bool:
        return self.fault is not None and self.fault.where == "wire" and self.fault.end == "moving"

    def _pulse(self) -> None:
        """A reply in each stretch is spoiled, while there is motion: were all of them, or an episode's first, there
        would be nothing to move on."""
        assert self.server is not None and self._made_s is not None
        number, spoiled = int((self._clock.now() - self._made_s) / STRETCH_S), self.server.counts.get(str(self.name), 0)
        if number != self._stretch[0]:
            self._stretch = (number, spoiled)
        spoils = spoiled == self._stretch[1] and self._moves_since_s is not None
        self.server.make(self.name if spoils else None)

    @staticmethod
    def _records(taken: list[np.void], ring: Any) -> np.ndarray:
        return np.array(taken, dtype=ring.dtype)

    def _seen(
        self, ticks: np.ndarray, made_s: float, robot: dict[str, Any] | None, recording: dict[str, Any] | None
    ) -> Seen:
        streams = {name: (start, end) for name, start, end in self._driving.description.streams}
        return Seen(
            ticks=ticks,
            answers=self._records(self._answers, self._inference.answers),
            fault_s=made_s,
            until_s=self._until_s,
            ended_s=self._begun_s + self._seconds,
            told=self._told,
            robot=robot or {},
            recording=recording or {},
            wire=self.server.counts if self.server is not None else {},
            busy_s=self._busy_s,
            cores=os.cpu_count() or 1,
            camera=streams.get("camera", (0, 0)),
            age_s=self._age_s,
        )

    def _broken(self, held_s: float) -> str:
        assert self.fault is not None
        if self._verdict[0] != self.fault.end:
            return f"DECLARED WAS {self.fault.end}"
        return f"HELD {held_s * 1e3:.0f} ms" if self.fault.end == "moving" else "TOO LATE"

    def _resumed_ms(self, ticks: np.ndarray) -> float | None:
        """From the fault's end until motion went on."""
        if self._ended_s is None:
            return None
        moved = ticks[(ticks["time_s"] > self._ended_s) & (ticks["state"] == MOVING)]
        return (float(moved["time_s"][0]) - self._ended_s) * 1e3 if len(moved) else None

    def _make(self, begins: bool) -> None:
        assert self.fault is not None
        where, code = self.fault.where, self.fault.code if begins else NONE
        if begins and self._is_pulsed:
            self._pulse()
        elif where in ("wire", "server") and self.server is not None:
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


def _told(tick: np.void) -> str:
    if tick["state"] != 1:
        return f"{STATES_OF[tick['state']]}, {KINDS[tick['kind']]}"
    return f"holding: {WHY[tick['why']]}"


@contextmanager
def served_source(options: argparse.Namespace) -> Iterator[tuple[FaultMaker, Callable[[], Source]]]:
    """A policy of this machine behind a server of its own, and who makes faults between the two."""
    source = source_of(options.policy, options.plan)
    arguments = [
        str(options.policy or source.checkpoints[0]),
        "--plan",
        "+".join(source.names),
        "--device",
        options.device or "cpu",
        "--clients",  # batches of more would be timed first, for nobody; two, as a lost connection may linger
        "2",
    ]
    print("starting a server for this fault", flush=True)
    server = Server(arguments)
    try:
        yield FaultMaker(options.fault, server), remote_opener(server.proxy.url, None, "observation", None, None, None)
    finally:
        server.stop()
