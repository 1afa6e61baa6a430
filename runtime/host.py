"""A process made ready to keep time, as far as its host permits. Soft real-time: rarely late, never promised."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import mmap
import os
import re
import struct
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

SWITCH_INTERVAL_S = 0.0005  # how long another Python thread may keep the interpreter from the one that is due
LIMITS = "/etc/security/limits.conf"
LATENCY = "/dev/cpu_dma_latency"  # open with a number in it, it bounds how long any core may take to wake [us]

_MCL_CURRENT, _MCL_FUTURE = 1, 2
_PR_SET_TIMERSLACK = 29
_CAP_IPC_LOCK, _CAP_SYS_NICE = 14, 23
_PROBE_BYTES = 16 << 20
_held: list[int] = []  # the descriptor of LATENCY, open as long as this process lives


def real_time(priority: int = 50, cpus: Collection[int] | None = None) -> list[str]:
    """Ask for all that lets this thread wake in time; call it once the process has made what it needs.

    priority: of SCHED_FIFO, 1 to 99; threads and processes begun later do not inherit it. cpus: the cores to stay on,
    which those do inherit. Returns a sentence for each thing that was got or refused, the latter with what mends it; a
    refusal has "refused" in it. Raises nothing.
    """
    steps: list[Any] = [_settle_garbage, _short_switches]
    if cpus is not None:
        steps.append(lambda: _stay_on(cpus))
    if sys.platform == "win32":
        steps += [_windows_priority, _windows_timer]
    elif sys.platform.startswith("linux"):
        steps += [lambda: fifo(priority), _exact_timers, cores_awake, lock_memory]
    else:
        steps.append(lambda: f"SCHED_FIFO and locked memory refused: {sys.platform} has neither; use Linux for robots")
    return [_told(step) for step in steps]


def control_core() -> int | None:
    """The core that a controller has to itself, as far as processes of ours are concerned: the last of this process's;
    None where there is one, or no say in it. A kernel that does not preempt itself lets SCHED_FIFO wait for whatever
    another process has asked of it on that core."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores[-1] if len(cores) > 1 else None


def keep_off_control_core(pid: int) -> None:
    """A process that has just begun is to leave that core alone; where the system refuses, it does not."""
    core = control_core()
    if core is not None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(pid, set(os.sched_getaffinity(0)) - {core})


def _told(step: Any) -> str:
    try:
        return step()
    except Exception as error:  # whatever a foreign kernel answers must not stop a robot
        return f"{getattr(step, '__name__', 'a step').strip('_')} refused: {error}"


