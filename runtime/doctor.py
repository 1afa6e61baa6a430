"""What stands between this host and good timing: everything that can be looked at or measured without harm."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import probes
from .clock import Clock, WallClock
from .host import LATENCY, awake_fix, memory_fix, memory_lock_limit_bytes
from .wakeups import Wakeups, fifo_permitted, measure_wakeups

WAKEUP_RATE_HZ, WAKEUP_S = 1000.0, 2.0
RATES_HZ = (20, 50, 100, 250, 500, 1000)
SHARE = 0.05  # a rate is kept where 99.9 % of wake-ups are late by less than this share of its period
PROC, SYS = Path("/proc"), Path("/sys")
EXTRAS = {
    "torch": "ontick",
    "ruckig": "ontick[drive]",
    "msgpack": "ontick[drive]",
    "websockets": "ontick[drive]",
    "mcap": "ontick[drive]",
    "rerun-sdk": "ontick[view]",
    "mujoco": "ontick[sim]",
    "openvino": "ontick[openvino]",
}


@dataclass(frozen=True)
class Finding:
    """state: "good", "poor" (it works, with lateness), "bad" (expect trouble) or "absent" (there is none, or nothing
    tells). fix: the command or setting that mends it; empty where nothing is to mend."""

    name: str
    state: str
    got: str
    wanted: str = ""
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Examination:
    """findings, and the wake-ups that were measured, None where they could not be."""

    findings: list[Finding]
    wakeups: Wakeups | None

    def rates(self) -> dict[int, bool]:
        """Which command rates [Hz] this host keeps: 99.9 % of wake-ups late by less than 5 % of a period."""
        if self.wakeups is None:
            return {}
        late_s = self.wakeups.summary_us()["p99.9"] * 1e-6
        return {rate: late_s < SHARE / rate for rate in RATES_HZ}


def examine(folder: Path | None = None, clock: Clock | None = None) -> Examination:
    """Look at this host; about eight seconds. folder: where recordings will go, by default where one is now.

    What a system does not tell is "absent"; nothing is raised.
    """
    clock = clock or WallClock()
    before = probes.processor_times(PROC)
    wakeups, told = _wakeups()
    stolen = probes.shares(before, probes.processor_times(PROC))
    looks: list[tuple[str, Callable[[], Finding]]] = [
        ("scheduler", _scheduler),
        ("locked memory", _locked_memory),
        ("cores awake", lambda: awake(Path(LATENCY))),
        ("kernel", lambda: kernel(SYS, platform.version())),
        ("governor", lambda: governor(SYS)),
        ("cores", lambda: cores(SYS)),
        ("stolen time", lambda: steal(stolen)),
        ("load", load),
        ("clock", lambda: clock_source(SYS, clock)),
        ("wake-ups", lambda: told),
        ("memory", lambda: memory(PROC)),
        ("shared memory", lambda: shared_memory(Path("/dev/shm"))),
        ("disk", lambda: disk(folder or Path.cwd(), clock)),
        ("loopback", lambda: loopback(clock)),
        ("GPU", lambda: gpu(clock)),
        ("python", lambda: Finding("python", "good", platform.python_version())),
    ]
    findings = [_looked(name, look) for name, look in looks]
    return Examination(findings + [package(name, extra) for name, extra in EXTRAS.items()], wakeups)


def _looked(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # a container or another system lacks what is looked at, each in its own way
        return Finding(name, "absent", f"cannot be told here ({' '.join(str(error).split()) or type(error).__name__})")


# -- rights ------------------------------------------------------------------------------------------------------------


def _scheduler() -> Finding:
    refused = fifo_permitted()
    if refused is None:
        return Finding("scheduler", "good", "SCHED_FIFO permitted")
    got, _, fix = refused.partition("; ")
    return Finding("scheduler", "poor", got, "SCHED_FIFO permitted", fix)


def _locked_memory() -> Finding:
    limit = memory_lock_limit_bytes()
    if limit is None:
        return Finding("locked memory", "good", "no limit")
    return Finding("locked memory", "poor", f"limit {limit / 2**20:.0f} MiB", "no limit", memory_fix())


def awake(device: Path) -> Finding:
    """Whether the controller may keep cores from sleeping."""
    if not device.exists():
        return Finding("cores awake", "absent", f"no {device}")
    if os.access(device, os.W_OK):
        return Finding("cores awake", "good", f"{device} may be written")
    return Finding("cores awake", "poor", f"{device} may not be written", "write access", awake_fix())


# -- kernel and processor ----------------------------------------------------------------------------------------------


def kernel(sys_: Path, version: str) -> Finding:
    """Whether the kernel interrupts itself for a thread that is due."""
    if not sys.platform.startswith("linux"):
        fix = "drive robots from a Linux host"
        return Finding("kernel", "poor", f"{platform.system()} {platform.release()}", "Linux with PREEMPT_RT", fix)
    fully = _read(sys_ / "kernel/realtime") == "1" or "PREEMPT_RT" in version
    got = next((word for word in ("PREEMPT_RT", "PREEMPT_DYNAMIC", "PREEMPT") if word in version), "no preemption")
    told = f"{platform.release()}, {'PREEMPT_RT' if fully else got}"
    if fully:
        return Finding("kernel", "good", told)
    wanted, fix = "PREEMPT_RT", "a PREEMPT_RT kernel where 50 Hz are not kept (Ubuntu: sudo pro enable realtime-kernel)"
    return Finding("kernel", "good" if got != "no preemption" else "poor", told, wanted, fix)


def governor(sys_: Path) -> Finding:
    """Whether cores keep their speed while they wait."""
    found = sorted({_read(path) for path in sys_.glob("devices/system/cpu/cpu*/cpufreq/scaling_governor")} - {""})
    if not found:
        return Finding("governor", "absent", "none told; usual in virtual machines")
    if found == ["performance"]:
        return Finding("governor", "good", "performance")
    return Finding("governor", "poor", ", ".join(found), "performance", "sudo cpupower frequency-set -g performance")


def cores(sys_: Path) -> Finding:
    """How many cores this process may use, and which of them others keep off."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    isolated = _read(sys_ / "devices/system/cpu/isolated")
    told = f"{mine} of {os.cpu_count()}, isolated: {isolated or 'none'}"
    if mine < 3:
        fix = "give it more cores: one for commands, one for the driver, the rest for inference"
        return Finding("cores", "poor", told, "3 or more", fix)
    return Finding("cores", "good", told)


