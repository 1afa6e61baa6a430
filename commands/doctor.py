"""Say what stands between this host and good timing, and the command that mends it.

Rights, kernel, cores, clock, wake-ups, memory, disk, network, GPU, GL and packages; takes about ten seconds, changes
nothing. Exit code 0 whatever it finds.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..files import check_place, write_whole
from ..runtime.doctor import SHARE, Examination, Finding, examine
from ..runtime.machine import describe_machine

FORMAT = "ontick-doctor-1"
MOST_FROM_PYTHON_HZ = 100  # what is honest to promise, whatever was measured in two seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick doctor`."""
    parser.add_argument("--json", metavar="FILE", help="write all that was found")
    parser.add_argument("--folder", metavar="DIR", default="runs", help="where recordings will go")


def run(options: argparse.Namespace) -> int:
    """Look, print, write."""
    if options.json is not None and check_place(options.json).is_dir():
        raise InputError(f"{options.json} is a folder, wanted a file to write")
    examined = examine(_nearest(Path(options.folder)))
    findings = [*examined.findings, rendering()]
    print_findings(findings)
    said = verdict(examined)
    print(f"\n{said}")
    if options.json is not None:
        rates = {str(rate): kept for rate, kept in examined.rates().items()}
        late_us = examined.wakeups.summary_us() if examined.wakeups else None
        document = {
            "format": FORMAT,
            "machine": describe_machine(),
            "findings": [finding.to_dict() for finding in findings],
            "wakeups_us": late_us,
            "rates_hz": rates,
            "verdict": said,
        }
        print(f"json: {write_whole(options.json, json.dumps(document, indent=1) + chr(10))}")
    return 0


def rendering() -> Finding:
    """What draws MuJoCo's cameras without a display."""
    from ..envs.rendering import FIX, import_mujoco, render_available

    try:
        import_mujoco()
        drawn, told = render_available()
    except InputError as error:
        return Finding(
            "GL", "absent", str(error), "", FIX if "MUJOCO_GL" in str(error) else 'pip install "ontick[sim]"'
        )
    return Finding("GL", "good", told) if drawn else Finding("GL", "poor", told, "EGL or OSMesa", FIX)


def print_findings(findings: Sequence[Finding]) -> None:
    """A line each; below what is not good, what mends it."""
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.name:<{width}}  {finding.state:<6}  {finding.got}")
        if finding.state != "good" and finding.fix:
            wanted = f"wanted {finding.wanted}: " if finding.wanted else ""
            print(f"{'':<{width}}          {wanted}{finding.fix}")


def verdict(examined: Examination) -> str:
    """One line: the command rates that this host keeps by what was measured."""
    if examined.wakeups is None:
        return "no verdict: wake-ups could not be measured"
    late_ms = examined.wakeups.summary_us()["p99.9"] * 1e-3
    kept = [rate for rate, is_kept in examined.rates().items() if is_kept]
    by = f"p99.9 lateness {late_ms:.2f} ms under SCHED_{examined.wakeups.scheduler.upper()}"
    told = f"50 Hz: {'yes' if 50 in kept else 'no'}, {by}, wanted below {SHARE / 50 * 1e3:g} ms"
    if not kept:
        return f"{told}; no other rate either"
    if kept[-1] <= MOST_FROM_PYTHON_HZ:
        return f"{told}; at most {kept[-1]} Hz"
    return f"{told}; {kept[-1]} Hz measured, but above {MOST_FROM_PYTHON_HZ} Hz leave it to the robot's own loop"


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above that is there: looking makes none."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())
