"""Find the best plan that fits a latency budget on this machine: time plans, judge them, confirm the best in
simulation.

Times every plan at batch 1, compares its answers with the dense sampler's, draws the Pareto front of quality against
p99, plays the best ones that fit, and writes the plan that is chosen. Run again with the same --json, an interrupted
search goes on.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__, accel
from ..diffusion import Plan, save_plan
from ..envs import evaluation_seeds
from ..envs.evaluation import Evaluator, Job
from ..errors import InputError, RunFailed
from ..files import check_place, write_whole
from ..policy import Checkpoint, load_checkpoint, serve
from ..runtime import (
    LatencyBudget,
    WallClock,
    budget_names,
    describe_machine,
    load_budget,
    paired_difference,
    wilson_interval,
)
from ..runtime.statistics import mode_entropy
from .candidates import PLAYER, candidates
from .entry import SAMPLER, played_pairs
from .families import candidate_of, check_device, fingerprint, policy_maker
from .observations import task_of
from .picture import drawn
from .plan_quality import M, answers, energy_distance
from .progress import progress_bar
from .request import unfinished
from .timing import answer_latencies

FORMAT = "ontick-tune-2"
PAIRS = 16  # of control ticks at which answers are compared
EPISODES = 200  # of a plan that is confirmed, and of the dense one on the same seeds
SECONDS = 900.0
TIMING, LEAST, MOST = 0.3, 50, 300  # share of the seconds that timing takes, answers of a plan
MARGIN = 0.05  # "as good as": the low end of the paired interval of success is at most this far below the dense plan's
TELLS = 75  # episodes, below which not even equal outcomes put the interval above the margin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick tune`."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a policy's folder")
    parser.add_argument("--budget", metavar="NAME", help=", ".join(budget_names()))
    parser.add_argument("--period-ms", type=float, metavar="P", help="time of one control tick")
    parser.add_argument("--deadline-ms", type=float, metavar="D", help="time from an observation to its answer")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help="what the search may take, about")
    parser.add_argument("--episodes", type=int, default=EPISODES, metavar="N", help="played of each plan to confirm it")
    parser.add_argument(
        "--plans", metavar="P,P", help="try these, and compare with the first (default: all; with the dense one)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the network runs")
    parser.add_argument("--out", required=True, metavar="PLAN.yaml", help="the plan that is chosen")
    parser.add_argument("--json", metavar="FILE", help="everything measured, and a picture (default: PLAN.json)")


def run(options: argparse.Namespace) -> int:
    """Check everything first, then time, judge, confirm, choose."""
    torch.set_num_threads(1)
    budget = _checked(options)
    checkpoint = load_checkpoint(options.checkpoint, options.device)
    plans = {plan.name: plan for plan in candidates(options.checkpoint, options.plans)}
    clock = WallClock()
    ends_s = clock.now() + options.seconds
    document = _document(options, budget, plans)
    _time(document, checkpoint, plans, budget, options)
    _judge(document, checkpoint, plans, options)
    _confirm(document, options, plans, lambda: clock.now() < ends_s)
    document["front"] = [row["plan"] for row in front(document["rows"])]
    document["chosen"], document["why"] = choose(document["rows"], budget)
    if document["chosen"] is not None:
        save_plan(plans[document["chosen"]], options.out)
    document["complete"] = not document["unplayed"]
    write_whole(options.json, json.dumps(document, indent=1) + "\n")
    _tell(document)
    drawn(lambda path: _draw(document, path), Path(options.json).with_suffix(".png"))
    print(f"json: {options.json}")
    if document["chosen"] is None:
        raise RunFailed(f"no plan fits: {document['why']}; what was measured is in {options.json}")
    print(f"chosen: {document['chosen']}, because {document['why']}: {options.out}")
    if document["unplayed"]:
        print(f"{options.seconds:g} s were over before {document['unplayed']} plans were played; run again to go on")
    return 0


# -- the search -------------------------------------------------------------------------------------------------------


def _time(
    document: dict[str, Any],
    checkpoint: Checkpoint,
    plans: dict[str, Plan],
    budget: LatencyBudget,
    options: argparse.Namespace,
) -> None:
    """Latencies at batch 1 of every plan that has none yet; what cannot run here is noted with the reason."""
    known = {row["plan"] for row in document["rows"]} | set(document["left_out"])
    todo = [plan for name, plan in plans.items() if name not in known]
    with progress_bar(len(todo), "timing", "plan") as bar:
        for plan in todo:
            try:
                policy = serve(checkpoint, plan, 1, partial(accel.build, device=options.device))
            except InputError as error:
                if plan is next(iter(plans.values())):
                    raise InputError(f"{plan.name}, which the others are compared with: {error}") from None
                document["left_out"][plan.name] = str(error)
                bar.update()
                continue
            blank = np.zeros((1, policy.n_obs_steps, policy.observation_dim), np.float32)
            seconds = answer_latencies(policy, blank, TIMING * options.seconds / len(plans), LEAST, MOST)
            p50, p99 = (float(np.percentile(seconds, p, method="inverted_cdf")) for p in (50, budget.percentile))
            document["rows"].append(
                {
                    "plan": plan.name,
                    "p50_ms": p50 * 1e3,
                    "p99_ms": p99 * 1e3,
                    "n": len(seconds),
                    "executed": policy.n_action_steps,
                    "calls": policy.calls_per_chunk,
                    "fits": budget.met(seconds),
                    "backend": policy.backend,
                }
            )
            write_whole(options.json, json.dumps(document, indent=1) + "\n")
            bar.update()


def _judge(
    document: dict[str, Any], checkpoint: Checkpoint, plans: dict[str, Plan], options: argparse.Namespace
) -> None:
    """The energy distance of every plan's answers from the dense one's, and whether that is more than chance puts the
    dense plan's own answers from others of its own: one measure for all, so that none hides behind its own scatter."""
    todo = [row for row in document["rows"] if "error" not in row]
    if not todo:
        return
    with progress_bar(None, "playing", "episode") as bar:
        sampler = PLAYER.get(checkpoint.network.family, SAMPLER)
        pairs = played_pairs(checkpoint, PAIRS, 0, bar.update, sampler)
    before, after = (checkpoint.normaliser.unnormalise("obs", x).cpu().numpy() for x in pairs)
    dense = next(iter(plans.values()))
    threads = torch.get_num_threads()
    torch.set_num_threads(describe_machine()["cores"])  # nothing is timed here

    def answered(plan: Plan, first_seed: int = 0) -> np.ndarray:
        policy = serve(checkpoint, plan, PAIRS * M, partial(accel.build, device=options.device))
        return answers(policy, before, after, first_seed)

    told, itself = answered(dense, 10_000), answered(dense)
    with progress_bar(len(todo), "judging", "plan") as bar:
        for row in todo:
            found = itself if row["plan"] == dense.name else answered(plans[row["plan"]])
            row["error"] = energy_distance(found, told).error
            row["chance"] = energy_distance(itself[:, :, : found.shape[2]], told).resolution
            row["apart"] = row["plan"] != dense.name and not row["error"] <= row["chance"]
            write_whole(options.json, json.dumps(document, indent=1) + "\n")
            bar.update()
    torch.set_num_threads(threads)


