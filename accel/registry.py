"""Accelerators by name: ours, and those that installed distributions bring as entry points."""

from importlib.metadata import entry_points

from ..diffusion import Plan
from ..errors import InputError
from .caching.cached import Cache
from .contracts import Accelerator
from .exact import Exact
from .gates import GatedTaylor, ThirdOrderSkip
from .picard import ParallelInTime

GROUP = "ontick.accelerators"
ROUNDING = 1e-2  # of actions in [-1, 1]: a difference beyond it is none of rounding
OWN: tuple[type[Accelerator], ...] = (Cache, Exact, GatedTaylor, ParallelInTime, ThirdOrderSkip)


def accelerator_names() -> list[str]:
    """All that a plan may name here."""
    return sorted({*(own.name for own in OWN), *(point.name for point in entry_points(group=GROUP))})


def find_accelerator(name: str) -> Accelerator:
    """Raises InputError for a name that nobody brings, two distributions that bring the same, and what is no
    Accelerator."""
    own = {kind.name: kind for kind in OWN}
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if name in own:
        if points:
            raise InputError(f"accelerator {name!r} is ontick's own, and {points[0].value} brings it too; uninstall it")
        return own[name]()
    if not points:
        raise InputError(
            f"unknown accelerator {name!r}; known: {', '.join(accelerator_names())} "
            f"(others are distributions with an entry point in the group {GROUP})"
        )
    if len({point.value for point in points}) > 1:
        raise InputError(f"accelerator {name!r} is brought by {len(points)} distributions; uninstall all but one")
    kind = points[0].load()
    if not (isinstance(kind, type) and issubclass(kind, Accelerator) and kind.name == name):
        raise InputError(f"accelerator {name!r}: {points[0].value} is no Accelerator of that name")
    return kind()


def only_rounds(plan: Plan) -> bool:
    """Whether nothing of what accelerates a plan may change more than rounding does: actions by at most ROUNDING."""
    return plan.precision == "fp32" and all(find_accelerator(name).exact for name in plan.accelerators)
