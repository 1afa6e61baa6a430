"""What the residual branches put out along a dense chunk, and how alike it is from step to step: the calibration that
cache schedules are made from.

features = record(program, obs, seeds)           every branch's output at every step, of few lanes
maps = measure_maps(program, obs, seeds)         step by step likeness, lane by lane: of as many lanes as you like

Likeness is measured within a lane, on its tokens x channels as one vector, and then averaged over lanes.

Legend: b blocks, K steps in the order of execution (0 the noisiest), B lanes, N positions, D... the shape of one
position, E width.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...diffusion import Program, run_chunk
from ...errors import InputError
from ..streams import check_stream

FOREIGN = {"ff": "feed_forward", "ffn": "feed_forward", "mlp": "feed_forward", "ff_context": "feed_forward"}
Metric = Callable[[Tensor], Tensor]  # one lane's [b, K, N * E] float64 -> [b, K, K]


@dataclass(frozen=True, kw_only=True)
class Features:
    """One dense chunk, looked into.

    names, kinds, layers  of the blocks, in the network's order
    values                [b, K, B, N, E] float32, what each branch added to the stream
    x                     [K, B, N, D...], what the network was given at each step
    chunk                 [B, N, D...], the bits of `run_chunk`
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    layers: tuple[int, ...]
    values: Tensor
    x: Tensor
    chunk: Tensor


def features_of(names: Sequence[str], values: Tensor) -> Features:
    """What `accel.record` took of a network that is not ours: names, as "3.ff", and values [b, K, B, ...]."""
    kinds = tuple(FOREIGN.get(name.rpartition(".")[2], name.rpartition(".")[2]) for name in names)
    layers = tuple(int(next((part for part in name.split(".") if part.isdigit()), 0)) for name in names)
    nothing = values.new_zeros(0)
    return Features(names=tuple(names), kinds=kinds, layers=layers, values=values, x=nothing, chunk=nothing)


def maps_of(features: Features) -> "Maps":
    """The maps of features that are in memory."""
    found = {name: metric(features).numpy() for name, metric in (("cosine", cosine), ("l1", l1))}
    return Maps(names=features.names, kinds=features.kinds, layers=features.layers, **found)


@dataclass(frozen=True, kw_only=True)
class Maps:
    """How alike a block's outputs at two steps are, averaged over lanes.

    names, kinds, layers  of the blocks, in the network's order
    cosine                [b, K, K] float32, cosine similarity: what ACS segments (Block-wise Adaptive Caching)
    l1                    [b, K, K] float32, mean absolute difference of an element: what its bubbling union ranks by
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    layers: tuple[int, ...]
    cosine: np.ndarray
    l1: np.ndarray


def record(program: Program, obs: Tensor, seeds: Tensor, births: Tensor | None = None) -> Features:
    """Run a dense chunk and keep what every branch puts out.

    program: eager, its positions moving together; obs: [B, ...], normalised, on the device to run on; seeds, births:
    [B] int64 on the host, births 0 where they are not given. All lanes are held at once, b K B N E floats. Raises
    InputError where the branches cannot be seen.
    """
    _check_visible(program)
    _check_lanes(obs, seeds)
    births = torch.zeros_like(seeds) if births is None else births
    with torch.inference_mode():
        watch = _Watch(program)
        watched = dataclasses.replace(program, rewritten=watch)
        chunk = run_chunk(watched, program.prepare(obs), seeds, births, device=obs.device)
    assert watch.values is not None, "a grid has at least one step"
    return Features(**_labels(program), values=watch.values, x=torch.stack(watch.x), chunk=chunk)


class _Watch:
    """The plain look, branch by branch, so that the sampler around it is the program's own."""

    def __init__(self, program: Program) -> None:
        self.program, self.blocks = program, program.denoiser.blocks()
        self.values: Tensor | None = None
        self.x: list[Tensor] = []

    def __call__(self, x: Tensor, step: int, context: Any, index: Tensor, carry: Any) -> tuple[Tensor, Any]:
        denoiser, grid = self.program.denoiser, self.program.grid
        asked = self.program.asked(x, step, context, index)
        h, told = denoiser.enter(x, asked), denoiser.tell(asked)
        self.x.append(x)
        if self.values is None:  # not a list to stack at the end, which would hold everything twice
            self.values = h.new_empty((len(self.blocks), grid.steps, *h.shape), dtype=torch.float32)
        for b, block in enumerate(self.blocks):
            branch = block.branch(h, told)
            self.values[b, grid.steps - step] = branch
            h = h + branch
        return denoiser.leave(h, asked).float(), carry


