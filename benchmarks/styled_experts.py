"""How often the scripted experts of Meta-World succeed, plain and with styles, and how much their episodes vary.

Both are recorded as `ontick demos` does, with its noise, at the same seeds. All attempts count for the share; lengths
(to the success) and heights of the hand on arrival (5 cm from the object, horizontally) are of the successful ones.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/styled_experts.py
"""

import argparse
import json
from pathlib import Path

import numpy as np

from ontick.envs import TASKS, demonstration_seeds, find_task
from ontick.envs.collection import Recipe, expert_of, record_episode
from ontick.files import write_whole
from ontick.runtime import describe_machine

RESULTS = Path(__file__).parent / "results"
BASE_SEED = 2  # the ranges of the styles were chosen on episodes of base 1
NEAR_M = 0.05


def arrival_height_m(observations):
    """The hand's height when it comes within 5 cm of the object; None where it never does or is from the start."""
    near = np.hypot(*(observations[:, 4:6] - observations[:, :2]).T) < NEAR_M
    return float(observations[np.argmax(near), 2]) if near.any() and not near[0] else None


def measure(env, recipe):
    """Successes, and mean and standard deviation of the length [steps] and the hand's height on arrival [m]."""
    task, seeds = find_task(recipe.task), demonstration_seeds(recipe.seed, recipe.episodes)
    episodes = [record_episode(env, expert_of(recipe, seed), task, recipe, seed) for seed in seeds]
    kept = [episode for episode in episodes if episode.success_step >= 0]
    lengths = [episode.success_step + 1 for episode in kept]
    heights_m = [h for episode in kept if (h := arrival_height_m(episode.observations)) is not None]
    return {
        "episodes": len(episodes),
        "successes": len(kept),
        "length_mean_steps": float(np.mean(lengths)) if kept else None,
        "length_sd_steps": float(np.std(lengths)) if kept else None,
        "arrivals": len(heights_m),
        "arrival_height_mean_m": float(np.mean(heights_m)) if heights_m else None,
        "arrival_height_sd_m": float(np.std(heights_m)) if heights_m else None,
    }


def table_line(row):
    """One line of a Markdown table."""
    cells = [row["task"].removeprefix("metaworld/")]
    for measured in (row["plain"], row["styled"]):
        length = measured["length_mean_steps"]
        cells += [f"{measured['successes'] / measured['episodes']:.0%}", "-" if length is None else f"{length:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--json", default=str(RESULTS / "styled_experts.json"))
    options = parser.parse_args()
    rows = []
    print("| task | plain | steps | styled | steps |\n|---|---|---|---|---|")
    for task_id in (name for name in TASKS if name.startswith("metaworld/")):
        env = find_task(task_id).make(stop_on_success=False)
        plain, styled = (
            measure(env, Recipe(task_id, options.episodes, seed=BASE_SEED, styled=styled)) for styled in (False, True)
        )
        env.close()
        rows.append({"task": task_id, "plain": plain, "styled": styled})
        print(table_line(rows[-1]), flush=True)
    document = {"machine": describe_machine(), "base_seed": BASE_SEED, "noise": Recipe.noise, "rows": rows}
    write_whole(options.json, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
