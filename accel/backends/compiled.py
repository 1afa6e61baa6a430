"""torch.compile of one step, network and solver together, for static shapes; on CUDA the chunk is then one graph."""

from typing import Any

import torch
from torch import Tensor

from ...diffusion import Executor, Program, Start
from .cuda_graph import CudaGraph
from .step import Levels, Step, levels_of, run_steps
from .thread import OneThread


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
    name = "compile"

    def __init__(self) -> None:
        self._step: Any = None
        self._levels: Levels | None = None

    def chunk(self, program: Program, start: Start) -> Tensor:
        if self._step is None:
            module = Step(program, start.context).to(start.x.device)
            self._step = torch.compile(module, dynamic=False, fullgraph=True)
            self._levels = levels_of(program, start.x.device)
        assert self._levels is not None
        return run_steps(program, start, self._levels, self._step)
