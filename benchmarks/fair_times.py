"""The time of a chunk of every plan of a fair fight, taken in turn on a quiet machine, put into the evaluations.

python benchmarks/fair_times.py benchmarks/results/fair-avoid-cpu.json ...

Evaluations may run beside each other, and then what they time is not what a plan costs. This times all plans of each
file at batch 1, one thread, A B C A B C ..., and writes p50, p99 and n into each row's `chunk_ms`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from ontick.benchmarks.contestants import Ours
from ontick.benchmarks.policy import interleaved, percentiles
from ontick.commands.families import ASSETS
from ontick.commands.observations import played
from ontick.commands.progress import progress_bar
from ontick.diffusion import Plan
from ontick.files import write_whole
from ontick.policy import load_checkpoint
from ontick.runtime import describe_machine, load_budget

CHUNKS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="FILE")
    torch.set_num_threads(1)
    for file in parser.parse_args().evaluations:
        document = json.loads(Path(file).read_text())
        [task] = {row["task"] for row in document["rows"]}
        checkpoint = load_checkpoint(ASSETS / "diffusion-transformer" / task.replace("/", "-"))
        obs = list(played(checkpoint, 8, 2)[:, None])
        played_plans = {row["plan"] for row in document["rows"]}
        asked = [Plan.from_dict(row["plan"]) for row in document["request"]["rows"] if isinstance(row["plan"], dict)]
        plans = {plan.name: plan for plan in asked if plan.name in played_plans}
        device = torch.device("cpu")
        contestants = [Ours(name, plan, checkpoint.network, device) for name, plan in plans.items()]
        with torch.inference_mode(), progress_bar(CHUNKS + 1, task, "round") as bar:
            times = interleaved(contestants, obs, device, CHUNKS, bar.update)
        budget = load_budget(document["budget"]["name"])
        document["retimed"] = {"machine": describe_machine(), "chunks": CHUNKS}
        for row in (row for row in document["rows"] if row["plan"] in times):
            seconds = times[row["plan"]]
            row["chunk_ms"] = {**percentiles(seconds), "max": float(np.max(seconds) * 1e3)}
            row["latency_ms"] = np.round(seconds * 1e3, 3).tolist()
            row["met"], row["misses"] = budget.met(seconds), int((seconds > budget.deadline_s).sum())
            print(f"{row['plan']:24} {row['chunk_ms']['p50']:7.2f} ms p50, {row['chunk_ms']['p99']:7.2f} p99")
        write_whole(file, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
