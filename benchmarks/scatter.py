"""Rows of evaluations as points: what a plan costs, and what is left of success and modes."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Kinds = Mapping[str, tuple[str, str]]  # name: (pattern of plan names, colour)


def kind_of(plan: str, kinds: Kinds) -> str | None:
    """The first kind whose pattern the name of a plan is."""
    return next((kind for kind, (pattern, _) in kinds.items() if re.fullmatch(pattern, plan)), None)


def by_task(documents: Iterable[Mapping[str, Any]]) -> dict[str, list[Row]]:
    """The rows of evaluations, as `ontick evaluate` writes them, by their tasks."""
    tasks: dict[str, list[Row]] = {}
    for row in (row for document in documents for row in document["rows"]):
        tasks.setdefault(row["task"], []).append(row)
    return tasks


def success(row: Row) -> float:
    """In per cent."""
    return 100 * row["successes"] / row["episodes"]


def success_interval(row: Row) -> tuple[float, float]:
    return 100 * row["success_low"], 100 * row["success_high"]


def entropy(row: Row) -> float | None:
    """Of the modes [nats]; None where the task tells none."""
    return row["mode_entropy"]


def entropy_interval(row: Row) -> tuple[float, float]:
    return row["mode_entropy_interval"]


def panel(
    axis: Any,
    rows: Sequence[Row],
    kinds: Kinds,
    x: Callable[[Row], float],
    y: Callable[[Row], float | None],
    interval: Callable[[Row], tuple[float, float]] | None,
) -> None:
    """A named point a row, in its kind's colour, with its interval; x is logarithmic. Rows of no kind are left out, and
    so are those without a y."""
    for kind, (_, colour) in kinds.items():
        for row in (row for row in rows if kind_of(row["plan"], kinds) == kind and y(row) is not None):
            if interval is not None:
                axis.plot([x(row)] * 2, interval(row), color=colour, lw=1, alpha=0.45)
            axis.plot([x(row)], [y(row)], "o", color=colour, ms=5)
            place = {"xytext": (3, 3), "textcoords": "offset points", "rotation": 40, "rotation_mode": "anchor"}
            axis.annotate(row["plan"], (x(row), y(row)), fontsize=6, color=colour, **place)
    for kind, (_, colour) in kinds.items():
        axis.plot([], [], "o", color=colour, label=kind, ms=5)
    axis.set_xscale("log")
    axis.set_xticks(ticks := _ticks(*axis.get_xlim()), [f"{tick:g}" for tick in ticks], fontsize=7)
    axis.minorticks_off()
    axis.margins(y=0.2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False, loc="lower right")


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade that lie between: more would be written over each other."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for decade in decades for lead in (1, 2, 5) if low <= (tick := lead * 10.0**decade) <= high]
