"""Print the tables of the task cards, as Markdown, from files that `ontick evaluate --json` wrote.

python benchmarks/task_table.py benchmarks/results/task-avoid-cpu.json ...
"""

import argparse
import json
from pathlib import Path

from ontick.runtime import paired_difference


def lines(document: dict) -> list[str]:
    """The table of one file: a row a plan, compared with the first on the same seeds."""
    rows = document["rows"]
    has_modes = any(row.get("mode_entropy") is not None for row in rows)
    heads = ["plan", "success, 95 %", "against the first, points", "calls/action"]
    heads += ["mode entropy, nats", "gap p50, mm"] if has_modes else []
    table = [heads, ["---"] * len(heads)]
    for row in rows:
        n = row["episodes"]
        cells = [
            row["plan"],
            f"{row['successes']}/{n} ({100 * row['success_low']:.1f} to {100 * row['success_high']:.1f})",
            _against(rows[0], row),
            f"{row['calls_per_action']:.2f}",
        ]
        if has_modes:
            entropy, shown, gap = row["mode_entropy"], row["demonstrations_mode_entropy"], row["clearance_mm"]
            told = "-" if entropy is None else f"{entropy:.2f} of {shown:.2f}" if shown else f"{entropy:.2f}"
            cells += [told, f"{gap['median']:.1f}"]
        table.append(cells)
    return [f"| {' | '.join(cells)} |" for cells in table]


def _against(first: dict, row: dict) -> str:
    if row is first:
        return ""
    difference, low, high = (100 * share for share in paired_difference(first["outcomes"], row["outcomes"]))
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        document = json.loads(path.read_text())
        first = document["rows"][0]
        print(f"\n{path.name}: {first['task']}{', ' + first['disturb'] if first.get('disturb') else ''}\n")
        print("\n".join(lines(document)))


if __name__ == "__main__":
    main()
