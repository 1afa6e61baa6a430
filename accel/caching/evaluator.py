"""What a cache schedule costs in quality: how far the actions are from the dense chunk's, at common noise.

    error = ActionError(program, obs, seeds, rows=slice(1, 9))
    error(candidates)           RMS over samples, rows and dimensions, one number a candidate

Many candidates are run at once, all of them at the same step. Those that have refreshed the same branches so far are
one computation: they share a slot, and part at the first step at which they differ. A branch is computed for the slots
that refresh it alone, and a slot without any refresh adds the sum of its branches.

Legend: C candidates, b blocks, K steps, n samples, G slots in use, T rows of the network, E its width, D an action's.
A slot has n lanes, a sample each: lane g * n + i holds sample i of slot g.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...diffusion import Asked, History, Program, begin, run_chunk, solver_step
from ...diffusion.steps import empty_history
from ...errors import InputError
from ..streams import check_stream


class ActionError:
    """Runs candidate schedules of one program on fixed observations and noise.

    program  stagger 0, eager, without a cache of its own: what `ontick.accel.build` gives for exact alone, or nothing
    obs      [n, ...] normalised observations, on the denoiser's device
    seeds    [n] whose noise the samples are drawn with; births: [n], which chunk of the seed; None: the first
    rows     the rows that count, those that are executed; None: all that the program computes
    lanes    how many lanes are run at once, at most: memory is lanes x b x T x E floats

    dense    [n, rows, D] the chunk with everything computed
    """

    def __init__(
        self,
        program: Program,
        obs: Tensor,
        seeds: Any,
        births: Any = None,
        rows: slice | None = None,
        lanes: int = 128,
    ) -> None:
        _check(program, obs, seeds)
        self.program, self.rows = program, rows or slice(None)
        self.samples = len(obs)
        self._denoiser, self._branches = program.denoiser, [block.branch for block in program.denoiser.blocks()]
        seed = torch.as_tensor(seeds, dtype=torch.int64).cpu()
        birth = torch.zeros_like(seed) if births is None else torch.as_tensor(births, dtype=torch.int64).cpu()
        with torch.inference_mode():
            context = program.prepare(obs)
            self._start = begin(program, context, seed, birth, device=obs.device)
            self.dense = run_chunk(program, context, seed, birth, device=obs.device)[:, self.rows].clone()
            self._told_axes, context_axes = self._find_lane_axes(obs)
            self._width = max(1, lanes // self.samples)  # slots at once
            lane = torch.arange(self._width * self.samples, device=obs.device) % self.samples
            self._context = _take(context, context_axes, lane)
            self._context_axes, self._index = context_axes, self._start.index[lane]

    @property
    def blocks(self) -> int:
        return len(self._branches)

    @property
    def steps(self) -> int:
        return self.program.grid.steps

    def __call__(self, candidates: np.ndarray) -> np.ndarray:
        """[C, b, K] bool -> [C] RMS of the difference of the actions, in normalised units."""
        return np.sqrt(np.mean(self.differences(candidates) ** 2, (1, 2, 3)))

    def per_sample(self, candidates: np.ndarray) -> np.ndarray:
        """[C, b, K] bool -> [C, n] RMS of each sample."""
        return np.sqrt(np.mean(self.differences(candidates) ** 2, (2, 3)))

    def largest(self, candidates: np.ndarray) -> np.ndarray:
        """[C, b, K] bool -> [C] largest absolute difference."""
        return np.abs(self.differences(candidates)).max((1, 2, 3))

    def differences(self, candidates: np.ndarray) -> np.ndarray:
        """[C, b, K] bool -> [C, n, rows, D] float64, actions less the dense ones. Raises InputError for candidates of
        another shape, or that reuse what was never computed."""
        candidates = self._checked(candidates)
        packed = np.packbits(candidates.transpose(0, 2, 1).reshape(len(candidates), -1), axis=1)
        _, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)  # sorted: alike stand
        parts = [first[i : i + self._width] for i in range(0, len(first), self._width)]  # together, and part late
        chunks = np.concatenate([self._run(candidates[part]) for part in parts])
        return chunks[place.reshape(-1)] - self.dense.double().cpu().numpy()

    # -- one batch of candidates ----------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self, candidates: np.ndarray) -> np.ndarray:
        """[C, b, K], at most a batch -> [C, n, rows, D] chunks."""
        slots = _Slots.fresh(self, len(candidates))
        owner = np.zeros(len(candidates), dtype=int)  # the slot that each candidate is computed in
        for k in range(self.steps):
            owner, columns = slots.part(owner, candidates[:, :, k])
            self._step(slots, columns, self.steps - k)
        return slots.x[torch.from_numpy(owner).to(slots.x.device)][:, :, self.rows].double().cpu().numpy()

    def _step(self, slots: "_Slots", columns: np.ndarray, level: int) -> None:
        """One step of the slots in use, columns [G, b] saying what each computes, from `level` to the one below."""
        program, G, n = self.program, len(columns), self.samples
        x, total = slots.x[:G], slots.total[:G].flatten(0, 1)
        asked = self._asked(x.flatten(0, 1), level, G * n)
        h = self._denoiser.enter(x.flatten(0, 1), asked)
        active = np.flatnonzero(columns.any(1))
        if len(active):
            lanes = slice(None) if len(active) == G else self._lanes(active, h.device)
            after = self._blocks(h[lanes], slots.cache[:, : G * n], columns[active], active, level)
            total[lanes] = after - h[lanes]
            h = h + total
            h[lanes] = after
        else:
            h = h + total
        out = self._denoiser.leave(h, asked).float().unflatten(0, (G, n))
        x, history = x.clone(), History(*(None if old is None else old[:G].clone() for old in slots.history))
        z = None if self._start.noise is None else self._start.noise[level - 1]
        x, history = solver_step(x, out, history, z, program.uniform[level], self._denoiser.clip)
        slots.write(x, history)

    def _blocks(self, h: Tensor, cache: Tensor, columns: np.ndarray, active: np.ndarray, level: int) -> Tensor:
        """All branches on the active slots: h [A n, T, E], cache [b, G n, T, E], columns [A, b] -> h after them."""
        told = _Told(self, level)
        everyone = slice(None) if len(active) == len(cache[0]) // self.samples else self._lanes(active, h.device)
        for branch, kept, computes in zip(self._branches, cache, columns.T, strict=True):
            if computes.all():
                kept[everyone] = residual = branch(h, told.to(len(active)))
            else:
                if computes.any():
                    some = np.flatnonzero(computes)
                    kept[self._lanes(active[some], h.device)] = branch(
                        h[self._lanes(some, h.device)], told.to(len(some))
                    )
                residual = kept[everyone]
            h = h + residual
        return h

    def _lanes(self, slots: np.ndarray, device: torch.device) -> Tensor:
        lanes = (slots[:, None] * self.samples + np.arange(self.samples)).reshape(-1)
        return torch.from_numpy(lanes).to(device)

    # -- what the network is asked --------------------------------------------------------------------------------

    def _asked(self, x: Tensor, level: int, lanes: int) -> Asked:
        context = _take(self._context, self._context_axes, lanes)
        return self.program.asked(x, level, context, self._index[:lanes])

    def _find_lane_axes(self, obs: Tensor) -> tuple[Any, Any]:
        """Where lanes stand in what `tell` gives and in the context: the axis that grows with the batch."""
        seen = []
        for width in (2, 3):
            context = self.program.prepare(obs[:1].repeat(width, *[1] * (obs.dim() - 1)))
            x = self._start.x[:1].expand(width, -1, -1)
            asked = self.program.asked(x, self.steps, context, self._start.index[:1].expand(width, -1))
            seen.append((self._denoiser.tell(asked), context))
        return tuple(_grown(two, three) for two, three in zip(*seen, strict=True))  # type: ignore[return-value]

    def _checked(self, candidates: np.ndarray) -> np.ndarray:
        candidates = np.asarray(candidates)
        if candidates.ndim != 3 or candidates.dtype != bool or candidates.shape[1:] != (self.blocks, self.steps):
            wanted = f"bool [candidates, {self.blocks}, {self.steps}]"
            raise InputError(f"candidates are {candidates.dtype} {list(candidates.shape)}, wanted {wanted}")
        if not len(candidates) or not candidates[:, :, 0].all():
            raise InputError("wanted at least one candidate, and each to refresh all blocks at step 0")
        return candidates


class _Told:
    """What the blocks of one step are told, cut to so many slots: all slots see the same n observations."""

    def __init__(self, error: ActionError, level: int) -> None:
        n = error.samples
        asked = error._asked(error._start.x, level, n)
        self._one, self._axes, self._n = error._denoiser.tell(asked), error._told_axes, n
        self._device, self._cut = error._start.x.device, {}

    def to(self, slots: int) -> Any:
        if slots not in self._cut:
            lane = torch.arange(slots * self._n, device=self._device) % self._n
            self._cut[slots] = _take(self._one, self._axes, lane)
        return self._cut[slots]


class _Slots(NamedTuple):
    """x and history: [C, n, T, D]; cache: [b, C n, T, E]; total: [C, n, T, E], the sum of a slot's branches."""

    x: Tensor
    history: History
    cache: Tensor
    total: Tensor

    @classmethod
    def fresh(cls, error: ActionError, slots: int) -> "_Slots":
        born = error._start.x
        x = born[None].repeat(slots, 1, 1, 1)
        h = error._denoiser.enter(born, error._asked(born, error.steps, len(born)))
        cache = h.new_empty(error.blocks, slots * len(born), *h.shape[1:])
        return cls(x, empty_history(error.program.table, x), cache, h.new_empty(slots, *h.shape))

    def part(self, owner: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """owner [C] and what each candidate computes now, [C, b] -> owner, and what each slot computes, [G, b].
        Where candidates of a slot differ, the first keep it and the others get a copy each."""
        count = int(owner.max()) + 1
        kept: dict[tuple[int, bytes], int] = {}
        computes: dict[int, np.ndarray] = {}
        copies: list[tuple[int, int]] = []
        for slot, column in zip(owner.tolist(), columns, strict=True):
            key = slot, column.tobytes()
            if key not in kept:
                kept[key] = slot if slot not in computes else count + len(copies)
                if kept[key] != slot:
                    copies.append((slot, kept[key]))
                computes[kept[key]] = column
        self._copy(copies)
        owner = np.array([kept[s, c.tobytes()] for s, c in zip(owner.tolist(), columns, strict=True)])
        return owner, np.stack([computes[slot] for slot in range(len(computes))])

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        cache = self.cache.unflatten(1, self.x.shape[:2])
        for old, new in copies:
            cache[:, new] = cache[:, old]
            for tensor in (self.x, self.total, *self.history):
                if tensor is not None:
                    tensor[new] = tensor[old]

    def write(self, x: Tensor, history: History) -> None:
        """Of the slots in use; what is written must not lie in the slots (a solver may hand on what it was given)."""
        self.x[: len(x)] = x
        for kept, new in zip(self.history, history, strict=True):
            if kept is not None and new is not None:
                kept[: len(x)] = new


def _take(tree: Any, axes: Any, lanes: "Tensor | int") -> Any:
    """The tree of tensors with some of its lanes, or its first; axes: from `_grown`."""
    if isinstance(tree, Tensor):
        if axes is None:
            return tree
        return tree.narrow(axes, 0, lanes) if isinstance(lanes, int) else tree.index_select(axes, lanes)
    if isinstance(tree, tuple | list):
        parts = [_take(part, axis, lanes) for part, axis in zip(tree, axes, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def _grown(two: Any, three: Any) -> Any:
    """A tree of the axes along which tensors of a batch of 2 and of one of 3 differ; None: along none."""
    if isinstance(two, Tensor):
        return next((i for i, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if a != b), None)
    if isinstance(two, tuple | list):
        return [_grown(a, b) for a, b in zip(two, three, strict=True)]
    return None


def _check(program: Program, obs: Tensor, seeds: Any) -> None:
    if program.endless or not program.moves_together or program.rewritten is not None or program.backend != "eager":
        raise InputError("action errors are measured on an eager stagger-0 program without a cache of its own")
    check_stream(program.denoiser)
    if not len(obs) or len(obs) != len(seeds):
        raise InputError(f"{len(obs)} observations and {len(seeds)} seeds, wanted a seed each and at least one")
