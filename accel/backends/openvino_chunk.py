"""A whole chunk as one OpenVINO model: what a schedule of cached blocks, or a chunk of few steps, runs on.

The network's parts (enter, tell, each branch, leave) are converted once; a chunk is put together from copies of them in
the order of its straight line. So a chunk is one call, steps that compute little cost little, and the compiler sees the
levels as constants. The compiler packs the weights of every copy, so memory grows with what a chunk computes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...diffusion import Asked, Chunk, Executor, History, Program, Rows, Start
from ...diffusion.solvers import Z
from ...diffusion.steps import empty_history, solver_step
from ...errors import InputError
from ..caching.line import Step, follow
from .openvino import compiled_model, to_convert
from .step import context_tensors
from .thread import OneThread


class OpenVinoChunk(Executor):
    """line: what each step does. Uses as many threads as torch has when a width is first seen; its buffers belong to
    one thread."""

    name = "openvino"

    def __init__(self, program: Program, line: Sequence[Step]) -> None:
        self._line = line
        self._thread = OneThread("this OpenVINO program")
        self._chunks: dict[Any, _Chunk] = {}

    def chunk(self, program: Program, start: Start) -> Chunk:
        self._thread.check()
        key = tuple(tuple(tensor.shape) for tensor in (start.x, *context_tensors(start.context)))
        if key not in self._chunks:
            self._chunks[key] = _Chunk(program, start, self._line)
        return Chunk(self._chunks[key].run(start))


class Wire:
    """A tensor of the model that is being put together: what `follow` and `solver_step` do their arithmetic on."""

    def __init__(self, output: Any) -> None:
        self.output = output

    def __add__(self, other: "Wire | Tensor") -> "Wire":
        return Wire(opset().add(self.output, other.output if isinstance(other, Wire) else _constant(other)).output(0))

    def __mul__(self, weight: float | Tensor) -> "Wire":
        return Wire(opset().multiply(self.output, _constant(weight)).output(0))

    __rmul__ = __mul__

    def at(self, place: int) -> "Wire":
        """self[place]"""
        ops = opset()
        return Wire(ops.gather(self.output, ops.constant(np.int64(place)), ops.constant(np.int64(0))).output(0))

    def clamp(self, low: float, high: float) -> "Wire":
        return Wire(opset().clamp(self.output, low, high).output(0))


def _constant(value: float | Tensor) -> Any:
    return opset().constant(np.asarray(value, np.float32))


class _Chunk:
    """A compiled chunk at one batch width."""

    def __init__(self, program: Program, start: Start, line: Sequence[Step]) -> None:
        import openvino

        model = _model(to_convert(program), start, line)
        self._request = compiled_model(model, program.plan.precision).create_infer_request()
        self._buffers = [np.empty(tensor.shape, np.float32) for tensor in _inputs(start)]
        for i, buffer in enumerate(self._buffers):
            self._request.set_input_tensor(i, openvino.Tensor(buffer, shared_memory=True))

    def run(self, start: Start) -> Tensor:
        for buffer, tensor in zip(self._buffers, _inputs(start), strict=True):
            buffer[...] = tensor.float().numpy()
        self._request.infer()
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


def _inputs(start: Start) -> list[Tensor]:
    """What a chunk is given: x, all noise where there is some, the context."""
    noise = [start.noise] if isinstance(start.noise, Tensor) else []
    return [start.x, *noise, *context_tensors(start.context)]


def _model(program: Program, start: Start, line: Sequence[Step]) -> Any:
    """`unroll`, on wires."""
    import openvino

    ops, network = opset(), _Network(program, start)
    parameters = [ops.parameter(list(tensor.shape), np.float32) for tensor in _inputs(start)]
    first, *rest = (Wire(parameter.output(0)) for parameter in parameters)
    noise = rest.pop(0) if program.table.uses(Z) else None
    zero: Any = Wire(ops.constant(np.zeros(start.x.shape, np.float32)).output(0))
    x: Any = first
    history = History(*(None if h is None else zero for h in empty_history(program.table, start.x)))
    values: dict[Any, Wire] = {}
    for level, step in zip(range(program.grid.steps, 0, -1), line, strict=True):
        h = network.enter(x, level, rest)
        told = network.tell(level, rest) if step.refreshes else []
        h = follow(step, h, values, lambda block, h, told=told: network.branch(block, h, told))
        out: Any = network.leave(h, level, rest)
        z: Any = None if noise is None else noise.at(level - 1)
        x, history = solver_step(x, out, history, z, program.uniform[level], program.denoiser.clip)
    return openvino.Model([ops.result(x.output)], parameters)  # type: ignore[call-overload]


class _Network:
    """The parts of a network as models, to be copied into a chunk."""

    def __init__(self, program: Program, start: Start) -> None:
        denoiser, context = program.denoiser, start.context
        as_tuple = isinstance(context, tuple)
        index = start.index
        labels = torch.from_numpy(program.grid.label).float()
        self._labels = labels.numpy()

        def asked(place: Tensor, label: Tensor, given: Sequence[Tensor]) -> Asked:
            context = tuple(given) if as_tuple else given[0]
            return Asked(label.expand(index.shape), context, Rows(index, step=place))

        level = [torch.ones(1, dtype=torch.int64), labels[1:2], *context_tensors(context)]
        self._enter = part_of(
            lambda x, place, label, *given: denoiser.enter(x, asked(place, label, given)), start.x, *level
        )
        flat, spec = pytree.tree_flatten(denoiser.tell(asked(level[0], level[1], level[2:])))
        tensors = [i for i, part in enumerate(flat) if isinstance(part, Tensor)]

        def tell(place: Tensor, label: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            parts = pytree.tree_leaves(denoiser.tell(asked(place, label, given)), is_leaf=lambda part: part is None)
            return tuple(part for part in parts if isinstance(part, Tensor))

        def whole(told: Sequence[Tensor]) -> Any:
            parts = list(flat)
            for i, tensor in zip(tensors, told, strict=True):
                parts[i] = tensor
            return pytree.tree_unflatten(parts, spec)

        self._tell = part_of(tell, *level)
        h = denoiser.enter(start.x, asked(level[0], level[1], level[2:]))
        told = [flat[i] for i in tensors]
        self._branches = [
            part_of(lambda h, *told, branch=block.branch: branch(h, whole(told)), h, *told)
            for block in denoiser.blocks()
        ]
        self._leave = part_of(
            lambda h, place, label, *given: denoiser.leave(h, asked(place, label, given)).float(), h, *level
        )

    def enter(self, x: Wire, level: int, context: Sequence[Wire]) -> Wire:
        return self._enter(x, *self._level(level), *context)[0]

    def tell(self, level: int, context: Sequence[Wire]) -> list[Wire]:
        return self._tell(*self._level(level), *context)

    def branch(self, block: int, h: Wire, told: Sequence[Wire]) -> Wire:
        return self._branches[block](h, *told)[0]

    def leave(self, h: Wire, level: int, context: Sequence[Wire]) -> Wire:
        return self._leave(h, *self._level(level), *context)[0]

    def _level(self, level: int) -> tuple[Wire, Wire]:
        """Place and label, as constants."""
        constants = np.array([level], np.int64), self._labels[level : level + 1]
        place, label = (Wire(opset().constant(constant).output(0)) for constant in constants)
        return place, label


def part_of(function: Callable[..., Any], *example: Tensor) -> Callable[..., list[Wire]]:
    """A function of tensors, converted: called with wires, it copies itself to where they come from.

    Weights that the function closes over become constants. The frontend is used directly:
    `convert_model` takes 20 times as long, nearly all of it around the conversion.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    given = [tensor.detach().clone() for tensor in example]
    used = [i for i, value in enumerate(_traced(function, given).graph.inputs()) if value.uses()]

    def of_used(*tensors: Tensor) -> Any:
        """The frontend drops some inputs that nothing reads, so there are none."""
        arguments = list(given)
        for i, tensor in zip(used, tensors, strict=True):
            arguments[i] = tensor
        return function(*arguments)

    manager, decoder = FrontEndManager(), TorchScriptPythonDecoder(_traced(of_used, [given[i] for i in used]))
    frontend = manager.load_by_framework("pytorch")  # manager and decoder must outlive the conversion
    model = frontend.convert(frontend.load(decoder))
    model.reshape({place: list(given[i].shape) for place, i in enumerate(used)})

    def copied(*wires: Wire) -> list[Wire]:
        copy = model.clone()
        for parameter, i in zip(copy.get_parameters(), used, strict=True):
            for target in list(parameter.output(0).get_target_inputs()):
                target.replace_source_output(wires[i].output)
        return [Wire(result.input(0).get_source_output()) for result in copy.get_results()]

    return copied


def _traced(function: Callable[..., Any], given: Sequence[Tensor]) -> Any:
    try:
        with torch.no_grad():
            return torch.jit.trace(function, tuple(given), check_trace=False)
    except RuntimeError as error:
        raise InputError(f"backend openvino cannot trace this network: {' '.join(str(error).split())[:200]}") from None


def opset() -> Any:
    from openvino import opset13

    return opset13
