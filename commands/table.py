"""The table that `ontick evaluate` ends with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..runtime import LatencyBudget

HEAD = ("task", "plan", "success", "95 % interval", "calls/action", "p50 ms", "p99 ms", "max ms", "budget", "jerk")


def print_table(rows: Sequence[Mapping[str, Any]], budget: LatencyBudget) -> None:
    """One line a row; what the columns mean stands below."""
    optional = [column for column in OPTIONAL if any(column.cell(row) for row in rows)]
    heads = (*HEAD, *(column.head for column in optional))
    lines = [heads, *((*_cells(row), *(column.cell(row) or "-" for column in optional)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
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
    for column in optional:
        print(f"{column.head}: {column.meaning}.")
    if any(row.get("disturb") for row in rows):
        print(f"disturbed in every episode: {rows[0]['disturb']}")
    if any(row["starved"] or row["rest"] for row in rows):
        for row in rows:
            ticks = sum(row["steps"])
            print(
                f"{row['plan']}: of {ticks} ticks {row['rest']} played the rest of the chunk before, "
                f"{row['starved']} held (starved); {row['misses']} answers were late"
            )
    for row in rows:
        if len(row["rungs"]) > 2:  # plans and the rest
            told = ", ".join(f"{name} {ticks}" for name, ticks in row["rungs"].items())
            print(f"{row['plan']}: ticks by the rung whose answer was played: {told}")
    for row in rows:
        if stages_ms := row.get("stages_ms"):
            told = [f"{s} p50 {ms['p50']:.1f}, p99 {ms['p99']:.1f}, max {ms['max']:.1f}" for s, ms in stages_ms.items()]
            print(f"{row['plan']}: ms of an answer on this machine: {'; '.join(told)}; n = {stages_ms['encode']['n']}")


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


def _entropy(row: Mapping[str, Any]) -> str:
    entropy, shown = row.get("mode_entropy"), row.get("demonstrations_mode_entropy")
    if entropy is None:
        return ""
    return f"{entropy:.2f}" if shown is None else f"{entropy:.2f} of {shown:.2f}"


def _clearance(row: Mapping[str, Any]) -> str:
    clearance_mm = row.get("clearance_mm")
    return f"{clearance_mm['median']:.1f}" if clearance_mm else ""


def _coverage(row: Mapping[str, Any]) -> str:
    return "" if row.get("max_coverage") is None else f"{row['max_coverage']:.3f}"


def _refreshes(row: Mapping[str, Any]) -> str:
    return "" if row.get("refreshes") is None else f"{row['refreshes']:.1f}"


def _action_error(row: Mapping[str, Any]) -> str:
    rms, largest = row.get("action_rms"), row.get("action_error")
    return "" if rms is None or largest is None else f"{rms:.2g}, {largest:.2g}"


class _Optional(NamedTuple):
    """A column that is shown where some row has it; `cell` gives "" for a row that has not."""

    head: str
    cell: Callable[[Mapping[str, Any]], str]
    meaning: str


OPTIONAL = (
    _Optional("mode nats", _entropy, "entropy of the modes of successful episodes, of that of the demonstrations"),
    _Optional("gap mm", _clearance, "least gap to an obstacle in an episode, median"),
    _Optional("covered", _coverage, "the largest share of the goal covered in an episode, mean"),
    _Optional("refreshes", _refreshes, "how often a block of the network is computed in a chunk, mean"),
    _Optional(
        "error",
        _action_error,
        "RMS and largest difference of executed actions, in [-1, 1], from the same sampler with everything computed",
    ),
)
