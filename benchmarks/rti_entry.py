"""Estimated entry levels against success: does the level that is estimated offline do in closed loop?

    python benchmarks/rti_entry.py --entries runs/entry-*.json --evaluations runs/rti.json --out benchmarks/results

Reads what `ontick calibrate --plan rti` wrote, a file a task, and what `ontick evaluate` wrote for the plans rti-K and
rti-K-renoise on these tasks. Draws, for each task, success against K with its interval for both births, the estimated
levels as lines, and below it how a chain of K levels contracts. Writes rti-entry.png and rti-entry.json, which holds
what is drawn.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ontick.benchmarks.picture import FLOOR_COLOUR, OUR_COLOUR, PEER_COLOUR, pyplot
from ontick.errors import InputError
from ontick.files import write_whole

FORMAT = "ontick-entry-1"  # of what is read
BIRTHS = {"guess": ("as it is", OUR_COLOUR, "o"), "noised": ("noised", "#2a9d6f", "s")}
ESTIMATES = {"rule": ("RMS", "-"), "median": ("median", "--")}
REFERENCES = ("ddim-10", "ddpm-100")  # drawn as a line, the first of them that is there


def births_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One task's rows of an evaluation -> birth: K, success with its interval, ascending in K."""
    found: dict[str, list[dict[str, Any]]] = {birth: [] for birth in BIRTHS}
    for row in rows:
        if match := re.fullmatch(r"rti-(\d+)(-renoise)?", row["plan"]):
            success = {"success": row["successes"] / row["episodes"], "low": row["success_low"]}
            point = {"K": int(match[1]), **success, "high": row["success_high"], "episodes": row["episodes"]}
            found["noised" if match[2] else "guess"].append(point)
    return {birth: sorted(points, key=lambda point: point["K"]) for birth, points in found.items()}


def gathered(entries: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """task: its births, estimated levels, deviations, contraction and reference. Raises InputError where a task was
    estimated and not played, or twice."""
    tasks: dict[str, Any] = {}
    for entry in entries:
        if entry.get("format") != FORMAT:
            raise InputError(f"an entry file has format {entry.get('format')!r}, wanted {FORMAT!r}: calibrate it anew")
        task = entry["task"]
        played = [row for row in rows if row["task"] == task]
        births = births_of(played)
        if task in tasks or not any(births.values()):
            why = "two entry files are of" if task in tasks else "no row rti-K was evaluated for"
            raise InputError(f"{why} task {task}; wanted one entry file and some rows for each")
        reference = next((row for name in REFERENCES for row in played if row["plan"] == name), None)
        tasks[task] = {
            "births": births,
            "entry": entry["entry"],
            "deviation": {key: entry["deviation"][key] for key in ("rms", "median")},
            "contraction": entry["contraction"]["rows"],
            "narrowing": entry["narrowing"]["rows"],
            "reference": reference and {"plan": reference["plan"], "success": _share(reference)},
        }
    if not tasks:
        raise InputError("no entry files were given; wanted one for each task, from `ontick calibrate --plan rti`")
    return tasks


def draw(tasks: dict[str, Any], path: Path) -> None:
    """A column a task: success above, contraction below, over the same K."""
    plt = pyplot()
    figure, axes = plt.subplots(
        2, len(tasks), figsize=(4.8 * len(tasks), 6.4), squeeze=False, sharex="col", height_ratios=[3, 2]
    )
    for column, (task, told) in enumerate(tasks.items()):
        above, below = axes[0][column], axes[1][column]
        _draw_success(above, told)
        _draw_contraction(below, told)
        above.set_title(task, loc="left", fontsize=11)
        for axis in (above, below):
            _draw_estimates(axis, told["entry"], named=axis is above)
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(fontsize=7, frameon=False, loc="best")
        _name_levels(below, told)
    axes[0][0].set_ylabel("success, %")
    axes[1][0].set_ylabel("contraction factor")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_success(axis: Any, told: dict[str, Any]) -> None:
    """The births stand a little apart, so that their intervals can be seen."""
    for (birth, points), aside in zip(told["births"].items(), (0.97, 1.03), strict=True):
        if not points:
            continue
        name, colour, marker = BIRTHS[birth]
        levels = [aside * point["K"] for point in points]
        for level, point in zip(levels, points, strict=True):
            axis.plot([level, level], [100 * point["low"], 100 * point["high"]], color=colour, lw=1, alpha=0.5)
        success = [100 * point["success"] for point in points]
        axis.plot(levels, success, marker + "-", color=colour, ms=5, lw=1.2, label=f"the guess {name}")
    if reference := told["reference"]:
        axis.axhline(100 * reference["success"], color=PEER_COLOUR, lw=1, label=reference["plan"])
    axis.set_ylim(-3, 103)


def _draw_contraction(axis: Any, told: dict[str, Any]) -> None:
    rows = told["contraction"]
    levels = [row["K"] for row in rows]
    for key, style in (("median", "o-"), ("p90", ".--"), ("max", ".:")):
        axis.plot(levels, [row[key] for row in rows], style, color=OUR_COLOUR, lw=1.2, ms=5, label=f"{key} over pairs")
    axis.axhline(1.0, color=PEER_COLOUR, lw=1)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("K, levels (and network calls a tick)")


def _draw_estimates(axis: Any, entry: dict[str, Any], named: bool) -> None:
    for estimate, (name, style) in ESTIMATES.items():
        if (K := entry[estimate]) is not None:
            label = f"estimated by {name}: {K}" if named else None
            axis.axvline(K, color=FLOOR_COLOUR, ls=style, lw=1.2, label=label)


def _name_levels(axis: Any, told: dict[str, Any]) -> None:
    levels = {point["K"] for points in told["births"].values() for point in points}
    levels |= {row["K"] for row in told["contraction"]}
    axis.set_xscale("log")
    axis.set_xticks(sorted(levels), [str(K) for K in sorted(levels)], fontsize=8)
    axis.minorticks_off()


def _share(row: dict[str, Any]) -> float:
    return row["successes"] / row["episodes"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", nargs="+", required=True, metavar="FILE", help="of ontick calibrate --plan rti")
    parser.add_argument("--evaluations", nargs="+", required=True, metavar="FILE", help="of ontick evaluate")
    parser.add_argument("--out", default="benchmarks/results", metavar="DIR")
    options = parser.parse_args(arguments)
    entries = [json.loads(Path(file).read_text()) for file in options.entries]
    rows = [row for file in options.evaluations for row in json.loads(Path(file).read_text())["rows"]]
    tasks = gathered(entries, rows)
    out = Path(options.out)
    write_whole(out / "rti-entry.json", json.dumps({"tasks": tasks}, indent=1) + "\n")
    draw(tasks, out / "rti-entry.png")
    print(f"written: {out / 'rti-entry.json'}, {out / 'rti-entry.png'}")


if __name__ == "__main__":
    main()
