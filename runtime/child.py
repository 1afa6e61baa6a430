"""A process beside the one that drives: it hears no interrupt, is told when to end, and does not outlive its parent."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .host import keep_off_control_core


class Child:
    """A spawned process that runs work(*arguments, parent), where `parent` is its `Parent`."""

    def __init__(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_begin, args=(work, arguments, theirs), name=name, daemon=True)
        start_without_interrupts(self.process)
        theirs.close()

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def wait_until_ready(self, within_s: float) -> None:
        """Return when it says that it is ready, has ended, or the time is over."""
        multiprocessing.connection.wait([self._pipe, self.process.sentinel], within_s)

    def stop(self, within_s: float) -> None:
        """Tell it to end, wait so long, then kill it; again is no error."""
        if self.is_alive:
            with suppress(OSError):  # it has ended meanwhile
                self._pipe.send_bytes(b"stop")
        self.process.join(within_s)
        if self.is_alive:
            self.process.kill()
            self.process.join()


class Parent:
    """The other end."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._terminated = pipe, False
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, *_: object) -> None:
        self._terminated = True

    def say_ready(self) -> None:
        with suppress(OSError):  # it has died: the next `wants_end` says so
            self._pipe.send_bytes(b"ready")

    def wants_end(self, rest_s: float) -> bool:
        """Whether to end, after a rest: the parent says so or has died, or this process was terminated."""
        process = multiprocessing.parent_process()
        assert process is not None
        told = multiprocessing.connection.wait([self._pipe, process.sentinel], rest_s)
        # Another child of the parent may hold its end of the pipes open.
        orphaned = sys.platform != "win32" and os.getppid() != process.pid
        return bool(told) or orphaned or self._terminated


def _begin(work: Callable[..., None], arguments: tuple[Any, ...], pipe: Any) -> None:
    ignore_interrupts()
    work(*arguments, Parent(pipe))


def ignore_interrupts() -> None:
    """In a process that `start_without_interrupts` began: its parent decides when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def start_without_interrupts(process: Any, on_any_core: bool = False) -> None:
    """Begin a process, off the controller's core unless it may be on any. It must not hear of an interrupt before
    it can ignore it; this process hears of it when the other has begun."""
    if not hasattr(signal, "pthread_sigmask"):
        process.start()
        return  # where there are no signal masks, cores cannot be told either
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # beginning it together with the process would let interrupts through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
        if not on_any_core:
            keep_off_control_core(process.pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
