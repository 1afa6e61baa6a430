"""Backends: what runs the unrolled chunk of a program, or the network call of a staggered one's tick. The plan's
`backend` names one.

eager      plain torch; anywhere
compile    torch.compile of one step; on CUDA the whole chunk is then one graph
cudagraph  eager kernels, the whole chunk as one CUDA graph; of picard an iteration; of a staggered program each
           call of a tick
openvino   one step as an OpenVINO model; a chunk of cached blocks or of few steps as one; of a staggered program the
           call of a tick, of a window of picard the call of an iteration; CPU
best       cudagraph on CUDA, openvino on a CPU that has it; eager where neither can run the plan, and for staggered
           programs on CUDA
"""

import dataclasses
import importlib.util
from collections.abc import Sequence

import numpy as np
from torch import nn

from ...diffusion import Denoiser, Eager, Executor, Program
from ...errors import InputError
from ..caching.cached import CachedLook
from ..caching.line import Step, straight_line
from ..contracts import Use
from ..exact_network import ExactDecoder
from .compiled import Compiled
from .cuda_graph import CudaGraph
from .cuda_graph_call import CudaGraphCall
from .openvino import OpenVino
from .openvino_call import OpenVinoCall
from .openvino_chunk import OpenVinoChunk
from .picard import Picard
from .picard_graph import IterationGraph
from .tensor_float32 import TensorFloat32

ONE_MODEL = 1000  # branches of a chunk: more would compile for longer than they save
ONE_MODEL_BYTES = 10**9  # of weights that a chunk reads: a model of it holds a copy for every call


def backend_for(program: Program, use: Use) -> Program:
    """The program on its plan's backend. Raises InputError where that cannot run it here."""
    plan, cuda = program.plan, use.device.startswith("cuda")
    name = _best(program, cuda) if plan.backend == "best" else plan.backend
    if name == "eager" and plan.precision != "tf32":
        return program
    refuse = f"plan {plan.name!r}: backend {name}"
    if not program.moves_together and name != "cudagraph" and not (name == "openvino" and _sees_all(program)):
        raise InputError(f"{refuse} runs chunks whose positions move together, and this plan is staggered; use eager")
    if name == "cudagraph" and not cuda:
        raise InputError(f"{refuse} needs a CUDA device, and this runs on {use.device}; use best, which finds one")
    if name == "openvino" and cuda:
        raise InputError(f"{refuse} is for the CPU, and this runs on {use.device}; use best, which finds another")
    if name == "openvino" and importlib.util.find_spec("openvino") is None:
        raise InputError(f'{refuse} needs the package openvino: pip install "ontick[openvino]", or use best')
    if not program.moves_together:
        return _with_call(program, name, refuse)
    if isinstance(program.executor, Picard):
        return _of_windows(program, name, refuse)
    if name in ("openvino", "compile") and not (program.rewritten is None or _line_of(program)):
        raise InputError(f"{refuse} runs one graph at every step, and an accelerator changes the steps; use eager")
    if name == "cudagraph" and getattr(program.rewritten, "dynamic", False):
        raise InputError(f"{refuse} records what is done, and an accelerator decides it while it runs; use eager")
    if program.executor is not None and not program.executor.noise_first and name != "eager":
        raise InputError(f"{refuse} takes all noise before the loop; leave the switch noise on")
    if name == "openvino" and plan.precision == "bf16" and not _tables_time(program.denoiser):
        raise InputError(f"{refuse} would compute the time token in bf16; leave the switch time_table of exact on")
    executor = {"eager": _eager, "compile": Compiled, "cudagraph": CudaGraph, "openvino": _openvino}[name](program)
    if plan.precision == "tf32":
        executor = TensorFloat32(executor)
    return dataclasses.replace(program, executor=executor)


def _best(program: Program, cuda: bool) -> str:
    late_noise = program.executor is not None and not program.executor.noise_first
    if late_noise or (cuda and not program.moves_together):
        return "eager"
    if cuda:
        return "eager" if getattr(program.rewritten, "dynamic", False) else "cudagraph"
    if isinstance(program.executor, Picard):
        runs = program.plan.precision != "bf16"
    elif program.moves_together:
        runs = program.rewritten is None or _line_of(program) is not None
    else:
        runs = program.ticked is None and _sees_all(program)
    return "openvino" if runs and importlib.util.find_spec("openvino") else "eager"


def _sees_all(program: Program) -> bool:
    """Whether one call of a tick sees every position."""
    return program.plan.view == "all"


def _with_call(program: Program, name: str, refuse: str) -> Program:
    """A staggered program whose ticks ask a model or a graph. Raises InputError that starts with `refuse`."""
    if program.ticked is not None:
        reason = "an accelerator decides already what is asked at each tick"
        raise InputError(f"{refuse} runs the whole network as one graph, and {reason}; use eager, or leave it out")
    call = CudaGraphCall(program)
    if name == "openvino":
        call = OpenVinoCall(program, falls_back=program.plan.backend == "best")
    return dataclasses.replace(program, ticked=call, executor=call)


def _of_windows(program: Program, name: str, refuse: str) -> Program:
    """A program of picard whose iterations ask this backend. Raises InputError that starts with `refuse`."""
    executor = program.executor
    assert isinstance(executor, Picard)
    if name == "openvino" and program.plan.precision == "bf16":
        raise InputError(f"{refuse} would tell the network its levels in bf16; use eager, or precision fp32")
    if name == "openvino":
        executor = executor.calling(OpenVinoCall(program, falls_back=program.plan.backend == "best"))
    elif name == "cudagraph":
        executor = executor.recorded(IterationGraph())
    elif name == "compile":
        raise InputError(f"{refuse} runs one step after another, and picard many at once; use eager, or best")
    if program.plan.precision == "tf32":
        executor = TensorFloat32(executor)
    return dataclasses.replace(program, executor=executor)


def _openvino(program: Program) -> Executor:
    line = _line_of(program)
    return OpenVino(program) if line is None else OpenVinoChunk(program, line)


def _line_of(program: Program) -> Sequence[Step] | None:
    """What a chunk as one model does at each step, where it can be one: cached blocks, or few branches."""
    if isinstance(program.rewritten, CachedLook):
        return program.rewritten.line
    if program.rewritten is not None or not program.denoiser.is_stream:
        return None
    blocks, steps = len(program.denoiser.blocks()), program.grid.steps
    if blocks * steps > ONE_MODEL or _weight_bytes(program.denoiser) * steps > ONE_MODEL_BYTES:
        return None
    return straight_line(np.ones((blocks, steps), bool))


def _weight_bytes(denoiser: Denoiser) -> int:
    if isinstance(denoiser, ExactDecoder):
        return denoiser.weight_bytes()
    weights = denoiser.parameters() if isinstance(denoiser, nn.Module) else []
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _tables_time(denoiser: Denoiser) -> bool:
    return isinstance(denoiser, ExactDecoder) and denoiser.rewrites.time_table


def _eager(program: Program) -> Eager:
    return program.executor if isinstance(program.executor, Eager) else Eager()
