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

Legend: b blocks, K steps in the order of execution, B lanes, n samples, M refreshes a block.
"""

import argparse
import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ontick import __version__, accel
from ontick.accel.caching.evaluator import ActionError
from ontick.accel.caching.features import Maps, adjacent, measure_maps, record
from ontick.accel.caching.schedulers import (
    FEED_FORWARD,
    FORMS,
    acs,
    bac,
    bubbling_union,
    reuse_scores,
    top_n,
    unified_acs,
    uniform,
    uniform_last,
    with_tail,
)
from ontick.accel.fingerprint import fingerprint
from ontick.benchmarks.picture import FLOOR_COLOUR, OUR_COLOUR, PEER_COLOUR, pyplot
from ontick.benchmarks.schedule_picture import SHORT, draw_map, draw_neighbours
from ontick.commands.families import checkpoint_for, parse_candidate
from ontick.commands.observations import AN_EPISODE, played
from ontick.diffusion import Asked, Program, Rows, load_plan, run_chunk
from ontick.files import write_whole
from ontick.policy import load_checkpoint

CARDS = {
    "avoid": "ontick/Avoid-v0",
    "pick-place": "metaworld/pick-place-v3",
    "peg-insert-side": "metaworld/peg-insert-side-v3",
    "drawer-open": "metaworld/drawer-open-v3",
}
OUT = Path(__file__).resolve().parent / "results"
SAMPLES, SAMPLES_OF = 64, {"drawer-open": 32}  # held out; the published shape is slow
CALIBRATED, USED = 64, 16  # observations that are looked at; those that all parts but `calibration` use, a default too
UNITED = 5  # branches of the bubbling union, as published for simulation
LAG = 10
FIRST = "1, first of an episode"  # as published
DRAWS = 8  # different sets of observations of one size
AT_ONCE = 8  # lanes whose features are held together
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


def over(found: Sequence[Maps]) -> Maps:
    """Maps of samples -> their mean."""
    mean = {name: np.mean([getattr(maps, name) for maps in found], 0) for name in ("cosine", "l1")}
    return dataclasses.replace(found[0], **mean)


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
            "kinds": {kind: values[_of(maps, kind)].mean() for kind in dict.fromkeys(maps.kinds)},
            "by_block": values.mean(1),
            "by_step": values.mean(0),
        }
    return told


def _range(values: np.ndarray, names: Sequence[Any]) -> dict[str, Any]:
    least, most = int(values.argmin()), int(values.argmax())
    return {"least": [names[least], values[least]], "most": [names[most], values[most]]}


def _of(maps: Maps, kind: str) -> np.ndarray:
    return np.array([other == kind for other in maps.kinds])


# -- surge -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """L1 errors of what every branch added in a cached chunk, [b, K, B], means over its elements.

    dense_run   against the dense chunk of the same noise, which has its own x by then
    same_input  against the whole network computed on the cached chunk's own x: what reuse does within one step
    size        mean absolute value of the dense chunk's branch
    chunk       [B, N, D], the cached one
    dense       [B, N, D]
    """

    dense_run: np.ndarray
    same_input: np.ndarray
    size: np.ndarray
    chunk: np.ndarray
    dense: np.ndarray

    def relative(self, reference: str) -> np.ndarray:
        return getattr(self, reference) / np.maximum(self.size, 1e-12)


class _Traced:
    """The look of a schedule, written down plainly, with the dense one beside it. Branches of the kinds in `exact`,
    where they are computed, are taken from the dense one: what no schedule can have, to see what their errors do."""

    def __init__(self, program: Program, refresh: np.ndarray, exact: Sequence[str], dense: Tensor) -> None:
        self.program, self.refresh, self.exact, self.dense = program, refresh, exact, dense
        self.kept: list[Any] = [None] * len(refresh)
        self.errors = np.zeros((2, *refresh.shape, dense.shape[2]))

    def __call__(self, x: Tensor, step: int, context: Any, index: Tensor, carry: Any) -> tuple[Tensor, Any]:
        denoiser, k = self.program.denoiser, self.program.grid.steps - step
        label = x.new_full(x.shape[:2], float(self.program.grid.label[step]), dtype=torch.float32)
        asked = Asked(label, context, Rows(index, step=step))
        h, told = denoiser.enter(x, asked), denoiser.tell(asked)
        fresh = h
        for b, block in enumerate(denoiser.blocks()):
            right = block.branch(fresh, told)
            if self.refresh[b, k]:
                self.kept[b] = right if block.kind in self.exact else block.branch(h, told)
            fresh, h = fresh + right, h + self.kept[b]
            for place, reference in enumerate((self.dense[b, k], right)):
                self.errors[place, b, k] = _l1(self.kept[b] - reference)
        return denoiser.leave(h, asked).float(), carry


def _l1(values: Tensor) -> np.ndarray:
    return values.abs().flatten(1).mean(1).double().numpy()


Cached = tuple[np.ndarray, Sequence[str]]  # refresh [b, K], and of which kinds computing is exact


def trace(program: Program, obs: Tensor, seeds: Tensor, cases: Sequence[Cached]) -> list[Trace]:
    """Each case's chunk, looked into beside the dense one, a few lanes at once."""
    lanes = zip(obs.split(AT_ONCE), seeds.split(AT_ONCE), strict=True)
    parts = [list(_traces(program, o, s, cases)) for o, s in lanes]
    return [_joined(case) for case in zip(*parts, strict=True)]


