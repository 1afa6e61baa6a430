"""A controller on the wall clock while a competing load starts and stops: misses without and with the ladder.

    python benchmarks/ladder.py --seconds 600 --json benchmarks/results/ladder-cpu.json

Plays episodes of a task at the budget's period, inference in a worker, for so many seconds each: the dearest plan
alone, waiting for each of its answers; the same, commanding what is left of the answer before where one is late; then
the ladder of all plans. Meanwhile as many busy processes as the machine has cores run for --load-s, pause for as long,
and so on. Prints and writes misses, lateness, ticks by rung and success; draws lateness and rung of every tick.
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

from ontick.benchmarks.picture import OUR_COLOUR, PEER_COLOUR, pyplot
from ontick.commands import families
from ontick.commands.families import checkpoint_for, parse_candidate, policy_maker
from ontick.commands.progress import progress_bar
from ontick.envs import evaluation_seeds, find_task
from ontick.files import write_whole
from ontick.runtime import (
    ControlLoop,
    Ledger,
    Policy,
    WallClock,
    describe_machine,
    load_budget,
    measured_costs,
)
from ontick.runtime.realtime import RealTime
from ontick.runtime.worker import Worker

PLANS = "exact-ddpm-30,exact-ddim-20,exact-ddim-10,exact-ddim-4"


def make_ladder(task: str, plans: Sequence[str], costs_s: Sequence[float]) -> Policy:
    """The policies of these plans as a ladder, or the one there is."""
    import torch

    torch.set_num_threads(1)
    makers = [policy_maker(plan, checkpoint_for(task, plan, None), tail=True) for plan in map(parse_candidate, plans)]
    return makers[0](1) if len(makers) == 1 else families.make_ladder(plans, makers, costs_s, 1)


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
    while True:
        runs.wait()
        sum(range(100_000))


class Drive:
    """One controller at work: what it did in every tick, and how its episodes ended."""

    def __init__(self, options: argparse.Namespace, plans: Sequence[str], costs_s: Sequence[float], patient: bool):
        self.task, self.budget = find_task(options.task), load_budget(options.budget)
        self.options, self.plans, self.costs_s, self.patient = options, plans, costs_s, patient
        self.make = functools.partial(make_ladder, options.task, plans, costs_s)
        self.loop = ControlLoop(self.make(), 1, self.task.hold, self.budget, ledger=Ledger())
        self.env, self.seeds = self.task.make(), iter(evaluation_seeds(0, 10_000))
        self.over, self.outcomes = True, []
        self.ticks: list[tuple[float, bool, float, str, str]] = []  # s, under load, lateness ms, kind, rung
        self.rungs: Counter[str] = Counter()

    def run(self) -> None:
        clock, options = WallClock(), self.options
        start = Worker.thread if options.worker == "thread" else Worker.process
        load = Load(os.cpu_count() or 1)
        with start(self.make) as worker, progress_bar(int(options.seconds), self.name, "s") as bar:
            run = RealTime(self.loop, worker, clock, self.patient)
            begun_s = next_s = clock.now() + 0.2
            while clock.now() - begun_s < options.seconds:
                if self.over:
                    seed = next(self.seeds)
                    run.begin(seed, np.asarray(self.env.reset(seed=seed)[0], np.float32))
                    self.over, next_s, seen = False, max(next_s, clock.now()), Counter()
                under_load = load.at(clock.now() - begun_s, options.load_s)
                late_s = run.tick(next_s, self._step)
                self._enter(next_s - begun_s, under_load, late_s, seen)
                next_s = max(next_s + self.budget.period_s, clock.now())
                bar.update(int(clock.now() - begun_s) - bar.n)
        load.end()

    @property
    def name(self) -> str:
        if len(self.plans) > 1:
            return "ladder"
        return f"{self.plans[0]}, {'waited for' if self.patient else 'not waited for'}"

    def _step(self, action: np.ndarray, kind: str) -> np.ndarray | None:
        observation, _, terminated, truncated, told = self.env.step(action)
        self.kind, self.over = kind, terminated or truncated
        if self.over:
            self.outcomes.append(bool(told["success"]))
        return None if self.over else observation

    def _enter(self, at_s: float, under_load: bool, late_s: float, seen: Counter[str]) -> None:
        rungs = Counter(self.loop.rungs(0))
        new = list((rungs - seen).elements()) or ["rest" if self.kind != "answer" else self.plans[0]]
        seen.update(new)
        self.rungs.update(new)
        self.ticks.append((at_s, under_load, late_s * 1e3, self.kind, new[0]))

    def told(self) -> dict[str, Any]:
        """What came of it."""
        of = {"all": self.ticks, "load": [t for t in self.ticks if t[1]], "quiet": [t for t in self.ticks if not t[1]]}
        answers = sum(tick[3] == "answer" for tick in self.ticks)
        return {
            "plans": list(self.plans),
            "costs_ms": [cost * 1e3 for cost in self.costs_s],
            "patient": self.patient,
            "ticks": {part: len(ticks) for part, ticks in of.items()},
            "misses": {part: sum(tick[2] > 0 for tick in ticks) for part, ticks in of.items()},
            "lateness_ms": {part: _percentiles([tick[2] for tick in ticks]) for part, ticks in of.items() if ticks},
            "kinds": dict(Counter(tick[3] for tick in self.ticks)),
            "reached": answers / len(self.ticks),
            "rungs": dict(self.rungs),
            "episodes": len(self.outcomes),
            "successes": sum(self.outcomes),
        }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{p:g}": float(np.percentile(values, p)) for p in (50, 99, 99.9, 100)}


def draw(drives: Sequence[Drive], path: Path) -> None:
    """Lateness of every tick and the rung that served it, over time; the load is shaded."""
    plt = pyplot()
    figure, axes = plt.subplots(2 * len(drives), 1, figsize=(10, 2.4 * 2 * len(drives)), sharex=True)
    for drive, (late, served) in zip(drives, axes.reshape(-1, 2), strict=True):
        at_s = [tick[0] for tick in drive.ticks]
        names = [*drive.plans, "rest"]
        late.plot(at_s, [tick[2] for tick in drive.ticks], ".", ms=3, color=OUR_COLOUR)
        late.set_ylabel("late [ms]")
        late.set_title(f"{drive.name}: {sum(tick[2] > 0 for tick in drive.ticks)} misses", loc="left", fontsize=10)
        served.plot(at_s, [names.index(tick[4]) for tick in drive.ticks], ".", ms=2, color=OUR_COLOUR)
        served.set_yticks(range(len(names)), names, fontsize=8)
        served.set_ylim(len(names) - 0.5, -0.5)
        for axis in (late, served):
            for start in np.arange(drive.options.load_s, at_s[-1], 2 * drive.options.load_s):
                axis.axvspan(start, start + drive.options.load_s, color=PEER_COLOUR, alpha=0.25, lw=0)
            axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("time [s]; grey: every core has a busy process beside the controller")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="ontick/Avoid-v0")
    parser.add_argument("--plans", default=PLANS, help="dearest first")
    parser.add_argument("--budget", default="cpu-20hz")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each run")
    parser.add_argument("--load-s", type=float, default=30.0, help="the load runs for so long, then pauses for as long")
    parser.add_argument("--worker", choices=("process", "thread"), default="process")
    parser.add_argument("--json", required=True, metavar="FILE")
    options = parser.parse_args()
    plans = options.plans.split(",")
    costs_s = measured_costs([make_ladder(options.task, [plan], []) for plan in plans], load_budget(options.budget))
    print("measured: " + ", ".join(f"{plan} {cost * 1e3:.1f} ms" for plan, cost in zip(plans, costs_s, strict=True)))
    drives = [
        Drive(options, plans[:1], costs_s[:1], patient=True),
        Drive(options, plans[:1], costs_s[:1], patient=False),
        Drive(options, plans, costs_s, patient=False),
    ]
    for drive in drives:
        drive.run()
        told = drive.told()
        print(
            f"{drive.name}: {told['misses']['all']} of {told['ticks']['all']} ticks missed, "
            f"lateness p99.9 {told['lateness_ms']['all']['p99.9']:.1f} ms, {100 * told['reached']:.1f} % served by an "
            f"answer, {told['successes']}/{told['episodes']} episodes; {told['rungs']}"
        )
    runs = [drive.told() for drive in drives]
    asked = {"task": options.task, "budget": options.budget, "load_s": options.load_s, "worker": options.worker}
    document = {"machine": describe_machine(), **asked, "runs": runs}
    write_whole(Path(options.json), json.dumps(document, indent=1) + "\n")
    draw(drives, Path(options.json).with_suffix(".png"))


if __name__ == "__main__":
    main()
