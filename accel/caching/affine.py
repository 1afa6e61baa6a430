"""An affine correction of what is reused, fitted offline: the predictor `affine`.

    affine = fit_affine(program, refresh, obs, seeds, network=fingerprint(network))
    affine.save("power-10.safetensors")                       beside power-10.json
    corrected = cached(program, refresh, "affine", affine)

A run of cached blocks is added as h + (scale * sum + shift), channel by channel, in the place of h + sum; scale and
shift are constants of the step and the run. So it is the decoupled error correction of CacheQuant (CVPR 2025), of the
sum that a schedule's straight line adds, at one multiplication and one addition a run.

Legend: b blocks, K steps, R runs (`runs_of`), n samples, T rows of the network, E its width.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...diffusion import Program, run_chunk
from ...errors import InputError
from ...files import check_place, whole
from .line import Corrections, Refresh, Reuse, Step, Sum, Value, follow, straight_line
from .schedule import sampler_of

FORMAT = "ontick-affine-1"
RIDGE = 0.1
TRAJECTORIES = ("cached", "dense")


def runs_of(refresh: np.ndarray) -> list[tuple[int, int]]:
    """[b, K] bool -> (step, first block) of every run that is reused, in the order in which they are added."""
    line = straight_line(refresh)
    return [(k, _value(i)[0]) for k, step in enumerate(line) for i in step.instructions if isinstance(i, Reuse)]


@dataclass(frozen=True, kw_only=True)
class Affine:
    """refresh  [b, K] bool, the schedule that they were fitted for
    scale, shift  [R, E] float32, of each run in the order of `runs_of`
    sampler       as `sampler_of` gives it
    network       fingerprint of the weights; None: not to be used by a plan
    about         how it was fitted; free-form but JSON
    """

    refresh: np.ndarray
    scale: Tensor
    shift: Tensor
    sampler: Mapping[str, Any]
    network: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        runs = len(runs_of(self.refresh))
        for name, table in (("scale", self.scale), ("shift", self.shift)):
            right = table.dim() == 2 and len(table) == runs and table.shape == self.scale.shape
            if not right or table.dtype != torch.float32:
                raise InputError(f"{name} is {table.dtype} {list(table.shape)}, wanted float32 [{runs} runs, width]")
            if not torch.isfinite(table).all():
                raise InputError(f"{name} is not all finite; look for what diverged in the fit")

    def to(self, device: Any) -> "Affine":
        return dataclasses.replace(self, scale=self.scale.to(device), shift=self.shift.to(device))

    def corrections(self, dtype: torch.dtype = torch.float32) -> Corrections:
        """What `straight_line` takes."""
        tables = zip(self.scale.to(dtype), self.shift.to(dtype), strict=True)
        return dict(zip(runs_of(self.refresh), tables, strict=True))

    def save(self, path: str | Path) -> Path:
        """Written whole: a reader sees the old file or the new one."""
        told = {"sampler": dict(self.sampler), "network": self.network, "about": dict(self.about)}
        tensors = {"scale": self.scale, "shift": self.shift, "refresh": torch.from_numpy(self.refresh.astype(np.uint8))}
        with whole(check_place(path)) as temporary:
            stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(stored, temporary, {"format": FORMAT, "told": json.dumps(told)})
        return Path(path)


def load_affine(path: str | Path) -> Affine:
    """Read what `Affine.save` wrote. Raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no tables {path} of the predictor affine; {_HOW}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path}: format is {metadata.get('format')!r}, wanted {FORMAT!r}; {_HOW}")
            tensors = {name: file.get_tensor(name) for name in ("scale", "shift", "refresh")}
        told = json.loads(metadata["told"])
        refresh = tensors.pop("refresh").numpy().astype(bool)
        return Affine(refresh=refresh, **tensors, **told)
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is broken: {' '.join(str(error).split())[:200]}; {_HOW}") from None


def check_tables(affine: Affine, refresh: np.ndarray, sampler: Mapping[str, Any], network: str, origin: str) -> None:
    """Raises InputError where they were fitted for another schedule, sampler or network."""
    if affine.refresh.shape != refresh.shape or (affine.refresh != refresh).any():
        raise InputError(f"{origin} was fitted for another schedule; {_HOW}")
    if dict(affine.sampler) != dict(sampler):
        raise InputError(f"{origin} is for the sampler {dict(affine.sampler)}, this is {dict(sampler)}; {_HOW}")
    if affine.network != network:
        raise InputError(f"{origin} is for the network {affine.network}, this is {network}; {_HOW}")


_HOW = "fit them with `fit_affine` and give network=fingerprint(...), for this schedule and plan"


# -- fitting -----------------------------------------------------------------------------------------------------------


