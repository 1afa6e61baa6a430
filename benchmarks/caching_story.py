"""Block-wise Adaptive Caching (BAC, arXiv 2506.13456) told again, claim by claim, on the shipped checkpoints.

    python benchmarks/caching_story.py [--tasks avoid ...] [--samples N] [--out benchmarks/results]

DDPM-100 on the exact stack, eager, at common noise. Schedules are calibrated on one set of episodes and judged on
others, with other noise. Writes caching-story-TASK.json and two pictures a task; the JSON after every part.

    similarity   how alike a branch's outputs are from step to step, by block and by step
    surge        what a cached chunk's branches are off by where they are reused, and where they are computed again; and
                 what the actions would be off by, if computing them again were exact
    toy          Proposition 3.1: one cached feed-forward branch, and what the one after it makes of its error
    ablation     the scheduler's parts, one by one, in action error, at equal budgets and at equal refreshes
    calibration  how many observations it takes
    forms        the printed form of the scheduler against the pairwise one, and the size of the union
"""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ontick import __version__
from ontick.accel.caching.evaluator import ActionError
from ontick.accel.caching.features import Maps, measure_maps
from ontick.accel.fingerprint import fingerprint
from ontick.benchmarks import caching_predictors
from ontick.benchmarks.caching_predictors import CARDS, OUT
from ontick.benchmarks.schedule_picture import SHORT
from ontick.benchmarks.story_measures import (
    BLOCKWISE,
    UNIFIED,
    UNION,
    Subject,
    ablation,
    calibration,
    forms,
    over,
    similarity,
)
from ontick.benchmarks.story_pictures import draw_errors, draw_similarity
from ontick.benchmarks.story_surge import surge, toy
from ontick.files import write_whole

SAMPLES, SAMPLES_OF = 64, {"drawer-open": 32}  # held out; the published shape is slow
CALIBRATED, USED = 64, 16  # observations that are looked at; those that all parts but `calibration` use, a default too


def story(subject: Subject, save: Callable[[dict[str, Any]], None] = lambda document: None) -> tuple[dict, Maps]:
    """All parts, as JSON, and the maps of the first calibration samples. `save` gets what is there after each part."""
    found = [
        measure_maps(subject.program, subject.calibration[i : i + 1], torch.tensor([i]))
        for i in range(len(subject.calibration))
    ]
    maps = over(found[:USED])
    document: dict[str, Any] = {
        "task": subject.name,
        "calibrated_on": min(USED, len(found)),
        "held_out": len(subject.held_out),
        "blocks": list(maps.names),
    }
    error = ActionError(subject.program, subject.held_out, subject.seeds, rows=subject.rows, lanes=512)
    parts: dict[str, Callable[[], Any]] = {
        "similarity": lambda: similarity(maps),
        "surge": lambda: surge(subject, maps),
        "toy": lambda: toy(subject, maps),
        "ablation": lambda: ablation(error, maps, subject.budgets),
        "calibration": lambda: calibration(error, found, subject.budgets[1]),
        "forms": lambda: forms(error, maps, subject.budgets),
    }
    for name, part in parts.items():
        document[name] = plain(part())
        save(document)
    return document, maps


def subject_of(card: str, samples: int) -> tuple[Subject, str]:
    """A shipped checkpoint and episodes of its own, and its fingerprint."""
    shipped = caching_predictors.subject_of(card, samples, CALIBRATED)
    made = Subject(shipped.name, shipped.program("ddpm-100"), shipped.calibration, shipped.held_out, shipped.rows)
    return made, fingerprint(shipped.checkpoint.network)


def plain(value: Any) -> Any:
    """As JSON has it; numbers to five significant digits."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float | np.floating) else getattr(value, "item", lambda: value)()


def write(document: dict[str, Any], path: Path) -> None:
    """A line a part, since most of it is numbers."""
    parts = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    write_whole(path, "{\n" + ",\n".join(parts) + "\n}\n")


def tell(document: dict[str, Any]) -> None:
    """The main numbers."""
    print(f"\n{document['task']}")
    for name, told in document["similarity"].items():
        print(f"  cosine {name}: blocks {told['block']}, steps {told['step']}")
    for name in (BLOCKWISE, UNION, UNIFIED):
        for reference in ("dense_run", "same_input"):
            for kind, seen in document["surge"][name][reference].items():
                numbers = ", ".join(f"{key} {value}" for key, value in seen.items() if key != "rises_by_layer")
                print(f"  {name}, {reference}, {SHORT.get(kind, kind)}: {numbers}")
    for name, row in document["surge"]["actions"].items():
        print(f"  actions, {name}: RMS {row['rms']:.4f}, median {row['median']:.4f}")
    for reference in ("dense_run", "same_input"):
        print(f"  toy, {reference}: {document['toy'][reference]}")
    print(f"  toy, between updates: {document['toy']['between_updates']}")
    for row in document["ablation"]["rows"]:
        at = f"{row['refreshes']:.1f} refreshes, {row['active_steps']} active"
        print(f"  {row['method']}-{row['M']} {row['kind']}: {at}, RMS {row['rms']:.4f}, median {row['median']:.4f}")
    for row in document["ablation"]["claims"]:
        low, high = row["interval"]
        compared = f"{row['worse']} > {row['better']}, M {row['M']} {row['kind']}"
        print(f"  {compared}: {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}] {row['verdict']}")
    for row in document["calibration"]:
        print(
            f"  calibrated on {row['which']}, {row['method']}: RMS {row['rms']}, overlap {np.mean(row['overlap']):.2f}"
        )
    for row in document["forms"]:
        at = f"{row['form']}-{row['M']}, n {row['n']}: {row['refreshes']:.1f} refreshes"
        print(f"  {at}, RMS {row['rms']:.4f}, median {row['median']:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=CARDS, default=list(CARDS))
    parser.add_argument("--samples", type=int, metavar="N", help=f"held out (default: {SAMPLES}; drawer-open 32)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)  # simulators' start-up chatter
    for card in options.tasks:
        path = options.out / f"caching-story-{card}.json"
        subject, network = subject_of(card, options.samples or SAMPLES_OF.get(card, SAMPLES))
        about = {"version": __version__, "network": network, "plan": "exact, eager"}
        document, maps = story(subject, lambda told, path=path, about=about: write({**about, **told}, path))
        draw_similarity(document, maps, path.with_name(f"{path.stem}-similarity.png"))
        draw_errors(document, path.with_name(f"{path.stem}-errors.png"))
        tell(document)


if __name__ == "__main__":
    main()
