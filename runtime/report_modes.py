"""The report's drawing of the modes that each plan took, beside those of the demonstrations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .charts import mode_bars

Row = Mapping[str, Any]


def modes_drawn(groups: Iterable[tuple[str, Sequence[Row]]]) -> str:
    """For (task as HTML, its rows): a drawing for each row whose episodes have modes; empty where none has."""
    drawn = "".join(_task(task, rows) for task, rows in groups)
    key = '<span class="key plan"></span>plan <span class="key shown"></span>demonstrations'
    return drawn and f'{drawn}<p class="soft small">{key}</p>'


def _task(task: str, rows: Sequence[Row]) -> str:
    plans = [(row, _shares(_taken(row)), _shares(row.get("demonstrations_modes") or {})) for row in rows]
    plans = [plan for plan in plans if plan[0].get("modes")]  # also one that never succeeded: its bars are missing
    if not any(shares for _, *both in plans for shares in both):
        return ""
    # One axis for all plans of a task, so that a mode which one of them lost is seen as a gap.
    everything = [shares for _, *both in plans for shares in both]
    modes = sorted({mode for shares in everything for mode in shares})
    top = max(share for shares in everything for share in shares.values())
    plots = []
    for row, taken, demonstrated in plans:
        facts = f"{len(taken)} of {len(modes)} modes in {row['successes']} successes"
        caption = f'<span class="plan">{escape(str(row["plan"]))}</span> <span class="soft small">{facts}</span>'
        plots.append(f"<div>{caption}{mode_bars(modes, taken, demonstrated, top)}</div>")
    return f'<h3>Modes of successful episodes: {task}</h3><div class="plots narrow">{"".join(plots)}</div>'


def _taken(row: Row) -> Mapping[str, int]:
    """How often each mode was taken in the episodes that succeeded."""
    modes = row.get("modes") or []
    return Counter(mode for mode, success in zip(modes, row["outcomes"], strict=False) if success and mode is not None)


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    return {mode: count / sum(counts.values()) for mode, count in counts.items()}
