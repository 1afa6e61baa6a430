"""One step as an OpenVINO model on the CPU: converted from torch once a batch width, then called once a level.

At batch 1 a step is bound by reading its weights, and what OpenVINO adds is that nothing else takes time: no dispatch
between operations, weights packed for the kernels, solver step in the same model. Its default precision is not fp32 on
every CPU, so the precision is pinned to the plan's.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...diffusion import Chunk, Executor, Program, Start
from ...errors import InputError
from ..exact_network import ExactDecoder
from .step import Levels, Step, context_tensors, levels_of, step_inputs
from .thread import OneThread

HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVino(Executor):
    """Uses as many threads as torch has when a width is first seen; its buffers belong to one thread."""

    name = "openvino"

    def __init__(self, program: Program) -> None:
        self._precision = program.plan.precision
        self._thread = OneThread("this OpenVINO program")
        self._levels = levels_of(program, torch.device("cpu"))
        self._models: dict[Any, _Model] = {}

    def chunk(self, program: Program, start: Start) -> Chunk:
        self._thread.check()
        key = tuple(tuple(tensor.shape) for tensor in (start.x, *context_tensors(start.context)))
        if key not in self._models:
            self._models[key] = _Model(program, start, self._levels, self._precision)
        return self._models[key].chunk(program, start)


class _Model:
    """A compiled step and the buffers it reads from."""

    def __init__(self, program: Program, start: Start, levels: Levels, precision: str) -> None:
        import openvino

        program = to_convert(program)
        self._buffers = [_buffer(tensor) for tensor in step_inputs(program, start, levels)]
        self._place, self._vector = levels.place.numpy(), levels.vector.numpy()
        with torch.no_grad():
            example = tuple(torch.from_numpy(buffer.copy()) for buffer in self._buffers)
            model = openvino.convert_model(Step(program, start.context), example_input=example)
        model.reshape({i: list(buffer.shape) for i, buffer in enumerate(self._buffers)})
        compiled = compiled_model(model, precision)
        self._request = compiled.create_infer_request()
        for i, buffer in enumerate(self._buffers):
            self._request.set_input_tensor(i, openvino.Tensor(buffer, shared_memory=True))
        self._outputs = [self._request.get_output_tensor(i).data for i in range(len(compiled.outputs))]

    def chunk(self, program: Program, start: Start) -> Chunk:
        noise = None if start.noise is None else start.noise.numpy()  # type: ignore[union-attr]
        context = context_tensors(start.context)
        first = len(self._buffers) - len(context)  # x, place, level, noise?, history..., then the context
        for buffer, tensor in zip(self._buffers[first:], context, strict=True):
            buffer[...] = tensor.float().numpy()
        memory = self._buffers[3 + (noise is not None) : first]
        for buffer in memory:
            buffer[...] = 0
        self._buffers[0][...] = start.x.numpy()
        for k in range(program.grid.steps, 0, -1):
            self._buffers[1][...], self._buffers[2][...] = self._place[k], self._vector[k]
            if noise is not None:
                self._buffers[3][...] = noise[k - 1]
            self._request.infer()
            # Copied before any is written: a memory that is only passed on may come out as its own input's buffer.
            outputs = [out.copy() for out in self._outputs]
            for buffer, out in zip([self._buffers[0], *memory], outputs, strict=False):  # a confidence comes last
                buffer[...] = out
        score = torch.from_numpy(outputs[-1]) if program.denoiser.scores else None
        return Chunk(torch.from_numpy(outputs[0]), score)


def to_convert(program: Program) -> Program:
    """bf16 is a hint of the compiler; what it converts is fp32."""
    if program.plan.precision != "bf16":
        return program
    assert isinstance(program.denoiser, ExactDecoder), "at_precision has checked this"
    return dataclasses.replace(program, denoiser=program.denoiser.at_precision("fp32"))


def compiled_model(model: Any, precision: str) -> Any:
    """Compiled for the CPU at exactly this precision. Raises InputError where the CPU does not grant it."""
    import openvino

    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # int8 is of the weights alone, activations stay
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    granted = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if granted != HINTS[precision]:
        wanted = f"precision {precision} was wanted and OpenVINO runs {granted} on this CPU"
        raise InputError(f"{wanted}; use another precision, or backend eager")
    return compiled


def _buffer(tensor: Tensor) -> np.ndarray:
    """A copy that OpenVINO reads from: integers as they are, the rest fp32."""
    return np.array((tensor.float() if tensor.is_floating_point() else tensor).numpy(), order="C", copy=True)
