"""Run policies in simulation, closed loop: every plan on the same seeds, judged by success and by the clock.

Prints a table; writes a JSON of all of it and, if asked, a self-contained HTML page. Run again with the same --json,
an interrupted evaluation goes on after its last finished row.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import __version__
from ..diffusion import known_plans
from ..envs import evaluation_seeds, find_task
from ..envs.disturbances import Disturbance
from ..envs.episodes import Episode
from ..envs.evaluation import LANES, Evaluator, Job
from ..files import write_whole
from ..runtime import (
    LATE,
    STITCHES,
    LatencyBudget,
    LatencyTrace,
    Ledger,
    Policy,
    budget_names,
    describe_machine,
    measure_latency,
    wilson_interval,
    write_report,
)
from ..runtime.statistics import mode_entropy, mode_entropy_interval
from .action_error import action_error
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
    unfinished,
)
from .table import print_table

TIMING_SECONDS, TIMING_LEAST, TIMING_MOST = 8.0, 30, 300
COMPARED = 16  # episodes whose beginnings are answered to time a plan and to compare it with the dense one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick evaluate`."""
    parser.add_argument("--tasks", required=True, metavar="T,T", help="task ids, such as metaworld/pick-place-v3")
    plans = f"{', '.join(known_plans())}, plan files, robomimic-bc, robomimic-bc-rnn"
    parser.add_argument("--plans", required=True, metavar="P,P", help=plans)
    parser.add_argument("--checkpoint", metavar="DIR", help="policy to run (default: the one shipped for the task)")
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
    import torch

    torch.set_num_threads(1)  # the timed policy runs as the workers' do
    budget, entries, disturbance = budget_of(options), entries_of(options), disturbance_of(options)
    trace = trace_of(options)
    for entry in entries:  # a plan that the checkpoint cannot run is told before anything is played
        entry.maker([0.0] * len(entry.rungs))(1)
        if trace is not None:
            _all_recorded(trace, entry)
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
    with Evaluator(options.workers) as evaluator:
        for entry in (entry for entry in entries if entry.key not in done):
            timing = Ledger()
            policies = [make(1) for make in entry.makers]
            windows = _first_windows(entry, policies[0], seeds)
            if trace is None:
                ledgers = [timing, *(Ledger() for _ in policies[1:])]  # a ladder is told by its top rung
                samples_s = [
                    _measure(policy, windows, budget, ledger) for policy, ledger in zip(policies, ledgers, strict=True)
                ]
            else:
                samples_s = _all_recorded(trace, entry)
            job = job_of(options, entry, seeds, samples_s, budget, disturbance)
            # before anything is played: a plan that gives NaN ends here
            changed = _accelerated(policies[0], windows)
            row = _play_row(evaluator, job, entry, samples_s, timing)
            document["rows"].append({**row, "backend": getattr(policies[0], "backend", None), **changed})
            _write(options.json, document)
    _finish(options, document, entries[0], budget, disturbance)
    document["complete"] = True  # last: what fails before is taken up again, without playing anew
    _write(options.json, document)
    print(f"json: {options.json}")
    return 0


# -- a row ------------------------------------------------------------------------------------------------------------


def _all_recorded(trace: LatencyTrace, entry: Entry) -> list[np.ndarray]:
    """The trace's latencies [s] of a row's rungs: recorded for the task and plan, or for the plan."""
    names = [(f"{entry.task} {rung.name}", rung.name) for rung in entry.rungs]
    return [trace.latencies_s(both if both in trace.latency_ms else alone) for both, alone in names]


def _first_windows(entry: Entry, policy: Policy, seeds: list[int]) -> np.ndarray:
    """[n, To, Do]: how the first of the evaluated episodes begin."""
    env = find_task(entry.task).make()
    first = [np.asarray(env.reset(seed=seed)[0], np.float32) for seed in seeds[:COMPARED]]
    env.close()
    return np.repeat(np.stack(first)[:, None], policy.n_obs_steps, 1)


def _measure(policy: Policy, windows: np.ndarray, budget: LatencyBudget, ledger: Ledger) -> np.ndarray:
    """Batch-1 latencies of whole chunks [s]; to the microsecond, as a trace keeps them, so that a run charged now and
    one charged from its trace are equal."""
    policy.reset([0], [0])
    following = itertools.cycle(windows[:, None])

    def answer() -> None:
        policy.predict_action_chunk(next(following), [0])

    once = float(np.median(measure_latency(answer, n=3, warmup=2)))
    n = int(np.clip(TIMING_SECONDS / max(once, 1e-6), TIMING_LEAST, TIMING_MOST))
    return np.round(measure_latency(answer, n=n, warmup=2, ledger=ledger, budget=budget) * 1e3, 3) * 1e-3


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
        "rungs": _rungs_told(episodes, entry),
        "seam_jump_max": max(e.seam_jump_max for e in episodes),
        "jerk": float(np.mean([e.jerk for e in episodes])),
        **modes_told(episodes, entry),
        "clearance_mm": clearance_told(episodes),
        "ledger": played.to_dict(),
    }


def _rungs_told(episodes: Sequence[Episode], entry: Entry) -> dict[str, int]:
    """Ticks by the plan whose answer was played; "rest": by none, the rest of the one before or a held action."""
    total = sum((Counter(e.rungs) for e in episodes), Counter())
    names = [rung.name for rung in entry.rungs]
    if len(names) == 1:
        answers = sum(e.counts["answers"] for e in episodes)
        total = Counter({names[0]: answers, "rest": sum(e.steps for e in episodes) - answers})
    return {name: total[name] for name in (*names, "rest")}


def modes_told(episodes: Sequence[Episode], entry: Entry) -> dict[str, Any]:
    """Which modes were taken, beside those of the demonstrations; None for what the task or checkpoint does not tell.

    Entropies [nats] are over successful episodes: a failed one may have ended before its mode was decided.
    """
    told = any(e.mode is not None for e in episodes)
    taken = [e.mode for e in episodes if e.success and e.mode is not None]
    shown = entry.demonstrated_modes
    return {
        "modes": [e.mode for e in episodes] if told else None,
        "mode_entropy": mode_entropy(taken) if taken else None,
        "mode_entropy_interval": mode_entropy_interval(taken) if taken else None,
        "demonstrations_mode_entropy": mode_entropy(shown) if shown else None,
        "demonstrations_modes": dict(sorted(Counter(shown).items())) or None,
    }


def clearance_told(episodes: Sequence[Episode]) -> dict[str, float] | None:
    """Median and 5th percentile over episodes, failed ones included, of the least gap to an obstacle."""
    gaps_mm = [e.clearance_m * 1e3 for e in episodes if e.clearance_m is not None]
    return {"median": float(np.median(gaps_mm)), "p5": float(np.percentile(gaps_mm, 5))} if gaps_mm else None


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
            plan if one_task else f"{row['task']} {plan}": latency_ms
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