def _traces(program: Program, obs: Tensor, seeds: Tensor, cases: Sequence[Cached]) -> Iterator[Trace]:
    with torch.inference_mode():
        features = record(program, obs, seeds)
        size = features.values.abs().mean((3, 4)).double().numpy()
        for refresh, exact in cases:
            look = _Traced(program, refresh, exact, features.values)
            watched = dataclasses.replace(program, rewritten=look)
            chunk = run_chunk(watched, program.prepare(obs), seeds, torch.zeros_like(seeds), device=obs.device)
            yield Trace(*look.errors, size, chunk.double().numpy(), features.chunk.double().numpy())


def _joined(parts: Sequence[Trace]) -> Trace:
    axes = {"dense_run": -1, "same_input": -1, "size": -1, "chunk": 0, "dense": 0}
    return Trace(**{name: np.concatenate([getattr(part, name) for part in parts], axis) for name, axis in axes.items()})


def surge(subject: Subject, maps: Maps) -> dict[str, Any]:
    """Naive block-wise schedules, those with the union, and one for all blocks; none has a forced last step. `actions`:
    what they are off by, and what the naive ones are where computing a kind of branch were exact."""
    M = subject.budgets[1]
    naive = acs(maps.cosine, M)
    n = min(UNITED, len(naive))
    schedules = {
        BLOCKWISE: naive,
        UNION: bubbling_union(naive, maps.kinds, maps.layers, maps.l1, n),
        UNIFIED: unified_acs(maps.cosine, M),
    }
    kinds = tuple(dict.fromkeys(maps.kinds))
    cases = [(refresh, ()) for refresh in schedules.values()] + [(naive, (kind,)) for kind in kinds] + [(naive, kinds)]
    traces = trace(subject.program, subject.held_out, subject.seeds, cases)
    errors = [np.sqrt(((t.chunk - t.dense)[:, subject.rows] ** 2).mean((1, 2))) for t in traces]
    told: dict[str, Any] = {"M": M, "united": [maps.names[u] for u in top_n(reuse_scores(maps.l1), n)]}
    names = [*schedules, *(f"{BLOCKWISE}, {kind} exact" for kind in kinds), f"{BLOCKWISE}, all exact"]
    told["actions"] = {
        name: {"rms": np.sqrt((e**2).mean()), "median": np.median(e), "per_sample": e}
        for name, e in zip(names, errors, strict=True)
    }
    for (name, refresh), seen in zip(schedules.items(), traces, strict=False):
        told[name] = {
            "refresh": ["".join(".#"[int(r)] for r in row) for row in refresh],
            "relative_error": np.median(seen.relative("dense_run"), -1),
            **{reference: events(seen, refresh, maps, reference) for reference in ("dense_run", "same_input")},
        }
    return told


