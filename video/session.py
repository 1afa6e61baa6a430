"""Sessions: a stream drawn to the end, or shown on the clock, with everything timed.

    record = draw(stream, values, frames=2000, steer=lambda frame: action, sinks=[recording.write])
    record = Session(stream, values, fps=10, steer=..., show=player.show).run()

A policy steers by what it has seen:

    seen = []
    draw(stream, values, 200, steer=lambda frame: policy(seen[-1]) if seen else None, sinks=[seen.append])

`draw` takes as long as it takes, and every frame comes out. A `Session` shows a frame a period: a thread draws ahead of
a bounded queue, and where time runs short it lowers its effort (`Effort`); what is still not there is a repeat.

Legend: H, W pixels, C channels, Da.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ..runtime import Clock, LatencyBudget, Ledger, WallClock
from ..runtime.histogram import LatencyHistogram
from .held import Held
from .misses import Misses
from .pace import Pace
from .queues import FrameQueue
from .stream import Effort, Stream
from .values import Values

Steer = Callable[[int], Tensor | None]
Sink = Callable[[np.ndarray], None]


@dataclass
class Record:
    """What a run was like. Times in ms; `frames` are drawn ones, a repeat is none; `reaction` is (frames, ms) from a
    change of the action, taken between two frames, to the first frame that shows it."""

    warm_up_ms: float = 0.0
    first_frame_ms: float = 0.0
    seconds: float = 0.0
    frames: int = 0
    repeats: int = 0
    dropped: int = 0
    flushed: int = 0
    calls: int = 0
    efforts: Counter[str] = field(default_factory=Counter)
    intervals: LatencyHistogram = field(default_factory=LatencyHistogram)
    costs: LatencyHistogram = field(default_factory=LatencyHistogram)
    reaction: tuple[int, float] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    held: Held = field(default_factory=Held)
    misses: Misses = field(default_factory=Misses)

    def told(self, budget: LatencyBudget) -> dict[str, Any]:
        """Plain data, for a file: the numbers, the slope of the memory and the ledger."""
        return {
            **self.numbers(budget),
            "bytes_per_frame": self.held.slope(),
            "ledger": self.ledger.to_dict(),
        }

    def numbers(self, budget: LatencyBudget) -> dict[str, Any]:
        """What the page tells."""
        times, (start, end) = self.intervals.summary_ms(), self.held.peaks()
        return {
            "frames": self.frames,
            "seconds": self.seconds,
            "warm_up_ms": self.warm_up_ms,
            "first_frame_ms": self.first_frame_ms,
            "frame_ms": {name: times[name] for name in ("p50", "p99", "max")},
            "fps": self.frames / self.seconds if self.seconds else 0.0,
            "repeats": self.repeats,
            "misses_by_hz": self.misses.told(),
            "dropped": self.dropped,
            "flushed": self.flushed,
            "calls_per_frame": self.calls / self.frames if self.frames else 0.0,
            "reaction_frames": None if self.reaction is None else self.reaction[0],
            "reaction_ms": None if self.reaction is None else self.reaction[1],
            "efforts": dict(self.efforts),
            "peak_bytes_start": start,
            "peak_bytes_end": end,
            "budget": {"name": budget.name, "met": budget.met(self.costs)},
        }


def warm_up(stream: Stream, steer: Steer, clock: Clock, record: Record) -> None:
    """Draw the first frames of a copy, at every effort, so that whatever is compiled is."""
    start_s = clock.now()
    with record.ledger.phase("warm-up"):
        copy = stream.fork()
        copy.advance(steer(0))
        for effort in reversed(stream.efforts):
            copy.advance(steer(0), effort)
    record.warm_up_ms = (clock.now() - start_s) * 1e3


def measure_reaction(stream: Stream, one: Tensor, other: Tensor, clock: Clock, record: Record) -> None:
    """Enter the reaction of what `stream` would draw next, which it does not. one, other: [Da]."""
    start_s = clock.now()
    seen = stream.reaction(one, other)
    drawn_ms = (clock.now() - start_s) * 1e3 / 2  # it was drawn twice
    record.reaction = None if seen is None else (seen.frames, drawn_ms)


def draw(
    stream: Stream,
    values: Values,
    frames: int,
    steer: Steer,
    sinks: Sequence[Sink] = (),
    record: Record | None = None,
    progress: Callable[[Record], None] = lambda record: None,
    clock: Clock | None = None,
) -> Record:
    """The stream's next `frames` frames, each given to every sink, as fast as they come. Whatever stops it, `record`
    holds what was drawn."""
    record, clock = record or Record(), clock or WallClock()
    calls, start_s = stream.calls, clock.now()
    last_s = start_s
    while record.frames < frames:
        before_s = clock.now()
        block = stream.advance(steer(stream.frames))
        _entered(record, Effort.FULL, clock.now() - before_s, min(block.shape[1], frames - record.frames))
        pictures = values.to_frames(block[0])
        for picture in pictures[: frames - record.frames]:
            for sink in sinks:
                sink(picture)
            now_s = clock.now()
            if record.frames:
                record.intervals.record(now_s - last_s)
            else:
                record.first_frame_ms = (now_s - start_s) * 1e3
            last_s, record.seconds, record.frames = now_s, now_s - start_s, record.frames + 1
            record.calls = stream.calls - calls
            record.held.sample(record.frames)
            progress(record)
    return record


def _entered(record: Record, effort: Effort, seconds: float, frames: int) -> None:
    """What a block took is shared by its frames. The first block fills the ring: its time is `first_frame_ms`, and no
    budget's."""
    begins = not record.efforts
    record.ledger.record("inference", seconds)
    record.ledger.count("answers", frames)
    record.ledger.count(effort.name.lower(), frames)
    record.efforts[effort.name.lower()] += frames
    if begins:
        return
    record.misses.count(seconds, frames)
    for _ in range(frames):
        record.costs.record(seconds / frames)