def steal(shares: dict[str, float] | None) -> Finding:
    """What the virtual machine's host took away while wake-ups were measured."""
    if shares is None:
        return Finding("stolen time", "absent", "not told here")
    share = shares["steal"]
    told = f"{share:.1%} of the last {WAKEUP_S:g} s"
    if share < 0.005:
        return Finding("stolen time", "good", told)
    fix = "other virtual machines use these cores: reserve them, or use a machine of its own"
    return Finding("stolen time", "poor" if share < 0.05 else "bad", told, "below 0.5%", fix)


def load() -> Finding:
    """Work that already waits for the cores."""
    waiting, many = os.getloadavg()[0], os.cpu_count() or 1
    told = f"{waiting:.1f} over the last minute, on {many} cores"
    if waiting < 0.7 * many:
        return Finding("load", "good", told)
    return Finding("load", "poor", told, f"below {0.7 * many:.1f}", "end what else runs: see `top`")


def clock_source(sys_: Path, clock: Clock) -> Finding:
    """What the time is read from, and the least step between two readings."""
    source = _read(sys_ / "devices/system/clocksource/clocksource0/current_clocksource")
    step_ns = probes.clock_step_s(clock) * 1e9
    told = f"{source or platform.system()}, {step_ns:.0f} ns a reading"
    slow = source in ("hpet", "acpi_pm", "jiffies", "refined-jiffies")
    if slow or step_ns > 5000:
        fix = "boot with clocksource=tsc tsc=reliable, where the processor has one"
        return Finding("clock", "poor", told, "tsc or a virtual machine's own, below 5000 ns", fix)
    return Finding("clock", "good", told)


def _wakeups() -> tuple[Wakeups | None, Finding]:
    try:
        measured = measure_wakeups(WAKEUP_RATE_HZ, WAKEUP_S)
    except Exception as error:  # of another process and another system: what cannot be measured is told
        return None, Finding("wake-ups", "absent", " ".join(str(error).split()))
    return measured, wakeup_finding(measured)


