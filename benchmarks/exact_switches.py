"""What each switch of the exact stack contributes: a ladder from the plain loop to the whole stack, and each one alone
left out. One DDPM-100 chunk of the published shape at batch 1.

    python benchmarks/exact_switches.py [--threads 1] [--n 20] [--out benchmarks/results/exact-switches-cpu.json]

All rungs are timed in one process in turn. Draws a picture beside the JSON.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ontick.accel.exact import SWITCHES
from ontick.benchmarks.contestants import Ours
from ontick.benchmarks.picture import draw_switches
from ontick.benchmarks.policy import action_errors, interleaved, percentiles, subject
from ontick.diffusion import Plan, load_plan
from ontick.files import write_whole
from ontick.runtime import describe_machine

HERE = Path(__file__).resolve().parent


def ladder() -> dict[str, Plan]:
    """Rung by rung, one switch more each, on the eager backend. The plain program draws its noise first as well, so
    `noise` adds nothing to it; what drawing at every step would cost is told by the row without it."""
    base = dataclasses.replace(load_plan("exact"), backend="eager")
    order = ("solver", "memory", "time_table", "fold", "rows", "weights")
    rungs: dict[str, Plan] = {}
    for i in range(len(order)):
        on = {name: name == "noise" or name in order[: i + 1] for name in SWITCHES}
        rungs["+ " + order[i]] = dataclasses.replace(base, accelerators={"exact": on})
    return rungs


def left_out() -> dict[str, Plan]:
    """The whole stack on the best backend without one switch; fold goes with what it needs."""
    full = load_plan("exact")
    needs = {"memory": ("memory", "fold"), "time_table": ("time_table", "fold")}
    names = [name for name in SWITCHES if name not in ("noise", "solver")]
    late = dataclasses.replace(full, backend="eager", accelerators={"exact": {"noise": False}})
    return {"- noise": late} | {
        "- " + " - ".join(needs.get(name, (name,))): dataclasses.replace(
            full, accelerators={"exact": dict.fromkeys(needs.get(name, (name,)), False)}
        )
        for name in names
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n", type=int, default=20, help="chunks a rung")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "exact-switches-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    network, observations = subject("published", device)
    plans = {"plain": load_plan("ddpm-100"), **ladder(), "+ backend": load_plan("exact"), **left_out()}
    with torch.inference_mode():
        contestants = [Ours(name, plan, network, device) for name, plan in plans.items()]
        errors = action_errors(contestants, network, observations[:2])
        times = interleaved(contestants, observations, device, options.n, lambda: None)
    rows: list[dict[str, Any]] = [
        {
            "rung": c.name,
            "backend": c.backend,
            "ms": percentiles(times[c.name]),
            "ratio_to_plain": float(np.median(times[c.name]) / np.median(times["plain"])),
            "action_error": errors[c.name],
        }
        for c in contestants
    ]
    document = {"benchmark": "exact_switches", "machine": describe_machine(), "rows": rows}
    write_whole(options.out, json.dumps(document, indent=1) + "\n")
    draw_switches(document, options.out.with_suffix(".png"))
    for row in rows:
        print(f"{row['rung']:24}{row['backend']:10}{row['ms']['p50']:9.1f} ms  x{1 / row['ratio_to_plain']:.2f}")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
