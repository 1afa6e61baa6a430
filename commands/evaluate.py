"""Run policies in simulation, closed loop: every plan on the same seeds, judged by success and by the clock.

Prints a table; writes a JSON of all of it and, if asked, a self-contained HTML page. Run again with the same --json,
an interrupted evaluation goes on after its last finished row.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import __version__
from ..diffusion import known_plans
from ..envs import evaluation_seeds, find_task
from ..envs.disturbances import Disturbance
from ..envs.evaluation import LANES, Evaluator, Job
from ..errors import InputError
from ..files import write_whole
from ..runtime import (
    LATE,
    STITCHES,
    LatencyBudget,
    LatencyTrace,
    Ledger,
    Policy,
    budget_names,
    can_inpaint,
    describe_machine,
    wilson_interval,
    write_report,
)
from .action_error import action_error
from .convert import in_place
from .families import DEFAULT_PLAN, default_plan
from .film import film_episode
from .progress import progress_bar
from .request import (
    DEFAULT_BUDGET,
    FORMAT,
    Entry,
    budget_of,
    disturbance_of,
    entries_of,
    job_of,
    request_of,
    shipped_traces,
    trace_file,
    trace_of,
    traced_name,
    unfinished,
)
from .table import print_table
from .timing import answer_latencies, stage_latencies
from .told import clearance_told, coverage_told, modes_told, other_versions_told, rungs_told

TIMING_SECONDS, TIMING_LEAST, TIMING_MOST = 8.0, 30, 300
COMPARED = 16  # episodes whose beginnings are answered to time a plan and to compare it with the dense one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick evaluate`."""
    parser.add_argument("--tasks", required=True, metavar="T,T", help="task ids, such as metaworld/pick-place-v3")
    plans = f"{', '.join(known_plans())}, plan files, robomimic-bc, robomimic-bc-rnn"
    default = f"default: {DEFAULT_PLAN}, or what suits the checkpoint"
    parser.add_argument("--plans", metavar="P,P", help=f"{plans} ({default})")
    default = "default: the one shipped for the task"
    given = "policy to run: a folder of `ontick train`, or what `ontick convert` reads"
    parser.add_argument("--checkpoint", metavar="PATH", help=f"{given} ({default})")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="episodes a row")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="base of the episodes' seeds")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes; any number, same result")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where diffusion policies run")
    parser.add_argument("--budget", metavar="NAME", help=f"{', '.join(budget_names())} (default: {DEFAULT_BUDGET})")
    parser.add_argument("--period-ms", type=float, help="time of one control tick: one environment step")
    parser.add_argument("--deadline-ms", type=float, help="time from an observation to its answer")
    parser.add_argument(
        "--charge",
        metavar="measured|TRACE",
        help="let the world move on while inference runs, by these latencies: a file, or "
        f"{', '.join(shipped_traces())}",
    )
    parser.add_argument(
        "--disturb", metavar="D,D", help="push[=METRES], delay[=STEPS], drop[=PROBABILITY]: in every episode"
    )
    parser.add_argument("--delay-ticks", type=int, metavar="D", help="every answer takes D ticks, in place of --charge")
    parser.add_argument(
        "--stitch",
        choices=STITCHES,
        help="inference beside execution, and how answers join (default: one after another)",
    )
    parser.add_argument("--late", choices=LATE, default="play", help="what is done while an answer is overdue")
    parser.add_argument("--html", metavar="FILE", help="write a self-contained report page")
    default = "runs/evaluation-ID.json, ID told by what was asked for"
    parser.add_argument("--json", metavar="FILE", help=f"write everything measured (default: {default})")


