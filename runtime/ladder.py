"""The ladder: plans from dear to cheap, of which each answer takes the dearest that still fits the time left.

What a rung costs is measured when nothing runs beside it. While the controller runs, every answer tells how much slower
the machine is now; that load is one number for all rungs, so that a cheap rung's answers tell when a dear one fits
again. Where no rung fits, the cheapest is asked and may be late: meanwhile the rest of the answer before is played,
then the last action is held, and that always fits.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from .budget import LatencyBudget
from .contracts import AdoptingPolicy, FollowingPolicy, InpaintingPolicy, Policy
from .measure import measure_latency

NOISE = 1.2  # times what a rung cost, its cheaper neighbour may have been measured at
RECENT = 20  # answers over which the worst load is remembered
SPARE = 0.3  # of the time left, for what the machine holds up between an answer and the command


@dataclass
class Load:
    """How much slower answers are than they were measured, by the worst of the last few; 1 is as measured."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def factor(self) -> float:
        return max(1.0, *self.recent) if self.recent else 1.0

    def enter(self, ratio: float) -> None:
        self.recent.append(ratio)


def measured_costs(rungs: Sequence[Policy], budget: LatencyBudget, n: int = 200) -> list[float]:
    """What an answer of each rung costs [s] at the budget's percentile; nothing else must run meanwhile. The policies
    are reset before and after."""
    costs_s = []
    for policy in rungs:
        obs = np.zeros((1, policy.n_obs_steps, policy.observation_dim), np.float32)

        def answer(policy: Policy = policy, obs: np.ndarray = obs) -> None:
            policy.predict_with_tail(obs, [0])

        policy.reset([0], [0])
        costs_s.append(float(np.percentile(measure_latency(answer, n), budget.percentile)))
        policy.reset([0], [0])
    return costs_s


class Ladder:
    """Which rung to take. costs_s: of each, dearest first, at the budget's percentile, with nothing beside it.

    Raises InputError where the costs do not fall.
    """

    def __init__(self, costs_s: Sequence[float]) -> None:
        if len(costs_s) == 0 or any(later > NOISE * before for before, later in itertools.pairwise(costs_s)):
            told = ", ".join(f"{cost * 1e3:.1f}" for cost in costs_s) or "none"
            raise InputError(f"got rungs that cost {told} ms, wanted one or more, dearest first: reorder the plans")
        self.costs_s, self.load = tuple(float(cost) for cost in costs_s), Load()

    def choose(self, time_left_s: float) -> int:
        """The dearest rung that fits, the cheapest where none does."""
        fits = (cost * self.load.factor <= (1 - SPARE) * time_left_s for cost in self.costs_s)
        return next((rung for rung, does in enumerate(fits) if does), len(self.costs_s) - 1)

    def took(self, rung: int, latency_s: float) -> None:
        """An answer of `rung` took so long."""
        self.load.enter(latency_s / self.costs_s[rung])


class LadderPolicy:
    """One policy of many: each lane's answer comes from the rung that was taken for it.

    A rung that follows from the answer before is told the lane's last answer whichever rung gave it, so that a
    change of rung breaks no warm start. All rungs see the same observations and answer with the same actions; a
    queue, which cannot take over another's answer, is refused.
    """

    continues = False
    usual_calls = None  # each rung has its own

    def __init__(self, names: Sequence[str], rungs: Sequence[Policy], costs_s: Sequence[float]) -> None:
        """names, costs_s: of the rungs, dearest first; see `Ladder`."""
        Ladder(costs_s)  # refused here, and not in an episode
        seen = (rungs[0].n_obs_steps, rungs[0].observation_dim, rungs[0].action_dim)
        for name, policy in zip(names, rungs, strict=True):
            if (policy.n_obs_steps, policy.observation_dim, policy.action_dim) != seen:
                raise InputError(f"plan {name!r} sees or answers other shapes than {names[0]!r}; leave one of them out")
            if isinstance(policy, FollowingPolicy) and policy.continues:
                raise InputError(
                    f"plan {name!r} is a queue, which cannot take over another plan's answer; leave it out"
                )
        self.names, self.rungs, self.costs_s = tuple(names), tuple(rungs), tuple(costs_s)
        first = rungs[0]
        self.n_obs_steps, self.n_action_steps = first.n_obs_steps, first.n_action_steps
        self.observation_dim, self.action_dim = first.observation_dim, first.action_dim
        self.calls_per_chunk = first.calls_per_chunk
        self._taken: dict[int, int] = {}
        self._gave: dict[int, int] = {}  # which rung gave the lane's last answer
        self._answers: dict[int, int] = {}
        self._last: dict[int, np.ndarray] = {}  # [Th, Da]
        self._behind: dict[int, int] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        for policy in self.rungs:
            policy.reset(lanes, seeds)
        for lane in lanes:
            self._taken[lane], self._answers[lane], self._behind[lane] = 0, 0, 0
            self._last.pop(lane, None)
            self._gave.pop(lane, None)

    def take(self, lanes: Sequence[int], rungs: Sequence[int]) -> None:
        """The next answer of each lane comes from this rung."""
        self._taken.update(zip(lanes, rungs, strict=True))

    def rung_of(self, lane: int) -> Policy:
        """The rung that gave a lane's last answer."""
        return self.rungs[self._taken[lane]]

    def calls_of(self, lane: int) -> int:
        policy = self.rung_of(lane)
        return policy.calls_of(lane) if isinstance(policy, FollowingPolicy) else policy.calls_per_chunk

    def follow(self, lanes: Sequence[int], rows: Sequence[int]) -> None:
        self._behind.update(zip(lanes, rows, strict=True))

    def inpaint(self, lanes: Sequence[int], rows: Sequence[np.ndarray], fixed: Sequence[int]) -> None:
        for lane, kept, n in zip(lanes, rows, fixed, strict=True):
            policy = self.rungs[self._taken[lane]]
            if isinstance(policy, InpaintingPolicy):
                policy.inpaint([lane], [kept], [n])

    def predict_with_tail(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """obs [L, To, Do] -> [L, Th, Da], Th of the rung that predicts the fewest rows."""
        answers: dict[int, np.ndarray] = {}
        for rung, policy in enumerate(self.rungs):
            places = [i for i, lane in enumerate(lanes) if self._taken[lane] == rung]
            if not places:
                continue
            asked = [lanes[i] for i in places]
            self._hand_over(rung, asked)
            answers.update(zip(asked, policy.predict_with_tail(obs[places], asked), strict=True))
        for lane in lanes:
            self._last[lane], self._gave[lane] = answers[lane], self._taken[lane]
            self._answers[lane] += 1
        fewest = min(len(answers[lane]) for lane in lanes)
        return np.stack([answers[lane][:fewest] for lane in lanes])

    def predict_action_chunk(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        return self.predict_with_tail(obs, lanes)[:, : self.n_action_steps]

    def select_action(self, obs: np.ndarray) -> np.ndarray:
        """The dearest rung's: without a deadline it always fits."""
        return self.rungs[0].select_action(obs)

    def _hand_over(self, rung: int, lanes: Sequence[int]) -> None:
        """Tell a rung where its lanes are: all of it where another gave the last answer, else what it cannot know."""
        policy = self.rungs[rung]
        others = [lane for lane in lanes if self._gave.get(lane, rung) != rung]
        if others and isinstance(policy, AdoptingPolicy):
            policy.adopt(others, [self._last[lane] for lane in others], [self._answers[lane] for lane in others])
        if isinstance(policy, FollowingPolicy):
            policy.follow(lanes, [self._behind[lane] for lane in lanes])
