"""Success where every answer takes some ticks: one after another, and beside execution with each stitch rule.

    python benchmarks/delays.py --out benchmarks/results/delays-cpu

Runs `ontick evaluate --delay-ticks D [--stitch RULE]` for every delay and rule, each into its own file of --runs, so
that an interrupted run goes on. Writes OUT.json and OUT.png and prints a table a task, as Markdown: successes, and at
each delay what the best rule beside execution loses of what is lost one after another. Without a delay there is
nothing to join, and a queue never has: there only `replace` is played.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ontick.benchmarks.picture import pyplot
from ontick.commands import main as ontick
from ontick.diffusion import load_plan
from ontick.files import write_whole
from ontick.runtime import STITCHES, paired_difference

TASKS = "ontick/Avoid-v0,metaworld/pick-place-v3"
PLANS = "ddim-10,anchored-2,draft-3,diagonal-1"
SYNC = "sync"
COLOURS = {SYNC: "#9aa5b1", "replace": "#d1495b", "blend": "#edae49", "inpaint": "#2f6fde"}
KEPT = ("task", "plan", "episodes", "successes", "success_low", "success_high", "outcomes", "steps", "mode_entropy")
KEPT += ("jerk", "starved", "rest", "seam_jump_max", "calls_per_action")


def evaluated(options: argparse.Namespace, task: str, delay: int, rule: str) -> list[dict[str, Any]]:
    """The rows of one evaluation, played unless it is there."""
    path = Path(options.runs) / f"{task.split('/')[-1]}-{delay}-{rule}.json"
    if not path.is_file() or not json.loads(path.read_text())["complete"]:
        plans = [p for p in options.plans.split(",") if rule in (SYNC, "replace") or not load_plan(p).stagger]
        asked = ["--tasks", task, "--plans", ",".join(plans), "--episodes", str(options.episodes), "--workers", "2"]
        stitch = [] if rule == SYNC else ["--stitch", rule]
        if ontick(["evaluate", *asked, "--delay-ticks", str(delay), *stitch, "--json", str(path)]):
            raise SystemExit(1)
    return [
        {"delay_ticks": delay, "rule": rule, **{key: row[key] for key in KEPT}}
        for row in json.loads(path.read_text())["rows"]
    ]


def table(rows: Sequence[dict[str, Any]], task: str, delays: Sequence[int]) -> str:
    """Markdown: a line a plan and delay."""
    found = {(row["plan"], row["delay_ticks"], row["rule"]): row for row in rows if row["task"] == task}
    plans = list(dict.fromkeys(plan for plan, _, _ in found))
    lines = [f"| {task} | delay | {' | '.join(COLOURS)} | lost, of what {SYNC} loses | best against {SYNC}, points |"]
    lines.append("|---" * (len(COLOURS) + 4) + "|")
    for plan in plans:
        base = found[plan, 0, SYNC]
        for delay in delays:
            cells = [str(row["successes"]) if (row := found.get((plan, delay, rule))) else "" for rule in COLOURS]
            beside = [found[plan, delay, rule] for rule in STITCHES if (plan, delay, rule) in found]
            best = max(beside, key=lambda row: row["successes"])
            lines.append(f"| {plan} | {delay} | {' | '.join(cells)} | {_told(base, found[plan, delay, SYNC], best)} |")
    return "\n".join(lines)


def _told(base: dict[str, Any], sync: dict[str, Any], best: dict[str, Any]) -> str:
    lost, lost_beside = base["successes"] - sync["successes"], base["successes"] - best["successes"]
    share = f"{lost_beside} of {lost}"
    difference, low, high = (100 * x for x in paired_difference(sync["outcomes"], best["outcomes"]))
    return f"{share} | {difference:+.1f} ({low:+.1f} to {high:+.1f})"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Success over delay: a row of panels a task, a panel a plan, a line a rule."""
    plt = pyplot()
    tasks, plans = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "plan"))
    figure, axes = plt.subplots(len(tasks), len(plans), figsize=(3.2 * len(plans), 2.9 * len(tasks)), squeeze=False)
    for task, of_task in zip(tasks, axes, strict=True):
        for plan, axis in zip(plans, of_task, strict=True):
            for rule, colour in COLOURS.items():
                line = {
                    r["delay_ticks"]: r
                    for r in rows
                    if (r["task"], r["plan"]) == (task, plan) and (r["rule"] == rule or not r["delay_ticks"])
                }
                line = sorted(line.items())
                share = [100 * r["successes"] / r["episodes"] for _, r in line]
                axis.plot([delay for delay, _ in line], share, "o-", ms=4, color=colour, label=rule)
            axis.set_ylim(-4, 104)
            axis.set_title(f"{plan}, {task.split('/')[-1]}", loc="left", fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("delay of an answer [ticks]")
    for axis in axes[:, 0]:
        axis.set_ylabel("success [%]")
    axes[0, 0].legend(fontsize=8, frameon=False, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--plans", default=PLANS)
    parser.add_argument("--delays", default="0,2,4,8")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--runs", default="runs/delays", metavar="DIR", help="the evaluations' own files")
    parser.add_argument("--out", required=True, metavar="NAME", help="NAME.json and NAME.png are written")
    options = parser.parse_args()
    tasks, delays = options.tasks.split(","), [int(delay) for delay in options.delays.split(",")]
    rows = []
    for task in tasks:
        for delay in delays:
            for rule in COLOURS if delay else (SYNC, "replace"):
                rows += evaluated(options, task, delay, rule)
        print(f"\n{table(rows, task, delays)}\n")
    write_whole(Path(f"{options.out}.json"), json.dumps({"rows": rows}) + "\n")
    draw(rows, Path(f"{options.out}.png"))
    print(f"written: {options.out}.json, {options.out}.png")


if __name__ == "__main__":
    main()
