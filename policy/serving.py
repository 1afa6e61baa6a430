"""Which policy serves a plan."""

from collections.abc import Callable

from ..diffusion import Plan, Program, build
from .anchored_policy import AnchoredPolicy
from .checkpoint import Checkpoint
from .chunk_policy import DiffusionPolicy
from .diagonal_policy import DiagonalPolicy
from .draft_policy import DraftPolicy
from .picard_policy import PicardPolicy
from .warm_policy import RealTimeIterationPolicy

BY_SOURCE: dict[str, type[DiffusionPolicy]] = {
    "given": DiffusionPolicy,
    "previous": RealTimeIterationPolicy,
    "nearest": DraftPolicy,
    "regression": DraftPolicy,
    "anchors": AnchoredPolicy,
}


def serve(checkpoint: Checkpoint, plan: Plan, width: int = 1, build: Callable[..., Program] = build) -> DiffusionPolicy:
    """The policy of a checkpoint under a plan; arguments and errors as for `DiffusionPolicy`."""
    kind = DiagonalPolicy if plan.stagger else BY_SOURCE[plan.guess.source]
    if "picard" in plan.accelerators:
        kind = PicardPolicy  # noise is all it is born from, so no other could serve it
    return kind(checkpoint, plan, width, build)
