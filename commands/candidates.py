"""What `ontick tune` tries: plans over grid, solver, birth, cache, backend and precision, for a checkpoint's family."""

import dataclasses
from pathlib import Path

from ..accel.caching import with_schedules
from ..accel.caching.cached import FOLDER
from ..diffusion import Plan, load_plan
from ..errors import InputError
from ..policy import read_config
from .families import ANCHORED, STREAMING

STEPS = {"ddpm": (100, 50, 20, 10), "ddim": (20, 15, 10, 8, 6, 5, 4, 3, 2, 1), "dpmpp": (10, 8, 6, 5, 4, 3, 2)}
WARM = ("rti-1", "rti-2", "rti-3", "rti-5", "rti-10", "rti-3-renoise", "rti-5-renoise", "rti-10-renoise")
DRAFTS = ("draft-1", "draft-2", "draft-3", "draft-regression-2")
PRECISIONS = ("bf16", "int8")
AT_PRECISION = ("ddpm-100", "ddim-10", "ddim-5")
EAGER = ("ddim-10", "ddim-5")  # beside the best backend, which a small machine may not have
UNCALIBRATED = ("uniform-last-5", "uniform-last-10", "uniform-last-20")
BLOCKS, CALLS = (1, 2, 4, 8), (3, 2, 1)
PLAYER = {STREAMING: "diagonal-1", ANCHORED: "anchored-2"}  # of the episodes at whose observations plans are compared


def candidates(folder: str | Path, names: str | None = None) -> list[Plan]:
    """The plans to try on a checkpoint, the dense one first: others are compared with it. `names`: these instead,
    by commas. Raises InputError."""
    family = read_config(folder).get("family")
    if names is not None:
        plans = [load_plan(name.strip()) for name in names.split(",") if name.strip()]
    elif family == STREAMING:
        plans = [load_plan(f"exact-diagonal-{block}") for block in BLOCKS]
    elif family == ANCHORED:
        plans = [load_plan(f"exact-anchored-{calls}") for calls in CALLS]
    else:
        plans = _of_diffusion(Path(folder))
    if not plans:
        raise InputError("--plans is empty; wanted one or more names, separated by commas")
    return [with_schedules(plan, folder) for plan in plans]


def _of_diffusion(folder: Path) -> list[Plan]:
    samplers = [f"{solver}-{steps}" for solver, counts in STEPS.items() for steps in counts]
    drafts = DRAFTS if (folder / "drafts.safetensors").is_file() else ()
    plans = [load_plan(f"exact-{name}") for name in (*samplers, *WARM, *drafts)]
    plans += [load_plan(name) for name in UNCALIBRATED]
    plans += [load_plan(path.stem) for path in sorted((folder / FOLDER).glob("*.json")) if _is_plan(path.stem)]
    plans += [load_plan(name) for name in EAGER]
    for precision in PRECISIONS:
        for name in AT_PRECISION:
            plan = load_plan(f"exact-{name}")
            plans.append(dataclasses.replace(plan, name=f"{precision}-{name}", precision=precision))
    return plans


def _is_plan(name: str) -> bool:
    try:
        load_plan(name)
    except InputError:
        return False
    return True
