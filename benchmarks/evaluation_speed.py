"""Episodes per second of `ontick evaluate` beside robomimic's way, with the same policy, plan and seeds.

robomimic's way (its `run_trained_agent.py`): one environment, one observation at a time to the policy, in this
process, with torch's default number of threads. Ours: worker processes, 16 lanes to one policy call, one thread
each. Both are timed in one run, after a warm-up that builds the environments.

    .venv/bin/python benchmarks/evaluation_speed.py --plans ddpm-100,ddim-10
"""

import argparse
import json
from pathlib import Path

from ontick.commands.families import checkpoint_for, parse_candidate, policy_maker
from ontick.envs import evaluation_seeds, find_task
from ontick.envs.evaluation import Evaluator, Job
from ontick.files import write_whole
from ontick.runtime import WallClock, describe_machine, load_budget

RESULTS = Path(__file__).parent / "results"


def one_by_one(task, policy, env, seeds, clock):
    """robomimic's way: (successes, seconds) of the episodes one after another."""
    start_s, successes = clock.now(), 0
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        policy.reset([0], [seed])
        over = False
        while not over:
            action = policy.select_action(observation[None])[0]
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        successes += info["success"]
    return successes, clock.now() - start_s


def many_lanes(evaluator, job, clock):
    """Our way: (successes, seconds) of the same episodes."""
    start_s = clock.now()
    episodes, _ = evaluator.run(job)
    return sum(e.success for e in episodes), clock.now() - start_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="metaworld/pick-place-v3")
    parser.add_argument("--plans", default="ddpm-100,ddim-10")
    parser.add_argument("--checkpoint")
    parser.add_argument("--episodes", type=int, default=64, help="ours; robomimic's way plays the first quarter")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", default=str(RESULTS / "evaluation_speed-cpu.json"))
    options = parser.parse_args()
    clock, task, budget = WallClock(), find_task(options.task), load_budget("cpu-20hz")
    seeds = tuple(evaluation_seeds(0, options.episodes))
    few, rows = seeds[: max(1, len(seeds) // 4)], []
    env = task.make()
    with Evaluator(options.workers) as evaluator:
        for name in options.plans.split(","):
            candidate = parse_candidate(name)
            maker = policy_maker(candidate, checkpoint_for(options.task, candidate, options.checkpoint))
            evaluator.run(Job(options.task, maker, seeds[: 16 * options.workers], budget))  # builds all lanes
            policy = maker(1)
            one_by_one(task, policy, env, seeds[:1], clock)
            theirs, theirs_s = one_by_one(task, policy, env, few, clock)
            ours, ours_s = many_lanes(evaluator, Job(options.task, maker, seeds, budget), clock)
            row = {
                "plan": name,
                "one_by_one": {"episodes": len(few), "successes": theirs, "episodes_per_s": len(few) / theirs_s},
                "ontick": {"episodes": len(seeds), "successes": ours, "episodes_per_s": len(seeds) / ours_s},
                "ratio": (len(seeds) / ours_s) / (len(few) / theirs_s),
            }
            rows.append(row)
            print(
                f"{name}: one by one {row['one_by_one']['episodes_per_s']:.2f} episodes/s (n={len(few)}), "
                f"ontick {row['ontick']['episodes_per_s']:.2f} (n={len(seeds)}), {row['ratio']:.1f} times"
            )
    document = {"machine": describe_machine(), "workers": options.workers, "task": options.task, "rows": rows}
    write_whole(options.json, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
