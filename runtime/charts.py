"""Small drawings for the report, as inline SVG.

Horizontal positions are percentages and heights are pixels, so a drawing fills any width and its text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

BINS = 72
PLOT_TOP, PLOT_HEIGHT, AXIS_HEIGHT = 18, 64, 20
CELL_HEIGHT, CELL_GAP = 16, 4
MOST_LABELS = 12  # of modes side by side


def interval_bar(rate: float, low: float, high: float) -> str:
    """A proportion on a track from 0 to 1: the interval as a band, the rate as a mark."""
    return _svg(
        14,
        f'<rect class="track" x="0" y="5" width="100%" height="4" rx="2"/>'
        f'<rect class="band" x="{_pct(low)}" y="3" width="{_pct(high - low)}" height="8" rx="2"/>'
        f'<rect class="mark" x="{_pct(min(rate, 0.985))}" y="0" width="3" height="14" rx="1.5"/>',
        f"{rate:.1%}, interval {low:.1%} to {high:.1%}",
    )


def difference_bar(difference: float, low: float, high: float, reach: float, margin: float) -> str:
    """A difference on a track from -reach to +reach, with lines at 0 and at -margin."""

    def at(value: float) -> float:
        return (min(max(value, -reach), reach) + reach) / (2 * reach)

    return _svg(
        18,
        f'<rect class="track" x="0" y="7" width="100%" height="4" rx="2"/>'
        f'<rect class="band" x="{_pct(at(low))}" y="5" width="{_pct(at(high) - at(low))}" height="8" rx="2"/>'
        f"{_vertical('zero', at(0.0), 0, 18)}{_vertical('margin', at(-margin), 0, 18)}"
        f'<rect class="mark" x="{_pct(min(at(difference), 0.99))}" y="2" width="3" height="14" rx="1.5"/>',
        f"difference {difference:+.1%}, interval {low:+.1%} to {high:+.1%}",
    )


def log_range(values_ms: Sequence[float]) -> tuple[float, float]:
    """Ends of a log axis [ms] that hold all the values, with a little room and at least a factor of 4."""
    positive = [value for value in values_ms if value > 0] or [1.0]
    low, high = min(positive) * 0.85, max(positive) * 1.18
    widen = max(1.0, math.sqrt(4 * low / high))
    return low / widen, high * widen


def log_ticks(low: float, high: float) -> list[float]:
    """Values to label on a log axis: 1, 2 and 5 of every decade, or its 1 alone when there are many decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def time_line(p50_ms: float, p99_ms: float, deadline_ms: float | None, ends_ms: tuple[float, float]) -> str:
    """A plan's p50 as a dot on a log axis, with a line to its p99, and the deadline."""
    low, high = ends_ms
    p50, p99 = (math.log(value / low) / math.log(high / low) for value in (p50_ms, max(p50_ms, p99_ms)))
    parts = [
        '<rect class="track" x="0" y="6" width="100%" height="2" rx="1"/>',
        f'<rect class="band" x="{_pct(p50)}" y="4" width="{_pct(p99 - p50)}" height="6" rx="2"/>',
        f'<circle class="mark" cx="{_pct(p50)}" cy="7" r="5"/>',
    ]
    if deadline_ms is not None:
        parts.append(_vertical("deadline", math.log(deadline_ms / low) / math.log(high / low), 0, 14))
    return _svg(14, "".join(parts), f"p50 {p50_ms:.3g} ms, p99 {p99_ms:.3g} ms")


def latency_histogram(latency_ms: Sequence[float], deadline_ms: float | None, ends_ms: tuple[float, float]) -> str:
    """Counts over a log axis of ms; what is past the deadline has another colour, and the deadline is a line."""
    low, high = ends_ms
    span = math.log(high / low)

    def at(value_ms: float) -> float:
        return math.log(min(max(value_ms, low), high) / low) / span

    base = PLOT_TOP + PLOT_HEIGHT
    parts = [_bars(latency_ms, deadline_ms, ends_ms, base), f'<rect class="axis" y="{base}" width="100%" height="1"/>']
    for tick in log_ticks(low, high):
        parts.append(_vertical("tick", at(tick), base, base + 4))
        parts.append(_label(f"{tick:g}", at(tick), base + 17))
    if deadline_ms is not None:
        parts.append(_vertical("deadline", at(deadline_ms), PLOT_TOP - 4, base))
        parts.append(_label(f"deadline {deadline_ms:g} ms", at(deadline_ms), 11, "late"))
    return _svg(base + AXIS_HEIGHT, "".join(parts), f"latency histogram of {len(latency_ms)} answers")


