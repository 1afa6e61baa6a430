"""The ledger's page: one HTML file that needs nothing else, written whole or not at all."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_whole
from .charts import difference_bar, interval_bar, latency_histogram, log_range, outcome_grid
from .report_fight import fight_drawn
from .report_modes import modes_drawn
from .report_style import CSS
from .statistics import paired_difference

Row = Mapping[str, Any]

# "As good as" means that the paired interval lies above this, over at least so many episodes.
MARGIN, ENOUGH_EPISODES = 0.05, 200
SEEDS_A_BLOCK, FEWEST_COLUMNS = 50, 25

# What a row must have.
NEEDED = (
    *("task", "plan", "episodes", "successes", "success_low", "success_high", "outcomes", "seeds"),
    *("calls_per_action", "chunk_ms", "latency_ms", "deadline_ms", "misses", "starved", "jerk", "met"),
)


def write_report(path: str | Path, document: Mapping[str, Any], *, video: bytes | None = None, note: str = "") -> Path:
    """Write the page of an evaluation; returns the path.

    `document` is {"machine": {...}, "budget": {...}, "rows": [row, ...]}, one row for each task and plan:
    {task, plan, episodes, successes, success_low, success_high (0 to 1), outcomes [episodes], seeds [episodes],
    calls_per_action, chunk_ms {p50, p99, max, n}, latency_ms [samples], deadline_ms, misses, starved, jerk, met}.
    `deadline_ms` and `met` may be None where no deadline was kept. A row may have, besides: modes [episodes],
    mode_entropy, mode_entropy_interval and demonstrations_mode_entropy [nats], demonstrations_modes {mode: count},
    clearance_mm {median, p5}, max_coverage (0 to 1, mean), disturb (a text), refreshes (of a block in a chunk),
    action_error and action_rms (largest and RMS difference from the dense sampler at common noise); each is shown where
    some row has it. `video` is an mp4,
    shown on the page. Raises InputError when a row lacks something.
    """
    _check(document)
    return write_whole(path, render_report(document, video=video, note=note))


def render_report(document: Mapping[str, Any], *, video: bytes | None = None, note: str = "") -> str:
    """The page as text; see `write_report`."""
    rows: list[Row] = list(document["rows"])
    body = "".join(
        [
            _header(rows, note),
            _section("Results", _results(rows) + modes_drawn(_by_task(rows))),
            _video(video),
            _section("Latency of an answer", _latencies(rows), "One whole chunk at batch 1; the axis is logarithmic."),
            _fight(rows),
            _section("Success by seed", _seeds(rows)),
            _comparisons(rows),
            _section("Measured on", _facts(document["machine"])),
            _section("Budget", _facts(document["budget"])),
        ]
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    icon = '<link rel="icon" href="data:,">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>ontick report</title>{icon}<style>{CSS}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def _check(document: Mapping[str, Any]) -> None:
    for key in ("machine", "budget", "rows"):
        if key not in document:
            raise InputError(f"report: got no {key!r}, wanted machine, budget and rows: evaluate again")
    for row in document["rows"]:
        if missing := [key for key in NEEDED if key not in row]:
            name = f"{row.get('task')}, {row.get('plan')}"
            raise InputError(f"report: got a row ({name}) without {', '.join(missing)}, wanted all: evaluate again")


def _header(rows: Sequence[Row], note: str) -> str:
    judged = [row for row in rows if row["met"] is not None]
    met = sum(bool(row["met"]) for row in judged)
    parts = []
    if judged:
        parts.append(f"{met} of {len(judged)} {'plan meets' if len(judged) == 1 else 'plans meet'} the deadline")
    # Over several tasks "the best" would compare what cannot be compared.
    if rows and len({row["task"] for row in rows}) == 1:
        in_time = [row for row in rows if row["met"]]
        best = max(in_time or rows, key=_rate)
        parts.append(f"{'in time, ' if in_time else ''}{escape(str(best['plan']))} succeeds in {_rate(best):.0%}")
    headline = "; ".join(parts) or "Nothing was evaluated"
    lead = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f'<header><div class="brand">ontick report</div><h1>{headline}</h1>{_disturbed(rows)}{lead}</header>'


def _disturbed(rows: Sequence[Row]) -> str:
    texts = dict.fromkeys(str(row["disturb"]) for row in rows if row.get("disturb"))
    said = "; ".join(escape(text.replace(",", ", ")) for text in texts)
    return f"<p>Disturbed in every episode: <b>{said}</b></p>" if said else ""


def _results(rows: Sequence[Row]) -> str:
    numbers = ("Calls an action", "p50 ms", "p99 ms", "max ms", "Deadline ms")
    head = '<th>Plan</th><th class="left">Success, 95 % interval</th>' + "".join(f"<th>{name}</th>" for name in numbers)
    head += '<th class="left">Verdict</th><th>Late answers</th><th>Starved ticks</th>'
    head += '<th title="RMS third difference of the commanded position, in action units per tick cubed">Jerk</th>'
    optional = [(name, cell) for name, cell in OPTIONAL if any(cell(row) for row in rows)]
    head += "".join(f"<th>{name}</th>" for name, _ in optional)
    parts = []
    for task, group in _by_task(rows):
        lines = "".join(_result(row, [cell for _, cell in optional]) for row in group)
        parts.append(f'<tr class="task"><th colspan="{11 + len(optional)}">{task}</th></tr>{lines}')
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(parts)}</table></div>'


def _result(row: Row, optional: Sequence[Callable[[Row], str]]) -> str:
    rate, low, high, chunk = _rate(row), row["success_low"], row["success_high"], row["chunk_ms"]
    said = f"<b>{rate:.1%}</b> <span class='soft small'>{low:.1%} to {high:.1%}, n = {row['episodes']}</span>"
    numbers = [row["calls_per_action"], chunk.get("p50"), chunk.get("p99"), chunk.get("max"), row["deadline_ms"]]
    counts = [row["misses"], row["starved"], row["jerk"]]
    more = "".join(cell(row) or "<td>–</td>" for cell in optional)
    return (
        f'<tr><td class="plan">{escape(str(row["plan"]))}</td>'
        f'<td class="left bar">{said}{interval_bar(rate, low, high)}</td>{_cells(numbers)}'
        f'<td class="left">{_verdict(row["met"])}</td>{_cells(counts)}{more}</tr>'
    )


def _entropy(row: Row) -> str:
    """The cell of the modes' entropy beside the demonstrations'; empty where there is none."""
    entropy, shown = row.get("mode_entropy"), row.get("demonstrations_mode_entropy")
    if entropy is None:
        return ""
    low, high = row.get("mode_entropy_interval") or (None, None)
    title = "" if low is None else f' title="95 % bootstrap interval {low:.2f} to {high:.2f} nats"'
    beside = "" if shown is None else f' <span class="soft small">of {shown:.2f}</span>'
    return f"<td{title}>{entropy:.2f}{beside}</td>"


def _clearance(row: Row) -> str:
    """The cell of the least gap to an obstacle; empty where there is none."""
    gap_mm = row.get("clearance_mm")
    return "" if gap_mm is None else f'<td title="5th percentile {gap_mm["p5"]:.1f} mm">{gap_mm["median"]:.1f}</td>'


def _coverage(row: Row) -> str:
    """The cell of the share of the goal that was covered; empty where there is none."""
    return "" if row.get("max_coverage") is None else f"<td>{row['max_coverage']:.3f}</td>"


def _refreshes(row: Row) -> str:
    """The cell of how often a block is computed in a chunk; empty where that is not told."""
    refreshes = row.get("refreshes")
    return "" if refreshes is None else f"<td>{refreshes:.3g}</td>"


def _action_error(row: Row) -> str:
    """The cell of what acceleration changed in the executed actions; empty where that is not told."""
    rms, largest = row.get("action_rms"), row.get("action_error")
    return "" if rms is None or largest is None else f'<td title="at most {largest:.2g}">{rms:.2g}</td>'


OPTIONAL = (  # columns shown where a row has them
    ("Mode entropy, nats", _entropy),
    ("Median gap, mm", _clearance),
    ("Goal covered, mean of the most", _coverage),
    ("Refreshes a block", _refreshes),
    ("Action error, RMS", _action_error),
)


def _verdict(met: bool | None) -> str:
    if met is None:
        return '<span class="pill">not judged</span>'
    return '<span class="pill good">met</span>' if met else '<span class="pill bad">missed</span>'


def _fight(rows: Sequence[Row]) -> str:
    what = "Plans by their time, p50 (dot) to p99 (end of the band), and the success that it buys. A plan that "
    what += "succeeds less than a faster one is not worth its time."
    drawn = fight_drawn(_by_task(rows))
    return _section("Time against success", drawn, what) if drawn else ""


def _latencies(rows: Sequence[Row]) -> str:
    parts = []
    for task, group in _by_task(rows):
        timed = [row for row in group if len(row["latency_ms"])]
        if not timed:
            continue
        # One axis for all plans of a task, so that they can be compared by eye.
        deadlines = [row["deadline_ms"] for row in timed if row["deadline_ms"] is not None]
        ends_ms = log_range([*deadlines, *(sample for row in timed for sample in row["latency_ms"])])
        plots = "".join(_latency(row, ends_ms) for row in timed)
        parts.append(f'<h3>{task}</h3><div class="plots">{plots}</div>')
    return "".join(parts) or '<p class="soft">No answer was timed.</p>'


def _latency(row: Row, ends_ms: tuple[float, float]) -> str:
    chunk, deadline_ms = row["chunk_ms"], row["deadline_ms"]
    facts = [f"{name} {_number(chunk.get(name))}" for name in ("p50", "p99", "max")]
    late = sum(sample > deadline_ms for sample in row["latency_ms"]) if deadline_ms is not None else None
    facts += [f"{late} of {len(row['latency_ms'])} late"] if late is not None else []
    caption = f'<span class="plan">{escape(str(row["plan"]))}</span> <span class="soft small">{", ".join(facts)}</span>'
    return f"<div>{caption}{latency_histogram(row['latency_ms'], deadline_ms, ends_ms)}</div>"


def _seeds(rows: Sequence[Row]) -> str:
    parts = ['<p class="soft small"><span class="key yes"></span>success <span class="key no"></span>failure</p>']
    for task, group in _by_task(rows):
        plans = {str(row["plan"]): _outcomes(row) for row in group}
        seeds = sorted({seed for outcomes in plans.values() for seed in outcomes})
        names = "<br>".join(escape(plan) for plan in plans)
        columns = min(SEEDS_A_BLOCK, max(FEWEST_COLUMNS, len(seeds)))
        parts.append(f"<h3>{task}</h3>")
        for start in range(0, len(seeds), SEEDS_A_BLOCK):
            block = seeds[start : start + SEEDS_A_BLOCK]
            ends = f"seeds {block[0]} to {block[-1]}"
            grid = f'<div class="names">{names}</div><div>{outcome_grid(plans, block, columns)}</div>'
            parts.append(f'<div class="grid">{grid}<div class="seeds soft small">{ends}</div></div>')
    return "".join(parts)


def _comparisons(rows: Sequence[Row]) -> str:
    """Each plan against the first of its task, where they ran the same seeds."""
    parts = []
    head = '<th>Plan</th><th class="left">Difference in success</th><th>Won</th><th>Lost</th><th class="left"></th>'
    for task, group in _by_task(rows):
        first, *others = group
        lines = [_comparison(first, row) for row in others if set(row["seeds"]) == set(first["seeds"])]
        if lines:
            title = f"<h3>{task}: against {escape(str(first['plan']))}</h3>"
            parts.append(f'{title}<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>')
    if not parts:
        return ""
    what = f"Newcombe's paired 95 % interval. The dotted line is -{100 * MARGIN:g} points: above it is as good as."
    return _section("The same seeds, compared", "".join(parts), what)


def _comparison(first: Row, row: Row) -> str:
    before, after = _outcomes(first), _outcomes(row)
    seeds = sorted(before)
    difference, low, high = paired_difference([before[s] for s in seeds], [after[s] for s in seeds])
    won = sum(after[seed] and not before[seed] for seed in seeds)
    lost = sum(before[seed] and not after[seed] for seed in seeds)
    reach = max(0.2, abs(low), abs(high))
    said = f"<b>{_points(difference)}</b> <span class='soft small'>{_points(low)} to {_points(high)} points</span>"
    return (
        f'<tr><td class="plan">{escape(str(row["plan"]))}</td>'
        f'<td class="left bar">{said}{difference_bar(difference, low, high, reach, MARGIN)}</td>'
        f'{_cells([won, lost])}<td class="left">{_judgement(low, high, len(seeds))}</td></tr>'
    )


def _judgement(low: float, high: float, n: int) -> str:
    if n < ENOUGH_EPISODES:
        return f'<span class="pill">too few episodes</span> <span class="soft small">{n} of {ENOUGH_EPISODES}</span>'
    if low > 0:
        return '<span class="pill good">better</span>'
    if low > -MARGIN:
        return '<span class="pill good">as good as</span>'
    return '<span class="pill bad">worse</span>' if high < 0 else '<span class="pill">undecided</span>'


def _video(video: bytes | None) -> str:
    if video is None:
        return ""
    source = "data:video/mp4;base64," + base64.b64encode(video).decode("ascii")
    return _section("Watch", f'<video controls muted loop playsinline src="{source}"></video>')


def _facts(facts: Mapping[str, Any]) -> str:
    shown = ((name, value) for name, value in facts.items() if value is not None)
    lines = (f"<dt>{escape(str(k).replace('_', ' '))}</dt><dd>{escape(_number(v))}</dd>" for k, v in shown)
    return f"<dl>{''.join(lines)}</dl>"


def _section(title: str, inside: str, what: str = "") -> str:
    lead = f'<p class="soft small">{escape(what)}</p>' if what else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{inside}</section>"


def _by_task(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    # Tasks in the order of their first row; sorting is stable, so plans keep theirs.
    order = list(dict.fromkeys(str(row["task"]) for row in rows))
    ordered = sorted(rows, key=lambda row: order.index(str(row["task"])))
    return [(escape(task), list(group)) for task, group in groupby(ordered, key=lambda row: str(row["task"]))]


def _outcomes(row: Row) -> dict[int, bool]:
    return {int(seed): bool(outcome) for seed, outcome in zip(row["seeds"], row["outcomes"], strict=True)}


def _rate(row: Row) -> float:
    return row["successes"] / row["episodes"] if row["episodes"] else 0.0


def _cells(values: Iterable[Any]) -> str:
    return "".join(f"<td>{escape(_number(value))}</td>" for value in values)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _number(value: Any) -> str:
    """A value for people: about three digits of a float, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
