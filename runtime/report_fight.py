"""The report's drawing of what each plan costs beside what it buys: time on a log axis, success beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .charts import interval_bar, log_range, time_line

Row = Mapping[str, Any]
FEWEST = 3  # plans of a task that are worth a drawing


def fight_drawn(groups: Iterable[tuple[str, Sequence[Row]]]) -> str:
    """For (task as HTML, its rows): its plans by p50, where enough were timed; empty where no task has so many."""
    return "".join(_task(task, rows) for task, rows in groups)


def _task(task: str, rows: Sequence[Row]) -> str:
    timed = sorted((row for row in rows if row["chunk_ms"].get("p50")), key=lambda row: row["chunk_ms"]["p50"])
    if len(timed) < FEWEST:
        return ""
    deadlines = [row["deadline_ms"] for row in timed if row["deadline_ms"] is not None]
    ends_ms = log_range([*deadlines, *(row["chunk_ms"][end] for row in timed for end in ("p50", "p99"))])
    lines = "".join(_line(row, ends_ms) for row in timed)
    head = '<tr><th>Plan</th><th class="left">Time of a chunk, ms</th><th class="left">Success</th></tr>'
    return f'<h3>{task}</h3><div class="scroll"><table class="fight">{head}{lines}</table></div>'


def _line(row: Row, ends_ms: tuple[float, float]) -> str:
    chunk, rate = row["chunk_ms"], row["successes"] / row["episodes"]
    time = time_line(chunk["p50"], chunk["p99"], row["deadline_ms"], ends_ms)
    said = f"<b>{rate:.1%}</b>"
    if row.get("mode_entropy") is not None:
        said += f' <span class="soft small">{row["mode_entropy"]:.2f} nats of modes</span>'
    return (
        f'<tr><td class="plan">{escape(str(row["plan"]))}</td>'
        f'<td class="left wide"><span class="small">{chunk["p50"]:.3g}</span>{time}</td>'
        f'<td class="left bar">{said}{interval_bar(rate, row["success_low"], row["success_high"])}</td></tr>'
    )
