"""torch.compile of one step, network and solver together, for static shapes; on CUDA the chunk is then one graph."""

import itertools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ...diffusion import Executor, Program, Start
from .cuda_graph import CudaGraph
from .step import Levels, Step, context_tensors, levels_of, run_steps
from .thread import OneThread

_NUMBER = itertools.count()


class Compiled(Executor):
    name = "compile"

    def __init__(self, program: Program) -> None:
        self._steps, self._thread = _CompiledSteps(), OneThread("this compiled program")
        self._graph: CudaGraph | None = None

    @torch.inference_mode()
    def chunk(self, program: Program, start: Start) -> Tensor:
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

    def chunk(self, program: Program, start: Start) -> Tensor:
        key = tuple(tuple(tensor.shape) for tensor in (start.x, *context_tensors(start.context)))
        if key not in self._compiled:
            step = Step(program, start.context).to(start.x.device)
            self._compiled[key] = levels_of(program, start.x.device), _compiled(step)
        return run_steps(program, start, *self._compiled[key])


def _compiled(module: Step) -> Callable[..., Any]:
    """torch counts compilations by code object and refuses after eight, so each step gets code of its own."""

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        return module(*tensors)

    code = step.__code__.replace(co_name=f"step_{next(_NUMBER)}")
    own = FunctionType(code, globals(), code.co_name, None, step.__closure__)
    return torch.compile(own, dynamic=False, fullgraph=True)
