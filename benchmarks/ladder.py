"""A controller on the wall clock while a competing load starts and stops: misses without and with the ladder.

    python benchmarks/ladder.py --seconds 600 --json benchmarks/results/ladder-cpu.json

Plays episodes of a task at the budget's period, inference in a worker, for so many seconds each: the dearest plan
alone, waiting for each of its answers, then the ladder of all plans. Meanwhile as many busy processes as the machine
has cores run for --load-s, pause for as long, and so on. Prints and writes misses, lateness, ticks by rung and
success; draws what each second was served by.
"""

import argparse
import functools
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ontick.commands.families import checkpoint_for, parse_candidate, policy_maker
from ontick.commands.progress import progress_bar
from ontick.envs import evaluation_seeds, find_task
from ontick.files import write_whole
from ontick.runtime import (
    ControlLoop,
    LatencyBudget,
    Ledger,
    Policy,
    WallClock,
    describe_machine,
    load_budget,
    measure_latency,
)
from ontick.runtime.ladder import LadderPolicy
from ontick.runtime.realtime import RealTime
from ontick.runtime.worker import Worker

PLANS = "exact,exact-ddim-10,exact-rti-3,exact-rti-1"
MEASURED = 200  # answers, for the cost of a rung


def make_ladder(task: str, plans: Sequence[str], costs_s: Sequence[float]) -> Policy:
    """The policies of these plans as a ladder, or the one there is."""
    import torch

    torch.set_num_threads(1)
    made = []
    for candidate in map(parse_candidate, plans):
        made.append(policy_maker(candidate, checkpoint_for(task, candidate, None), tail=True)(1))
    return made[0] if len(made) == 1 else LadderPolicy(plans, made, costs_s)


def costs_of(task: str, plans: Sequence[str], budget: LatencyBudget) -> list[float]:
    """What an answer of each plan costs [s], at the budget's percentile, with nothing beside it."""
    costs = []
    for plan in plans:
        policy = make_ladder(task, [plan], [1.0])
        policy.reset([0], [0])
        obs = np.zeros((1, policy.n_obs_steps, policy.observation_dim), np.float32)
        taken = measure_latency(lambda policy=policy, obs=obs: policy.predict_with_tail(obs, [0]) and None, MEASURED)
        costs.append(float(np.percentile(taken, budget.percentile)))
    return costs


class Load:
    """Busy processes, a core each, that run while they are told to."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._runs = context.Event()
        self._busy = [context.Process(target=_busy, args=(self._runs,), daemon=True) for _ in range(processes)]
        for process in self._busy:
            process.start()

    def at(self, elapsed_s: float, load_s: float) -> bool:
        """Run or pause as the time says: paused first. Returns whether it runs."""
        runs = int(elapsed_s / load_s) % 2 == 1
        (self._runs.set if runs else self._runs.clear)()
        return runs

    def end(self) -> None:
        for process in self._busy:
            process.terminate()


def _busy(runs: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    a = np.random.default_rng(0).normal(size=(256, 256))
    while True:
        runs.wait()
        a = np.tanh(a @ a / 16)


def played(
    options: argparse.Namespace, plans: Sequence[str], costs_s: Sequence[float], patient: bool
) -> dict[str, Any]:
    """Episodes one after another for so many seconds; what came of them."""
    task, budget = find_task(options.task), load_budget(options.budget)
    env, ledger, clock = task.make(), Ledger(), WallClock()
    seeds = iter(evaluation_seeds(0, 10_000))
    make = functools.partial(make_ladder, options.task, plans, costs_s)
    loop = ControlLoop(make(), 1, task.hold, budget, ledger=ledger)
    load, served, late, outcomes = Load(os.cpu_count() or 1), [], [], []
    kind_of_worker = Worker.thread if options.worker == "thread" else Worker.process
    with kind_of_worker(make) as worker, progress_bar(int(options.seconds), " ".join(plans)[:40], "s") as bar:
        run, rungs = RealTime(loop, worker, clock, patient), Counter()
        begun_s = next_s = clock.now() + 0.2
        over, told = True, {"success": False}

        def step(action: np.ndarray, kind: str) -> np.ndarray | None:
            nonlocal over, told
            observation, _, terminated, truncated, told = env.step(action)
            served.append(kind)
            over = terminated or truncated
            return None if over else observation

        while clock.now() - begun_s < options.seconds:
            if over:
                run.begin(next(seeds), np.asarray(env.reset(seed=next(seeds))[0], np.float32))
                over, next_s = False, max(next_s, clock.now())
            load.at(clock.now() - begun_s, options.load_s)
            late.append(run.tick(next_s, step))
            next_s = max(next_s + budget.period_s, clock.now())
            bar.update(int(clock.now() - begun_s) - bar.n)
            if over:
                outcomes.append(bool(told["success"]))
                rungs.update(loop.rungs(0))
    load.end()
    kinds, lateness_ms = Counter(served), np.array(late) * 1e3
    return {
        "plans": list(plans),
        "costs_ms": [cost * 1e3 for cost in costs_s],
        "patient": patient,
        "ticks": len(late),
        "misses": int((lateness_ms > 0).sum()),
        "lateness_ms": {f"p{p:g}": float(np.percentile(lateness_ms, p)) for p in (50, 99, 99.9, 100)},
        "kinds": dict(kinds),
        "reached": kinds["answer"] / len(late),
        "rungs": dict(rungs),
        "episodes": len(outcomes),
        "successes": sum(outcomes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="ontick/Avoid-v0")
    parser.add_argument("--plans", default=PLANS, help="dearest first")
    parser.add_argument("--budget", default="cpu-20hz")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--load-s", type=float, default=30.0)
    parser.add_argument("--worker", choices=("process", "thread"), default="process")
    parser.add_argument("--json", required=True, metavar="FILE")
    options = parser.parse_args()
    plans = options.plans.split(",")
    costs_s = costs_of(options.task, plans, load_budget(options.budget))
    print("measured: " + ", ".join(f"{plan} {cost * 1e3:.1f} ms" for plan, cost in zip(plans, costs_s, strict=True)))
    runs = [played(options, plans[:1], costs_s[:1], patient=True), played(options, plans, costs_s, patient=False)]
    for run in runs:
        name = "ladder" if len(run["plans"]) > 1 else run["plans"][0]
        print(
            f"{name}: {run['misses']} of {run['ticks']} ticks missed, "
            f"lateness p99.9 {run['lateness_ms']['p99.9']:.1f} ms, {100 * run['reached']:.1f} % served by an answer, "
            f"{run['successes']}/{run['episodes']} episodes; {run['rungs']}"
        )
    document = {"machine": describe_machine(), "task": options.task, "load_s": options.load_s, "runs": runs}
    write_whole(Path(options.json), json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
