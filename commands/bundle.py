"""Pack a policy for a robot's PC: weights, plans, schedules, the robot's limits and what each plan costs here.

    ontick bundle assets/anchored-decoder/ontick-Avoid-v0 --plan exact-anchored-2+exact-anchored-1 --out runs/avoid
    ontick serve runs/avoid            ontick drive sim --policy runs/avoid

A bundle is a folder: bundle.json, checkpoint/ and trace.json, the latencies that its plans were measured to have, which
`ontick evaluate --charge` takes. Nothing in it is pickled.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..diffusion import Plan, load_plan
from ..errors import InputError
from ..files import check_place, whole
from ..policy import read_config
from ..runtime import LatencyTrace, budget_names, describe_machine, load_budget
from .families import candidate_of, fingerprint, policy_maker, with_schedule_of
from .robot_terms import RobotTerms, terms_of
from .timing import answer_latencies

FORMAT = "ontick-bundle-1"
FILE, TRACE, CHECKPOINT = "bundle.json", "trace.json", "checkpoint"
LADDER = "+"
SECONDS, LEAST, MOST = 4.0, 30, 200  # of timing, a plan


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle. plans: the rungs, dearest first; costs_s: what each cost on `machine`, at the budget's
    percentile; terms: of the robot that it was packed for."""

    checkpoint: Path
    plans: tuple[Plan, ...]
    costs_s: tuple[float, ...]
    budget: str
    machine: dict[str, Any]
    terms: RobotTerms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick bundle`."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint folder")
    parser.add_argument(
        "--plan", required=True, help="a plan's name or YAML; a ladder joins several by +, dearest first"
    )
    parser.add_argument("--robot", default="sim", metavar="sim|FILE.yaml", help="the robot that it is for")
    parser.add_argument(
        "--budget", default="cpu-20hz", help=f"which percentile a plan's cost is: {', '.join(budget_names())}"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write the bundle")


def run(options: argparse.Namespace) -> int:
    """Check, measure, then write the folder whole."""
    import torch

    torch.set_num_threads(1)
    source, out = Path(options.checkpoint), check_place(options.out)
    if out.exists() and not is_bundle(out):
        raise InputError(f"{out} is there and is no bundle; choose another place")
    budget, terms = load_budget(options.budget), terms_of(options.robot)
    config = read_config(source)
    plans = [load_plan(name.strip()) for name in options.plan.split(LADDER)]
    costs_s, latency_ms = [], {}
    for plan in plans:
        candidate = candidate_of(plan)
        if not candidate.runs(config.get("family")):
            raise InputError(f"plan {plan.name!r} runs a {candidate.family}; {source} is a {config.get('family')}")
        policy = policy_maker(with_schedule_of(candidate, source), source, tail=True)(1)
        terms.check_fit(policy.observation_dim, policy.action_dim)
        windows = np.zeros((1, policy.n_obs_steps, policy.observation_dim), np.float32)
        samples_s = answer_latencies(policy, windows, SECONDS, LEAST, MOST, False)
        costs_s.append(float(np.percentile(samples_s, budget.percentile)))
        latency_ms[plan.name] = (samples_s * 1e3).round(3).tolist()
        print(f"{plan.name}: p{budget.percentile:g} {costs_s[-1] * 1e3:.2f} ms, n {len(samples_s)}")
    falling = np.minimum.accumulate(costs_s)
    if any(cost > 1.2 * least for cost, least in zip(costs_s, falling, strict=True)):
        raise InputError(f"--plan {options.plan}: a later plan costs more than one before; wanted the dearest first")
    about = {
        "format": FORMAT,
        "version": __version__,
        "machine": describe_machine(),
        "budget": budget.name,
        "plans": [plan.to_dict() for plan in plans],
        "costs_ms": [round(float(cost) * 1e3, 4) for cost in falling],
        "fingerprint": fingerprint(source),
        "robot": terms.to_dict(),
    }
    with whole(out) as staging:
        staging.mkdir()
        shutil.copytree(source, staging / CHECKPOINT)
        (staging / FILE).write_text(json.dumps(about, indent=1) + "\n")
        LatencyTrace(about["machine"], latency_ms).save(staging / TRACE)
    size_mb = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    print(f"bundle: {out} ({size_mb:.1f} MB)")
    return 0


def is_bundle(folder: str | Path) -> bool:
    """Whether a folder is a bundle, sound or not."""
    return (Path(folder) / FILE).is_file()


def open_bundle(folder: str | Path) -> Bundle:
    """Read a bundle. Raises InputError naming what is wrong with it."""
    folder = Path(folder)
    try:
        data = json.loads((folder / FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}/{FILE} cannot be read ({error}); pack it again with `ontick bundle`") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{folder} is no bundle of this version; pack it again with `ontick bundle`")
    checkpoint = folder / CHECKPOINT
    try:
        if fingerprint(checkpoint) != data["fingerprint"]:
            raise InputError(f"{checkpoint} is not what was packed: a file has changed; pack it again")
        return Bundle(
            checkpoint=checkpoint,
            plans=tuple(Plan.from_dict(plan) for plan in data["plans"]),
            costs_s=tuple(float(cost) * 1e-3 for cost in data["costs_ms"]),
            budget=str(data["budget"]),
            machine=dict(data["machine"]),
            terms=RobotTerms.from_dict(data["robot"], f"{folder}/{FILE}, robot"),
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{folder} is damaged ({error!r}); pack it again with `ontick bundle`") from None
