"""The network call of a tick as one OpenVINO model: what a staggered program, a diagonal queue, runs on a CPU.

Its positions are at different levels, so there is no chunk to unroll. What is converted is the call alone, once for
each shape of what it is asked; levels, position ids, conditioning, context and a state of tensors are inputs of the
model, which changes none of them, and the solver step stays torch's. Nothing is kept from one call to the next.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...diffusion import Asked, Chunk, Denoiser, Executor, Program, Start
from ...errors import InputError
from .openvino import compiled_model, to_convert
from .openvino_chunk import Wire, opset, part_of
from .thread import OneThread


class OpenVinoCall(Executor):
    """What a tick asks (`Program.ticked`); also the program's executor, which only names it.

    falls_back: calls that cannot be a model (a state of more than tensors, a network that cannot be traced) are the
                denoiser's own, and `name` says so from then on; else they raise InputError. Uses as many threads as
                torch has when a shape is first seen; its buffers belong to one thread.
    """

    name = "openvino"

    def __init__(self, program: Program, falls_back: bool = False) -> None:
        self._denoiser, self._given = to_convert(program).denoiser, program.denoiser
        self._plan, self._falls_back = program.plan, falls_back
        self._thread = OneThread("this OpenVINO program")
        self._models: dict[Any, _Model | None] = {}

    def __call__(self, x: Tensor, asked: Asked, tick: Tensor, carry: Tensor | None) -> tuple[Tensor, None]:
        """See `Program.ticked`. A call uses the whole network, so nothing is carried."""
        self._thread.check()
        leaves, structure = pytree.tree_flatten((x, asked))
        key = (str(structure), *(_shape(leaf) for leaf in leaves))
        if key not in self._models:
            self._models[key] = self._converted(asked, leaves, structure)
        model = self._models[key]
        return self._given.predict(x, *asked).x.float() if model is None else model(leaves), None

    def chunk(self, program: Program, start: Start) -> Chunk:
        raise InputError(f"plan {program.plan.name!r} is staggered and has no chunk to unroll; tick it")

    def _converted(self, asked: Asked, leaves: list[Any], structure: Any) -> "_Model | None":
        try:
            _refuse_others(asked, leaves)
            return _Model(self._denoiser, self._plan.precision, leaves, structure)
        except InputError as error:
            if not self._falls_back:
                raise InputError(f"plan {self._plan.name!r}: {error}; use eager") from None
            self.name = "eager"
            return None


class _Model:
    """One call at one shape, compiled, and the buffers that it reads from. leaves: tensors of the call, and None."""

    def __init__(self, denoiser: Denoiser, precision: str, leaves: list[Any], structure: Any) -> None:
        import openvino

        model = _model(denoiser, leaves, structure)
        self._request = compiled_model(model, precision).create_infer_request()
        self._buffers = [_array(leaf).copy() for leaf in leaves if leaf is not None]
        for i, buffer in enumerate(self._buffers):
            self._request.set_input_tensor(i, openvino.Tensor(buffer, shared_memory=True))

    def __call__(self, leaves: list[Any]) -> Tensor:
        """The network's output [B, N, D...], in memory of its own."""
        for buffer, tensor in zip(self._buffers, (leaf for leaf in leaves if leaf is not None), strict=True):
            buffer[...] = _array(tensor)
        self._request.infer()
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


def _refuse_others(asked: Asked, leaves: list[Any]) -> None:
    """Raises InputError where a call is told more than tensors."""
    state = set() if asked.rows is None else _others(pytree.tree_leaves(asked.rows.state))
    if state:
        raise InputError(
            f"backend openvino: the denoiser is given a state of {', '.join(sorted(state))}, which a model would "
            "neither see nor change; wanted tensors alone"
        )
    others = _others(leaves)
    if others:
        raise InputError(f"backend openvino: the network is told {', '.join(sorted(others))}, wanted tensors alone")


def _others(leaves: list[Any]) -> set[str]:
    """The types of leaves that are neither tensors nor None."""
    return {type(leaf).__name__ for leaf in leaves if not (leaf is None or isinstance(leaf, Tensor))}


def _model(denoiser: Denoiser, leaves: list[Any], structure: Any) -> Any:
    """`denoiser.predict` as a model with an input for every tensor, read or not."""
    import openvino

    ops, there = opset(), [leaf is not None for leaf in leaves]
    example = [torch.from_numpy(_array(leaf).copy()) for leaf in leaves if leaf is not None]

    def call(*tensors: Tensor) -> Tensor:
        left = iter(tensors)
        x, asked = pytree.tree_unflatten([next(left) if is_there else None for is_there in there], structure)
        return denoiser.predict(x, *asked).x.float()

    parameters = [ops.parameter(list(tensor.shape), tensor.numpy().dtype) for tensor in example]
    try:
        (out,) = part_of(call, *example)(*(Wire(parameter.output(0)) for parameter in parameters))
    except (RuntimeError, TypeError, ValueError, *_conversion_failures()) as error:  # of torch's tracing; of OpenVINO
        raise InputError(
            f"backend openvino cannot convert this network: {' '.join(str(error).split())[:200]}"
        ) from None
    return openvino.Model([ops.result(out.output)], parameters)  # type: ignore[call-overload]


def _conversion_failures() -> tuple[type[Exception], ...]:
    """What OpenVINO's frontend raises; they share no base."""
    from openvino import frontend

    names = ("General", "Initialization", "NotImplemented", "OpConversion", "OpValidation")
    return tuple(getattr(frontend, f"{name}Failure") for name in names)


def _array(tensor: Tensor) -> np.ndarray:
    """Integers as they are, the rest fp32."""
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()


def _shape(leaf: Any) -> Any:
    return (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else type(leaf)
