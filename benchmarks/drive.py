"""The controller in real time against the simulated robot: long runs, and every fault of the table.

python benchmarks/drive.py runs --out benchmarks/results/drive-cpu.json [--minutes 30,10,10]
python benchmarks/drive.py faults --out benchmarks/results/drive-faults-cpu.json [--names nan-action,...]

`runs`: 50 commands a second with a shipped policy: undisturbed; with a busy process on every core; through
`ontick serve` on loopback, where replies are 50 ms late and one in twenty is lost. Each is an `ontick drive sim`; where
the robot's watchdog ends it, another goes on until the minutes are full: counts are of all of them, percentiles of the
longest.
`faults`: `ontick drive sim --fault NAME`, one after another. A run that is there already is not run again.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ontick.commands.fault_making import usual_seconds
from ontick.commands.fault_server import Server
from ontick.commands.hogs import start_hogs, stop_hogs
from ontick.commands.sources import source_of
from ontick.errors import RunFailed
from ontick.files import write_whole
from ontick.runtime import describe_machine
from ontick.runtime.faults import FAULTS
from ontick.runtime.probes import processor_times, shares

DELAY_S, LOST = 0.05, 0.05
PROC = Path("/proc")
RUNS = ("undisturbed", "every core busy", "served, 50 ms late, 5 % lost")


def drive(*arguments: str) -> dict[str, Any]:
    """One `ontick drive sim`; what it measured, with its exit code."""
    place = Path("runs") / "drive-benchmark.json"
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    command = [sys.executable, "-m", "ontick", "drive", "sim", *arguments, "--json", str(place)]
    before = processor_times(PROC)
    done = subprocess.run(command, capture_output=True, text=True)
    stolen = (shares(before, processor_times(PROC)) or {}).get("steal")  # what a virtual machine's host kept back
    told = json.loads(place.read_text().replace(f"{Path.cwd()}/", "")) if place.is_file() else {}
    return {**told, "stolen_share": stolen, "exit": done.returncode, "said": done.stderr.strip().splitlines()[-1:]}


def drive_on(minutes: float, pieces: list[dict[str, Any]], *arguments: str) -> Iterator[dict[str, Any]]:
    """Drives until those minutes have been commanded, with what `pieces` hold already, however often it is stopped."""
    done_s = sum(commanded_s(piece) for piece in pieces)
    while (left_s := 60 * minutes - done_s) >= 1:
        piece = drive("--seconds", f"{left_s:.0f}", *arguments)
        yield piece
        if "commands" not in piece or (piece["exit"] and not piece["watchdog_stops"]):
            raise RunFailed(f"a drive failed: {' '.join(piece['said'])}")
        done_s += commanded_s(piece)


def commanded_s(piece: dict[str, Any]) -> float:
    return piece["commands"] / piece["rate_hz"]


@contextmanager
def disturbed(name: str) -> Iterator[list[str]]:
    """What a run is disturbed by, and the options of `ontick drive` for it."""
    if name == RUNS[1]:
        hogs = start_hogs()
        try:
            yield []
        finally:
            stop_hogs(hogs)
    elif name == RUNS[2]:
        source = source_of(None, None)
        server = Server([str(source.checkpoints[0]), "--plan", "+".join(source.names)])
        try:
            server.proxy.delay_s, server.proxy.lose = DELAY_S, LOST
            yield ["--policy", server.proxy.url]
        finally:
            server.stop()
    else:
        yield []


def run_line(name: str, pieces: list[dict[str, Any]]) -> str:
    longest = max(pieces, key=commanded_s)
    late = longest["lateness_us"]

    def total(key: str) -> int:
        return sum(piece[key] for piece in pieces)

    return (
        f"| {name} | {sum(map(commanded_s, pieces)) / 60:.1f} | {total('commands')} | {total('late_1ms')} | "
        f"{late['p50']:.0f} | {late['p999']:.0f} | {late['max']:.0f} | {total('starved')} of {total('policy_ticks')} | "
        f"{total('watchdog_stops')} | {total('successes')} of {total('episodes')} | "
        f"{_percent(longest['stolen_share'])} | {commanded_s(longest) / 60:.1f} |"
    )


def fault_line(name: str, told: dict[str, Any]) -> str:
    if "faults" not in told:
        return f"| {name} | {FAULTS[name].end} | {FAULTS[name].bound} | - | - | - | - | - | - | exit {told['exit']} |"
    fault, late = told["faults"], told["lateness_us"]
    resumed = "-" if fault["resumed_ms"] is None else f"{fault['resumed_ms']:.0f}"
    held = "-" if fault["held_ms"] is None else f"{fault['held_ms']:.0f}"
    kept = "yes" if fault["kept"] else f"NO: {fault['verdict']}"
    bound = f"{fault['bound']}: {fault['bound_ms']:.0f} ms"
    return (
        f"| {name} | {fault['declared']} | {bound} | {told['end_state']} | {told['end_state_ms']:.0f} | {held} | "
        f"{resumed} | {late['p999']:.0f} | {_shown(fault['made'])} | {kept} |"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _shown(made: dict[str, Any]) -> str:
    """What shows that the fault was made."""
    numbers = ((name.replace("_", " "), value) for name, value in made.items())
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers
    )


HEADS = {
    "runs": "| run | minutes | commands | late by > 1 ms | lateness p50, us | p99.9 | max | starved ticks "
    "| watchdog stops | episodes succeeded | stolen time | longest, minutes |\n" + "|---" * 12 + "|",
    "faults": "| fault | declared | bound | end state | after, ms | longest hold, ms | goes on after, ms "
    "| lateness p99.9, us | what shows it | kept |\n|---|---|---|---|---|---|---|---|---|---|",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("runs", "faults"))
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--minutes", default="30,10,10", help="of the three runs")
    parser.add_argument("--seconds", type=float, help="of a run with a fault (default: as long as that one takes)")
    parser.add_argument("--names", default=",".join(FAULTS), help="faults, by commas")
    options = parser.parse_args()
    rows: dict[str, Any] = json.loads(options.out.read_text())["rows"] if options.out.is_file() else {}
    names = list(RUNS) if options.what == "runs" else options.names.split(",")
    minutes = dict(zip(RUNS, (float(part) for part in options.minutes.split(",")), strict=True))

    def keep() -> None:
        write_whole(options.out, json.dumps({"machine": describe_machine(), "rows": rows}, indent=1) + "\n")

    for name in names:
        if options.what == "faults" and name not in rows:
            rows[name] = drive("--fault", name, "--seconds", f"{options.seconds or usual_seconds(name):g}")
            keep()
        elif options.what == "runs" and sum(map(commanded_s, rows.get(name, []))) < 60 * minutes[name] - 1:
            with disturbed(name) as arguments:
                for piece in drive_on(minutes[name], rows.setdefault(name, []), *arguments):
                    rows[name].append(piece)
                    keep()
        print(name, "done", flush=True)
    line = run_line if options.what == "runs" else fault_line
    print(HEADS[options.what], *(line(name, rows[name]) for name in names if rows.get(name)), sep="\n")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
