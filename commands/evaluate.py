"""Run policies in simulation, closed loop: every plan on the same seeds, judged by success and by the clock.

Prints a table; writes a JSON of all of it and, if asked, a self-contained HTML page. Run again with the same --json,
an interrupted evaluation goes on after its last finished row.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..envs import evaluation_seeds, find_task
from ..envs.evaluation import Evaluator, Job
from ..errors import InputError
from ..files import write_whole
from ..runtime import (
    Charge,
    LatencyBudget,
    LatencyTrace,
    Ledger,
    budget_names,
    describe_machine,
    load_budget,
    measure_latency,
    wilson_interval,
    write_report,
)
from .families import Candidate, checkpoint_for, parse_candidate, policy_maker
from .progress import progress_bar
from .table import print_table

FORMAT = "ontick-evaluation-1"
DEFAULT_BUDGET = "cpu-20hz"
TIMING_SECONDS, TIMING_LEAST, TIMING_MOST = 8.0, 30, 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick evaluate`."""
    parser.add_argument("--tasks", required=True, metavar="T,T", help="task ids, such as metaworld/pick-place-v3")
    parser.add_argument(
        "--plans", required=True, metavar="P,P", help="ddpm-K, ddim-K, dpmpp-K, unipc-K, plan files, robomimic-bc"
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="policy to run (default: the one shipped for the task)")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="episodes a row")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="base of the episodes' seeds")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes; any number, same result")
    parser.add_argument("--budget", metavar="NAME", help=f"{', '.join(budget_names())} (default: {DEFAULT_BUDGET})")
    parser.add_argument("--period-ms", type=float, help="time of one control tick: one environment step")
    parser.add_argument("--deadline-ms", type=float, help="time from an observation to its answer")
    parser.add_argument(
        "--charge", metavar="measured|TRACE", help="let the world move on while inference runs, by these latencies"
    )
    parser.add_argument("--html", metavar="FILE", help="write a self-contained report page")
    parser.add_argument("--json", required=True, metavar="FILE", help="write everything measured")


