"""Truncated anchored diffusion in the loop: all anchors are denoised side by side, and one of the chunks is executed.

    x  <- alpha anchor_k + sigma z_k       every anchor a lane; with `warm` the shifted previous answer is one too
    x  <- the plan's few steps
    p  <- softmax of the confidences at the last call
    k  <- argmax p, or drawn from p
    k  <- the anchor nearest to the shifted previous answer, unless p_k leads by more than `margin`

Legend: L lanes, K anchors (the warm one included), Tp rows, Da.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from ..diffusion import Plan, Program, build
from ..errors import InputError
from .anchored import AnchoredDecoder
from .checkpoint import Checkpoint
from .warm_policy import WarmStart

_PICK_STREAM = 0xA2C4  # of a seed: apart from what else is drawn from it


class AnchoredPolicy(WarmStart):
    """Serves plans whose guess is the network's anchors."""

    def __init__(
        self, checkpoint: Checkpoint, plan: Plan, width: int = 1, build: Callable[..., Program] = build
    ) -> None:
        super().__init__(checkpoint, plan, width, build)
        assert isinstance(checkpoint.network, AnchoredDecoder), "refused above"
        self.network = checkpoint.network

    def _refuse(self, checkpoint: Checkpoint, plan: Plan) -> None:
        if plan.guess.source != "anchors":
            raise InputError(f"plan {plan.name!r} starts from {plan.guess.source}, this policy from anchors")
        if not isinstance(checkpoint.network, AnchoredDecoder):
            raise InputError(f"plan {plan.name!r} needs a network with anchors; train one with --algorithm anchored")
        trained = checkpoint.network.config.noised_levels
        highest = max(int(plan.grid.build(checkpoint.network.schedule).label.max()), *plan.grid.labels, 0)
        if highest >= trained:
            raise InputError(
                f"plan {plan.name!r} goes up to level {highest}, and the anchors were noised up to {trained - 1} in "
                "training; enter lower, or train with more noised_levels"
            )

    def _sampled(self, obs: Tensor, lanes: Sequence[int]) -> Tensor:
        seed, birth = self._keys(lanes)
        guess, known = self._guess(lanes, obs)
        K = guess.shape[1]
        births = (birth[:, None] * K + torch.arange(K)).reshape(-1)  # each anchor's noise is its own
        every = rearrange(guess, "l k t d -> (l k) t d")
        chunk = self._scored(self.program, obs, lanes, seed.repeat_interleave(K), births, every)
        assert chunk.score is not None, "the network has confidences"
        score = chunk.score.reshape(-1, K).masked_fill(~known, -torch.inf)
        picked = [self._picked(score[i].softmax(-1), lane) for i, lane in enumerate(lanes)]
        chunks = chunk.x.reshape(len(guess), K, *chunk.x.shape[1:])[torch.arange(len(lanes)), picked]
        self._remember_answers(lanes, chunks)
        return chunks

    def _guess(self, lanes: Sequence[int], obs: Tensor) -> tuple[Tensor, Tensor]:
        """[width, K, Tp, Da] to start from, and which of them are there [width, K]: a lane without a previous answer
        has no warm anchor, and its place is filled with an anchor."""
        anchors = repeat(self.network.anchors, "k t d -> l k t d", l=self.width)
        known = torch.ones(anchors.shape[:2], dtype=torch.bool, device=obs.device)
        if not self.plan.guess.warm:
            return anchors, known
        padded = [*lanes, *[lanes[-1]] * (self.width - len(lanes))]
        warm = [self._shifted(lane) if lane in self._previous else self.network.anchors[0] for lane in padded]
        there = torch.tensor([lane in self._previous for lane in padded], device=obs.device)
        return torch.cat([anchors, torch.stack(warm)[:, None]], 1), torch.cat([known, there[:, None]], 1)

    def _picked(self, probability: Tensor, lane: int) -> int:
        """Which chunk of a lane is executed. probability: [K]."""
        guess = self.plan.guess
        chance = torch.zeros(len(probability))
        if guess.pick == "sample":  # the largest of ln p + Gumbel noise is distributed as p
            rng = np.random.default_rng([self._seed[lane], self._births[lane], _PICK_STREAM])
            chance = torch.from_numpy(rng.gumbel(size=len(probability)))
        best = int((probability.log().cpu() + chance).argmax())
        if not guess.margin or lane not in self._previous:
            return best
        kept = len(probability) - 1 if guess.warm else int(self.network.nearest(self._shifted(lane)))
        return best if probability[best] - probability[kept] > guess.margin else kept
