"""Time plans side by side on this machine: one answer at batch 1, beside what users run today, at the same weights.

Prints a table, writes a JSON and draws a picture beside it.
"""

import argparse
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import check_place, write_whole
from ..runtime import LatencyTrace, budget_names, describe_machine, load_budget
from .picture import drawn
from .progress import progress_bar

SUITES = {"policy-cpu": ("cpu", "cpu-20hz"), "policy-gpu": ("cuda", "gpu-50hz")}
QUICK_N, FULL_N = 10, 50
LEGEND = """/ peer: p50 as a share of peer-ddpm-100's; below 1 is faster. executed: actions that one answer gives; per
action: p50 by that, and as a share of the peer's. refreshes: how often a block of the network is computed, mean. RMS,
error: RMS and largest difference of the executed actions from the plain network, same solver and noise; actions lie in
[-1, 1]. floor: the weights that are read, at the speed measured here. rti, anchored and diagonal plans are timed in
steady state, the last two on networks that are not trained."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick bench`."""
    parser.add_argument("suite", choices=tuple(SUITES), metavar="SUITE", help=" or ".join(SUITES))
    parser.add_argument("--quick", action="store_true", help=f"published shape alone, {QUICK_N} answers, no p99")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of every row")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where (default: the suite's)")
    parser.add_argument("--budget", metavar="NAME", help=f"{', '.join(budget_names())} (default: the suite's)")
    parser.add_argument("--n", type=int, metavar="N", help=f"answers a row (default: {FULL_N}, quick {QUICK_N})")
    parser.add_argument("--cases", metavar="C,C", help="published, large (default: both; quick: published)")
    parser.add_argument("--plans", metavar="P,P", help="these rows beside the peers (default: the suite's)")
    parser.add_argument("--json", required=True, metavar="FILE", help="write everything measured; FILE.png is drawn")


def run(options: argparse.Namespace) -> int:
    """Check everything first, then measure case by case."""
    from ..benchmarks.policy import compared, rows_of, run_case

    suite_device, suite_budget = SUITES[options.suite]
    device = torch.device(options.device or suite_device)
    _check(options, device, suite_device)
    budget = load_budget(options.budget or suite_budget)
    torch.set_num_threads(options.threads)
    n = options.n or (QUICK_N if options.quick else FULL_N)
    document: dict[str, Any] = {
        "format": "ontick-bench-1",
        "suite": options.suite,
        "machine": {**describe_machine(), "device": _device_name(device), "packages": _packages()},
        "budget": budget.to_dict(),
        "floors": {},
        "left_out": {},
        "rows": [],
    }
    rows = {case: _rows(options, case) for case in _cases(options)}
    with torch.inference_mode():
        for case in rows:
            names = rows[case] or rows_of(options.suite, case, options.quick)
            with progress_bar(n + 1, f"{options.suite} {case}", "round") as bar:
                chunks = compared(case, options.quick)
                result = run_case(case, names, budget, device, n, bar.update, chunks)
            document["rows"] += result.pop("rows")
            document["left_out"][case] = result.pop("left_out")
            document["floors"][case] = result
            write_whole(options.json, json.dumps(document, indent=1) + "\n")
    print_rows(document)
    for case, left_out in document["left_out"].items():
        for plan, reason in left_out.items():
            print(f"{case} {plan} is left out: {reason}")
    for row in document["rows"]:
        if row.get("gate"):
            calls, waits = row["gate"]["calls"], row["gate"]["host_syncs"]
            print(f"{row['case']} {row['plan']}: {calls:.1f} calls and {waits:.1f} waits of the host a chunk, mean")
    print(f"json: {options.json}")
    for case in rows:
        recorded = {row["plan"]: row["samples_ms"] for row in document["rows"] if row["case"] == case}
        path = trace_file(options.json, case)
        LatencyTrace(document["machine"], recorded).save(path)
        print(f"latency trace of {case} (for evaluate --charge): {path}")
    drawn(lambda path: _draw(document, path), Path(options.json).with_suffix(".png"))
    return 0


def trace_file(path: str, case: str) -> Path:
    """Where the latencies of a case are written, beside the JSON."""
    return Path(path).with_suffix(f".{case}.trace.json")