def wakeup_finding(measured: Wakeups) -> Finding:
    """Lateness of wake-ups at 1 kHz, judged for commands at 50 Hz."""
    us = measured.summary_us()
    told = f"SCHED_{measured.scheduler.upper()}, 1 kHz, n {us['n']}: late by p50 {us['p50']:.0f}, p99 {us['p99']:.0f}, "
    told += f"p99.9 {us['p99.9']:.0f}, max {us['max']:.0f} us"
    most_us = SHARE / 50 * 1e6
    if us["p99.9"] < most_us:
        return Finding("wake-ups", "good", told)
    fix = "mend what stands above, end what else runs, then look again: docs/host.md"
    return Finding("wake-ups", "poor" if us["p99"] < most_us else "bad", told, f"p99.9 below {most_us:.0f} us", fix)


# -- memory, disk, network, GPU ----------------------------------------------------------------------------------------


def memory(proc: Path) -> Finding:
    """Memory that is free, and memory that went to a disk."""
    facts = probes.memory_gib(proc)
    swapped = facts["SwapTotal"] - facts["SwapFree"]
    told = f"{facts['MemAvailable']:.1f} of {facts['MemTotal']:.1f} GiB free, {swapped:.1f} GiB swapped"
    if facts["MemAvailable"] < 2.0:
        return Finding("memory", "bad", told, "2 GiB free", "end what else runs, or add memory")
    if swapped > 0.1:
        return Finding("memory", "poor", told, "nothing swapped", "sudo swapoff -a, or lock memory (see above)")
    return Finding("memory", "good", told)


def shared_memory(folder: Path) -> Finding:
    """Room for the rings between processes."""
    free_mib = probes.free_bytes(folder) / 2**20
    told = f"{free_mib:.0f} MiB free in {folder}"
    if free_mib < 64:
        return Finding(
            "shared memory",
            "bad",
            told,
            "64 MiB",
            "docker: --shm-size 256m; else sudo mount -o remount,size=256m /dev/shm",
        )
    return Finding("shared memory", "good", told)


def disk(folder: Path, clock: Clock) -> Finding:
    """Room and speed where recordings go."""
    free_gib = probes.free_bytes(folder) / 2**30
    with tempfile.TemporaryDirectory(prefix=".ontick-doctor-", dir=folder) as place:
        seconds = probes.seconds_to_write(Path(place) / "probe", clock)
    told = f"{free_gib:.1f} GiB free, {probes.WRITTEN_BYTES / 2**20:g} MiB on disk in {seconds * 1e3:.0f} ms"
    if free_gib < 1:
        return Finding("disk", "bad", told, "1 GiB free", "delete recordings, or record to another disk")
    if seconds > 2:
        return Finding("disk", "poor", told, "below 2000 ms", "record to a disk of this host, not over a network")
    return Finding("disk", "good", told)


def loopback(clock: Clock) -> Finding:
    """There and back through this host's own network, as a server in place is asked."""
    p50, p99 = np.percentile(probes.round_trips_s(clock), [50, 99]) * 1e6
    told = f"there and back in p50 {p50:.0f}, p99 {p99:.0f} us"
    if p99 < 2000:
        return Finding("loopback", "good", told)
    return Finding("loopback", "poor", told, "p99 below 2000 us", "end what else runs: see `top`")


def gpu(clock: Clock) -> Finding:
    """What torch computes on, and how long it takes to start work there and wait for it."""
    facts = probes.gpu_facts(clock)
    if facts is None:
        fix = "" if not probes.has_nvidia() else 'a driver is here, but torch sees no GPU: pip install "torch>=2.10"'
        return Finding("GPU", "absent" if not fix else "bad", "none that torch can use", "", fix)
    told = f"{facts['name']}, {facts['free_gib']:.0f} of {facts['total_gib']:.0f} GiB free, "
    told += f"a launch and wait: p50 {facts['p50_us']:.0f}, p99 {facts['p99_us']:.0f} us"
    smi: dict[str, Any] = facts["smi"]
    told += "".join(f", {name} {value}" for name, value in smi.items())
    if smi.get("persistence") == "Disabled":
        return Finding("GPU", "poor", told, "persistence mode", "sudo nvidia-smi -pm 1")
    if facts["p99_us"] > 1000:
        return Finding("GPU", "poor", told, "p99 below 1000 us", "end what else uses it: nvidia-smi")
    return Finding("GPU", "good", told)


def package(name: str, extra: str) -> Finding:
    """An installed package's version, or how it is had."""
    try:
        return Finding(name, "good", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "absent", "not installed", "", f'pip install "{extra}"')


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
