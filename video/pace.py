"""Which effort the time that is left allows: the dearest whose usual cost fits; where none does, the cheapest."""

from collections import deque
from collections.abc import Sequence

from .stream import Effort

REMEMBERED, MARGIN = 20, 1.1


class Pace:
    """Costs of a block by effort, as they were of late.

    Before an effort was timed its cost is that of the dearest timed one by the number of its calls. Now and then a
    dearer one fits again because costs are the median of the last few, not of all."""

    def __init__(self, calls: dict[Effort, int]) -> None:
        """calls: of a block at each effort that there is, dearest first."""
        self._calls = calls
        self._costs_s: dict[Effort, deque[float]] = {effort: deque(maxlen=REMEMBERED) for effort in calls}

    def learn(self, effort: Effort, seconds: float) -> None:
        """Enter what a block took."""
        self._costs_s[effort].append(seconds)

    def cost_s(self, effort: Effort) -> float:
        """What a block will take, 0 where nothing was timed yet."""
        if own := self._costs_s[effort]:
            return _median(own)
        timed = [(self._calls[other], _median(costs)) for other, costs in self._costs_s.items() if costs]
        return max((cost * self._calls[effort] / calls for calls, cost in timed), default=0.0)

    def choose(self, left_s: float) -> Effort:
        """left_s: seconds until the block is wanted."""
        for effort in self._calls:
            if self.cost_s(effort) * MARGIN <= left_s:
                return effort
        return list(self._calls)[-1]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