def events(seen: Trace, refresh: np.ndarray, maps: Maps, reference: str) -> dict[str, Any]:
    """By kind of block, relative L1: medians of steps that reuse, of those that compute after they reused, and of the
    step before these; how often computing left a larger error than reusing had, over updates and lanes."""
    relative = seen.relative(reference)
    updated = refresh[:, 1:] & ~refresh[:, :-1]
    told = {}
    for kind in dict.fromkeys(maps.kinds):
        rows = _of(maps, kind)
        at, before = relative[rows, 1:][updated[rows]], relative[rows, :-1][updated[rows]]
        told[kind] = {
            "updates": len(at),
            "reuse": _median(relative[rows][~refresh[rows]]),
            "before_update": _median(before),
            "update": _median(at),
            "update_p90": float(np.quantile(at, 0.9)) if at.size else None,
            "rises": float((at > before).mean()) if at.size else None,
            "rises_by_layer": [
                float((relative[b, 1:][updated[b]] > relative[b, :-1][updated[b]]).mean()) if updated[b].any() else None
                for b in np.flatnonzero(rows)
            ],
        }
    return told


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if values.size else None


# -- toy ---------------------------------------------------------------------------------------------------------------


def toy(subject: Subject, maps: Maps) -> dict[str, Any]:
    """The last feed-forward branch but one is cached by its own schedule, and nothing else. Pearson's r over steps of
    its L1 error and of those that the last layer's branches, always computed, make of it."""
    upstream = int(np.flatnonzero(_of(maps, FEED_FORWARD))[-2])
    refresh = np.ones(maps.cosine.shape[:2], bool)
    refresh[upstream] = acs(maps.cosine, subject.budgets[1])[upstream]
    seen = trace(subject.program, subject.held_out, subject.seeds, [(refresh, ())])[0]
    told: dict[str, Any] = {"upstream": maps.names[upstream], "refresh": np.flatnonzero(refresh[upstream])}
    for reference in ("dense_run", "same_input"):
        errors = getattr(seen, reference)
        told[reference] = {
            maps.names[b]: _correlation(errors[upstream], errors[b], ~refresh[upstream])
            for b in range(upstream + 1, len(maps.names))
        }
    last = int(np.flatnonzero(_of(maps, FEED_FORWARD))[-1])
    told["curves"] = {maps.names[b]: seen.same_input[b].mean(-1) for b in (upstream, last)}
    told["between_updates"] = between_updates(*told["curves"].values(), told["refresh"])
    return told


def between_updates(cause: Any, effect: Any, updates: Any) -> list[dict[str, Any]]:
    """Of each stretch [from, to) of three steps or more between two updates: r of two errors [K], and the gain."""
    cause, effect = np.asarray(cause), np.asarray(effect)
    stretches = zip(updates, [*updates[1:], len(cause)], strict=True)
    return [
        {
            "from": int(start),
            "to": int(stop),
            "r": pearson(cause[start:stop], effect[start:stop]),
            "gain": effect[start:stop].sum() / max(cause[start:stop].sum(), 1e-12),
        }
        for start, stop in stretches
        if stop - start > 2
    ]


def _correlation(cause: np.ndarray, effect: np.ndarray, reused: np.ndarray) -> dict[str, Any]:
    """[K, B] errors and at which steps [K] there is one that reuse makes; `gain`: effect over cause there."""
    lanes = [pearson(a, b) for a, b in zip(cause.T, effect.T, strict=True)]
    return {
        "r": pearson(cause.mean(1), effect.mean(1)),
        "r_of_lanes": np.quantile(lanes, (0, 0.5, 1)),
        "r_where_reused": pearson(cause[reused].mean(1), effect[reused].mean(1)),
        "gain": effect[reused].mean() / cause[reused].mean(),
    }


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one of them is constant."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0


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


def judged(error: ActionError, schedules: Any) -> list[dict[str, Any]]:
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


# -- pictures ----------------------------------------------------------------------------------------------------------


