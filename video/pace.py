"""Which effort the time that is left allows: the dearest whose expected cost fits; where none does, the cheapest."""

from collections import deque

from .stream import Effort

REMEMBERED, MARGIN = 10, 1.1  # blocks; what a cost is multiplied with, to be on the safe side


class Pace:
    """What a block costs at an effort is its calls times what a call cost of late, whatever the effort was: so a dearer
    one is taken again as soon as the machine is free again."""

    def __init__(self, calls: dict[Effort, int]) -> None:
        """calls: of a block at each effort that there is, dearest first."""
        self._calls = calls
        self._call_s: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, effort: Effort, seconds: float) -> None:
        """Enter what a block took."""
        self._call_s.append(seconds / self._calls[effort])

    def cost_s(self, effort: Effort) -> float:
        """What a block will take, 0 where nothing was timed yet."""
        if not self._call_s:
            return 0.0
        return sorted(self._call_s)[len(self._call_s) // 2] * self._calls[effort]

    def choose(self, left_s: float) -> Effort:
        """left_s: seconds until the block is wanted."""
        for effort in self._calls:
            if self.cost_s(effort) * MARGIN <= left_s:
                return effort
        return list(self._calls)[-1]
