"""How late a Python process wakes on this machine: usual scheduler and SCHED_FIFO, idle and with every core busy.

    python benchmarks/wakeups.py --seconds 60 --json benchmarks/results/wakeups-cpu.json

Sleeps until absolute deadlines, 50 and 1000 times a second, for so many seconds a case, in a process of its own. Prints
and writes p50, p99, p99.9 and max of the lateness, with the load there was besides; draws the histograms. Says where
SCHED_FIFO was refused.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ontick.benchmarks.picture import OUR_COLOUR, PEER_COLOUR, pyplot
from ontick.files import check_place, write_whole
from ontick.runtime.machine import describe_machine
from ontick.runtime.probes import processor_times, shares
from ontick.runtime.wakeups import Wakeups, measure_wakeups

RATES_HZ = (50, 1000)
PROC = Path("/proc")


@contextmanager
def busy_cores(is_busy: bool) -> Iterator[None]:
    """As many processes that never rest as there are cores, while the block runs."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_never_rest, daemon=True) for _ in range((os.cpu_count() or 1) * is_busy)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def _never_rest() -> None:
    while True:
        sum(range(100_000))


def measure(scheduler: str, load: str, rate_hz: int, seconds: float) -> tuple[dict[str, Any], Wakeups]:
    """A row, and all that it was counted from."""
    before = processor_times(PROC)
    with busy_cores(load == "busy"):
        measured = measure_wakeups(rate_hz, seconds, scheduler == "fifo")
    stolen = (shares(before, processor_times(PROC)) or {}).get("steal")
    row = {"scheduler": scheduler, "got": measured.scheduler, "load": load, "rate_hz": rate_hz}
    over_1_ms = int((measured.late_s > 1e-3).sum())
    return {**row, "late_us": measured.summary_us(), "late_1ms": over_1_ms, "stolen_share": stolen}, measured


def draw(rows: list[dict[str, Any]], all_late_us: list[np.ndarray], path: Path) -> None:
    """A panel a rate and load: of each scheduler, the share of wake-ups that were later than so much."""
    plt = pyplot()
    cases = list(dict.fromkeys((row["rate_hz"], row["load"]) for row in rows))
    figure, axes = plt.subplots(1, len(cases), figsize=(4 * len(cases), 3.6), sharey=True, squeeze=False)
    for axis, case in zip(axes[0], cases, strict=True):
        for row, late_us in zip(rows, all_late_us, strict=True):
            if (row["rate_hz"], row["load"]) == case:
                later = np.sort(np.maximum(late_us, 0.1))
                share = 1 - np.arange(len(later)) / len(later)
                colour = OUR_COLOUR if row["got"] == "fifo" else PEER_COLOUR
                axis.plot(later, share, color=colour, label=f"SCHED_{row['got'].upper()}")
        axis.axvline(1000, color="black", ls=":", lw=1)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(f"{case[0]} Hz, {'every core busy' if case[1] == 'busy' else 'idle'}", loc="left", fontsize=10)
        axis.set_xlabel("late by more than [us]; dotted: 1 ms")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    axes[0][0].set_ylabel("share of wake-ups")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the eight cases")
    parser.add_argument("--json", required=True, metavar="FILE", help="FILE.png is drawn beside it")
    options = parser.parse_args()
    check_place(options.json)
    waiting = os.getloadavg()[0]
    print(f"load of the last minute before: {waiting:.1f}")
    rows, late_us = [], []
    print("scheduler  load  rate Hz        n   p50 us   p99 us  p99.9 us    max us  later than 1 ms")
    for rate_hz in RATES_HZ:
        for load in ("idle", "busy"):
            for scheduler in ("other", "fifo"):
                row, measured = measure(scheduler, load, rate_hz, options.seconds)
                rows.append(row)
                late_us.append(measured.late_s * 1e6)
                us = row["late_us"]
                cells = f"{us['n']:>8} {us['p50']:>8.0f} {us['p99']:>8.0f} {us['p99.9']:>9.0f} {us['max']:>9.0f}"
                refused = "" if row["got"] == scheduler else "  SCHED_FIFO was refused"
                print(f"{scheduler:<9}  {load}  {rate_hz:>7} {cells} {row['late_1ms']:>16}{refused}")
    document = {"format": "ontick-wakeups-1", "machine": describe_machine(), "seconds": options.seconds}
    document |= {"load_before": waiting, "rows": rows}
    write_whole(options.json, json.dumps(document, indent=1) + "\n")
    draw(rows, late_us, Path(options.json).with_suffix(".png"))
    print(f"json: {options.json}")


if __name__ == "__main__":
    main()