def _confirm(
    document: dict[str, Any], options: argparse.Namespace, plans: dict[str, Plan], has_time: Callable[[], bool]
) -> None:
    """Play the dense plan, then the best that fit, on the same seeds: until one is as good as dense, as itself is, or
    the time is over."""
    fitting = sorted((row for row in document["rows"] if row["fits"]), key=merit)
    document["unplayed"] = 0
    if not fitting:
        return
    dense = _row(document, next(iter(plans)))
    with Evaluator(os.cpu_count() or 1) as evaluator:
        for i, row in enumerate((dense, *fitting)):
            if "outcomes" not in row:
                if i > 1 and not has_time():
                    document["unplayed"] = sum("outcomes" not in row for row in fitting)
                    break
                _play(row, document["task"], plans[row["plan"]], evaluator, options)
                write_whole(options.json, json.dumps(document, indent=1) + "\n")
            if row["fits"]:
                row["against_dense"] = paired_difference(dense["outcomes"], row["outcomes"])
            if i and (row is dense or is_good(row)):
                break


def _play(row: dict[str, Any], task: str, plan: Plan, evaluator: Evaluator, options: argparse.Namespace) -> None:
    """Enter the success of a plan, and how it came about."""
    make = policy_maker(candidate_of(plan), Path(options.checkpoint), options.device)
    seeds = tuple(evaluation_seeds(0, options.episodes))
    with progress_bar(len(seeds), f"playing {plan.name}", "episode") as bar:

        def advance(_: Any) -> None:
            bar.update()

        episodes, _ = evaluator.run(Job(task, make, seeds, load_budget("cpu-20hz")), advance)
    modes = [e.mode for e in episodes if e.success and e.mode is not None]
    row["outcomes"] = [bool(e.success) for e in episodes]
    row["successes"], row["episodes"] = sum(row["outcomes"]), len(episodes)
    row["success_low"], row["success_high"] = wilson_interval(row["successes"], len(episodes))
    row["mode_entropy"] = mode_entropy(modes) if modes else None
    row["jerk"] = float(np.mean([e.jerk for e in episodes]))


def _row(document: dict[str, Any], plan: str) -> dict[str, Any]:
    return next(row for row in document["rows"] if row["plan"] == plan)


# -- the choice -------------------------------------------------------------------------------------------------------


def merit(row: dict[str, Any]) -> tuple[float, float]:
    """Smaller is better: the distance from the dense sampler; of those that cannot be told from it, the latency. What
    gives no numbers comes last."""
    error = row["error"] if row["error"] == row["error"] else math.inf
    return (error if row["apart"] else 0.0, row["p99_ms"])


def is_good(row: dict[str, Any]) -> bool:
    """Whether a plan that was played fits and is as good as the dense one."""
    return "against_dense" in row and row["against_dense"][1] > -MARGIN