def print_rows(document: dict[str, Any]) -> None:
    """One line a row, and what the columns mean."""
    head = ("case", "plan", "backend", "precision", "p50 ms", "p99 ms", "/ peer")
    head += ("executed", "per action ms", "/ peer per action", "refreshes", "RMS", "error")
    head += ("GFLOP", "read GB", "floor ms", "peak MB", "budget")
    lines = [head, *(_cells(row) for row in document["rows"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for i, line in enumerate(lines):
        cells = [c.ljust(w) if j < 4 else c.rjust(w) for j, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells).rstrip())
        if i == 0:
            print("  ".join("-" * w for w in widths))
    machine, budget = document["machine"], document["budget"]
    n = document["rows"][0]["ms"]["n"]
    print(f"\n{machine['device']}, {machine['threads']} threads; one answer at batch 1, n = {n} a row, taken in turn.")
    print(LEGEND + f" budget {budget['name']}: p{budget['percentile']:g} within {budget['deadline_ms']:g} ms.")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ms, peak = row["ms"], row["peak_bytes"]
    return (
        row["case"],
        row["plan"],
        row["backend"],
        row["precision"],
        f"{ms['p50']:.1f}",
        _or_dash(ms["p99"], ".1f"),
        f"{row['ratio_to_peer']:.3f}",
        _or_dash(row.get("executed"), "d"),
        _or_dash(row.get("per_action_ms"), ".2f"),
        _or_dash(row.get("per_action_ratio_to_peer"), ".3f"),
        _or_dash(row["refreshes"], ".1f"),
        _or_dash(row["action_rms"], ".1e"),
        _or_dash(row["action_error"], ".1e"),
        f"{row['flops'] * 1e-9:.2f}",
        f"{row['bytes_read'] * 1e-9:.2f}",
        f"{row['bytes_floor_ms']:.1f}",
        "-" if peak is None else f"{peak * 1e-6:.0f}",
        "met" if row["budget"]["met"] else "missed",
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


# -- checks -----------------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace, device: torch.device, suite_device: str) -> None:
    if device.type != suite_device:
        raise InputError(f"suite {options.suite} is for {suite_device}, got --device {device.type}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("suite policy-gpu needs a CUDA device and torch sees none; policy-cpu runs here")
    if options.threads < 1 or (options.n is not None and options.n < 1):
        raise InputError("--threads and --n are whole numbers from 1")
    if importlib.util.find_spec("diffusers") is None:
        raise InputError(
            "the peers need the package diffusers, and every row is told against them: pip install diffusers"
        )
    if check_place(options.json).is_dir():
        raise InputError(f"{options.json} is a folder, wanted a file to write")
    if Path(options.json).suffix == ".png":
        raise InputError(f"--json {options.json}: the picture is written under that name; call the file .json")


def _rows(options: argparse.Namespace, case: str) -> tuple[str, ...]:
    """Those of --plans, checked, after the peers; empty where it was not given."""
    from ..benchmarks.policy import PEERS, plan_of

    names = [name.strip() for name in (options.plans or "").split(",") if name.strip()]
    if options.plans is not None and not names:
        raise InputError("--plans is empty; wanted one or more names, separated by commas")
    if len(set(names)) < len(names):
        raise InputError(f"--plans {options.plans} names something twice")
    calibrated = [n for n in names if n not in PEERS and "schedule" in plan_of(n).accelerators.get("cache", {})]
    if case == "large" and options.cases is not None and calibrated:
        raise InputError(f"--plans {calibrated[0]}: nothing is calibrated for the random weights of case large")
    if case == "large":
        names = [name for name in names if name not in calibrated]
    return (*PEERS, *(name for name in names if name not in PEERS)) if names else ()


def _cases(options: argparse.Namespace) -> list[str]:
    from ..benchmarks.policy import CASES

    if options.cases is None:
        return ["published"] if options.quick else list(CASES)
    cases = [case.strip() for case in options.cases.split(",") if case.strip()]
    unknown = [case for case in cases if case not in CASES]
    if unknown or not cases or (options.quick and cases != ["published"]):
        wanted = "published (--quick has no other)" if options.quick else ", ".join(CASES)
        raise InputError(f"--cases {options.cases}: wanted {wanted}")
    return cases


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else describe_machine()["cpu"]


def _packages() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in ("torch", "diffusers", "openvino", "numpy", "triton"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _draw(document: dict[str, Any], path: Path) -> None:
    from ..benchmarks.picture import draw_bench

    draw_bench(document, path)
