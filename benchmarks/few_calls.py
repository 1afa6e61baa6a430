"""Controllers of few calls: success, modes and smoothness against network calls and against time, an executed action.

python benchmarks/few_calls.py benchmarks/results/few-calls-avoid-cpu.json ... [--picture FILE.png]

Reads what `ontick evaluate` wrote, timed by `fair_times.py`. For each task it prints a table, every plan against
ddpm-100 on the same seeds, and draws all of them into one picture: a column a task, calls and milliseconds below each
other, and modes where the task tells them.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ontick.benchmarks.picture import pyplot
from ontick.benchmarks.scatter import Row, by_task, entropy, entropy_interval, panel, success, success_interval
from ontick.runtime import paired_difference

DENSE = "ddpm-100"
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


def peers_of(documents: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By task: the peer's time of inference an executed action, its chunks being executed as ddpm-100's are."""
    peers = {}
    for document in (document for document in documents if "retimed" in document):
        for row in (row for row in document["rows"] if row["plan"] == DENSE):
            peers[row["task"]] = document["retimed"]["peer-ddpm-100"]["p50"] * row["answers_per_action"]
    return peers


def table(rows: Sequence[Row], peer_action_ms: float | None) -> list[str]:
    """Markdown: a line a plan, in the order of their calls."""
    dense = next(row for row in rows if row["plan"] == DENSE)
    head = "| plan | calls/action | answer p50, p99 ms | ms/action | of peer | success | against ddpm-100, points | "
    lines = [head + "modes, nats | jerk |", "|" + "---|" * 9]
    for row in sorted(rows, key=calls):
        difference, low, high = paired_difference(dense["outcomes"], row["outcomes"])
        points = f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        modes = "-" if entropy(row) is None else f"{entropy(row):.2f}"
        share = "-" if peer_action_ms is None else f"{action_ms(row) / peer_action_ms:.4f}"
        ms = row["chunk_ms"]
        lines.append(
            f"| {row['plan']} | {calls(row):.2f} | {ms['p50']:.1f}, {ms['p99']:.1f} | {action_ms(row):.2f} | {share} | "
            f"{row['successes']}/{row['episodes']} | {points} | {modes} | {row['jerk']:.3f} |"
        )
    return lines


def draw(tasks: dict[str, list[Row]], path: Path) -> None:
    plt = pyplot()
    panels: list[tuple[str, str, Any, Any, Any]] = [
        ("success, %", "network calls an executed action", calls, success, success_interval),
        ("success, %", "inference an executed action, batch 1, p50 [ms]", action_ms, success, success_interval),
        ("jerk", "network calls an executed action", calls, lambda row: row["jerk"], None),
    ]
    if any(entropy(row) is not None for rows in tasks.values() for row in rows):
        panels.insert(1, ("entropy of modes, nats", panels[0][1], calls, entropy, entropy_interval))
    figure, axes = plt.subplots(len(panels), len(tasks), figsize=(6.4 * len(tasks), 4 * len(panels)), squeeze=False)
    for column, (task, rows) in enumerate(tasks.items()):
        axes[0][column].set_title(task, loc="left", fontsize=11)
        for axis, (name, below, x, y, interval) in zip(axes[:, column], panels, strict=True):
            if all(y(row) is None for row in rows):
                axis.axis("off")
                continue
            panel(axis, rows, KINDS, x, y, interval)
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
    tasks, peers = by_task(documents), peers_of(documents)
    for task, rows in tasks.items():
        print(f"\n### {task}\n")
        print("\n".join(table(rows, peers.get(task))))
    draw(tasks, Path(options.picture))
    print(f"\npicture: {options.picture}")


if __name__ == "__main__":
    main()