def run(options: argparse.Namespace) -> int:
    """Check everything first, then evaluate row by row."""
    with in_place(options.checkpoint, options.tasks.split(",")) as options.checkpoint:
        if options.plans is None:
            options.plans = default_plan(options.checkpoint)
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(1)  # the timed policy runs as the workers' do
    budget, entries, disturbance = budget_of(options), entries_of(options), disturbance_of(options)
    trace = trace_of(options)
    for entry in entries:  # a plan that the checkpoint cannot run is told before anything is played
        policy = entry.maker([0.0] * len(entry.rungs))(1)
        if options.stitch == "inpaint" and not can_inpaint(policy):
            raise InputError(f"{entry.name} cannot be told what was played; use --stitch blend or replace with it")
        if trace is not None:
            _recorded(trace, entry, options)
    for line in other_versions_told(entries):
        print(line)
    seeds = evaluation_seeds(options.seed, options.episodes)
    request = request_of(options, entries, budget, trace, disturbance)
    document = unfinished(options.json, request) or {
        "format": FORMAT,
        "version": __version__,
        "request": request,
        "complete": False,
        "machine": describe_machine(),
        "budget": budget.to_dict(),
        "rows": [],
    }
    done = {(row["task"], row["plan"]) for row in document["rows"]}
    if done:
        print(f"{options.json}: going on after {len(done)} finished rows")
    known = {(row["task"], plan): ms for row in document["rows"] for plan, ms in row["latency_ms_by_rung"].items()}
    with Evaluator(options.workers) as evaluator:
        for entry in (entry for entry in entries if entry.key not in done):
            timing = Ledger()
            policies = [make(1) for make in entry.makers]
            windows = _first_windows(entry, policies[0], seeds)
            if trace is None:
                samples_s = _measured(options, entry, policies, windows, known, budget, timing)
            else:
                samples_s = _recorded(trace, entry, options)
            job = job_of(options, entry, seeds, samples_s, budget, disturbance)
            # before anything is played: a plan that gives NaN ends here
            changed = _accelerated(policies[0], windows)
            n = len(samples_s[0]) if trace is None else TIMING_LEAST
            stages = {"stages_ms": stage_latencies(policies[0], windows, n)}
            row = _play_row(evaluator, job, entry, samples_s, timing)
            document["rows"].append({**row, "backend": getattr(policies[0], "backend", None), **changed, **stages})
            _write(options.json, document)
    _finish(options, document, entries[0], budget, disturbance)
    document["complete"] = True  # last: what fails before is taken up again, without playing anew
    _write(options.json, document)
    print(f"json: {options.json}")
    return 0


# -- a row ------------------------------------------------------------------------------------------------------------


def _recorded(trace: LatencyTrace, entry: Entry, options: argparse.Namespace) -> list[np.ndarray]:
    """The trace's latencies [s] of a row's rungs: recorded for the task and plan, or for the plan."""
    names = [traced_name(rung.name, options) for rung in entry.rungs]
    both = [f"{entry.task} {name}" for name in names]
    return [trace.latencies_s(b if b in trace.latency_ms else name) for b, name in zip(both, names, strict=True)]


def _measured(
    options: argparse.Namespace,
    entry: Entry,
    policies: Sequence[Policy],
    windows: np.ndarray,
    known: dict[tuple[str, str], list[float]],
    budget: LatencyBudget,
    ledger: Ledger,
) -> list[np.ndarray]:
    """Latencies [s] of a row's rungs: each plan of a task is measured once, and then `known`. The ledger is told of the
    top rung's."""
    for rung, policy in zip(entry.rungs, policies, strict=True):
        if (entry.task, rung.name) not in known:
            how = (TIMING_SECONDS, TIMING_LEAST, TIMING_MOST, options.stitch == "inpaint")
            known[entry.task, rung.name] = (answer_latencies(policy, windows, *how) * 1e3).round(3).tolist()
    samples_s = [np.array(known[entry.task, rung.name]) * 1e-3 for rung in entry.rungs]
    for latency_s in samples_s[0].tolist():
        ledger.record("chunk", latency_s)
        ledger.record("lateness", max(0.0, latency_s - budget.deadline_s))
        if latency_s > budget.deadline_s:
            ledger.miss("chunk")
    return samples_s


def _first_windows(entry: Entry, policy: Policy, seeds: list[int]) -> np.ndarray:
    """[n, To, Do]: how the first of the evaluated episodes begin."""
    env = find_task(entry.task).make()
    first = [np.asarray(env.reset(seed=seed)[0], np.float32) for seed in seeds[:COMPARED]]
    env.close()
    return np.repeat(np.stack(first)[:, None], policy.n_obs_steps, 1)


