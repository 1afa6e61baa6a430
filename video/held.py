"""Memory that a run holds, sampled while it goes on."""

import os
import resource
import sys
from pathlib import Path

import numpy as np
import torch

WINDOW = 0.1  # share of the samples at the start and at the end


class Held:
    """Bytes held by this process, or on its CUDA device; a sample a frame costs microseconds."""

    def __init__(self, device: str = "cpu") -> None:
        self._cuda = str(device).startswith("cuda")
        self._frames: list[int] = []
        self._bytes: list[int] = []
        self._every = 1

    def sample(self, frame: int) -> None:
        """At most some thousand samples are kept: where there are more, every other one goes."""
        if frame % self._every:
            return
        self._frames.append(frame)
        self._bytes.append(torch.cuda.memory_allocated() if self._cuda else resident_bytes())
        if len(self._frames) >= 4096:
            self._frames, self._bytes, self._every = self._frames[::2], self._bytes[::2], 2 * self._every

    def peaks(self) -> tuple[int, int]:
        """The most in the first tenth of the samples after the first tenth, which is warm-up, and in the last tenth."""
        n = len(self._bytes)
        if n == 0:
            return 0, 0
        part = max(1, int(n * WINDOW))
        start = self._bytes[part : 2 * part] or self._bytes
        return max(start), max(self._bytes[-part:])

    def slope(self) -> float:
        """Bytes a frame, a line through the second half."""
        half = len(self._bytes) // 2
        if half < 8:
            return 0.0
        return float(np.polyfit(self._frames[half:], self._bytes[half:], 1)[0])


def resident_bytes() -> int:
    """Resident set size; where the system does not tell it, the largest so far."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
