"""The table that `ontick evaluate` ends with."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..runtime import LatencyBudget

HEAD = ("task", "plan", "success", "95 % interval", "calls/action", "p50 ms", "p99 ms", "max ms", "budget", "jerk")


def print_table(rows: Sequence[Mapping[str, Any]], budget: LatencyBudget) -> None:
    """One line a row; what the columns mean stands below."""
    lines = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    print()
    for n, line in enumerate(lines):
        left, right = line[:2], line[2:]
        cells = [c.ljust(w) for c, w in zip(left, widths, strict=False)]
        cells += [c.rjust(w) for c, w in zip(right, widths[2:], strict=True)]
        print("  ".join(cells).rstrip())
        if n == 0:
            print("  ".join("-" * w for w in widths))
    print(
        f"\nsuccess: Wilson interval. ms: one chunk at batch 1. budget {budget.name}: p{budget.percentile:g} within "
        f"{budget.deadline_s * 1e3:g} ms.\njerk: RMS third difference of the commanded position, a tick; see the docs."
    )
    if any(row["starved"] or row["rest"] for row in rows):
        for row in rows:
            ticks = sum(row["steps"])
            print(
                f"{row['plan']}: of {ticks} ticks {row['rest']} played the rest of the chunk before, "
                f"{row['starved']} held (starved); {row['misses']} answers were late"
            )


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    chunk = row["chunk_ms"]
    return (
        row["task"],
        row["plan"],
        f"{row['successes']}/{row['episodes']}",
        f"{row['success_low']:.1%} to {row['success_high']:.1%}",
        f"{row['calls_per_action']:.2f}",
        f"{chunk['p50']:.1f}",
        f"{chunk['p99']:.1f}",
        f"{chunk['max']:.1f}",
        "met" if row["met"] else "missed",
        f"{row['jerk']:.3f}",
    )
