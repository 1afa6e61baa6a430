"""The network call of a tick as a CUDA graph: what a staggered program, a queue or a stream, runs on a GPU.

Captured once for each shape of what is asked and replayed from then on: what is asked is copied into the captured
tensors, so the kernels and the bits are the eager call's. The solver step stays torch's. Capture and replay belong to
one thread.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...diffusion import Asked, Chunk, Executor, Program, Start
from ...errors import InputError
from .cuda_graph import Recorder, record_cuda_graph
from .thread import OneThread


class CudaGraphCall(Executor):
    """What a tick asks (`Program.ticked`); also the program's executor, which only names it."""

    name = "cudagraph"

    def __init__(self, program: Program, record: Recorder = record_cuda_graph) -> None:
        self._denoiser, self._record = program.denoiser, record
        self._thread = OneThread("this CUDA graph")
        self._captured: dict[Any, tuple[list[Tensor], Callable[[], Any], Tensor]] = {}

    @torch.inference_mode()
    def __call__(self, x: Tensor, asked: Asked, tick: Tensor, carry: Tensor | None) -> tuple[Tensor, None]:
        """See `Program.ticked`. A call uses the whole network, so nothing is carried."""
        self._thread.check()
        leaves, structure = pytree.tree_flatten((x, asked))
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = tuple((tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (str(structure), *key)
        with torch.cuda.device_of(x):  # captures go to the current device; nothing happens for a CPU tensor
            if key not in self._captured:
                self._captured[key] = self._recorded(leaves, structure)
            held, replay, out = self._captured[key]
            for mine, theirs in zip(held, given, strict=True):
                mine.copy_(theirs)
            replay()
            return out.float().clone(), None

    def _recorded(self, leaves: list[Any], structure: Any) -> tuple[list[Tensor], Callable[[], Any], Tensor]:
        copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        x, asked = pytree.tree_unflatten(copies, structure)
        held = [leaf for leaf in copies if isinstance(leaf, Tensor)]
        return held, *self._record(lambda: self._denoiser.predict(x, *asked).x)

    def chunk(self, program: Program, start: Start) -> Chunk:
        raise InputError(f"plan {program.plan.name!r} is staggered and has no chunk to unroll; tick it")
