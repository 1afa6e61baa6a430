"""Checkpoints of other libraries as checkpoints of ours, read without running anything that they hold."""

from .lerobot import from_lerobot
from .stanford import from_stanford
from .torch_file import open_torch_file, tensors

__all__ = ["from_lerobot", "from_stanford", "open_torch_file", "tensors"]
