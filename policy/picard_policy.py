"""Parallel in time, in the loop: how many network calls an answer takes is known when it is there, and a warm plan's
iteration is told the previous answer, shifted by the actions that were used.

Legend: L lanes, Tp rows, Da.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .warm_policy import WarmStart


class PicardPolicy(WarmStart):
    """Serves plans with the accelerator picard. Answers are born from noise, warm or not, and a converged one is the
    same either way."""

    def _sampled(self, obs: Tensor, lanes: Sequence[int]) -> Tensor:
        guess = self._guess(obs, lanes) if self.plan.uses_guess else None
        chunks = self._run(self.program, obs, lanes, guess)[: len(lanes)]
        spent = self.program.executor.spent if self.program.executor else None
        for lane, evaluations in zip(lanes, spent.evaluations.tolist() if spent else [], strict=False):
            self._calls[lane] = evaluations
        for lane in self._fixed.keys() & set(lanes):  # guided answers go step by step
            self._calls[lane] = self.program.calls
        self._remember_answers(lanes, chunks)
        return chunks

    def _guess(self, obs: Tensor, lanes: Sequence[int]) -> Tensor:
        """[width, Tp, Da]: zero, which a cold run starts from, for lanes without a previous answer."""
        zero = obs.new_zeros(self.program.rows, self.action_dim)
        known = [self._shifted(lane) if lane in self._previous else zero for lane in lanes]
        return torch.stack([*known, *[known[-1]] * (self.width - len(known))])