def _bars(latency_ms: Sequence[float], deadline_ms: float | None, ends_ms: tuple[float, float], base: int) -> str:
    edges = np.geomspace(*ends_ms, BINS + 1)
    if deadline_ms is not None:
        # The deadline is made an edge, so that no bar is partly late.
        edges[np.argmin(np.abs(np.log(edges / deadline_ms)))] = deadline_ms
    counts, _ = np.histogram(np.clip(latency_ms, *ends_ms), edges)
    bars = []
    for index in np.flatnonzero(counts):
        count, left, right = int(counts[index]), edges[index], edges[index + 1]
        # A single outlier is the point of the drawing: it must not vanish beside the mode.
        height = max(2.5, PLOT_HEIGHT * count / counts.max())
        kind = "bar late" if deadline_ms is not None and left >= deadline_ms else "bar"
        bars.append(
            f'<rect class="{kind}" x="{_pct(index / BINS)}" y="{base - height:.1f}" width="{_pct(0.86 / BINS)}" '
            f'height="{height:.1f}"><title>{left:.3g} to {right:.3g} ms: {count}</title></rect>'
        )
    return "".join(bars)


def outcome_grid(plans: Mapping[str, Mapping[int, bool]], seeds: Sequence[int], columns: int) -> str:
    """One row of cells a plan, one column a seed; a success is filled, a failure is hollow, the title says which."""
    cells = []
    for row, (plan, outcomes) in enumerate(plans.items()):
        y = row * (CELL_HEIGHT + CELL_GAP)
        for column, seed in enumerate(seeds):
            if seed not in outcomes:
                continue
            word = "success" if outcomes[seed] else "failure"
            inset = 0 if outcomes[seed] else 0.75  # half the line's width, so that both kinds have one size
            cells.append(
                f'<rect class="{word}" x="{_pct((column + 0.06) / columns)}" y="{y + inset}" '
                f'width="{_pct(0.88 / columns)}" height="{CELL_HEIGHT - 2 * inset}" rx="2">'
                f"<title>seed {seed}, {escape(plan)}: {word}</title></rect>"
            )
    height = len(plans) * (CELL_HEIGHT + CELL_GAP) - CELL_GAP
    return _svg(height, "".join(cells), f"outcomes of seeds {seeds[0]} to {seeds[-1]}")


def mode_bars(modes: Sequence[str], taken: Mapping[str, float], demonstrated: Mapping[str, float], top: float) -> str:
    """For each mode a bar of the plan's share and, where known, one of the demonstrations'; `top` is a full bar."""
    base = PLOT_HEIGHT + 4
    parts = [f'<rect class="axis" y="{base}" width="100%" height="1"/>']
    series = [("bar", "plan", taken), *([("shown", "demonstrations", demonstrated)] if demonstrated else [])]
    width = 0.8 / len(series)
    for place, mode in enumerate(modes):
        for i, (kind, name, shares) in enumerate(series):
            share = shares.get(mode, 0.0)
            height = PLOT_HEIGHT * share / top
            parts.append(
                f'<rect class="{kind}" x="{_pct((place + 0.1 + i * width) / len(modes))}" y="{base - height:.1f}" '
                f'width="{_pct(width / len(modes))}" height="{height:.1f}">'
                f"<title>{escape(mode)}, {name}: {share:.1%}</title></rect>"
            )
        if len(modes) <= MOST_LABELS:
            x = _pct((place + 0.5) / len(modes))
            parts.append(f'<text x="{x}" y="{base + 15}" text-anchor="middle">{escape(mode)}</text>')
    return _svg(base + AXIS_HEIGHT, "".join(parts), f"shares of {len(modes)} modes")


def _svg(height: float, inside: str, label: str) -> str:
    return f'<svg width="100%" height="{height:g}" role="img" aria-label="{escape(label)}">{inside}</svg>'


def _vertical(kind: str, share: float, top: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{_pct(share)}" x2="{_pct(share)}" y1="{top}" y2="{bottom}"/>'


def _label(text: str, share: float, y: float, kind: str = "") -> str:
    # Near an end the text turns inwards, so that it is not cut off.
    anchor = "start" if share < 0.08 else "end" if share > 0.92 else "middle"
    return f'<text class="{kind}" x="{_pct(share)}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _pct(share: float) -> str:
    return f"{100 * share:.2f}%"
