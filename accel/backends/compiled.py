"""torch.compile for static shapes: one step, network and solver together; of a chunk with cached blocks each part of
the network by itself. On CUDA the chunk is then one graph."""

import dataclasses
import itertools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ...diffusion import Asked, Block, Chunk, Executor, Program, Start, unroll
from ..caching.cached import CachedLook
from .cuda_graph import CudaGraph
from .step import Levels, Step, context_tensors, levels_of, run_steps
from .thread import OneThread

_NUMBER = itertools.count()


class Compiled(Executor):
    name = "compile"

    def __init__(self, program: Program) -> None:
        cached = isinstance(program.rewritten, CachedLook)
        self._steps, self._thread = _CompiledParts() if cached else _CompiledSteps(), OneThread("this compiled program")
        self._graph: CudaGraph | None = None

    @torch.inference_mode()
    def chunk(self, program: Program, start: Start) -> Chunk:
        self._thread.check()
        if start.x.device.type != "cuda":
            return self._steps.chunk(program, start)
        self._graph = self._graph or CudaGraph(program, self._steps)
        return self._graph.chunk(program, start)


class _CompiledSteps(Executor):
    """A compiled step for each batch width."""

    name = "compile"

    def __init__(self) -> None:
        self._compiled: dict[Any, tuple[Levels, Callable[..., Any]]] = {}

    def chunk(self, program: Program, start: Start) -> Chunk:
        key = tuple(tuple(tensor.shape) for tensor in (start.x, *context_tensors(start.context)))
        if key not in self._compiled:
            step = Step(program, start.context).to(start.x.device)
            self._compiled[key] = levels_of(program, start.x.device), _own_code(step)
        return run_steps(program, start, *self._compiled[key])


class _CompiledParts(Executor):
    """The eager chunk of a cached program, its network's parts compiled."""

    name = "compile"

    def __init__(self) -> None:
        self._program: Program | None = None

    def chunk(self, program: Program, start: Start) -> Chunk:
        if self._program is None:
            assert isinstance(program.rewritten, CachedLook), "only such programs are given"
            parts = _Parts(program, start.x.device)
            self._program = dataclasses.replace(program, rewritten=program.rewritten.on(parts))
        return unroll(self._program, start)


class _Parts:
    """`Denoiser.enter`, `tell`, `blocks` and `leave`, compiled; told of a step as a tensor, of which one graph serves
    all."""

    def __init__(self, program: Program, device: torch.device) -> None:
        self._places = levels_of(program, device).place
        self._enter, self._tell, self._leave = (
            _own_code(part) for part in (program.denoiser.enter, program.denoiser.tell, program.denoiser.leave)
        )
        self._blocks = [
            dataclasses.replace(block, branch=_own_code(block.branch)) for block in program.denoiser.blocks()
        ]

    def enter(self, x: Tensor, asked: Asked) -> Tensor:
        return self._enter(x, self._placed(asked))

    def tell(self, asked: Asked) -> Any:
        return self._tell(self._placed(asked))

    def leave(self, h: Tensor, asked: Asked) -> Tensor:
        return self._leave(h, self._placed(asked))

    def _placed(self, asked: Asked) -> Asked:
        assert asked.rows is not None and isinstance(asked.rows.step, int), "the chunk knows its steps"
        return asked._replace(rows=asked.rows._replace(step=self._places[asked.rows.step]))

    def blocks(self) -> list[Block]:
        return self._blocks


def _own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch counts compilations by code object and refuses after eight, so each compiled function gets its own."""

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    code = call.__code__.replace(co_name=f"call_{next(_NUMBER)}")
    own = FunctionType(code, globals(), code.co_name, None, call.__closure__)
    return torch.compile(own, dynamic=False, fullgraph=True)
