"""Block-wise caching's story, what is measured: likeness, the scheduler's parts, calibration and forms.

Errors are those of the executed actions on held-out samples, against the dense chunk of the same noise.

Legend: b blocks, K steps in the order of execution, n, m samples, M refreshes a block.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ontick.accel.caching.evaluator import ActionError
from ontick.accel.caching.features import Maps, adjacent
from ontick.accel.caching.schedulers import FORMS, acs, bac, unified_acs, uniform, uniform_last, with_tail
from ontick.commands.observations import AN_EPISODE
from ontick.diffusion import Program

UNITED = 5  # branches of the bubbling union, as published for simulation
LAG = 10
FIRST = "1, first of an episode"  # as published
DRAWS = 8  # different sets of observations of one size
UNIFORM, UNIFORM_LAST, UNIFIED, BLOCKWISE, UNION = METHODS = (
    "uniform",
    "uniform-last",
    "unified ACS",
    "block-wise ACS",
    "block-wise ACS + union",
)


@dataclass(frozen=True)
class Subject:
    """What the story is told of.

    program      dense, eager, its positions moving together
    calibration  [n, To, Do] normalised observations, four an episode; the i-th is drawn with noise seed i
    held_out     [m, To, Do] of other episodes; noise seeds n, n + 1, ..
    rows         those that are executed
    budgets      the M's; the second one is that of the parts that look at one
    """

    name: str
    program: Program
    calibration: Tensor
    held_out: Tensor
    rows: slice
    budgets: tuple[int, ...] = (5, 10, 20)

    @property
    def seeds(self) -> Tensor:
        return torch.arange(len(self.calibration), len(self.calibration) + len(self.held_out))


def over(found: Sequence[Maps]) -> Maps:
    """Maps of samples -> their mean."""
    mean = {name: np.mean([getattr(maps, name) for maps in found], 0) for name in ("cosine", "l1")}
    return dataclasses.replace(found[0], **mean)


def of_kind(maps: Maps, kind: str) -> np.ndarray:
    return np.array([other == kind for other in maps.kinds])


# -- similarity --------------------------------------------------------------------------------------------------------


def similarity(maps: Maps) -> dict[str, Any]:
    """Cosine of neighbouring steps and of steps LAG apart: means by block, by step and by kind, and their ranges."""
    lags = {"adjacent": adjacent(maps.cosine)[:, 1:], f"lag_{LAG}": np.diagonal(maps.cosine, -LAG, 1, 2)}
    told = {}
    for name, values in lags.items():
        first = maps.cosine.shape[1] - values.shape[1]  # the step that the first entry is of
        told[name] = {
            "block": _range(values.mean(1), maps.names),
            "step": _range(values.mean(0), range(first, maps.cosine.shape[1])),
            "anywhere": [values.min(), values.max()],
            "kinds": {kind: values[of_kind(maps, kind)].mean() for kind in dict.fromkeys(maps.kinds)},
            "by_block": values.mean(1),
            "by_step": values.mean(0),
        }
    return told


def _range(values: np.ndarray, names: Sequence[Any]) -> dict[str, Any]:
    least, most = int(values.argmin()), int(values.argmax())
    return {"least": [names[least], values[least]], "most": [names[most], values[most]]}


# -- ablation ----------------------------------------------------------------------------------------------------------


def methods(maps: Maps, M: int) -> dict[str, np.ndarray]:
    """The steps from evenly spaced refreshes to all of BAC but its forced last step."""
    blocks, steps = maps.cosine.shape[:2]
    return {
        UNIFORM: uniform(blocks, steps, M),
        UNIFORM_LAST: uniform_last(blocks, steps, M),
        UNIFIED: unified_acs(maps.cosine, M),
        BLOCKWISE: acs(maps.cosine, M),
        UNION: bac(maps, M, UNITED, tail=False),
    }


def ablation(error: ActionError, maps: Maps, budgets: Sequence[int]) -> dict[str, Any]:
    """Rows of every method at every M, without and with the last step, and of the plainer ones at as many refreshes as
    the union ends with; and the claims."""
    schedules: dict[tuple, np.ndarray] = {}
    for M in budgets:
        made = methods(maps, M)
        for name, refresh in made.items():
            schedules[name, M, "none"], schedules[name, M, "tail"] = refresh, with_tail(refresh)
        spent = round(with_tail(made[UNION]).sum(1).mean()) - 1  # the last step is one more
        if spent > M:
            fair = methods(maps, spent)
            for name in (UNIFORM_LAST, UNIFIED, BLOCKWISE):
                schedules[name, M, "equal"] = with_tail(fair[name])
    rows = judged(error, schedules.values())
    found = dict(zip(schedules, rows, strict=True))
    told = [{"method": name, "M": M, "kind": kind, **row} for (name, M, kind), row in found.items()]
    return {"rows": told, "claims": claims(found, budgets)}


def judged(error: ActionError, schedules: Iterable[np.ndarray]) -> list[dict[str, Any]]:
    """Action errors of schedules: over all samples, of the median one, and one by one."""
    schedules = list(schedules)
    rows = []
    for refresh, samples in zip(schedules, error.per_sample(np.stack(schedules)), strict=True):
        rows.append(
            {
                "refreshes": refresh.sum(1).mean(),
                "active_steps": int(refresh.any(0).sum()),
                "rms": np.sqrt((samples**2).mean()),
                "median": np.median(samples),
                "per_sample": samples,
            }
        )
    return rows


def claims(found: dict[tuple, dict[str, Any]], budgets: Sequence[int]) -> list[dict[str, Any]]:
    """Pairs of which the paper says that the first is worse, told by the paired difference of samples' errors."""
    told = []
    for M in budgets:
        for kind in ("none", "tail"):
            pairs = [(UNIFORM, UNIFIED), (BLOCKWISE, UNIFIED), *((other, UNION) for other in METHODS[:-1])]
            for worse, better in pairs:
                difference = paired(found[worse, M, kind]["per_sample"], found[better, M, kind]["per_sample"])
                told.append({"worse": worse, "better": better, "M": M, "kind": kind, **difference})
        for (worse, at, kind), row in found.items():
            if at == M and kind == "equal":
                difference = paired(row["per_sample"], found[UNION, M, "tail"]["per_sample"])
                told.append({"worse": worse, "better": UNION, "M": M, "kind": kind, **difference})
    return told


