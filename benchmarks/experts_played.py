"""Play a task's scripted expert on the seeds that `ontick evaluate` plays policies on, with no noise added.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/experts_played.py ontick/PushT-v0 --episodes 50 --json FILE
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from ontick.envs import evaluation_seeds, find_task
from ontick.files import write_whole
from ontick.runtime import describe_machine, wilson_interval


def play(env: Any, expert: Any, seed: int) -> dict[str, Any]:
    """One episode to its end: its steps, success, largest coverage where the task tells it, the expert's seconds."""
    observation, info = env.reset(seed=seed)
    steps, thought_s, ended = 0, 0.0, False
    while not ended:
        begun = time.perf_counter()
        action = expert(observation)
        thought_s += time.perf_counter() - begun
        observation, _, terminated, truncated, info = env.step(action)
        steps, ended = steps + 1, terminated or truncated
    told = {"seed": seed, "steps": steps, "success": bool(info["is_success"]), "expert_s": thought_s}
    return told | ({"max_coverage": float(info["max_coverage"])} if "max_coverage" in info else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--styled", action="store_true", help="a style for each episode, as demonstrations have")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    task = find_task(options.task)
    env, rows = task.make(), []
    for seed in evaluation_seeds(0, options.episodes):
        style = np.random.default_rng(seed) if options.styled else None
        rows.append(play(env, task.expert(style), seed))
        print(rows[-1], flush=True)
    env.close()
    succeeded = sum(row["success"] for row in rows)
    low, high = wilson_interval(succeeded, len(rows))
    total = {
        "task": task.id,
        "styled": options.styled,
        "episodes": len(rows),
        "successes": succeeded,
        "interval": [low, high],
        "mean_steps": float(np.mean([row["steps"] for row in rows])),
        "expert_ms_a_step": 1e3 * sum(row["expert_s"] for row in rows) / sum(row["steps"] for row in rows),
        "mean_max_coverage": float(np.mean([r["max_coverage"] for r in rows])) if "max_coverage" in rows[0] else None,
    }
    print(total)
    if options.json is not None:
        document = {"machine": describe_machine(), "versions": task.version, **total, "rows": rows}
        write_whole(options.json, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
