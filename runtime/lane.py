"""What the control loop keeps of a lane: its answers, and where it is in them."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from .ladder import Ladder

UNKNOWN = 10**9  # ticks to wait for what is being computed
RECENT = 10  # answers, whose longest delay the next one is expected to take (Black et al. 2025, algorithm 1)


@dataclass
class Answer:
    """Actions [Th, Da], played from `next_row`; rows before `end` are the answer, from `end` on its rest."""

    asked_at_tick: int
    rung: int  # which of a ladder gave it, and its plan
    plan: str
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    steps: int = 0  # Ta of who gave it
    next_row: int = 0
    end: int = 0

    @property
    def left(self) -> int:
        """Rows of the answer that are still to be played."""
        return max(0, self.end - self.next_row)

    @property
    def has_rest(self) -> bool:
        return self.next_row < len(self.rows)

    def take(self) -> np.ndarray:
        self.next_row += 1
        return self.rows[self.next_row - 1]


@dataclass
class Lane:
    """One episode."""

    seed: int
    history: np.ndarray  # [To, Do], oldest first
    last_action: np.ndarray  # [Da]
    tick: int = 0
    chunks: int = 0
    current: Answer | None = None
    in_flight: Answer | None = None
    ticks_to_wait: int = 0
    consumed: int = 0  # rows, since the observation of the answer in flight
    overdue: int = 0  # ticks of waiting for it after the chunk was over
    delays: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT))  # [ticks]
    has_dropped: bool = False  # the last answer
    is_at_seam: bool = False  # the next command is the first of an answer that followed another
    is_behind: bool = False  # the command has not caught up with the rows since the last seam
    seam_jump_max: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    ladder: Ladder | None = None
    rungs: Counter[str] = field(default_factory=Counter)  # ticks by the rung whose answer was played
