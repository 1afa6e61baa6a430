"""The controller in real time against the simulated robot: long runs, and every fault of the table.

python benchmarks/drive.py runs --out benchmarks/results/drive-cpu.json [--minutes 30,10,10]
python benchmarks/drive.py faults --out benchmarks/results/drive-faults-cpu.json [--names nan-action,...]

`runs`: 50 commands a second with a shipped policy: undisturbed; with a busy process on every core; through
`ontick serve` on loopback, where replies are 50 ms late and one in twenty is lost. Each is an `ontick drive sim`.
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


def run_line(name: str, told: dict[str, Any]) -> str:
    late = told["lateness_us"]
    return (
        f"| {name} | {told['seconds'] / 60:g} | {told['commands']} | {told['late_1ms']} | {late['p50']:.0f} | "
        f"{late['p999']:.0f} | {late['max']:.0f} | {told['starved']} of {told['policy_ticks']} | "
        f"{told['watchdog_stops']} | {told['successes']} of {told['episodes']} | {_percent(told['stolen_share'])} |"
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
    "| watchdog stops | episodes succeeded | stolen time |\n|---|---|---|---|---|---|---|---|---|---|---|",
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
    for name in names:
        if name in rows:
            continue
        if options.what == "faults":
            rows[name] = drive("--fault", name, "--seconds", f"{options.seconds or usual_seconds(name):g}")
        elif minutes[name] > 0:
            with disturbed(name) as arguments:
                rows[name] = drive("--seconds", f"{60 * minutes[name]:g}", *arguments)
        document = {"machine": describe_machine(), "rows": rows}
        write_whole(options.out, json.dumps(document, indent=1) + "\n")
        print(name, "done", flush=True)
    line = run_line if options.what == "runs" else fault_line
    print(HEADS[options.what], *(line(name, rows[name]) for name in names if name in rows), sep="\n")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
