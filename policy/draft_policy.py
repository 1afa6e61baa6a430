"""Draft, then polish: a chunk is born from a draft, noised to the plan's entry level, and denoised by a few steps.

    x  <- alpha draft + sigma z       birth `noised`; `guess`: the draft as it is
    x  <- the plan's steps, from its entry level down

Trajectory Diffuser drafts by regression, RAGDP by the nearest demonstration; they are the plain rivals of the warm
start, which has its previous answer for a draft.

Legend: L lanes, To, Do, Tp, Da.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from ..diffusion import Plan, Program, build
from ..errors import InputError
from .checkpoint import Checkpoint
from .chunk_policy import DiffusionPolicy
from .drafts import Drafts

SOURCES = ("nearest", "regression")


class DraftPolicy(DiffusionPolicy):
    """Serves plans whose guess is a draft, of those that lie beside the checkpoint's weights."""

    def __init__(
        self, checkpoint: Checkpoint, plan: Plan, width: int = 1, build: Callable[..., Program] = build
    ) -> None:
        super().__init__(checkpoint, plan, width, build)
        assert checkpoint.folder is not None, "refused above"
        self.drafts = Drafts.load(checkpoint.folder, checkpoint.normaliser.obs_scale.device)
        self.drafts.check(checkpoint)

    def _refuse(self, checkpoint: Checkpoint, plan: Plan) -> None:
        if plan.guess.source not in SOURCES:
            raise InputError(f"plan {plan.name!r} starts from {plan.guess.source}, this policy from a draft")
        if checkpoint.folder is None:
            raise InputError(f"plan {plan.name!r} needs the drafts of a checkpoint's folder; save it and load it again")

    def _sampled(self, obs: Tensor, lanes: Sequence[int]) -> Tensor:
        if self.plan.guess.source == "nearest":
            draft = self.drafts.nearest(obs, *self._agreed(lanes, obs))
        else:
            draft = self.drafts.regressed(obs)
        return self._run(self.program, obs, lanes, draft)[: len(lanes)]