def paired(worse: np.ndarray, better: np.ndarray, resamples: int = 10_000) -> dict[str, Any]:
    """Mean of worse - better over samples, its bootstrap 95 % interval, how often it is positive, and the verdict."""
    difference = np.asarray(worse) - np.asarray(better)
    drawn = np.random.default_rng(0).integers(len(difference), size=(resamples, len(difference)))
    low, high = np.quantile(difference[drawn].mean(1), (0.025, 0.975))
    verdict = "holds" if low > 0 else "opposite" if high < 0 else "open"
    positive = (difference > 0).mean()
    return {"difference": difference.mean(), "interval": [low, high], "positive": positive, "verdict": verdict}


# -- calibration -------------------------------------------------------------------------------------------------------


def calibration(error: ActionError, found: Sequence[Maps], M: int) -> list[dict[str, Any]]:
    """Action errors of BAC when it is calibrated on so many observations, for different sets of them; of its parts and
    its printed form, with the last step too, for single observations and for many. `overlap`: of the refreshes with
    those of all observations, intersection over union."""
    sets = observation_sets(len(found))
    makers: dict[str, Callable[[Maps], np.ndarray]] = {
        "bac": lambda maps: bac(maps, M, UNITED),
        "bac, adjacent form": lambda maps: bac(maps, M, UNITED, form="adjacent"),
        UNIFIED: lambda maps: with_tail(unified_acs(maps.cosine, M)),
        BLOCKWISE: lambda maps: with_tail(acs(maps.cosine, M)),
    }
    pooled = {name: [over([found[i] for i in chosen]) for chosen in group] for name, group in sets.items()}
    cases = [(maker, name) for maker in makers for name in sets if maker == "bac" or name in (FIRST, "16")]
    schedules = {case: [makers[case[0]](maps) for maps in pooled[case[1]]] for case in cases}
    rows = iter(judged(error, [refresh for group in schedules.values() for refresh in group]))
    told = []
    for (maker, name), made in schedules.items():
        mine, best = [next(rows) for _ in made], makers[maker](over(found))
        entry = {key: [row[key] for row in mine] for key in ("rms", "median", "refreshes")}
        overlap = [(refresh & best).sum() / (refresh | best).sum() for refresh in made]
        told.append({"method": maker, "observations": len(sets[name][0]), "which": name, **entry, "overlap": overlap})
    return told


def observation_sets(n: int) -> dict[str, list[list[int]]]:
    """Names of sizes -> sets of indices below n. A single one is an episode's first, as BAC has it, or a later one."""
    apart = max(AN_EPISODE, n // DRAWS)
    sets = {
        FIRST: [[i] for i in range(0, n, apart)],
        "1, middle of an episode": [[i + AN_EPISODE // 2] for i in range(0, n, apart)],
    }
    for size in (4, 16, 64):
        if size <= n:
            starts = np.linspace(0, n // size - 1, min(DRAWS, n // size)).round().astype(int) * size
            sets[str(size)] = [list(range(start, start + size)) for start in starts]
    return sets


# -- forms -------------------------------------------------------------------------------------------------------------


def forms(error: ActionError, maps: Maps, budgets: Sequence[int]) -> list[dict[str, Any]]:
    """BAC with either form of its scheduler and unions of n branches, with the last step."""
    blocks = len(maps.kinds)
    cases = [
        (form, M, n) for form in FORMS for M in budgets for n in sorted({min(n, blocks) for n in (0, 3, 5, 8, blocks)})
    ]
    rows = judged(error, [bac(maps, M, n, form=form) for form, M, n in cases])
    return [{"form": form, "M": M, "n": n, **row} for (form, M, n), row in zip(cases, rows, strict=True)]