def _check_visible(program: Program) -> None:
    name = program.plan.name
    if not program.moves_together:
        raise InputError(
            f"plan {name!r}: its positions do not move together (stagger {program.plan.stagger}, view "
            f"{program.plan.view}), so blocks have no one step to be recorded at; use stagger 0, view all"
        )
    check_stream(program.denoiser)
    if program.backend != "eager":
        raise InputError(f"plan {name!r}: backend {program.backend} hides the branches; record with backend eager")
    if program.rewritten is not None:
        raise InputError(
            f"plan {name!r}: an accelerator already skips work in it, and features are those of the dense chunk; "
            "leave out all accelerators but exact"
        )


def _check_lanes(obs: Tensor, seeds: Tensor) -> None:
    if len(obs) != len(seeds) or not len(seeds):
        raise InputError(
            f"got {len(obs)} observations and {len(seeds)} seeds; give every lane one of each, one at least"
        )


def _labels(program: Program) -> dict[str, Any]:
    blocks = program.denoiser.blocks()
    return {
        "names": tuple(block.name for block in blocks),
        "kinds": tuple(block.kind for block in blocks),
        "layers": tuple(block.layer for block in blocks),
    }


# -- likeness ----------------------------------------------------------------------------------------------------------


def cosine(features: Features) -> Tensor:
    """[b, K, K] float32: cosine similarity of a block's outputs at two steps. Two that are zero are alike: 1."""
    return _over_lanes(features, _cosine).float()


def l1(features: Features) -> Tensor:
    """[b, K, K] float32: mean over elements of the absolute difference."""
    return _over_lanes(features, _l1).float()


def mse(features: Features) -> Tensor:
    """[b, K, K] float32: mean over elements of the squared difference."""
    return _over_lanes(features, _mse).float()


def adjacent(similarity: Any) -> np.ndarray:
    """[..., K, K] -> [..., K]: entry k is step k's similarity to step k - 1. Entry 0, with nothing before it, is 0."""
    similarity = np.asarray(similarity)
    first = np.zeros_like(similarity[..., :1, 0])
    return np.concatenate([first, np.diagonal(similarity, 1, -2, -1)], -1)


def _cosine(values: Tensor) -> Tensor:
    norm = values.norm(dim=-1)
    zero = norm == 0
    unit = values / norm.masked_fill(zero, 1.0)[..., None]
    return (unit @ unit.mT).masked_fill(zero[:, :, None] & zero[:, None], 1.0)


def _l1(values: Tensor) -> Tensor:
    return torch.cdist(values, values, p=1.0) / values.shape[-1]


def _mse(values: Tensor) -> Tensor:
    # not by products: neighbouring steps differ by little, and the difference of large sums loses it
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(values, values, p=2.0, compute_mode=exact).square() / values.shape[-1]


def _over_lanes(features: Features, metric: Metric) -> Tensor:
    """[b, K, K] float64: the metric of each lane, averaged; a lane at a time, at double precision."""
    lanes = features.values.unbind(2)
    with torch.inference_mode():
        return sum((metric(lane.flatten(2).double()) for lane in lanes), torch.zeros(())) / len(lanes)


# -- of many lanes -----------------------------------------------------------------------------------------------------


METRICS: dict[str, Metric] = {"cosine": _cosine, "l1": _l1, "mse": _mse}


def similarities(
    program: Program, obs: Tensor, seeds: Tensor, metrics: Sequence[str] = ("cosine", "l1")
) -> dict[str, Tensor]:
    """The metrics by name (cosine, l1, mse), each [b, K, K] float32, with one lane's features in memory at a time.

    Arguments as for `record`. Lanes run alone, at batch width 1, as they do on a robot.
    """
    unknown = set(metrics) - set(METRICS)
    if unknown or not metrics:
        raise InputError(f"metrics are {list(metrics)}, wanted some of {', '.join(METRICS)}")
    _check_lanes(obs, seeds)
    total: dict[str, Any] = dict.fromkeys(metrics, 0.0)
    for lane in range(len(seeds)):
        features = record(program, obs[lane : lane + 1], seeds[lane : lane + 1])
        for name in metrics:
            total[name] = total[name] + _over_lanes(features, METRICS[name])
    return {name: (value / len(seeds)).float() for name, value in total.items()}


def measure_maps(program: Program, obs: Tensor, seeds: Tensor) -> Maps:
    """What schedules are made from, measured lane by lane. Arguments as for `record`."""
    measured = {name: value.cpu().numpy() for name, value in similarities(program, obs, seeds).items()}
    return Maps(**_labels(program), cosine=measured["cosine"], l1=measured["l1"])