def draw_similarity(document: dict[str, Any], maps: Maps, path: Path) -> None:
    """How much branches change from step to step, the least, the middle and the most alike, and the errors that reuse
    leaves in them."""
    plt = pyplot()
    figure = plt.figure(figsize=(12, 13))
    grid = figure.add_gridspec(4, 3, height_ratios=[4, 3, 4, 4])
    draw_neighbours(figure.add_subplot(grid[0, :]), maps)
    order = np.diagonal(maps.cosine, -LAG, 1, 2).mean(1).argsort()[::-1]
    for place, block in enumerate((order[0], order[len(order) // 2], order[-1])):
        draw_map(figure.add_subplot(grid[1, place]), maps, int(block))
    for place, name in enumerate((BLOCKWISE, UNION)):
        _draw_surge(figure.add_subplot(grid[2 + place, :]), document, name)
    figure.tight_layout()
    _save(figure, path)
    plt.close(figure)


def _draw_surge(axis: Any, document: dict[str, Any], name: str) -> None:
    """Error of every branch at every step, and where it was computed."""
    import matplotlib.colors

    surged = document["surge"]
    error, refresh = np.array(surged[name]["relative_error"]), surged[name]["refresh"]
    norm = matplotlib.colors.LogNorm(0.01, 2, clip=True)
    shown = axis.imshow(np.maximum(error, 1e-4), aspect="auto", interpolation="nearest", cmap="magma_r", norm=norm)
    for b, row in enumerate(refresh):
        steps = [k for k, computed in enumerate(row) if computed == "#"]
        axis.plot(steps, [b] * len(steps), ".", color="#19c5c5", markersize=3)
    axis.set_yticks(range(len(refresh)), [_short(block) for block in document["blocks"]], fontsize=6)
    axis.set_title(f"relative error of a branch, {name}, M {surged['M']}; dots: computed", loc="left", fontsize=10)
    axis.set_xlabel("step, from noise to clean")
    axis.figure.colorbar(shown, ax=axis, pad=0.01)


def draw_errors(document: dict[str, Any], path: Path) -> None:
    """The toy, and how many observations it takes; beside them the ablation and the size of the union over true
    refreshes, over all samples and of the median one, which does not see the few that end in another mode."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 3, figsize=(16, 8.5))
    _draw_toy(axes[0, 0], document["toy"])
    _draw_calibration(axes[1, 0], document["calibration"])
    for column, key in enumerate(("rms", "median"), 1):
        _draw_ablation(axes[0, column], document["ablation"]["rows"], key)
        _draw_forms(axes[1, column], document["forms"], key)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    samples, on = document["held_out"], document["calibrated_on"]
    told = f"{document['task']}: {samples} held-out samples, calibrated on {on}"
    figure.suptitle(told, x=0.01, ha="left", fontsize=10, color="#555")
    figure.tight_layout()
    _save(figure, path)
    plt.close(figure)


def _draw_toy(axis: Any, told: dict[str, Any]) -> None:
    names = list(told["curves"])
    labels = ("reused", "always computed")
    for name, colour, label in zip(names, (PEER_COLOUR, OUR_COLOUR), labels, strict=True):
        axis.plot(told["curves"][name], color=colour, lw=1.4, label=f"{_short(name)}, {label}")
    inside = np.median([stretch["r"] for stretch in told["between_updates"]])
    title = f"one cached branch: r {told['same_input'][names[-1]]['r']:.3f}, between updates {inside:.3f}"
    axis.set_title(title, loc="left", fontsize=10)
    axis.set(xlabel="step, from noise to clean", ylabel="L1 error, same input")
    axis.legend(fontsize=8, frameon=False)


def _draw_ablation(axis: Any, rows: list[dict[str, Any]], key: str) -> None:
    colours = dict(zip(METHODS, (PEER_COLOUR, "black", "#e0a030", FLOOR_COLOUR, OUR_COLOUR), strict=True))
    for name in METHODS:
        for line, marker, kinds in ((":", "x", ("none",)), ("-", "o", ("tail", "equal"))):
            mine = sorted((r["refreshes"], r[key]) for r in rows if r["method"] == name and r["kind"] in kinds)
            label = name if marker == "o" else None
            axis.plot(*zip(*mine, strict=True), line, marker=marker, markersize=4, color=colours[name], label=label)
    _log_axes(axis, key)
    axis.set_title("solid: with the last step computed, dotted: without", loc="left", fontsize=10)
    axis.legend(fontsize=8, frameon=False)


def _draw_calibration(axis: Any, rows: list[dict[str, Any]]) -> None:
    rows = [row for row in rows if row["method"] == "bac"]
    for key, colour, shift in (("rms", OUR_COLOUR, -0.1), ("median", PEER_COLOUR, 0.1)):
        for place, row in enumerate(rows):
            label = {"rms": "RMS over all samples", "median": "of the median sample"}[key] if not place else None
            at = [place + shift] * len(row[key])
            axis.plot(at, row[key], "o", color=colour, alpha=0.6, markersize=5, label=label)
            axis.plot(at[:1], [np.mean(row[key])], "_", color="black", markersize=14)
    axis.set_xticks(range(len(rows)), [row["which"].replace(" of ", "\nof ") for row in rows], fontsize=8)
    axis.set_ylim(bottom=0)
    axis.set(xlabel="observations calibrated on", ylabel="action error of BAC")
    axis.legend(fontsize=8, frameon=False)
    axis.set_title("dot: a set of observations, line: their mean", loc="left", fontsize=10)


def _draw_forms(axis: Any, rows: list[dict[str, Any]], key: str) -> None:
    for form, colour in zip(FORMS, (OUR_COLOUR, FLOOR_COLOUR), strict=True):
        for first, M in zip((True, *[False] * len(rows)), dict.fromkeys(row["M"] for row in rows), strict=False):
            mine = [row for row in rows if (row["form"], row["M"]) == (form, M)]
            at = [row["refreshes"] for row in mine], [row[key] for row in mine]
            axis.plot(*at, "-o", color=colour, markersize=4, label=form if first else None)
            for row in mine:
                axis.annotate(str(row["n"]), (row["refreshes"], row[key]), fontsize=7, ha="left", va="bottom")
    _log_axes(axis, key)
    axis.set_title("size n of the union; a line is one M", loc="left", fontsize=10)
    axis.legend(fontsize=8, frameon=False)


def _save(figure: Any, path: Path) -> None:
    """With a palette: a third of the bytes."""
    from PIL import Image

    figure.savefig(path, dpi=75)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


def _log_axes(axis: Any, key: str) -> None:
    from matplotlib.ticker import NullFormatter

    told = {"rms": "action error, RMS over all samples", "median": "action error, RMS of the median sample"}
    axis.set(xscale="log", yscale="log", xlabel="refreshes a block", ylabel=told[key])
    for one, marks in ((axis.xaxis, (5, 7, 10, 15, 20, 30, 45)), (axis.yaxis, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1))):
        one.set_ticks(marks, [f"{mark:g}" for mark in marks])
        one.set_minor_formatter(NullFormatter())


def _short(name: str) -> str:
    layer, _, kind = name.partition(".")
    return f"{layer} {SHORT.get(kind, kind)}"


# -- the command -------------------------------------------------------------------------------------------------------


def subject_of(card: str, samples: int) -> tuple[Subject, str]:
    """A shipped checkpoint and episodes of its own, and its fingerprint."""
    task_id = CARDS[card]
    checkpoint = load_checkpoint(checkpoint_for(task_id, parse_candidate("exact"), None), "cpu")
    config = checkpoint.network.config
    plan = dataclasses.replace(load_plan("exact"), backend="eager")
    program = accel.build(checkpoint.network, plan, (config.action_dim,), config.horizon, device="cpu")
    obs = played(checkpoint, CALIBRATED + samples, 0)
    executed = slice(config.n_obs_steps - 1, config.n_obs_steps - 1 + config.n_action_steps)
    made = Subject(task_id, program, obs[:CALIBRATED], obs[CALIBRATED:], executed)
    return made, fingerprint(checkpoint.network)


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
