"""One iteration of `picard` as a CUDA graph: a window has one shape wherever it stands, so one graph serves them all.
Between two the host reads where the window stands, which is what a graph cannot decide."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .cuda_graph import Recorder, record_cuda_graph
from .thread import OneThread

Iterate = Callable[[Any, Any], Any]  # (given, window) -> window


class IterationGraph:
    """Captured once a shape, replayed from then on. Capture and replay belong to one thread."""

    name = "cudagraph"

    def __init__(self, record: Recorder = record_cuda_graph) -> None:
        self._record, self._thread = record, OneThread("this CUDA graph")
        self._captured: dict[Any, tuple[Any, Any, Callable[[], Any], Any]] = {}

    @torch.inference_mode()
    def of(self, iterate: Iterate, given: Any, window: Any) -> Callable[[Any], Any]:
        """window -> window after an iteration, in memory of its own, for all iterations of one chunk."""
        self._thread.check()
        key = tuple(tuple(tensor.shape) for tensor in _tensors((given, window)))
        if key not in self._captured:
            held = pytree.tree_map_only(Tensor, torch.clone, (given, window))
            self._captured[key] = (*held, *self._record(lambda: iterate(*held)))
        held_given, held_window, replay, out = self._captured[key]
        _copy(held_given, given)

        @torch.inference_mode()
        def replayed(window: Any) -> Any:
            _copy(held_window, window)
            replay()
            return pytree.tree_map_only(Tensor, torch.clone, out)

        return replayed


def _copy(held: Any, given: Any) -> None:
    for mine, theirs in zip(_tensors(held), _tensors(given), strict=True):
        mine.copy_(theirs)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