def front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of which no other is both faster at the percentile and nearer to the dense sampler, fastest first."""
    best, found = float("inf"), []
    for row in sorted(rows, key=lambda row: (row["p99_ms"], merit(row))):
        if (error := merit(row)[0]) < best:
            found.append(row)
            best = error
    return found


def choose(rows: Sequence[dict[str, Any]], budget: LatencyBudget) -> tuple[str | None, str]:
    """The plan, None where none fits, and why: of those that fit and were played, the best whose success is as good as
    the dense plan's; where none is, the one that succeeds most."""
    deadline = f"p{budget.percentile:g} within {budget.deadline_s * 1e3:g} ms"
    if not any(row["fits"] for row in rows):
        fastest = min(rows, key=lambda row: row["p99_ms"])
        return None, f"{deadline} is wanted, and the fastest, {fastest['plan']}, takes {fastest['p99_ms']:.1f} ms"
    played = sorted((row for row in rows if row["fits"] and "against_dense" in row), key=merit)
    if good := [row for row in played if is_good(row)]:
        row = good[0]
        better = played.index(row)
        near = (
            "nearest to the dense sampler" if row["apart"] else "the fastest that cannot be told from the dense sampler"
        )
        but = f" but for {better} that were played and lose success" if better else ""
        told = f"{row['successes']}/{row['episodes']} episodes, as good as dense within {100 * MARGIN:g} points"
        return row["plan"], f"it fits {deadline} with {row['p99_ms']:.1f} ms, is {near}{but}, and {told}"
    row = min(played, key=lambda row: (-row["successes"], *merit(row)))
    told = f"it succeeds most of those that fit {deadline}, {row['successes']}/{row['episodes']}"
    return row["plan"], f"{told}; none is shown to be as good as dense"


# -- before and after -------------------------------------------------------------------------------------------------


def _checked(options: argparse.Namespace) -> LatencyBudget:
    if options.budget is None and options.period_ms is None:
        raise InputError("give --period-ms and --deadline-ms, or a --budget by name")
    if not options.seconds > 0 or options.episodes < 1:
        raise InputError("--seconds and --episodes are numbers above 0")
    if options.episodes < TELLS:
        print(f"--episodes {options.episodes}: fewer than {TELLS} cannot show that a plan is as good as dense")
    if not options.out.endswith((".yaml", ".yml")):
        raise InputError(f"--out {options.out}: wanted the name of a .yaml file")
    options.json = options.json or str(Path(options.out).with_suffix(".json"))
    for place in (options.out, options.json):
        if check_place(place).is_dir():
            raise InputError(f"{place} is a folder, wanted a file to write")
    if Path(options.json).resolve() == Path(options.out).resolve():
        raise InputError(f"--out and --json are one file, {options.out}; give each its own")
    if Path(options.json).suffix == ".png":
        raise InputError(f"--json {options.json}: the picture is written under that name; call the file .json")
    check_device(options.device)
    return load_budget(options.budget, options.period_ms, options.deadline_ms)


def _document(options: argparse.Namespace, budget: LatencyBudget, plans: dict[str, Plan]) -> dict[str, Any]:
    """What was measured before of the same request, or a new one."""
    request = {
        "checkpoint": fingerprint(Path(options.checkpoint)),
        "plans": {name: plan.to_dict() for name, plan in plans.items()},
        "episodes": options.episodes,
        "answers": [PAIRS, M],
        "device": options.device,
        "budget": budget.to_dict(),
        "machine": describe_machine(),
        "version": __version__,
    }
    if document := unfinished(options.json, request, FORMAT):
        print(f"{options.json}: going on after {len(document['rows'])} plans")
        return document
    task = task_of(load_checkpoint(options.checkpoint))
    return {"format": FORMAT, "request": request, "task": task, "complete": False, "rows": [], "left_out": {}}


def _tell(document: dict[str, Any]) -> None:
    """The front and what was played, as a table."""
    shown = [row for row in document["rows"] if row["plan"] in document["front"] or "successes" in row]
    print(f"\n{'plan':24} {'p50 ms':>8} {'p99 ms':>8} {'calls':>6} {'fits':>5} {'error':>8}", end="")
    print(f" {'success':>9} {'modes':>6} front")
    for row in sorted(shown, key=lambda row: row["p99_ms"]):
        played = f"{row['successes']}/{row['episodes']}" if "successes" in row else "-"
        modes = f"{row['mode_entropy']:.2f}" if row.get("mode_entropy") is not None else "-"
        on_it = "*" if row["plan"] in document["front"] else ""
        print(
            f"{row['plan']:24} {row['p50_ms']:8.2f} {row['p99_ms']:8.2f} {row['calls']:6d} "
            f"{'yes' if row['fits'] else 'no':>5} {row['error']:8.4f} {played:>9} {modes:>6} {on_it}"
        )
    print(f"{len(document['rows'])} plans timed, {len(document['left_out'])} cannot run here.")
    print(
        "error: energy distance of the first actions from the dense sampler's, normalised; modes: entropy of the ways"
    )


def _draw(document: dict[str, Any], path: Path) -> None:
    from ..benchmarks.picture import draw_front

    draw_front(document, path)