@dataclass(frozen=True)
class _Drawn:
    """A frame in the queue, and what the page tells beside it."""

    picture: np.ndarray
    effort: str
    levels: list[list[float]]  # of the queue, call by call while this frame was drawn


class Session:
    """A stream on the clock. `show(picture, told)` is called once a period, with the last frame again where none is
    ready; it must not block."""

    def __init__(
        self,
        stream: Stream,
        values: Values,
        fps: float,
        steer: Steer,
        show: Callable[[np.ndarray, dict[str, Any]], None],
        budget: LatencyBudget,
        clock: Clock | None = None,
    ) -> None:
        self.record, self._clock = Record(), clock or WallClock()
        self._stream, self._values, self._steer, self._show, self._budget = stream, values, steer, show, budget
        self._period_s = 1 / fps
        self._queue: FrameQueue[_Drawn] = FrameQueue(2 * stream.block)
        self._pace = Pace({effort: stream.calls_of(effort) for effort in stream.efforts})
        self._next_s = 0.0
        self._stopped, self._ready = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._changes = 0

    def stop(self) -> None:
        """End `run` at its next period. From any thread."""
        self._stopped.set()

    def changed(self) -> None:
        """The action has changed: what was drawn ahead under the old one, and what is being drawn, is not shown."""
        self._changes += 1
        self._queue.flush()

    def run(self, frames: int | None = None, probes: tuple[Tensor, Tensor] | None = None) -> Record:
        """Show `frames` periods, or until `stop`. probes: two actions [Da] by which a reaction is measured first.
        Raises what the drawing thread raised."""
        drawer = threading.Thread(target=self._draw, args=(probes,), name="ontick-draw", daemon=True)
        drawer.start()
        try:
            self._ready.wait()
            self._present(frames)
        finally:
            self._stopped.set()
            self._queue.close()
            drawer.join()
            self.record.dropped, self.record.flushed = self._queue.dropped, self._queue.flushed
        if self._failure is not None:
            raise self._failure
        return self.record

    # -- the thread that draws: compiled programs belong to it ------------------------------------------------------

    def _draw(self, probes: tuple[Tensor, Tensor] | None) -> None:
        try:
            warm_up(self._stream, self._steer, self._clock, self.record)
            if probes is not None:
                one = self._stream.fork()
                one.advance(self._steer(0))
                measure_reaction(one, *probes, self._clock, self.record)
                if self.record.reaction is not None:  # a frame a period, and the one that is being shown
                    seen, drawn_ms = self.record.reaction
                    self.record.reaction = seen, max(drawn_ms, seen * self._period_s * 1e3) + self._period_s * 1e3
            self._next_s = self._clock.now()
            self._ready.set()
            calls = self._stream.calls
            while not self._stopped.is_set() and self._queue.wait_for(self._stream.block):
                self._one_block()
                self.record.calls = self._stream.calls - calls
        except BaseException as error:
            self._failure = error
            self._stopped.set()
        finally:
            self._ready.set()

    def _one_block(self) -> None:
        start_s, changes = self._clock.now(), self._changes
        wanted_s = self._next_s + len(self._queue) * self._period_s
        effort = self._pace.choose(wanted_s - start_s) if self._stream.frames else Effort.FULL
        action = self._steer(self._stream.frames)
        block = self._stream.advance(action, effort)
        seconds = self._clock.now() - start_s
        if self._stream.frames > self._stream.block:  # the first one filled the ring
            self._pace.learn(effort, seconds)
        _entered(self.record, effort, seconds, block.shape[1])
        if changes != self._changes and self.record.frames:
            self._queue.flushed += block.shape[1]
            return
        levels, pictures = self._stream.levels_by_call, self._values.to_frames(block[0])
        for i, picture in enumerate(pictures):
            calls = levels[i * len(levels) // len(pictures) : (i + 1) * len(levels) // len(pictures)]
            self._queue.put(_Drawn(picture, effort.name.lower(), calls or levels[-1:]))

    # -- the thread that shows ----------------------------------------------------------------------------------------

    def _present(self, frames: int | None) -> None:
        start_s, last_s, shown = self._clock.now(), 0.0, None
        period = 0
        while not self._stopped.is_set() and (frames is None or period < frames):
            self._clock.sleep_until(self._next_s)
            drawn = self._queue.take()
            now_s = self._clock.now()
            if drawn is not None:
                self._shown(now_s, start_s, last_s)
                shown, last_s = drawn, now_s
            elif shown is not None:
                self.record.repeats += 1
                self.record.ledger.count("repeats")
                self.record.ledger.miss("inference")
            if shown is None:  # until the first frame, look again soon
                self._next_s = now_s + min(self._period_s, 0.005)
                continue
            self.record.seconds = now_s - start_s
            self._show(shown.picture, self._told(shown))
            period += 1
            self._next_s = max(self._next_s + self._period_s, now_s)

    def _shown(self, now_s: float, start_s: float, last_s: float) -> None:
        if self.record.frames:
            self.record.intervals.record(now_s - last_s)
        else:
            self.record.first_frame_ms = (now_s - start_s) * 1e3
        self.record.frames += 1
        self.record.held.sample(self.record.frames)

    def _told(self, drawn: _Drawn) -> dict[str, Any]:
        told = self.record.numbers(self._budget)
        action = self._steer(self._stream.frames)
        return {
            **told,
            "frame": self.record.frames,
            "plan": self._stream.plan.name,
            "effort": drawn.effort,
            "levels": drawn.levels[0],
            "levels_by_call": drawn.levels,
            "action": [] if action is None else action.tolist(),
        }
