"""What stands for a branch that is not computed: a weighted sum of its last values.

reuse              its last value                                            (FORA, BAC)
taylor-P           the polynomial through its last P + 1 values, at this step (TaylorSeer, arXiv 2503.06923; by divided
                   differences, since refreshes need not lie evenly)
adams-bashforth-P  the same for P values that lie one interval apart, wherever they lie: weights 2, -1 or 3, -3, 1
                   (AB-Cache, arXiv 2504.10540)
affine             its last value times a scale plus a shift, of tables that were fitted (CacheQuant; see `affine`)

While a branch has fewer values than that, a lower order is used.
"""

from collections.abc import Callable, Sequence

from ...errors import InputError

Weights = Callable[[int, Sequence[int]], tuple[float, ...]]  # (step, steps of the last values, newest first)


AFFINE = "affine"


def _reuse(step: int, taken: Sequence[int]) -> tuple[float, ...]:
    return (1.0,)


def _taylor(order: int) -> Weights:
    def weights(step: int, taken: Sequence[int]) -> tuple[float, ...]:
        used = taken[: order + 1]
        found = []
        for at in used:
            weight = 1.0
            for other in used:
                if other != at:
                    weight *= (step - other) / (at - other)
            found.append(weight)
        return tuple(found)

    return weights


def _adams_bashforth(values: int) -> Weights:
    table = {1: (1.0,), 2: (2.0, -1.0), 3: (3.0, -3.0, 1.0)}
    return lambda step, taken: table[min(values, len(taken))]


PREDICTORS: dict[str, tuple[int, Weights]] = {  # name: (values that are kept, weights)
    "reuse": (1, _reuse),
    "taylor-1": (2, _taylor(1)),
    "taylor-2": (3, _taylor(2)),
    "adams-bashforth-2": (2, _adams_bashforth(2)),
    "adams-bashforth-3": (3, _adams_bashforth(3)),
    AFFINE: (1, _reuse),  # of what its tables are applied to
}


def predictor_named(name: str) -> tuple[int, Weights]:
    """(how many values are kept, their weights). Raises InputError."""
    if not isinstance(name, str) or name not in PREDICTORS:
        raise InputError(f"predictor is {name!r}, wanted one of {', '.join(PREDICTORS)}")
    return PREDICTORS[name]
