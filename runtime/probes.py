"""Measurements and readings of this host that leave nothing behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np

from .clock import Clock

WRITTEN_BYTES = 8 << 20
ROUND_TRIPS, LAUNCHES = 500, 200
_TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def processor_times(proc: Path) -> dict[str, int] | None:
    """What all cores did since the system started, in ticks of its scheduler; None where it is not told."""
    try:
        fields = (proc / "stat").read_text().splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return None
    if len(fields) < len(_TIMES):
        return None
    return dict(zip(_TIMES, map(int, fields), strict=False))


def shares(before: dict[str, int] | None, after: dict[str, int] | None) -> dict[str, float] | None:
    """Of the time between two `processor_times`, each one's share."""
    if before is None or after is None:
        return None
    spent = {name: after[name] - before[name] for name in _TIMES}
    total = sum(spent.values())
    return {name: ticks / total for name, ticks in spent.items()} if total > 0 else None


def clock_step_s(clock: Clock) -> float:
    """The median of steps between readings of a clock that follow each other [s]."""
    readings = np.array([clock.now() for _ in range(2000)])
    return float(np.median(np.diff(readings)))


def memory_gib(proc: Path) -> dict[str, float]:
    """MemTotal, MemAvailable, SwapTotal, SwapFree. Raises OSError or KeyError where they are not told."""
    lines = (line.split(":") for line in (proc / "meminfo").read_text().splitlines() if ":" in line)
    found = {name: value.split()[0] for name, value in lines if value.split()}
    return {name: int(found[name]) / 2**20 for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")}


def free_bytes(folder: Path) -> int:
    """Room in a folder. Raises OSError."""
    return shutil.disk_usage(folder).free


def seconds_to_write(path: Path, clock: Clock) -> float:
    """How long 8 MiB take to be on the disk. Raises OSError."""
    data = os.urandom(WRITTEN_BYTES)  # what compresses would be stored faster by some file systems
    start_s = clock.now()
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return clock.now() - start_s


def round_trips_s(clock: Clock) -> np.ndarray:
    """Times of 64 bytes over TCP to another thread of this process and back: float64 [n]. Raises OSError."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        echo = threading.Thread(target=_echo, args=(server,), daemon=True)
        echo.start()
        times_s = np.zeros(ROUND_TRIPS)
        with socket.create_connection(server.getsockname(), timeout=2.0) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(ROUND_TRIPS):
                start_s = clock.now()
                client.sendall(bytes(64))
                left = 64
                while left:
                    if not (got := len(client.recv(left))):
                        raise ConnectionError("closed on the way")
                    left -= got
                times_s[i] = clock.now() - start_s
        echo.join(2.0)
    return times_s


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(64):
            connection.sendall(data)


def has_nvidia() -> bool:
    """Whether a driver of NVIDIA is here: asked before torch is imported, which takes seconds."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def gpu_facts(clock: Clock) -> dict[str, Any] | None:
    """Name, memory [GiB], time to start a small kernel and wait for it [us], and what nvidia-smi tells ("smi"); None
    without a GPU or torch."""
    if not has_nvidia():
        return None
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    number, times_s = torch.zeros(1, device="cuda"), np.zeros(LAUNCHES)
    for i in range(-20, LAUNCHES):  # the first are slow
        torch.cuda.synchronize()
        start_s = clock.now()
        number.add_(1.0)
        torch.cuda.synchronize()
        if i >= 0:
            times_s[i] = clock.now() - start_s
    p50, p99 = np.percentile(times_s, [50, 99]) * 1e6
    facts = {"name": torch.cuda.get_device_name(), "free_gib": free / 2**30, "total_gib": total / 2**30}
    return {**facts, "p50_us": float(p50), "p99_us": float(p99), "smi": _smi()}


def _smi() -> dict[str, str]:
    """Driver, persistence mode and clocks; empty where nvidia-smi does not tell."""
    names = {"driver": "driver_version", "persistence": "persistence_mode", "clock": "clocks.sm", "of": "clocks.max.sm"}
    command = ["nvidia-smi", f"--query-gpu={','.join(names.values())}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")] if done.stdout.strip() else []
    return dict(zip(names, values, strict=True)) if done.returncode == 0 and len(values) == len(names) else {}
