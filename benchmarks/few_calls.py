"""Controllers of few calls: success, modes and smoothness against network calls and against time, an executed action.

python benchmarks/few_calls.py benchmarks/results/few-calls-avoid-cpu.json ... [--picture FILE.png]

Reads what `ontick evaluate` wrote. For each task and disturbance it prints a table, every plan against ddpm-100 (or
ddim-10, where that was not played) on the same seeds, and draws all of them into one picture: a column a task, calls
and milliseconds below each other, and modes where the task tells them. Milliseconds are told where `fair_times.py`
has taken them.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ontick.benchmarks.picture import pyplot
from ontick.benchmarks.scatter import Row, entropy, entropy_interval, panel, success, success_interval
from ontick.errors import InputError
from ontick.runtime import paired_difference

REFERENCES = ("ddpm-100", "ddim-10")  # the first of them that was played
KINDS = {
    "from noise": (r"(exact-)?(ddpm|ddim|dpmpp)-.*", "#1b1f24"),
    "warm start": (r"(exact-)?rti-\d+(-every-\d+)?", "#2f6fde"),
    "warm start, re-noised": (r"(exact-)?rti-\d+-renoise(-every-\d+)?", "#7fa8ef"),
    "anchored": (r"(exact-)?anchored-.*", "#d1495b"),
    "diagonal queue": (r"(exact-)?diagonal-.*", "#2a9d6f"),
    "draft": (r"(exact-)?draft-.*", "#b07d2b"),
}


def calls(row: Row) -> float:
    return row["calls_per_action"]


def answer_ms(row: Row) -> float:
    return row["chunk_ms"]["p50"]


def action_ms(row: Row) -> float:
    """Time of inference an executed action: an answer's p50 over the actions that were played from it, on average."""
    return answer_ms(row) * row["answers_per_action"]


def grouped(documents: Sequence[dict[str, Any]]) -> dict[str, list[Row]]:
    """Rows by task and disturbance; `timed`: whether fair_times.py has timed them."""
    groups: dict[str, list[Row]] = {}
    for document in documents:
        for row in document["rows"]:
            name = row["task"] if row["disturb"] is None else f"{row['task']}, {row['disturb']}"
            groups.setdefault(name, []).append({**row, "timed": "retimed" in document})
    return groups


def reference_of(rows: Sequence[Row]) -> Row:
    """The row that others are compared with. Raises InputError where it was not played."""
    found = (row for name in REFERENCES for row in rows if row["plan"] == name)
    if (row := next(found, None)) is None:
        raise InputError(f"got no row of {' or '.join(REFERENCES)}, wanted one to compare with: evaluate it too")
    return row


def peers_of(documents: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By task: the peer's time of inference an executed action, its chunks being executed as ddpm-100's are."""
    peers = {}
    for document in (document for document in documents if "retimed" in document):
        row = reference_of(document["rows"])
        peers[row["task"]] = document["retimed"]["peer-ddpm-100"]["p50"] * row["answers_per_action"]
    return peers


def table(rows: Sequence[Row], peer_action_ms: float | None) -> list[str]:
    """Markdown: a line a plan, in the order of their calls."""
    dense, timed = reference_of(rows), all(row["timed"] for row in rows)
    told = [("plan", lambda row: row["plan"]), ("calls/action", lambda row: f"{calls(row):.2f}")]
    if timed:
        told += [
            ("answer p50, p99 ms", lambda row: f"{row['chunk_ms']['p50']:.1f}, {row['chunk_ms']['p99']:.1f}"),
            ("ms/action", lambda row: f"{action_ms(row):.2f}"),
        ]
    if timed and peer_action_ms is not None:
        told.append(("of peer", lambda row: f"{action_ms(row) / peer_action_ms:.4f}"))
    told += [
        ("success", lambda row: f"{row['successes']}/{row['episodes']}"),
        (f"against {dense['plan']}, points", lambda row: _points(dense, row)),
    ]
    if any(entropy(row) is not None for row in rows):
        told.append(("modes, nats", lambda row: "-" if entropy(row) is None else f"{entropy(row):.2f}"))
    told.append(("jerk", lambda row: f"{row['jerk']:.3f}"))
    lines = ["| " + " | ".join(name for name, _ in told) + " |", "|" + "---|" * len(told)]
    return lines + ["| " + " | ".join(tell(row) for _, tell in told) + " |" for row in sorted(rows, key=calls)]


def _points(dense: Row, row: Row) -> str:
    """The difference of success on the same seeds with its interval."""
    difference, low, high = paired_difference(dense["outcomes"], row["outcomes"])
    return f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def draw(tasks: dict[str, list[Row]], path: Path) -> None:
    plt = pyplot()
    panels: list[tuple[str, str, Any, Any, Any]] = [
        ("success, %", "network calls an executed action", calls, success, success_interval),
        ("jerk", "network calls an executed action", calls, lambda row: row["jerk"], None),
    ]
    every = [row for rows in tasks.values() for row in rows]
    if any(row["timed"] for row in every):
        below = "inference an executed action, batch 1, p50 [ms]"
        panels.insert(1, ("success, %", below, action_ms, success, success_interval))
    if any(entropy(row) is not None for row in every):
        panels.insert(1, ("entropy of modes, nats", panels[0][1], calls, entropy, entropy_interval))
    figure, axes = plt.subplots(len(panels), len(tasks), figsize=(6.4 * len(tasks), 4 * len(panels)), squeeze=False)
    for column, (task, rows) in enumerate(tasks.items()):
        axes[0][column].set_title(task, loc="left", fontsize=11)
        for axis, (name, below, x, y, interval) in zip(axes[:, column], panels, strict=True):
            shown = [row for row in rows if x is not action_ms or row["timed"]]
            if all(y(row) is None for row in shown):
                axis.axis("off")
                continue
            panel(axis, shown, KINDS, x, y, interval)
            axis.set_ylabel(name)
            axis.set_xlabel(below)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="FILE")
    parser.add_argument("--picture", default="benchmarks/results/few-calls-cpu.png", metavar="FILE")
    options = parser.parse_args()
    documents = [json.loads(Path(file).read_text()) for file in options.evaluations]
    tasks, peers = grouped(documents), peers_of(documents)
    for task, rows in tasks.items():
        print(f"\n### {task}\n")
        print("\n".join(table(rows, peers.get(task))))
    draw(tasks, Path(options.picture))
    print(f"\npicture: {options.picture}")


if __name__ == "__main__":
    main()