def _accelerated(policy: Policy, windows: np.ndarray) -> dict[str, Any]:
    """How often a block is computed in a chunk, and what that changed; None for a baseline."""
    error = action_error(policy, windows)
    refreshes = None if error is None else policy.refreshes  # type: ignore[attr-defined]
    return {
        "refreshes": refreshes,
        "action_error": None if error is None else error["largest"],
        "action_rms": None if error is None else error["rms"],
    }


def _play_row(
    evaluator: Evaluator, job: Job, entry: Entry, samples_s: Sequence[np.ndarray], timing: Ledger
) -> dict[str, Any]:
    """Play a row's episodes and put together all that is reported of it."""
    successes = 0
    with progress_bar(len(job.seeds), " ".join(entry.key), "episode") as bar:

        def advance(episode: Any) -> None:
            nonlocal successes
            successes += episode.success
            bar.update()
            bar.set_postfix_str(f"{successes} succeeded", refresh=False)

        episodes, played = evaluator.run(job, advance)
    charged = not job.charges[0].is_free
    clock = played if charged else timing  # whose answers were judged
    low, high = wilson_interval(successes, len(episodes))
    actions = sum(e.counts["answers"] + e.counts["rest"] for e in episodes)
    return {
        "task": job.task,
        "plan": entry.name,
        "disturb": str(job.disturbance) or None,
        "episodes": len(episodes),
        "successes": successes,
        "success_low": low,
        "success_high": high,
        "outcomes": [bool(e.success) for e in episodes],
        "seeds": [e.seed for e in episodes],
        "steps": [e.steps for e in episodes],
        "calls_per_action": sum(e.counts["network_calls"] for e in episodes) / max(1, actions),
        "answers_per_action": sum(e.counts["chunks"] for e in episodes) / max(1, actions),
        "chunk_ms": clock.summary()["stages_ms"]["chunk"],
        "latency_ms": np.round(samples_s[0] * 1e3, 3).tolist(),
        "latency_ms_by_rung": {
            rung.name: np.round(s * 1e3, 3).tolist() for rung, s in zip(entry.rungs, samples_s, strict=True)
        },
        "judged_by": job.charges[0].told if charged else "latencies measured at batch 1",
        "deadline_ms": job.budget.deadline_s * 1e3,
        "met": job.budget.met(clock.stage("chunk")),
        "misses": clock.counter("misses"),
        "starved": sum(e.counts["starved"] for e in episodes),
        "rest": sum(e.counts["rest"] for e in episodes),
        "dropped": sum(e.counts["dropped"] for e in episodes),
        "rungs": rungs_told(episodes, entry),
        "seam_jump_max": max(e.seam_jump_max for e in episodes),
        "jerk": float(np.mean([e.jerk for e in episodes])),
        **modes_told(episodes, entry),
        "clearance_mm": clearance_told(episodes),
        "max_coverage": coverage_told(episodes),
        "ledger": played.to_dict(),
    }


# -- after ------------------------------------------------------------------------------------------------------------


def _finish(
    options: argparse.Namespace,
    document: dict[str, Any],
    filmed: Entry,
    budget: LatencyBudget,
    disturbance: Disturbance,
) -> None:
    """Print the table, write the page and the trace, and say where they are."""
    rows = document["rows"]
    print_table(rows, budget)
    if options.charge == "measured":
        one_task = len({row["task"] for row in rows}) == 1
        path = trace_file(options)
        recorded = {
            traced_name(plan, options) if one_task else f"{row['task']} {traced_name(plan, options)}": latency_ms
            for row in rows
            for plan, latency_ms in row["latency_ms_by_rung"].items()
        }
        LatencyTrace(document["machine"], recorded).save(path)
        print(f"latency trace (repeat this run with --charge): {path}")
    if options.html:
        row = next(row for row in rows if (row["task"], row["plan"]) == filmed.key)
        samples_s = [np.array(latency_ms) * 1e-3 for latency_ms in row["latency_ms_by_rung"].values()]
        job = job_of(options, filmed, row["seeds"][:1], samples_s, budget, disturbance)
        video, note = film_episode(job, filmed.name, LANES)
        write_report(options.html, document, video=video, note=note)
        print(f"report: {options.html}")


def _write(path: str, document: dict[str, Any]) -> None:
    write_whole(path, json.dumps(document, indent=1) + "\n")
