"""The whole chunk as one CUDA graph: a hundred steps, one launch.

Captured on first use for a batch width, replayed from then on: inputs are copied into the captured ones, so the kernels
and the bits are the eager chunk's. Capture and replay belong to one thread.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ...diffusion import Chunk, Eager, Executor, Program, Start
from .step import context_tensors
from .thread import OneThread

WARMUP = 3  # runs before a capture: libraries choose kernels and allocate workspaces in the first ones


class Recorder(Protocol):
    """Records `work`, which writes into memory of its own -> (replay, what the recorded work returned)."""

    def __call__(self, work: Callable[[], Any]) -> tuple[Callable[[], Any], Any]: ...


def record_cuda_graph(work: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    """Capture on the current device, after a warm-up on a stream of its own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()
    return graph.replay, out


class CudaGraph(Executor):
    """`inner` is what is captured; by default the eager chunk, with whatever executor the program had."""

    name = "cudagraph"

    def __init__(self, program: Program, inner: Executor | None = None, record: Recorder = record_cuda_graph) -> None:
        self._inner = inner or program.executor or Eager()
        self._record, self._thread = record, OneThread("this CUDA graph")
        self._captured: dict[Any, tuple[Start, Callable[[], Any], Chunk]] = {}

    @torch.inference_mode()
    def chunk(self, program: Program, start: Start) -> Chunk:
        self._thread.check()
        with torch.cuda.device_of(start.x):  # captures go to the current device; nothing happens for a CPU tensor
            return self._replayed(program, start)

    def _replayed(self, program: Program, start: Start) -> Chunk:
        key = tuple(tuple(tensor.shape) for tensor in _tensors(start))
        if key not in self._captured:
            held = Start(*(_cloned(part) for part in start))
            self._captured[key] = (held, *self._record(lambda: self._inner.chunk(program, held)))
        held, replay, out = self._captured[key]
        for mine, given in zip(_tensors(held), _tensors(start), strict=True):
            mine.copy_(given)
        replay()
        return Chunk(*(_cloned(part) for part in out))


def _tensors(start: Start) -> list[Tensor]:
    noise = [start.noise] if isinstance(start.noise, Tensor) else []
    return [start.x, *noise, *context_tensors(start.context), start.index]


def _cloned(part: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(tensor.clone() for tensor in part)
    return None if part is None else part.clone()