def fit_affine(
    program: Program,
    refresh: np.ndarray,
    obs: Tensor,
    seeds: Any,
    births: Any = None,
    along: str = "cached",
    ridge: float = RIDGE,
    network: str | None = None,
) -> Affine:
    """Tables for a schedule, [b, K] bool. The samples run together, once, with every branch computed at every step.

    program  dense, eager, its positions moving together
    obs      [n, ...] normalised, on the denoiser's device; seeds, births: [n]; births None: the first chunk of each
    along    cached: what a run would have added on the stream that the corrected chunk has there; dense: on the dense
             chunk's. The first is what the correction meets, and is at least as good on the shipped policies
    ridge    how much a scale is drawn towards 1, in units of the variance that it is fitted to

    Of each channel, over samples and rows, with s the stale sum of a run and t the true one:

        scale = 1 + cov(s, t - s) / ((1 + ridge) var(s));    shift = mean(t) - scale mean(s)

    which at ridge 0 is CacheQuant's cov(s, t) / var(s). Raises InputError.
    """
    _check(program, refresh, obs, seeds, along, ridge)
    seed = torch.as_tensor(seeds, dtype=torch.int64).cpu()
    birth = torch.zeros_like(seed) if births is None else torch.as_tensor(births, dtype=torch.int64).cpu()
    fit = _Fit(program, refresh, along == "dense", ridge)
    with torch.inference_mode():
        run_chunk(dataclasses.replace(program, rewritten=fit), program.prepare(obs), seed, birth, device=obs.device)
    return Affine(
        refresh=refresh.copy(),
        scale=torch.stack(fit.scales).clone(),
        shift=torch.stack(fit.shifts).clone(),
        sampler=sampler_of(program.plan),
        network=network,
        about={"samples": len(obs), "along": along, "ridge": ridge},
    )


class _Fit:
    """The look of a cached chunk that computes at every run what is reused, and fits on the way."""

    def __init__(self, program: Program, refresh: np.ndarray, dense: bool, ridge: float) -> None:
        self.program, self.dense, self.ridge = program, dense, ridge
        self.line = straight_line(refresh)
        self.scales: list[Tensor] = []
        self.shifts: list[Tensor] = []

    def __call__(self, x: Tensor, step: int, context: Any, index: Tensor, carry: Any) -> tuple[Tensor, Any]:
        denoiser, line = self.program.denoiser, self.line[len(self.line) - step]
        asked = self.program.asked(x, step, context, index)
        h, told, blocks = denoiser.enter(x, asked), denoiser.tell(asked), denoiser.blocks()
        values = dict(carry or {})
        for instruction in line.instructions:
            if isinstance(instruction, Refresh | Sum):
                h = follow(Step((instruction,), ()), h, values, lambda block, h: blocks[block].branch(h, told))
                continue
            first, steps = value = _value(instruction)
            computed = h
            for block in blocks[first : first + len(steps)]:
                computed = computed + block.branch(computed, told)
            scale, shift = self._fitted(values[value], computed - h)
            h = computed if self.dense else h + (values[value] * scale.to(h) + shift.to(h))
        for value in line.forget:
            del values[value]
        return denoiser.leave(h, asked).float(), values

    def _fitted(self, stale: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """[n, T, E] each -> scale and shift, [E]; kept."""
        stale, true = stale.flatten(0, -2).double(), true.flatten(0, -2).double()
        centred = stale - stale.mean(0)
        variance = centred.square().mean(0)
        slope = (centred * (true - stale)).mean(0) / variance.clamp(min=1e-30) / (1 + self.ridge)
        scale = 1 + torch.where(variance > 1e-12, slope, 0.0)
        shift = true.mean(0) - scale * stale.mean(0)
        self.scales.append(scale.float())
        self.shifts.append(shift.float())
        return self.scales[-1], self.shifts[-1]


def _value(reuse: Any) -> Value:
    """The one value that a run adds."""
    return reuse.terms[0][1]


def _check(program: Program, refresh: np.ndarray, obs: Tensor, seeds: Any, along: str, ridge: float) -> None:
    if not program.moves_together or program.rewritten is not None or program.backend != "eager":
        raise InputError("tables are fitted on an eager stagger-0 program without a cache of its own")
    shape = (len(program.denoiser.blocks()), program.grid.steps)
    if refresh.shape != shape or refresh.dtype != bool or not shape[0] or not refresh[:, 0].all():
        got = f"{refresh.dtype} {list(refresh.shape)}"
        raise InputError(f"the schedule is {got}, wanted bool {list(shape)}, its first step all true")
    if refresh.all():
        raise InputError("the schedule refreshes every block at every step, so there is nothing to correct")
    if not len(obs) or len(obs) != len(seeds):
        raise InputError(f"{len(obs)} observations and {len(seeds)} seeds, wanted a seed each and at least one")
    if along not in TRAJECTORIES:
        raise InputError(f"along is {along!r}, wanted one of {', '.join(TRAJECTORIES)}")
    if not ridge >= 0:
        raise InputError(f"ridge is {ridge!r}, wanted a number from 0")
