"""TF32 products: fp32 numbers whose mantissas tensor cores cut to 10 bits."""

import torch

from ...diffusion import Chunk, Executor, Program, Start


class TensorFloat32(Executor):
    """`inner` with TF32 products. The switch is torch's, for the whole process: it is set for the chunk alone, and a
    graph keeps the kernels that it was captured with."""

    def __init__(self, inner: Executor) -> None:
        self._inner, self.name, self.noise_first, self.dynamic = inner, inner.name, inner.noise_first, inner.dynamic

    def chunk(self, program: Program, start: Start) -> Chunk:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return self._inner.chunk(program, start)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
            self.spent = self._inner.spent
