"""Block-wise caching's story, what errors do in a cached chunk: where they surge, and what later branches make of them.

Legend: b blocks, K steps in the order of execution, B lanes, M refreshes a block.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ontick.accel.caching.features import Maps, record
from ontick.accel.caching.schedulers import FEED_FORWARD, acs, bubbling_union, reuse_scores, top_n, unified_acs
from ontick.benchmarks.story_measures import BLOCKWISE, UNIFIED, UNION, UNITED, Subject, of_kind
from ontick.diffusion import Program, run_chunk

AT_ONCE = 8  # lanes whose features are held together


# -- a cached chunk, looked into ---------------------------------------------------------------------------------------


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
        asked = self.program.asked(x, step, context, index)
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


# -- surge -------------------------------------------------------------------------------------------------------------


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
    cases: dict[str, Cached] = {
        **{name: (refresh, ()) for name, refresh in schedules.items()},
        **{f"{BLOCKWISE}, {kind} exact": (naive, (kind,)) for kind in kinds},
        f"{BLOCKWISE}, all exact": (naive, kinds),
    }
    seen = trace(subject.program, subject.held_out, subject.seeds, list(cases.values()))
    traces = dict(zip(cases, seen, strict=True))
    told: dict[str, Any] = {"M": M, "united": [maps.names[u] for u in top_n(reuse_scores(maps.l1), n)], "actions": {}}
    for name, traced in traces.items():
        errors = np.sqrt(((traced.chunk - traced.dense)[:, subject.rows] ** 2).mean((1, 2)))
        told["actions"][name] = {
            "rms": np.sqrt((errors**2).mean()),
            "median": np.median(errors),
            "per_sample": errors,
        }
    for name, refresh in schedules.items():
        told[name] = {
            "refresh": ["".join(".#"[int(r)] for r in row) for row in refresh],
            "relative_error": np.median(traces[name].relative("dense_run"), -1),
            **{reference: events(traces[name], refresh, maps, reference) for reference in ("dense_run", "same_input")},
        }
    return told


def events(seen: Trace, refresh: np.ndarray, maps: Maps, reference: str) -> dict[str, Any]:
    """By kind of block, relative L1: medians of steps that reuse, of those that compute after they reused, and of the
    step before these; how often computing left a larger error than reusing had, over updates and lanes."""
    relative = seen.relative(reference)
    updated = refresh[:, 1:] & ~refresh[:, :-1]
    told = {}
    for kind in dict.fromkeys(maps.kinds):
        rows = of_kind(maps, kind)
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
    upstream, last = np.flatnonzero(of_kind(maps, FEED_FORWARD))[-2:].tolist()
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
