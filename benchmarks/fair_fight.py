"""The fair fight: caching against fewer steps at equal time, by success and by the modes that are left.

python benchmarks/fair_fight.py benchmarks/results/fair-avoid-cpu.json ...

Reads what `ontick evaluate` wrote, all on the exact stack and the same seeds. For each task it prints the best plan of
each kind under each time budget, a share of the dense chunk's p50, and draws all plans into PICTURE.png.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ontick.benchmarks import scatter
from ontick.benchmarks.picture import pyplot
from ontick.benchmarks.scatter import Row, by_task, entropy, entropy_interval, panel, success, success_interval
from ontick.runtime import paired_difference

DENSE = "exact"
SHARES = (1.0, 1 / 2, 1 / 5, 1 / 10, 1 / 20)
KINDS = {  # name: (pattern of plan names, colour)
    "dense": (r"exact", "#1b1f24"),
    "caching": (r"(uniform|uniform-last|power|bac|global)-\d+", "#2f6fde"),
    "fewer steps": (r"exact-(ddim|dpmpp|unipc)-\d+", "#d1495b"),
    "caching on fewer steps": (r"(uniform|uniform-last|power|bac|global)-\d+-(ddim|dpmpp|unipc)-\d+", "#2a9d6f"),
}


def kind_of(plan: str) -> str | None:
    return scatter.kind_of(plan, KINDS)


def chunk_ms(row: Row) -> float:
    return row["chunk_ms"]["p50"]


def best(rows: Sequence[Row], kind: str, budget_ms: float) -> Row | None:
    """Of a kind's plans within the budget the one that succeeds most; among equals the one with most modes, then the
    fastest. Chosen on the seeds that it is told on, so among equal plans it is lucky by some."""
    fitting = [row for row in rows if kind_of(row["plan"]) == kind and row["chunk_ms"]["p50"] <= budget_ms]
    order = lambda row: (row["successes"], row.get("mode_entropy") or 0.0, -row["chunk_ms"]["p50"])  # noqa: E731
    return max(fitting, key=order) if fitting else None


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown: a line for each budget and kind."""
    dense = next(row for row in rows if row["plan"] == DENSE)
    lines = ["| budget, ms | kind | plan | p50 ms | success | against dense, points | modes, nats |", "|" + "---|" * 7]
    for share in SHARES[1:]:
        budget_ms = share * dense["chunk_ms"]["p50"]
        for kind in list(KINDS)[1:]:
            row = best(rows, kind, budget_ms)
            told = f"| 1/{1 / share:.0f}: {budget_ms:.1f} | {kind} |"
            lines.append(f"{told} {_cells(row, dense)} |" if row else f"{told} nothing fits | | | | |")
    return lines


def _cells(row: Row, dense: Row) -> str:
    difference, low, high = paired_difference(dense["outcomes"], row["outcomes"])
    points = f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    modes = "-" if row.get("mode_entropy") is None else f"{row['mode_entropy']:.2f}"
    success = f"{row['successes']}/{row['episodes']}"
    return f"{row['plan']} | {row['chunk_ms']['p50']:.1f} | {success} | {points} | {modes}"


def draw(tasks: dict[str, list[Row]], path: Path) -> None:
    """A panel a task: success with its interval against the time of a chunk; below it the entropy of modes, where the
    task tells them."""
    plt = pyplot()
    with_modes = any(row.get("mode_entropy") is not None for rows in tasks.values() for row in rows)
    figure, axes = plt.subplots(
        1 + with_modes, len(tasks), figsize=(5.4 * len(tasks), 3.8 * (1 + with_modes)), squeeze=False
    )
    for column, (task, rows) in enumerate(tasks.items()):
        panel(axes[0][column], rows, KINDS, chunk_ms, success, success_interval)
        axes[0][column].set_title(task, loc="left", fontsize=11)
        axes[0][column].set_ylabel("success, %")
        if with_modes and any(row.get("mode_entropy") is not None for row in rows):
            panel(axes[1][column], rows, KINDS, chunk_ms, entropy, entropy_interval)
            axes[1][column].set_ylabel("entropy of modes, nats")
        elif with_modes:
            axes[1][column].axis("off")
        for axis in axes[:, column]:
            axis.set_xlabel("one chunk at batch 1, p50 [ms]")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="FILE")
    parser.add_argument("--picture", default="benchmarks/results/fair-fight-cpu.png", metavar="FILE")
    options = parser.parse_args()
    tasks = by_task(json.loads(Path(file).read_text()) for file in options.evaluations)
    for task, rows in tasks.items():
        print(f"\n### {task}\n")
        print("\n".join(table(rows)))
    draw(tasks, Path(options.picture))
    print(f"\npicture: {options.picture}")


if __name__ == "__main__":
    main()