def run(options: argparse.Namespace) -> int:
    """Check everything first, then evaluate row by row."""
    import torch

    torch.set_num_threads(1)  # the timed policy runs as the workers' do
    request = _request(options)
    budget = _budget(options)
    rows = [(task, parse_candidate(plan)) for task in request["tasks"] for plan in request["plans"]]
    trace = None if options.charge in (None, "measured") else LatencyTrace.load(options.charge)
    makers = {(t, c.name): policy_maker(c, checkpoint_for(t, c, options.checkpoint)) for t, c in rows}
    for task, candidate in rows:
        makers[task, candidate.name](1)  # a plan that the checkpoint cannot run is told before anything is played
        if trace is not None:
            trace.latencies_s(candidate.name)
    seeds = evaluation_seeds(options.seed, options.episodes)
    document = _resumed(options.json, request) or {
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
    measured: dict[str, list[float]] = {}
    with Evaluator(options.workers) as evaluator:
        for task, candidate in rows:
            if (task, candidate.name) in done:
                continue
            maker = makers[task, candidate.name]
            samples_s, ledger = _measure(task, maker, seeds, budget)
            measured[candidate.name] = (samples_s * 1e3).tolist()
            charge = Charge.none()
            if options.charge == "measured":
                charge = Charge(samples_s)
            elif trace is not None:
                charge = Charge.from_trace(trace, candidate.name)
            job = Job(task, maker, tuple(seeds), budget, charge)
            row = _play_row(evaluator, job, candidate, samples_s, ledger)
            document["rows"].append(row)
            _write(options.json, document)
    document["complete"] = True
    document["rows"].sort(key=lambda row: [(t, c.name) for t, c in rows].index((row["task"], row["plan"])))
    _write(options.json, document)
    _finish(options, document, makers, seeds, budget, measured)
    return 0


# -- before -----------------------------------------------------------------------------------------------------------


def _request(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, checked: two runs with equal requests are one evaluation."""
    tasks, plans = _names("--tasks", options.tasks), _names("--plans", options.plans)
    for task in tasks:
        find_task(task)
    if options.episodes < 1:
        raise InputError(f"--episodes is {options.episodes}, wanted at least 1")
    if options.workers < 1:
        raise InputError(f"--workers is {options.workers}, wanted at least 1")
    for path in filter(None, (options.json, options.html)):
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder, wanted a file to write")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    return {
        "tasks": tasks,
        "plans": plans,
        "checkpoint": options.checkpoint,
        "episodes": options.episodes,
        "seed": options.seed,
        "budget": _budget(options).to_dict(),
        "charge": options.charge,
    }


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option} is empty; wanted one or more names, separated by commas")
    if len(set(names)) < len(names):
        raise InputError(f"{option} {text} names something twice")
    return names


def _budget(options: argparse.Namespace) -> LatencyBudget:
    name = options.budget
    if name is None and options.period_ms is None:
        name = DEFAULT_BUDGET
    return load_budget(name, options.period_ms, options.deadline_ms)


def _resumed(path: str, request: dict[str, Any]) -> dict[str, Any] | None:
    """The unfinished document of the same request at `path`, if there is one."""
    if not Path(path).is_file():
        return None
    try:
        document = json.loads(Path(path).read_text())
    except ValueError:
        return None
    same = isinstance(document, dict) and document.get("format") == FORMAT and document.get("request") == request
    return document if same and not document.get("complete") else None


# -- a row ------------------------------------------------------------------------------------------------------------


def _measure(task_id: str, maker: Any, seeds: list[int], budget: LatencyBudget) -> tuple[np.ndarray, Ledger]:
    """Batch-1 latencies of whole chunks [s] on first observations of the evaluated episodes."""
    policy, env = maker(1), find_task(task_id).make()
    windows = []
    for seed in seeds[:8]:
        observation, _ = env.reset(seed=seed)
        windows.append(np.repeat(np.asarray(observation, np.float32)[None, None], policy.n_obs_steps, 1))
    env.close()
    policy.reset([0], [seeds[0]])
    state = {"i": 0}

    def answer() -> None:
        state["i"] += 1
        policy.predict_action_chunk(windows[state["i"] % len(windows)], [0])

    ledger = Ledger()
    once = float(np.median(measure_latency(answer, n=3, warmup=2)))
    n = int(np.clip(TIMING_SECONDS / max(once, 1e-6), TIMING_LEAST, TIMING_MOST))
    return measure_latency(answer, n=n, warmup=2, ledger=ledger, budget=budget), ledger


def _play_row(
    evaluator: Evaluator, job: Job, candidate: Candidate, samples_s: np.ndarray, timing: Ledger
) -> dict[str, Any]:
    """Play a row's episodes and put together all that is reported of it."""
    successes = 0
    with progress_bar(len(job.seeds), f"{job.task} {candidate.name}", "episode") as bar:

        def advance(episode: Any) -> None:
            nonlocal successes
            successes += episode.success
            bar.update()
            bar.set_postfix_str(f"{successes} succeeded")

        episodes, played = evaluator.run(job, advance)
    charged = not job.charge.is_free
    clock = played if charged else timing  # whose answers were judged
    low, high = wilson_interval(successes, len(episodes))
    actions = sum(e.counts["answers"] + e.counts["rest"] for e in episodes)
    return {
        "task": job.task,
        "plan": candidate.name,
        "episodes": len(episodes),
        "successes": successes,
        "success_low": low,
        "success_high": high,
        "outcomes": [bool(e.success) for e in episodes],
        "seeds": [e.seed for e in episodes],
        "steps": [e.steps for e in episodes],
        "calls_per_action": sum(e.counts["network_calls"] for e in episodes) / max(1, actions),
        "chunk_ms": clock.summary()["stages_ms"]["chunk"],
        "latency_ms": [round(s * 1e3, 4) for s in samples_s],
        "latency_is": "charged" if charged else "measured at batch 1",
        "deadline_ms": job.budget.deadline_s * 1e3,
        "met": job.budget.met(clock.stage("chunk")),
        "misses": clock.counter("misses"),
        "starved": sum(e.counts["starved"] for e in episodes),
        "rest": sum(e.counts["rest"] for e in episodes),
        "jerk": float(np.mean([e.jerk for e in episodes])),
        "ledger": played.to_dict(),
    }


# -- after ------------------------------------------------------------------------------------------------------------


def _finish(
    options: argparse.Namespace,
    document: dict[str, Any],
    makers: dict[tuple[str, str], Any],
    seeds: list[int],
    budget: LatencyBudget,
    measured: dict[str, list[float]],
) -> None:
    """Print the table, write the page and the trace, and say where they are."""
    print_table(document["rows"], budget)
    if options.charge == "measured" and measured:
        path = Path(options.json).with_suffix(".trace.json")
        LatencyTrace(describe_machine(), measured).save(path)
        print(f"latency trace (repeat this run with --charge): {path}")
    if options.html:
        from .film import film_episode

        row = document["rows"][0]
        video, note = film_episode(row["task"], makers[row["task"], row["plan"]], seeds[0], budget, row["plan"])
        write_report(options.html, document, video=video, note=note)
        print(f"report: {options.html}")
    print(f"json: {options.json}")


def _write(path: str, document: dict[str, Any]) -> None:
    write_whole(path, json.dumps(document, indent=1) + "\n")
