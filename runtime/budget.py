"""Latency budgets: how often an answer is wanted, and how long it may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from .histogram import LatencyHistogram, rank_at

PRESETS = Path(__file__).resolve().parent.parent / "configs" / "budgets"


@dataclass(frozen=True, kw_only=True)
class LatencyBudget:
    """One tick lasts `period_s`; `percentile` % of the answers must come within `deadline_s`.

    The deadline may be longer than the period: a pipeline of several ticks is allowed to say so.
    """

    name: str
    # Seconds from one tick to the next.
    period_s: float
    # Seconds from the observation to the answer.
    deadline_s: float
    # The share of answers [%] that must be in time, above 0 and below 100.
    percentile: float = 99.0

    def __post_init__(self):
        for field in ("period_s", "deadline_s"):
            value = getattr(self, field)
            if not (_is_number(value) and value > 0):
                raise InputError(f"budget {self.name!r}: got {field} = {value!r}, wanted a time above 0: correct it")
        if not (_is_number(self.percentile) and 0 < self.percentile < 100):
            got = f"budget {self.name!r}: got percentile = {self.percentile!r}"
            raise InputError(f"{got}, wanted one above 0 and below 100: use 99")

    def met(self, latencies_s: Sequence[float] | np.ndarray | LatencyHistogram) -> bool:
        """Whether the latencies [s] keep the deadline at the percentile. No measurement meets no budget."""
        if isinstance(latencies_s, LatencyHistogram):
            return latencies_s.n > 0 and latencies_s.percentile_s(self.percentile) <= self.deadline_s
        ordered = np.sort(np.asarray(latencies_s, dtype=np.float64).ravel())
        if ordered.size == 0:
            return False
        return bool(ordered[rank_at(self.percentile, ordered.size) - 1] <= self.deadline_s)

    def to_dict(self) -> dict[str, str | float]:
        """Plain data for a report, times in ms."""
        times = {"period_ms": self.period_s * 1e3, "deadline_ms": self.deadline_s * 1e3}
        return {"name": self.name, **times, "percentile": self.percentile}


def budget_names() -> list[str]:
    """The names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_budget(
    name: str | None = None, period_ms: float | None = None, deadline_ms: float | None = None
) -> LatencyBudget:
    """A preset by name, with its times replaced where given; without a name, a budget of the times alone.

    Without a name the period is needed, and the deadline is the period unless it is given.
    Raises InputError for an unknown name, a missing period or a time that is not positive.
    """
    if name is None:
        return _custom(period_ms, deadline_ms)
    budget = _preset(name)
    if period_ms is not None:
        budget = replace(budget, name=f"{budget.name}, period {period_ms:g} ms", period_s=period_ms * 1e-3)
    if deadline_ms is not None:
        budget = replace(budget, name=f"{budget.name}, deadline {deadline_ms:g} ms", deadline_s=deadline_ms * 1e-3)
    return budget


def _custom(period_ms: float | None, deadline_ms: float | None) -> LatencyBudget:
    if period_ms is None:
        names = ", ".join(budget_names())
        raise InputError(f"got neither a budget nor a period, wanted one: name a budget ({names}) or give a period")
    deadline_ms = period_ms if deadline_ms is None else deadline_ms
    name = f"period {period_ms:g} ms, deadline {deadline_ms:g} ms"
    return LatencyBudget(name=name, period_s=period_ms * 1e-3, deadline_s=deadline_ms * 1e-3)


def _preset(name: str) -> LatencyBudget:
    if name not in budget_names():
        raise InputError(f"got the budget {name!r}, wanted a known one: use one of {', '.join(budget_names())}")
    import yaml  # the training and timing core does without it

    data = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
    return LatencyBudget(
        name=data["name"],
        period_s=data["period_ms"] * 1e-3,
        deadline_s=data["deadline_ms"] * 1e-3,
        percentile=data["percentile"],
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