def fifo(priority: int) -> str:
    """SCHED_FIFO for the calling thread; children fall back to the usual scheduler. Raises nothing that is expected."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except PermissionError as error:
        return f"SCHED_FIFO refused: {error.strerror}; {scheduler_fix()}"
    except (OSError, ValueError) as error:
        return f"SCHED_FIFO refused: {error}; wanted a priority of 1 to 99, got {priority}"
    return f"SCHED_FIFO at priority {priority}"


def scheduler_fix() -> str:
    """What gives this process the right to SCHED_FIFO."""
    if has_capability(_CAP_SYS_NICE):
        return "the control group has no real-time time: start it outside of CPU-limited containers"
    if Path("/.dockerenv").exists():
        return "start the container with --cap-add=sys_nice --ulimit rtprio=99"
    return f'add "@realtime - rtprio 99" to {LIMITS}, join the group realtime and log in again'


def cores_awake() -> str:
    """While this process lives no core sleeps: it would wake late, in a virtual machine by tens of milliseconds."""
    if not _held:
        try:
            opened = os.open(LATENCY, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            return f"cores that stay awake refused: {LATENCY}: {error.strerror}; {awake_fix()}"
        _held.append(opened)
        os.write(opened, struct.pack("i", 0))
    return "cores stay awake"


def awake_fix() -> str:
    """What lets this process keep cores awake."""
    if Path("/.dockerenv").exists():
        return f"start the container with --device {LATENCY}"
    rule = 'KERNEL=="cpu_dma_latency", GROUP="realtime", MODE="0660"'
    return f"write {rule} to /etc/udev/rules.d/99-realtime.rules, join the group realtime and restart"


def lock_memory() -> str:
    """Keep this process's memory from being paged out: what it holds and, where no later allocation can fail for it,
    what it will hold."""
    if not sys.platform.startswith("linux"):
        return f"locked memory refused: not on {sys.platform}"
    libc = ctypes.CDLL(None, use_errno=True)
    unlimited = memory_lock_limit_bytes() is None
    # Under a limit, MCL_FUTURE would let allocations fail that have nothing to do with it: then only what is there.
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE if unlimited else _MCL_CURRENT) != 0:
        code = ctypes.get_errno()
        reason = "it holds more than the limit" if code == errno.ENOMEM else os.strerror(code)
        return f"locked memory refused: {reason} ({_limit_told()}); {memory_fix()}"
    if unlimited and not _can_still_allocate():
        libc.munlockall()
        return f"locked memory refused: allocations would fail; {memory_fix()}"
    locked = _status("VmLck")
    ahead = "and what comes" if unlimited else f"but not what comes ({_limit_told()}; {memory_fix()})"
    return f"memory locked: {int(locked.split()[0]) / 1024:.0f} MiB, {ahead}" if locked else "memory locked"


def memory_lock_limit_bytes() -> int | None:
    """How much memory this process may lock; None: all."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY or has_capability(_CAP_IPC_LOCK) else soft


def memory_fix() -> str:
    """What lets this process lock all of its memory."""
    if Path("/.dockerenv").exists():
        return "start the container with --ulimit memlock=-1"
    return f'add "@realtime - memlock unlimited" to {LIMITS}, join the group realtime and log in again'


def has_capability(number: int) -> bool:
    """Whether this process has a Linux capability."""
    effective = _status("CapEff")
    return bool(effective and int(effective, 16) >> number & 1)


def _limit_told() -> str:
    limit = memory_lock_limit_bytes()
    return "no limit" if limit is None else f"limit {limit / 2**20:.0f} MiB"


def _can_still_allocate() -> bool:
    """In a user namespace a right may be told that is not there; then the first allocation would fail."""
    try:
        mmap.mmap(-1, _PROBE_BYTES).close()
    except (OSError, ValueError):
        return False
    return True


def _status(name: str) -> str | None:
    try:
        found = re.search(rf"^{name}:\s*(.*)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None


def _settle_garbage() -> str:
    """A collection that looks through all that a process holds takes longer than a period: what is there stays out."""
    gc.collect()
    gc.freeze()
    return f"{gc.get_freeze_count()} objects kept out of garbage collections"


def _short_switches() -> str:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return f"threads switch every {SWITCH_INTERVAL_S * 1e3:g} ms"


def _stay_on(cpus: Collection[int]) -> str:
    wanted = sorted(set(cpus))
    if not hasattr(os, "sched_setaffinity"):
        return f"cores {wanted} refused: {sys.platform} does not keep a process on cores"
    try:
        os.sched_setaffinity(0, wanted)
    except (OSError, ValueError, OverflowError) as error:
        return f"cores {wanted} refused: {error}; there are {sorted(os.sched_getaffinity(0))}"
    return f"stays on cores {wanted}"


def _exact_timers() -> str:
    """The usual scheduler may wake a thread 50 us late to save power; SCHED_FIFO never does."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
    return "timers wake without slack"


def _windows_priority() -> str:
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # absent elsewhere, also to a type checker
    high = 0x80
    if not kernel.SetPriorityClass(kernel.GetCurrentProcess(), high):
        return "high priority refused: start it as administrator"
    return "high priority; Windows has no SCHED_FIFO: expect lateness of milliseconds"


def _windows_timer() -> str:
    if getattr(ctypes, "windll").winmm.timeBeginPeriod(1) != 0:  # noqa: B009
        return "timers of 1 ms refused: sleeps may wake 15 ms late"
    return "timers of 1 ms"
